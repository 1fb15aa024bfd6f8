"""peel-lengths: sequence lengths move out of a recurrence, so that the plain cell is left in it.

Recognises a Scan whose every state and output is ``Select(t >= lengths, old, new)``, with the old
state for states, zeros or the last output for outputs: dynamic_rnn, steps in Python with a mask
made by hand, Keras layers whose mask is a `sequence_mask` (`hintc_passes.scans.masks`). The Scan
then runs all steps; rows at and beyond the length are masked afterwards, and the final state is
read from the outputs at ``lengths - 1`` (the initial state where the length is 0 or less). Steps
that go through time from its end rest first; there each sequence is turned by itself, before and
after. Bit for bit the same, if there are as many lengths as rows, or one.

Refuses, with a remark, when the final value of a state is read that is not an output of each step,
when an output is read that is neither zero nor the last one beyond the length, and when states
shall persist from one run to the next, which would go on from beyond the length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from hintc.graphdef.emit import Emitter, known_array
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
from hintc_passes.analysis.values import is_zeros, source_of
from hintc_passes.scans.final_rows import enters_product
from hintc_passes.scans.lengths import Freeze, find_freeze, freezes_states_only
from hintc_passes.scans.rows_by_length import RowsByLength
from hintc_passes.scans.step import Step, add_in_place_of, new_step, rewrite_scans


@register
@dataclass(frozen=True)
class PeelLengths(Pass):
    """Run sequences of different lengths in full, and mask the outputs.

    Args:
        state: with "persist" nothing is peeled.
    """

    name: ClassVar[str] = "peel-lengths"
    state: Literal["reset", "persist"] = "reset"

    @shapes_remembered()
    def run(self, module: Module) -> PassReport:
        """Peel every such Scan that the main graph reaches."""
        report = PassReport()
        rewrite_scans(module, lambda graph, node: self._peel(module, graph, node, report))
        return report

    def _peel(self, module: Module, graph: Graph, node: Node, report: PassReport) -> None:
        step = Step.of(module, node)
        freeze, name = find_freeze(module, graph, node, step), node.name
        if freeze is None and freezes_states_only(module, graph, node, step):
            report.refused("lengths-output", name, *_EARLY)
        if freeze is None or side_effects(step.graph):
            return
        if self.state == "persist":
            report.refused("lengths-persist", name, *_GOES_ON)
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
    "Let the output be zero, or the last one, beyond the length in the step itself.",
)
_GOES_ON = (
    "has sequence lengths, and its state shall persist: a kernel, which runs all steps, would go "
    "on from beyond the length",
    "Give all rows of an invoke the same number of steps, and leave the lengths out.",
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

    def _row_ranks(self) -> list[int]:
        """Ranks of the states and outputs of one step."""
        args = argument_shapes(self._module, self._graph, self._node)
        results = infer_results(self._module, self._step.graph, args)
        self._check_broadcasts(args, results)
        ranks = [s.rank for s in results]
        if any(rank is None or rank < 1 for rank in ranks):
            raise Refused("lengths-rank", "the rank of a state or output is not known")
        return [rank for rank in ranks if rank is not None]

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
        """For each state whose final value is needed, the output that has it as its rows."""
        held = () if self._freeze.backwards else self._freeze.held
        used = [k for k in range(len(held)) if self._graph.uses(self._result(k))]
        wanted = {held[k] for k in used}
        found = {}
        for at, port in enumerate(self._freeze.nexts):
            if at not in wanted and not self._graph.uses(Port(self._node, at)):
                continue
            news = [*(new for new, _ in self._freeze.ys), *self._added]
            rows = [k for k, new in enumerate(news) if new == port]
            if not rows and self._is_hidden(port):  # h, which kernels give
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

    def _is_hidden(self, port: Port) -> bool:
        """True for the next value of a state that enters a product, as h does and c does not."""
        states = zip(self._step.states, self._freeze.nexts, strict=True)
        return any(following == port and enters_product(state) for state, following in states)

    def _result(self, k: int) -> Port:
        """Output k of the Scan as it was."""
        return Port(self._node, len(self._scan.states) + k)

    def _check(self) -> None:
        freeze = self._freeze
        if not freeze.backwards and any((*self._scan.reverse_xs, *self._scan.reverse_ys)):
            raise Refused("lengths-reversed", "reads or writes backwards in time")
        for (_, beyond), held in zip(freeze.ys, freeze.held, strict=True):
            if held is None and not is_zeros(self._outer.get(beyond, beyond)):
                raise Refused(
                    "lengths-not-zero",
                    "outputs beyond the length are neither provably zero nor the last output",
                )

    def run(self) -> None:
        graph, node, name = self._graph, self._node, self._node.name
        origin = node.origin or (name,)
        graph.rename(node, graph.unique_name(f"{name}/lengths"))
        emit = Emitter(graph, name, origin)
        by_length = RowsByLength(emit, self._scan.trip_count, self._lengths(emit))
        peeled, ys = self._plain_scan(name, by_length)
        finals = {
            at: by_length.last(ys[k], self._scan.states[at], self._ranks[at])
            for at, k in self._row_of_state.items()
        }
        for at, final in finals.items():
            graph.replace_uses(Port(node, at), final)
        for k in range(len(self._freeze.ys)):
            if graph.uses(self._result(k)):
                rows = self._rows(by_length, ys[k], k, finals)
                graph.replace_uses(self._result(k), rows)
        graph.replace_control_uses(node, [peeled])
        graph.remove(node)

    def _rows(
        self, by_length: RowsByLength, rows: Port, k: int, finals: Mapping[int, Port]
    ) -> Port:
        """Output k as it was, from what the plain Scan gives."""
        freeze, held = self._freeze, self._freeze.held[k]
        rank = self._ranks[len(self._scan.states) + k]
        beyond = None if held is None else finals.get(held, self._scan.states[held])
        if held is not None and freeze.backwards:
            beyond = self._scan.states[held]
        if not freeze.backwards:
            return by_length.masked(rows, beyond, rank)
        rows = by_length.masked(by_length.turned(rows), beyond, rank)
        return rows if self._scan.reverse_ys[k] else by_length.reversed(rows)

    def _plain_scan(self, name: str, by_length: RowsByLength) -> tuple[Node, list[Port]]:
        """The Scan without lengths, and its outputs."""
        step, scan, freeze = self._step, self._scan, self._freeze
        ys = [*(p for p, _ in freeze.ys), *self._added]
        kept_states = self._needed_states(ys)
        results = [(f"next_{k}", freeze.nexts[k]) for k in kept_states]
        results += [(f"y_{k}", p) for k, p in enumerate(ys)]
        needed = producers(p for _, p in results)
        if freeze.backwards and step.t.node in needed:
            raise Refused("lengths-reversed", "counts its steps, and reads backwards in time")
        nodes = [n for n in step.graph if n in needed and not n.op.startswith("_")]
        kept = [p for p in step.invariants if p.node in needed]
        xs = [k for k, p in enumerate(step.xs) if p.node in needed]
        ports = (*(step.xs[k] for k in xs), *(step.states[k] for k in kept_states), *kept)
        body = new_step(
            f"{scan.body}_plain", nodes, step.t, [(p.node.name, p) for p in ports], results
        )
        peeled = replace(
            scan,
            body=self._module.add_function(body).name,
            xs=tuple(self._sequence(by_length, k) for k in xs),
            states=tuple(scan.states[k] for k in kept_states),
            invariants=tuple(self._outer[p] for p in kept),
            reverse_xs=(False,) * len(xs),
            reverse_ys=(False,) * len(ys),
        )
        made = add_in_place_of(self._module, self._node, peeled, name)
        return made, [Port(made, len(kept_states) + k) for k in range(len(ys))]

    def _needed_states(self, ys: Sequence[Port]) -> list[int]:
        """The states that outputs need: not the last output, which was carried for its masks."""
        nexts = dict(zip(self._step.states, self._freeze.nexts, strict=True))
        found: set[Port] = set()
        pending = list(ys)
        while pending:
            needed = producers(pending)
            new = [s for s in nexts if s.node in needed and s not in found]
            found.update(new)
            pending = [nexts[s] for s in new]
        return [k for k, state in enumerate(self._step.states) if state in found]

    def _sequence(self, by_length: RowsByLength, k: int) -> Port:
        """What the plain Scan reads as sequence k, from the first step on."""
        rows = self._scan.xs[k]
        if not self._freeze.backwards:
            return rows
        if not self._scan.reverse_xs[k]:
            rows = _turned(rows) or by_length.reversed(rows)
        return by_length.turned(rows)

    def _lengths(self, emit: Emitter) -> Port:
        lengths = self._freeze.lengths
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


def _turned(rows: Port) -> Port | None:
    """What was reversed along time to give `rows`."""
    node = source_of(rows).node
    axes = known_array(node.operands[1]) if node.op == "ReverseV2" else None
    is_time = axes is not None and axes.reshape(-1).tolist() == [0]
    return node.operands[0] if is_time else None
