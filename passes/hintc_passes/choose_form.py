"""choose-form: every Scan is written in a form of its own; only TensorFlow ops are left.

* fused: one call of the kernel that recognition found. Smallest, and known to every target.
* while: a loop without TensorLists; batch and time stay dynamic.
* unroll: the steps one after the other; the trip count must be a constant.

A form that a Scan cannot take is refused with a remark, and the loop is taken instead. A Scan
whose own ``form`` is set keeps it, whatever the option says. What becomes a loop or steps is
spelled for that before: gates packed, products of inputs hoisted, and with
``optimize_for=latency`` several steps in one iteration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from hintc.call_graph import needed_graphs
from hintc.graphdef.final_rows import read_final_rows_from_states
from hintc.graphdef.scan_lowering import (
    known_trip_count,
    remove_unused_functions,
    scan_to_fused_call,
    scan_to_while,
    unroll_scan,
)
from hintc.graphdef.shapes import infer_shapes, shapes_remembered
from hintc.ir import SCAN, Fusion, Graph, Module, Node, Port, Scan
from hintc.ops import BuiltinLowering, Target, declared
from hintc.registry import register
from hintc.remark import PassReport, Refused
from hintc.rewrite import Pass
from hintc_passes.analysis.values import is_zeros
from hintc_passes.scans.fastest_form import Estimate, fastest_form
from hintc_passes.scans.form_cost import Precision
from hintc_passes.scans.inputs import hoist_inputs
from hintc_passes.scans.kept_states import loops_that_start_anew, reads_backwards, starts_anew
from hintc_passes.scans.packed_cell import spell_packed
from hintc_passes.scans.state_arithmetic import keep_states_in_float
from hintc_passes.scans.tiling import tile_scan

Form = Literal["auto", "fused", "unroll", "while"]

_PRECISIONS: Mapping[str | None, Precision] = {"dynamic": "int8 weights", "int8": "integers"}
"""By ``quantize``; float16 weights are float32 when they are used."""
_MOST_STATES = 2
_BACKWARDS = (
    "reads its sequence backwards: an invoke goes on from the state that the first element of the "
    "last one left, as a stateful layer of Keras does; that is no stream"
)
_IDLE = (
    ": it starts with zeros, so that its recurrent weights go; state='persist' makes it a kernel"
)
_STARTS_ANEW = (
    "starts anew at every run: only fused kernels keep a state from one to the next",
    "Make its states inputs and outputs of the model, and convert with state='reset'.",
)
_WITHOUT_STATE = ": its steps do not depend on each other, so it is no recurrence"


@register
@dataclass(frozen=True)
class ChooseForm(Pass):
    """Write every Scan as a fused call, as unrolled steps or as a loop.

    Args:
        form: "auto" chooses for each Scan by `optimize_for`; the others are wishes for all.
        optimize_for: "size" fuses what was recognised and makes a loop of the rest, but leaves
            steps unrolled that were so in the source; "latency" takes the form that an estimate
            says is the fastest on a CPU.
        max_trip: Scans of more steps than this are not unrolled.
        steps: of one iteration of a loop; 0: 1, with optimize_for=latency what is fastest.
        target: for "tflm" "auto" fuses whatever its kernels can do.
        state: with "persist", "auto" fuses what was recognised: only kernels keep a state, and of
            a recurrence that becomes none a remark says so.
        quantize: what the model will compute in; the fastest form depends on it.
    """

    name: ClassVar[str] = "choose-form"
    form: Form = "auto"
    optimize_for: Literal["size", "latency"] = "size"
    max_trip: int = 128
    steps: int = 0
    target: Target = "tflite"
    state: Literal["reset", "persist"] = "reset"
    quantize: Literal["dynamic", "float16", "int8"] | None = None

    @shapes_remembered()
    def run(self, module: Module) -> PassReport:
        """Write every Scan that the main graph reaches in its form."""
        report = PassReport()
        if self.state == "persist":
            for node in loops_that_start_anew(module):
                report.refused("state-not-kept", node.name, *_STARTS_ANEW)
        before = set(module.functions)
        bodies: dict[str, None] = {}
        graphs = needed_graphs(module)
        recurrences = sum(node.op == SCAN for graph in graphs for node in graph)
        for graph in graphs:
            scans = graph.of_ops((SCAN,))
            if graph is module.graph:  # one question for all; the answers are remembered
                infer_shapes(module, graph, [p for node in scans for p in node.operands])
            for node in scans:
                bodies[Scan.of(node).body] = None
                self._write(module, graph, node, report, recurrences)
        made = dict.fromkeys(name for name in module.functions if name not in before)
        remove_unused_functions(module, bodies | made if bodies else bodies)
        return report

    def _write(
        self, module: Module, graph: Graph, node: Node, report: PassReport, recurrences: int
    ) -> None:
        name, scan = node.name, Scan.of(node)
        if scan.fusion is None and len(scan.states) > _MOST_STATES:
            reason = f"carries {len(scan.states)} states that depend on each other; kernels carry "
            report.refused("many-states", name, reason + "one (RNN) or two (LSTM)")
        estimate = self._estimate(module, node, scan, recurrences)
        wish = self._wish(scan, estimate)
        idle = estimate is None and self._is_idle(module, graph, scan)
        if idle:
            wish = "unroll"
        try:
            if wish == "unroll":
                self._unroll(module, graph, node, report, _IDLE if idle else _because(estimate))
                return
            if wish == "fused":
                self._check_quantisable(module, graph)
                op = _check_fusable(graph, node, scan, self.target)
                if self.state == "persist" and reads_backwards(scan):
                    report.note("persists-backwards", name, _BACKWARDS)
                _give_final_states(module, graph, node, scan)
                scan_to_fused_call(module, graph, node)
                because = _because(estimate) if estimate else self._without_estimate(scan)
                report.fused("form-fused", name, f"becomes one {op}{because}")
                report.count("fused")
                return
        except Refused as refusal:
            report.refused(refusal.code, name, refusal.reason, refusal.remedy)
            estimate = None
        self._loop(module, graph, node, report, estimate)

    def _check_kept(self, node: Node, report: PassReport) -> None:
        """Say where a state that shall persist starts anew at every run."""
        if self.state == "persist" and starts_anew(Scan.of(node)):
            report.refused("state-not-kept", node.name, *_STARTS_ANEW)

    def _estimate(
        self, module: Module, node: Node, scan: Scan, recurrences: int
    ) -> Estimate | None:
        """The fastest form, if that is what is asked for."""
        if self.optimize_for != "latency" or self.target == "tflm":
            return None
        if scan.form in ("fused", "unroll") or self.form in ("fused", "unroll"):
            return None
        if scan.fusion is not None and (self.state == "persist" or not _is_built_in(scan.fusion)):
            return None
        only_loops = "while" in (scan.form, self.form)
        most = 0 if only_loops else self.max_trip
        fusable = not only_loops and _can_be_fused(node.graph, node, scan, self.target)
        return fastest_form(
            module,
            node,
            precision=_PRECISIONS.get(self.quantize, "float32"),
            max_trip=most,
            fusable=fusable,
            recurrences=recurrences,
        )

    def _without_estimate(self, scan: Scan) -> str:
        """Why "latency" fuses what it has not estimated; "" if it was not asked."""
        if self.optimize_for != "latency" or "fused" in (scan.form, self.form):
            return ""
        if self.target == "tflm":
            return ": target=tflm gets kernels, optimize_for=latency or not"
        return ": only kernels keep a state" if self.state == "persist" else ""

    def _wish(self, scan: Scan, estimate: Estimate | None) -> str:
        wish = scan.form or self.form
        if wish != "auto":
            return wish
        if estimate is not None:
            return estimate.form
        if scan.fusion is not None:
            return "fused"
        return "unroll" if scan.unrolled else "while"

    def _is_idle(self, module: Module, graph: Graph, scan: Scan) -> bool:
        """True for one step of a kernel, of a fixed batch, that starts with zeros at every invoke.

        Nothing recurs in it. In plain operators its products with zeros go, and the recurrent
        weights with them: two thirds of the file, and of the time.
        """
        if (scan.form or self.form) != "auto" or self.state == "persist" or scan.hint:
            return False
        if scan.fusion is None or not _is_built_in(scan.fusion):
            return False
        if known_trip_count(scan) != 1 or not all(map(is_zeros, scan.states)):
            return False
        dims = infer_shapes(module, graph, scan.xs[:1])[scan.xs[0]].dims
        return dims is not None and len(dims) > 1 and dims[1] >= 0

    def _unroll(
        self, module: Module, graph: Graph, node: Node, report: PassReport, why: str
    ) -> None:
        scan = Scan.of(node)
        wished = "unroll" in (scan.form, self.form)
        if wished:
            self._check_unrollable(scan)
        self._check_kept(node, report)
        steps, name = known_trip_count(scan), node.name
        keeps = scan.unrolled and not wished and not why
        unroll_scan(module, graph, self._spelled_for_loops(module, graph, node))
        noun = "step" if steps == 1 else "steps"
        text = (
            f"keeps its {steps} unrolled {noun}" if keeps else f"unrolled into {steps} {noun}{why}"
        )
        report.note("form-unroll", name, text)
        report.count("unrolled")

    def _loop(
        self,
        module: Module,
        graph: Graph,
        node: Node,
        report: PassReport,
        estimate: Estimate | None,
    ) -> None:
        name, scan = node.name, Scan.of(node)
        self._check_kept(node, report)
        loop = self._spelled_for_loops(module, graph, node)
        tile = self.steps or (estimate.tile if estimate else 1)
        tiled = tile_scan(module, graph, loop, tile) if tile > 1 else None
        scan_to_while(module, graph, tiled or loop)
        what = "becomes a loop without TensorLists"
        if tiled is not None:
            what += f", {tile} steps in each iteration"
        if not scan.states:
            what += _WITHOUT_STATE
        elif estimate is not None:
            what += _because(estimate)
        elif scan.fusion is not None and "while" in (scan.form, self.form):
            what += ": form=while"
        report.note("form-while", name, what)
        report.count("loops")

    def _spelled_for_loops(self, module: Module, graph: Graph, node: Node) -> Node:
        """The same Scan, gates packed and its inputs' products before it, where that goes."""
        read_final_rows_from_states(module, graph, node)
        packed = spell_packed(module, graph, node)
        if packed is not None:
            node = hoist_inputs(module, graph, packed) or packed
        if self.quantize == "int8" and self.optimize_for == "latency":
            keep_states_in_float(module, node)
        return node

    def _check_quantisable(self, module: Module, graph: Graph) -> None:
        if self.quantize == "int8" and graph is not module.graph:
            raise Refused(
                "form-fused-integers",
                "cannot be fused: it stands inside of a loop or a condition, where kernels are not "
                "quantised to integers",
                "Take it out, or convert with quantize='dynamic'.",
            )

    def _check_unrollable(self, scan: Scan) -> None:
        trip = known_trip_count(scan)
        if trip is None or trip < 1:
            raise Refused(
                "form-unroll-unknown",
                "cannot be unrolled: the number of steps is not a constant"
                if trip is None
                else "cannot be unrolled: it has no steps",
                "Give the time dimension of the input a fixed size.",
            )
        if trip > self.max_trip:
            raise Refused(
                "form-unroll-long",
                f"would be unrolled into {trip} steps, more than max_trip={self.max_trip}",
                "Raise max_trip of choose-form.",
            )


