"""Unrolled recurrences in a graph, found without any hint, → Scans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hintc.call_graph import CONTROL_FLOW_V1
from hintc.graphdef.emit import Emitter
from hintc.graphdef.shapes import infer_shapes
from hintc.ir import DType, Graph, Module, Node, Port, Scan, Tensor
from hintc.ir.opdefs import is_stateful
from hintc.remark import Refused
from hintc_passes.analysis.merging import merge_equal
from hintc_passes.analysis.values import known_int
from hintc_passes.chains.lanes import NEVER, Chain, Kind, Lane, Lockstep
from hintc_passes.chains.positions import Domain, Positions
from hintc_passes.chains.proposal import Proposal
from hintc_passes.chains.results import ChainResults
from hintc_passes.chains.sequences import Elements, find_elements
from hintc_passes.chains.step_function import a_value, nodes_of, step_function
from hintc_passes.chains.unmatched import unmatched
from hintc_passes.scans.state_shapes import check_kept

_LEAST_STEPS = 3
"""Fewer steps that differ were hardly meant as a recurrence: no remark."""
_SMALL = 16
"""Constants of at most so many elements, an axis or a forget bias, are part of the step."""


class Unrolled:
    """What one look at a graph finds out for all its chains.

    All chains are found before the first is replaced, and nothing is removed before the last is.

    Attributes:
        same: equal values, see `merge_equal`.
        readers: what reads a value or its equals, Identity nodes and equals of others left out.
        equals: the values that equal one, itself left out.
        moved: what is read instead of a value, since its chain was replaced.
        doomed: nodes that chains have left behind.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.same = merge_equal(graph)
        order = graph.topological()
        self.moved: dict[Port, Port] = {}
        self.doomed: list[Node] = []
        self.equals: dict[Port, list[Port]] = {}
        for port, twin in self.same.items():
            if port != twin:
                self.equals.setdefault(twin, []).append(port)
        merged = {p.node for ports in self.equals.values() for p in ports}
        self.readers: dict[Port, list[Node]] = {}
        for node in order:
            if node not in merged:
                for port in dict.fromkeys(self.same.get(p, p) for p in node.operands):
                    self.readers.setdefault(port, []).append(node)
        sequences = find_elements(graph, self.same, self.readers)
        self.positions = Positions(order, sequences, self.same)
        self.nodes = {
            domain: [n for n in nodes if n not in merged]
            for domain, nodes in self.positions.nodes.items()
        }

    def now(self, port: Port) -> Port:
        """The value that took the place of another."""
        while port in self.moved:
            port = self.moved[port]
        return port

    def chains(self) -> Iterator[FoundChain | FailedChain]:
        """Every chain, or why what looks like one is none."""
        for domain, sequences in self.positions.sequences.items():
            failed: FailedChain | None = None
            for loosely in (False, True):
                found = False
                for backwards in (False, True):
                    try:
                        chain = self._chain(domain, sequences, backwards, loosely)
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
                overlooked = unmatched(self.positions, domain)
                failed = overlooked and FailedChain(*overlooked)
            if failed is not None:
                yield replace(failed, tensors=tensors)

    def _chain(
        self, domain: Domain, sequences: list[Elements], backwards: bool, loosely: bool
    ) -> FoundChain | None:
        """The chain of one direction; None if nothing looks like one.

        Raises:
            _DiffersError: something does, but the steps are not the same.
        """
        step = self.positions.steps(domain, backwards=backwards)
        by_lane: dict[Lane, Elements] = {
            (s.ports[::-1] if backwards else s.ports): s for s in sequences
        }
        nodes = self.nodes.get(domain, [])
        proposal = Proposal(nodes, step, list(by_lane), self.same, self.readers, loosely=loosely)
        roots = proposal.lanes()
        if not roots:
            return None
        lockstep = Lockstep(step, self.same, list(by_lane), domain[0])
        try:
            chain = _core(lockstep.run(roots))
            masks = [m for m in proposal.masks() if lockstep.is_computed_from(chain, m)]
            if masks:
                lockstep = Lockstep(step, self.same, list(by_lane), domain[0])
                chain = _core(lockstep.run([*roots, *masks]), masks)
            joined = _join(chain)
            chain = _core(chain, masks)
            _check(chain)
        except Refused as refusal:
            raise _DiffersError(FailedChain(a_value(roots[0]).node, refusal)) from None
        # what only passes on the elements of the sequence is no recurrence
        if all(chain.lanes[lane] is Kind.ELEMENT for lane in chain.following.values()):
            return None
        return FoundChain(self, chain, lockstep, by_lane, joined, backwards)


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


