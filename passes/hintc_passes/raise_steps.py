"""raise-steps: a recurrent cell that is called once becomes a Scan of one step.

Recognises, in the main graph, an LSTM or a simple cell with neither a loop nor a chain of steps
around it: layers with ``unroll=True`` and static RNNs on a sequence of one element, cells called by
hand. It starts with zeros, or another constant. Such a model is made for streams: with
``state="persist"`` each invoke is a step that goes on where the last one ended.

The step's maths is compared with the kernels' before anything is changed (`hintc_passes.cells`), so
what only looks like a cell stays as it is; where it ends like one, with a remark. A call of a
hinted cell is put in line for that.

Leaves alone cells that start with states which the model is given (`_GIVEN` says why), and steps
that share their weights.

With ``state="persist"`` the first step of anything else, a product with zeros, has a remark: it
would start with them at every invoke.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, NamedTuple

from hintc.graphdef.scan_lowering import remove_unused_functions
from hintc.graphdef.shapes import infer_shapes, shapes_remembered
from hintc.hints.protocol import called_function, record_of
from hintc.inlining import inline_call
from hintc.ir import Module, Node, Port, Shape
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass
from hintc_passes.analysis.values import is_given
from hintc_passes.cells.difference import Difference
from hintc_passes.cells.lstm import match_lstm
from hintc_passes.cells.rnn import match_rnn
from hintc_passes.chains.rolling import trip_count_of
from hintc_passes.steps.finding import FoundStep, find_steps, zero_state_of
from hintc_passes.steps.raising import doubt_about, ends_of, proved_step, put_step

_GIVEN = (
    "it is one step of an LSTM that starts with states which the model is given; it stays plain "
    "operators, which are 2 to 6 times faster than the kernel and what hands it its states"
)

_RESET = "Make its states inputs and outputs of the model, and convert with state='reset'."


@register
@dataclass(frozen=True)
class RaiseSteps(Pass):
    """Turn recurrent cells that are called once into Scans of one step.

    Attributes:
        state: with "persist", what cannot keep its state has a remark.
    """

    name: ClassVar[str] = "raise-steps"
    state: Literal["reset", "persist"] = "reset"

    @shapes_remembered()
    def run(self, module: Module) -> PassReport:
        """Raise every such cell of the main graph."""
        report = PassReport()
        calls = _calls_in_line(module, report)
        steps = find_steps(module.graph)
        shapes = infer_shapes(module, module.graph, [p for step in steps for p in step.values])
        work = _Raising(module, report, dict(shapes), keeps=self.state == "persist")
        left = dict.fromkeys(calls.values())
        for step in steps:
            call = calls.get(step.end.node)
            if work.raise_(step, call.hint if call else "") and call:
                left.pop(call, None)
        for call in left:
            reason = f"The hint says '{call.hint}', but no kernel computes its step"
            report.refused("cell-not-fused", call.name, reason)
        if self.state == "persist":
            _warn_of_starts([n for n in module.graph if n not in work.doubtful], report)
        return report


@dataclass
class _Raising:
    """Raises one cell after the other.

    Attributes:
        module, report: what is changed.
        shapes: of what the cells read and give.
        keeps: their states persist.
        doubtful: nodes of those of which it is not clear what their states are.
    """

    module: Module
    report: PassReport
    shapes: dict[Port, Shape]
    keeps: bool
    doubtful: set[Node] = field(default_factory=set)
    _moved: dict[Port, Port] = field(default_factory=dict)

    def raise_(self, step: FoundStep, hint: str) -> bool:
        """True if the cell is a Scan now; `hint` marked it, "" if none did."""
        graph, step = self.module.graph, step.now(self._moved)
        ends = ends_of(step, self.shapes) if all(n in graph for n in step.nodes) else None
        if ends is None:
            return False
        name = ends.new_hidden.node.name
        match = match_rnn if step.cell is None else match_lstm
        try:
            proved = proved_step(self.module, step, ends, self.shapes, match)
        except Difference as difference:
            reason = f"{difference.reason}."
            self.report.refused(difference.code, name, reason, difference.remedy)
            return False
        if any(map(is_given, proved.states)):
            remove_unused_functions(self.module, {proved.body: None})
            self.report.note("given-states", name, _GIVEN)
            return False
        doubt = doubt_about(step, ends) if self.keeps else ""
        if doubt:
            remove_unused_functions(self.module, {proved.body: None})
            self.report.refused("state-not-kept", name, doubt, _RESET)
            self.doubtful.update(step.nodes)
            return False
        scan = put_step(self.module, replace(proved, hint=hint), step, ends)
        for at, port in enumerate(ends.results(step)):
            self._moved[port] = Port(scan, at)
            self.shapes[Port(scan, at)] = self.shapes[step.end]
        self.shapes[Port(scan)] = Shape((-1, ends.width))
        self.report.count("raised")
        self.report.note("one-step", scan.name, "its cell is called once: a recurrence of one step")
        return True


class _Call(NamedTuple):
    """A hinted call: its name, and what the hint says that it is."""

    name: str
    hint: str


def _calls_in_line(module: Module, report: PassReport) -> dict[Node, _Call]:
    """Put calls of hinted cells that have one step in line; which nodes were in which."""
    graph, found = module.graph, dict[Node, _Call]()
    for call in list(graph):
        function = called_function(module, call)
        record = record_of(function)
        if function is None or record is None or not record.is_cell:
            continue
        if trip_count_of(function.graph) > 1:  # its steps differ, and fuse-hints says so
            continue
        hinted = _Call(call.name, record.function)
        found |= dict.fromkeys(inline_call(module, graph, call, prefix=""), hinted)
        remove_unused_functions(module, {function.name: None})
        report.count("hints dissolved")
    return found


def _warn_of_starts(nodes: Iterable[Node], report: PassReport) -> None:
    """Say where a product of matrices still multiplies a state of zeros, each of these once."""
    starts = {zeros: node for node in nodes if (zeros := zero_state_of(node)) is not None}
    for zeros, node in starts.items():
        reason = (
            f"multiplies the zeros '{zeros.node.name}', as the first step of a recurrence does; "
            "it starts anew at every run: only fused kernels keep a state from one to the next"
        )
        report.refused("state-not-kept", node.name, reason, _RESET)
