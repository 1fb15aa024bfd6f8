"""Unrolled recurrences in a graph, found without any hint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hintc.call_graph import CONTROL_FLOW_V1
from hintc.ir import Node, Port
from hintc.ir.opdefs import is_stateful
from hintc.remark import Refused
from hintc_passes.analysis.values import known_int
from hintc_passes.chains.found_chain import FoundChain
from hintc_passes.chains.lanes import Chain, Kind, Lane, Lockstep
from hintc_passes.chains.positions import Domain
from hintc_passes.chains.proposal import Proposal
from hintc_passes.chains.sequences import Elements
from hintc_passes.chains.step_function import a_value, nodes_of
from hintc_passes.chains.unmatched import unmatched
from hintc_passes.chains.unrolled import Unrolled

_LEAST_STEPS = 3
"""Fewer steps that differ were hardly meant as a recurrence: no remark."""


def find_chains(unrolled: Unrolled) -> Iterator[FoundChain | FailedChain]:
    """Every chain, or why what looks like one is none."""
    for domain, sequences in unrolled.positions.sequences.items():
        failed: FailedChain | None = None
        for loosely in (False, True):
            found = False
            for backwards in (False, True):
                try:
                    chain = _chain(unrolled, domain, sequences, backwards, loosely)
                except _DiffersError as error:
                    failed = failed or error.failed
                    continue
                if chain is not None:
                    found = True
                    yield chain
            if found or failed or domain[0] < _LEAST_STEPS:
                break
        tensors = frozenset(s.tensor for s in sequences)
        if not found and failed is None and domain[0] >= _LEAST_STEPS:
            overlooked = unmatched(unrolled.positions, domain)
            failed = overlooked and FailedChain(*overlooked)
        if failed is not None:
            yield replace(failed, tensors=tensors)


def _chain(
    unrolled: Unrolled, domain: Domain, sequences: list[Elements], backwards: bool, loosely: bool
) -> FoundChain | None:
    """The chain of one direction; None if nothing looks like one.

    Raises:
        _DiffersError: something does, but the steps are not the same.
    """
    step = unrolled.positions.steps(domain, backwards=backwards)
    by_lane: dict[Lane, Elements] = {
        (s.ports[::-1] if backwards else s.ports): s for s in sequences
    }
    nodes = unrolled.nodes.get(domain, [])
    proposal = Proposal(
        nodes, step, list(by_lane), unrolled.same, unrolled.readers, loosely=loosely
    )
    roots = proposal.lanes()
    if not roots:
        return None
    lockstep = Lockstep(step, unrolled.same, list(by_lane), domain[0])
    try:
        chain = _core(lockstep.run(roots))
        masks = [m for m in proposal.masks() if lockstep.is_computed_from(chain, m)]
        if masks:
            lockstep = Lockstep(step, unrolled.same, list(by_lane), domain[0])
            chain = _core(lockstep.run([*roots, *masks]), masks)
        joined = _join(chain)
        chain = _core(chain, masks)
        _check(chain)
    except Refused as refusal:
        raise _DiffersError(FailedChain(a_value(roots[0]).node, refusal)) from None
    # what only passes on the elements of the sequence is no recurrence
    if all(chain.lanes[lane] is Kind.ELEMENT for lane in chain.following.values()):
        return None
    return FoundChain(unrolled, chain, lockstep, by_lane, joined, backwards)


@dataclass(frozen=True)
class FailedChain:
    """Steps that look alike, and what differs."""

    node: Node
    refusal: Refused
    tensors: frozenset[Port] = frozenset()
    """That have the elements which the steps take turns with."""


class _DiffersError(Exception):
    def __init__(self, failed: FailedChain) -> None:
        super().__init__(failed.refusal.reason)
        self.failed = failed


def _core(chain: Chain, outputs: Sequence[Lane] = ()) -> Chain:
    """Without what neither carried values nor `outputs` need: an output layer, say."""
    core: dict[Lane, None] = {}
    pending = [*chain.following, *chain.following.values(), *outputs]
    while pending:
        lane = pending.pop()
        if lane not in core:
            core[lane] = None
            pending.extend(chain.operands.get(lane, ()))
    return Chain(
        chain.trip,
        {lane: kind for lane, kind in chain.lanes.items() if lane in core},
        chain.following,
        {lane: read for lane, read in chain.operands.items() if lane in core},
    )


def _join(chain: Chain) -> dict[Lane, tuple[list[Lane], int]]:
    """Make elements that each step joins the elements of a joined sequence.

    Returns:
        For each such lane the lanes that it joins, and along which axis.
    """
    found = {}
    for lane in chain.of_kind(Kind.COMPUTED):
        if a_value(lane).node.op != "ConcatV2":
            continue
        *parts, last = chain.operands[lane]
        axis = known_int(a_value(last))
        if axis is not None and all(chain.lanes[p] is Kind.ELEMENT for p in parts):
            found[lane] = parts, axis
            chain.lanes[lane] = Kind.ELEMENT
            del chain.operands[lane]
    return found


def _check(chain: Chain) -> None:
    """Refuse steps that do more than compute, or read what is not there."""
    for lane in chain.of_kind(Kind.COMPUTED):
        for node in nodes_of(lane):
            if node is None:
                continue
            if is_stateful(node) or node.op in CONTROL_FLOW_V1 or node.controls:
                raise Refused(
                    "chain-side-effects",
                    f"the {node.op} '{node.name}' must run once a step, or at a certain time",
                    "Remove it from the steps before conversion.",
                )
    for lane, following in chain.following.items():
        if lane in chain.following.values() or following not in chain.lanes:
            raise Refused("chain-order", f"'{a_value(following)}' is carried on unchanged")
