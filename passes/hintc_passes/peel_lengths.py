"""peel-lengths: sequence lengths move out of a recurrence, so that the plain cell is left in it.

Recognises a Scan whose every state and output is ``Select(t >= lengths, old, new)``, with the old
state for states and zeros for outputs, as dynamic_rnn makes it, or the same by ``where`` of TF2.
The Scan then runs all steps; rows at and beyond the length are zeroed afterwards, and the final
state is read from the outputs at ``lengths - 1`` (the initial state where the length is 0 or less).
Bit for bit the same, if there are as many lengths as rows, or one.

Refuses, with a remark, when the final value of a state is read that is not an output of each step,
and when an output is read that is not zeroed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from hintc.graphdef.emit import Emitter
from hintc.graphdef.shapes import (
    argument_shapes,
    infer_results,
    infer_shapes,
    shapes_remembered,
)
from hintc.ir import AttributeValue, DType, Graph, Module, Node, Port, Scan, Shape, producers
from hintc.ir.opdefs import side_effects
from hintc.ir.scan import dtype_of
from hintc.registry import register
from hintc.remark import PassReport, Refused
from hintc.rewrite import Pass
from hintc_passes.analysis.values import is_zeros
from hintc_passes.scans.final_rows import enters_product
from hintc_passes.scans.lengths import Freeze, find_freeze, freezes_states_only
from hintc_passes.scans.step import Step, add_in_place_of, new_step, rewrite_scans


@register
@dataclass(frozen=True)
class PeelLengths(Pass):
    """Run sequences of different lengths in full, and mask the outputs."""

    name: ClassVar[str] = "peel-lengths"

    @shapes_remembered()
    def run(self, module: Module) -> PassReport:
        """Peel every such Scan that the main graph reaches."""
        report = PassReport()
        rewrite_scans(module, lambda graph, node: self._peel(module, graph, node, report))
        return report

    def _peel(self, module: Module, graph: Graph, node: Node, report: PassReport) -> None:
        step = Step.of(module, node)
        freeze, name = find_freeze(step), node.name
        if freeze is None and freezes_states_only(step):
            report.refused("lengths-output", name, *_EARLY)
        if freeze is None or side_effects(step.graph):
            return
        try:
            _Peeling(module, graph, node, step, freeze).run()
        except Refused as refusal:
            report.refused(refusal.code, name, refusal.reason, refusal.remedy)
            return
        report.count("peeled")
        report.note("lengths-peeled", name, "runs all steps; rows beyond their length are masked")


_EARLY = (
    "keeps its sequence lengths inside: an output of each step is read before they apply to it",
    "Let the output be zero beyond the length in the step itself, as dynamic_rnn does.",
)


class _Peeling:
    def __init__(
        self, module: Module, graph: Graph, node: Node, step: Step, freeze: Freeze
    ) -> None:
        self._module, self._graph, self._node = module, graph, node
        self._step, self._freeze, self._scan = step, freeze, Scan.of(node)
        self._outer = dict(zip(step.invariants, self._scan.invariants, strict=True))
        self._ranks = self._row_ranks()
        self._added: list[Port] = []
        """Outputs that the step does not have, whose last rows are read."""
        self._row_of_state = self._final_rows()
        self._check()

    def _row_ranks(self) -> list[int | None]:
        """Ranks of the states and outputs of one step."""
        args = argument_shapes(self._module, self._graph, self._node)
        lengths = args[self._step.graph.args.index(self._freeze.lengths.node)]
        if lengths.rank != 1:
            raise Refused("lengths-rank", "the sequence lengths are not provably one per row")
        results = infer_results(self._module, self._step.graph, args)
        self._check_broadcasts(args, results)
        return [s.rank for s in results]

    def _check_broadcasts(self, args: Sequence[Shape], results: Sequence[Shape]) -> None:
        """Refuse a SelectV2 that may give more than rows of the new value."""
        freeze = self._freeze
        news = [*freeze.nexts, *(new for new, _ in freeze.ys)]
        found = infer_shapes(self._module, self._step.graph, news, args)
        for new, result, rank in zip(news, results, freeze.ranks, strict=True):
            if rank is None:
                continue
            rest = result.dims[1:] if result.dims and result.rank == rank else (-1,)
            dims = found[new].dims
            if -1 in rest or not dims or dims[1:] != rest:
                raise Refused(
                    "lengths-rank",
                    "a where() on the sequence lengths may broadcast what it chooses from",
                    "Give the model's inputs static shapes but for batch and time.",
                )

    def _final_rows(self) -> dict[int, int]:
        """For each state whose final value is read, the output that has it as its rows."""
        found = {}
        for at, port in enumerate(self._freeze.nexts):
            if not self._graph.uses(Port(self._node, at)):
                continue
            news = [*(new for new, _ in self._freeze.ys), *self._added]
            rows = [k for k, new in enumerate(news) if new == port]
            if not rows and enters_product(self._step.states[at]):  # h, which kernels give
                self._added.append(port)
                rows = [len(news)]
            if not rows:
                reader = self._graph.uses(Port(self._node, at))[0].node
                raise Refused(
                    "lengths-final-state",
                    f"keeps its sequence lengths inside: '{reader.name}' reads the final value of "
                    f"state {at}, which is not an output of each step",
                    "Use the last output instead, or do not return this state.",
                )
            found[at] = rows[0]
        return found

    def _check(self) -> None:
        if any((*self._scan.reverse_xs, *self._scan.reverse_ys)):
            raise Refused("lengths-reversed", "reads or writes backwards in time")
        for _, beyond in self._freeze.ys:
            if not is_zeros(self._outer.get(beyond, beyond)):
                raise Refused("lengths-not-zero", "outputs beyond the length are not provably zero")
        if any(rank is None or rank < 1 for rank in self._ranks):
            raise Refused("lengths-rank", "the rank of a state or output is not known")

    def run(self) -> None:
        graph, node, name = self._graph, self._node, self._node.name
        origin = node.origin or (name,)
        graph.rename(node, graph.unique_name(f"{name}/lengths"))
        peeled = self._plain_scan(name)
        emit = Emitter(graph, name, origin)
        lengths = self._lengths(emit)
        states = len(self._scan.states)
        for at, k in self._row_of_state.items():
            rows = Port(peeled, states + k)
            graph.replace_uses(Port(node, at), self._final(emit, lengths, rows, at))
        for k in range(len(self._freeze.ys)):
            old = Port(node, states + k)
            if graph.uses(old):
                masked = self._masked(emit, lengths, Port(peeled, states + k), states + k)
                graph.replace_uses(old, masked)
        graph.replace_control_uses(node, [peeled])
        graph.remove(node)

    def _plain_scan(self, name: str) -> Node:
        step, scan, freeze = self._step, self._scan, self._freeze
        results = [(f"next_{k}", p) for k, p in enumerate(freeze.nexts)]
        ys = [*(p for p, _ in freeze.ys), *self._added]
        results += [(f"y_{k}", p) for k, p in enumerate(ys)]
        needed = producers(p for _, p in results)
        nodes = [n for n in step.graph if n in needed and not n.op.startswith("_")]
        kept = [p for p in step.invariants if p.node in needed]
        ports = (*step.xs, *step.states, *kept)
        body = new_step(
            f"{scan.body}_plain", nodes, step.t, [(p.node.name, p) for p in ports], results
        )
        peeled = replace(
            scan,
            body=self._module.add_function(body).name,
            invariants=tuple(self._outer[p] for p in kept),
            reverse_ys=(*scan.reverse_ys, *(False for _ in self._added)),
        )
        return add_in_place_of(self._module, self._node, peeled, name)

    # -- masks, outside ----------------------------------------------------------------------

    def _lengths(self, emit: Emitter) -> Port:
        lengths = self._outer[self._freeze.lengths]
        dtype = dtype_of(lengths)
        if dtype is not DType.INT32:
            types: dict[str, AttributeValue] = {"SrcT": dtype, "DstT": DType.INT32}
            lengths = emit.node("Cast", [lengths], types, "lengths")
        if not any(self._freeze.ranks):
            return lengths
        # where() takes one length for all rows, too
        batch = emit.pack([emit.element(emit.shape(self._scan.states[0]), 0)], "batch_shape")
        types = {"T": DType.INT32, "Tidx": DType.INT32}
        return emit.node("BroadcastTo", [lengths, batch], types, "lengths_of_rows")

    def _masked(self, emit: Emitter, lengths: Port, rows: Port, result: int) -> Port:
        """`rows` [T, B, ...] with zeros where ``t >= lengths[b]``."""
        rank = self._ranks[result]
        assert rank is not None
        steps = _column(emit, _range(emit, self._scan.trip_count, "steps"), "steps/column")
        ended = emit.binary("GreaterEqual", steps, lengths, "ended")
        for number in range(rank - 1):
            ended = _column(emit, ended, f"ended/{number}", dtype=DType.BOOL)
        dtype = dtype_of(rows)
        zero = emit.constant(np.zeros((), dtype.numpy), "zero")
        return emit.node("SelectV2", [ended, zero, rows], {"T": dtype}, "masked")

    def _final(self, emit: Emitter, lengths: Port, rows: Port, at: int) -> Port:
        """``rows[lengths[b] - 1, b]``; the initial state where there is no such row."""
        rank = self._ranks[at]
        assert rank is not None
        one = emit.constant(np.int32(1), "one")
        within = emit.binary("Minimum", lengths, self._scan.trip_count, "within")
        last = emit.subtract(emit.binary("Maximum", within, one, "at_least_one"), one, "last")
        batch = _range(emit, emit.element(emit.shape(lengths), 0), "batch")
        places = emit.pack([last, batch], "places", axis=1)
        dtype = dtype_of(rows)
        found = emit.node(
            "GatherNd", [rows, places], {"Tparams": dtype, "Tindices": DType.INT32}, "last_rows"
        )
        zero = emit.constant(np.int32(0), "none")
        empty = emit.binary("LessEqual", lengths, zero, "empty")
        for number in range(rank - 1):
            empty = _column(emit, empty, f"empty/{number}", dtype=DType.BOOL)
        return emit.node("SelectV2", [empty, self._scan.states[at], found], {"T": dtype}, "final")


def _range(emit: Emitter, end: Port, name: str) -> Port:
    start, step = (emit.constant(np.int32(n), f"{name}/{n}") for n in (0, 1))
    return emit.node("Range", [start, end, step], {"Tidx": DType.INT32}, name)


def _column(emit: Emitter, value: Port, name: str, dtype: DType = DType.INT32) -> Port:
    """A new axis at the end."""
    axis = emit.constant(np.int32(-1), f"{name}/axis")
    return emit.node("ExpandDims", [value, axis], {"T": dtype, "Tdim": DType.INT32}, name)