def _give_final_states(module: Module, graph: Graph, node: Node, scan: Scan) -> None:
    """Let who reads the last output read the state, where the kernel may run no steps.

    There is no last output then, and TFLite would read what is none; the state is the initial one.
    """
    given = scan.fusion.results[: len(scan.states)] if scan.fusion is not None else ()
    if known_trip_count(scan) is None and None not in given:
        read_final_rows_from_states(module, graph, node)


def _is_built_in(fusion: Fusion) -> bool:
    """True for kernels of TFLite; how fast one is of somebody's own, nobody here can know."""
    op = declared(fusion.op)
    return op is not None and isinstance(op.lowering, BuiltinLowering)


def _because(estimate: Estimate | None) -> str:
    return "" if estimate is None else f": {estimate.reason}"


def _can_be_fused(graph: Graph, node: Node, scan: Scan, target: Target) -> bool:
    try:
        _check_fusable(graph, node, scan, target)
    except Refused:
        return False
    return True


def _check_fusable(graph: Graph, node: Node, scan: Scan, target: Target) -> str:
    """Name of the fused op.

    Raises:
        Refused: there is none, the target has no such kernel, or something reads what it does not
            give.
    """
    if scan.fusion is None:
        raise Refused(
            "form-fused-unknown",
            "cannot be fused: no fused op was recognised in it",
            "The remarks of the recognising passes say what differs.",
        )
    op = declared(scan.fusion.op)
    if op is not None and target == "tflm":
        reasons = op.refusals(tuple(scan.fusion.operands), scan.fusion.attributes, target=target)
        if reasons:
            raise Refused("form-fused-target", f"cannot be fused: {'; '.join(reasons)}")
    for at, name in enumerate(scan.fusion.results):
        readers = graph.uses(Port(node, at))
        if name is None and readers:
            raise Refused(
                "form-fused-result",
                f"cannot be fused: '{readers[0].node.name}' reads result {at}, which "
                f"{scan.fusion.op} does not give",
            )
    return scan.fusion.op