class FoundChain:
    """A chain in a graph, proved to be one; `replace` makes it a Scan."""

    def __init__(
        self,
        unrolled: Unrolled,
        chain: Chain,
        lockstep: Lockstep,
        elements: Mapping[Lane, Elements],
        joined: Mapping[Lane, tuple[list[Lane], int]],
        backwards: bool,
    ) -> None:
        self.graph, self.trip = unrolled.graph, chain.trip
        self._unrolled, self._chain, self._lockstep = unrolled, chain, lockstep
        self._states = chain.of_kind(Kind.CARRIED)
        self._xs = chain.of_kind(Kind.ELEMENT)
        self._elements, self._joined, self._backwards = elements, joined, backwards
        self._inside = {
            n for lane in chain.of_kind(Kind.COMPUTED) for n in nodes_of(lane) if n is not None
        }
        self.node = a_value(chain.following[self._states[0]]).node

    @property
    def tensors(self) -> frozenset[Port]:
        """The tensors whose elements the steps take turns with."""
        return frozenset(elements.tensor for elements in self._elements.values())

    def replace(self, module: Module) -> Node:
        """Put a Scan in its place.

        Raises:
            Refused: a state changes its shape, or depends on the chain; nothing was changed.
        """
        self._check_states(module)
        chain, graph = self._chain, self.graph
        name = graph.unique_name(f"{self.node.name}/recurrence")
        origin = tuple(dict.fromkeys(o for n in self._steady() for o in n.origin or (n.name,)))
        emit = Emitter(graph, name, origin)
        results = ChainResults(
            self._unrolled, chain, self._lockstep, self._inside, backwards=self._backwards
        )
        fixed = [a_value(lane) for lane in chain.of_kind(Kind.FIXED)]
        small = [p.node for p in dict.fromkeys(fixed) if _is_small(p.node)]
        invariants = list(dict.fromkeys(p for p in fixed if not _is_small(p.node)))
        body = step_function(
            f"{_identifier(name)}_step",
            chain,
            self._xs,
            self._states,
            [y.lane for y in results.ys],
            invariants,
            small,
            self._unrolled.same,
        )
        now = self._unrolled.now
        xs = [self._sequence(module, emit, x) for x in self._xs]
        scan = Scan(
            module.add_function(body).name,
            emit.constant(np.int32(chain.trip), "trip_count"),
            tuple(xs),
            tuple(now(a_value(s)) for s in self._states),
            tuple(now(p) for p in invariants),
            (self._backwards,) * len(xs),
            tuple(y.backwards for y in results.ys),
            unrolled=True,
        ).add_to(module, graph, name=name, origin=origin)
        scan.device = self.node.device
        results.connect(module, emit, scan, self._states)
        return scan

    def _sequence(self, module: Module, emit: Emitter, lane: Lane) -> Port:
        """The time-major tensor whose elements a lane is."""
        if lane in self._joined:
            parts, axis = self._joined[lane]
            rows = [self._sequence(module, emit, part) for part in parts]
            return emit.concat(rows, "joined", axis if axis < 0 else axis + 1)
        elements = self._elements[lane]
        tensor = self._unrolled.now(elements.tensor)
        shape = infer_shapes(module, self.graph, [tensor])[tensor]
        self._read_shape_of(emit, elements, tensor, shape.rank)
        return elements.time_major(emit, tensor, shape)

    def _read_shape_of(
        self, emit: Emitter, elements: Elements, tensor: Port, rank: int | None
    ) -> None:
        """Let what reads the shape of an element (a zero state, say) read the sequence's."""
        unrolled = self._unrolled
        shapes = [
            node
            for port in elements.ports
            for node in unrolled.readers.get(port, ())
            if node.op == "Shape" and node.attributes.get("out_type", DType.INT32) is DType.INT32
        ]
        if rank is None or not shapes:
            return
        axes = np.array([a for a in range(rank) if a != elements.axis], np.int32)
        rest = emit.gather(emit.shape(tensor), emit.constant(axes, "axes"), "element_shape")
        for node in shapes:
            self.graph.replace_uses(Port(node), rest)
            unrolled.doomed.append(node)

    def _steady(self) -> list[Node]:
        """The nodes of the first step."""
        lanes = self._chain.of_kind(Kind.COMPUTED)
        return list(dict.fromkeys(a_value(lane).node for lane in lanes))

    def _depends(self, port: Port) -> bool:
        """True if a value is computed by the chain, or from what is."""
        pending, seen = [port], set[Node]()
        while pending:
            node = pending.pop().node
            if node in self._inside:
                return True
            if node not in seen:
                seen.add(node)
                pending.extend(p for p in node.operands if self._lockstep.step(p) != NEVER)
        return False

    def _check_states(self, module: Module) -> None:
        pairs = [(a_value(s), a_value(self._chain.following[s])) for s in self._states]
        for first, _ in pairs:
            if self._depends(first):
                raise Refused(
                    "chain-order", f"the initial state '{first}' depends on the first step"
                )
        now = self._unrolled.now
        pairs = [(now(first), following) for first, following in pairs]
        shapes = infer_shapes(module, self.graph, [p for pair in pairs for p in pair])
        for at, (first, following) in enumerate(pairs):
            check_kept(at, shapes[first], shapes[following])
            if shapes[first].rank is None or shapes[following].rank is None:
                raise Refused(
                    "state-changes-shape",
                    f"the shape of state {at} is not known",
                    "Give the model's inputs static shapes but for the batch.",
                )


def _is_small(node: Node) -> bool:
    value = node.attributes.get("value") if node.op == "Const" else None
    if not isinstance(value, Tensor) or value.shape.dims is None:
        return False
    return int(np.prod(value.shape.dims)) <= (_SMALL if value.dtype is not DType.FLOAT else 1)


def _identifier(name: str) -> str:
    cleaned = "".join(c if c.isalnum() else "_" for c in name.lower()).strip("_")
    return cleaned if cleaned[:1].isalpha() else f"v{cleaned}"
