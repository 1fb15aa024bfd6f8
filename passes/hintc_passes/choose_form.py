"""choose-form: every Scan is written in a form of its own; only TensorFlow ops are left.

* fused: one call of the kernel that recognition found. Smallest, and known to every target.
* while: a loop without TensorLists; batch and time stay dynamic.
* unroll: the steps one after the other; the trip count must be a constant.

A form that a Scan cannot take is refused with a remark, and the loop is taken instead. A Scan
whose own ``form`` is set keeps it, whatever the option says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from hintc.call_graph import needed_graphs
from hintc.graphdef.scan_lowering import (
    known_trip_count,
    remove_unused_functions,
    scan_to_fused_call,
    scan_to_while,
    unroll_scan,
)
from hintc.graphdef.shapes import infer_shapes, shapes_remembered
from hintc.ir import SCAN, Graph, Module, Node, Port, Scan
from hintc.registry import register
from hintc.remark import PassReport, Refused
from hintc.rewrite import Pass

Form = Literal["auto", "fused", "unroll", "while"]

_MOST_STATES = 2
_WITHOUT_STATE = ": its steps do not depend on each other, so it is no recurrence"


@register
@dataclass(frozen=True)
class ChooseForm(Pass):
    """Write every Scan as a fused call, as unrolled steps or as a loop.

    Args:
        form: "auto" fuses what was recognised and makes a loop of the rest, but leaves steps
            unrolled that were so in the source; the others are wishes for every Scan.
        optimize_for: "size" or "latency". The same choice for now: the kernel is smallest, and
            on one thread at batch 1 a plain loop takes 1.4 to 2.3 times as long.
        max_trip: with form=unroll, Scans of more steps than this become loops.
    """

    name: ClassVar[str] = "choose-form"
    form: Form = "auto"
    optimize_for: Literal["size", "latency"] = "size"
    max_trip: int = 128

    @shapes_remembered()
    def run(self, module: Module) -> PassReport:
        """Write every Scan that the main graph reaches in its form."""
        report = PassReport()
        bodies: dict[str, None] = {}
        for graph in needed_graphs(module):
            scans = [node for node in graph.topological() if node.op == SCAN]
            if graph is module.graph:  # one question for all; the answers are remembered
                infer_shapes(module, graph, [p for node in scans for p in node.operands])
            for node in scans:
                bodies[Scan.of(node).body] = None
                self._choose(module, graph, node, report)
        remove_unused_functions(module, bodies)
        return report

    def _choose(self, module: Module, graph: Graph, node: Node, report: PassReport) -> None:
        name, scan = node.name, Scan.of(node)
        wish = scan.form or self.form
        if scan.fusion is None and len(scan.states) > _MOST_STATES:
            reason = f"carries {len(scan.states)} states that depend on each other; kernels carry "
            report.refused("many-states", name, reason + "one (RNN) or two (LSTM)")
        if wish == "auto" and scan.fusion is None and scan.unrolled:
            unroll_scan(module, graph, node)
            report.note("form-unroll", name, f"keeps its {known_trip_count(scan)} unrolled steps")
            report.count("unrolled")
            return
        try:
            if wish == "unroll":
                self._check_unrollable(scan)
                unroll_scan(module, graph, node)
                report.note("form-unroll", name, f"unrolled into {known_trip_count(scan)} steps")
                report.count("unrolled")
                return
            if wish == "fused" or (wish == "auto" and scan.fusion is not None):
                op = _check_fusable(graph, node, scan)
                scan_to_fused_call(module, graph, node)
                report.fused("form-fused", name, f"becomes one {op}")
                report.count("fused")
                return
        except Refused as refusal:
            report.refused(refusal.code, name, refusal.reason, refusal.remedy)
        scan_to_while(module, graph, node)
        why = _WITHOUT_STATE if not scan.states else "" if scan.fusion is None else f": form={wish}"
        report.note("form-while", name, f"becomes a loop without TensorLists{why}")
        report.count("loops")

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


def _check_fusable(graph: Graph, node: Node, scan: Scan) -> str:
    """Name of the fused op.

    Raises:
        Refused: there is none, or something reads what it does not give.
    """
    if scan.fusion is None:
        raise Refused(
            "form-fused-unknown",
            "cannot be fused: no fused op was recognised in it",
            "The remarks of the recognising passes say what differs.",
        )
    for at, name in enumerate(scan.fusion.results):
        readers = graph.uses(Port(node, at))
        if name is None and readers:
            raise Refused(
                "form-fused-result",
                f"cannot be fused: '{readers[0].node.name}' reads result {at}, which "
                f"{scan.fusion.op} does not give",
            )
    return scan.fusion.op
