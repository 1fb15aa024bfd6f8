"""unroll-while: a loop over lists that is no Scan, and makes a known number of steps, is unrolled.

TFLite has no lists of tensors, so a loop that reads what it wrote, or writes out of order, cannot
be converted. If its number of steps is a constant, its steps one after the other can:
`resolve-lists` then takes the lists out. Loops without lists stay, as TFLite runs them.

Refuses, with a remark, loops with too many steps; what else keeps a loop from being unrolled has
kept it from being a Scan, and is said there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hintc.call_graph import needed_graphs
from hintc.errors import VerifyError
from hintc.graft import graft
from hintc.graphdef.shapes import shapes_remembered
from hintc.ir import DType, Graph, Module, Port
from hintc.ir.opdefs import WHILE_OPS
from hintc.ir.scan import dtype_of
from hintc.registry import register
from hintc.remark import PassReport, Refused
from hintc.rewrite import Pass
from hintc_passes.analysis.values import sweep
from hintc_passes.loops.bounds import Bounds, upper_bounds
from hintc_passes.loops.while_loop import WhileLoop


@register
@dataclass(frozen=True)
class UnrollWhile(Pass):
    """Unroll loops over lists that did not become Scans.

    Args:
        max_trip: loops of more steps than this stay.
    """

    name: ClassVar[str] = "unroll-while"
    max_trip: int = 128

    @shapes_remembered()
    def run(self, module: Module) -> PassReport:
        """Unroll every such loop that the main graph reaches, inner loops first."""
        report = PassReport()
        for graph in needed_graphs(module):
            for node in graph.of_ops(WHILE_OPS):
                if DType.VARIANT in map(dtype_of, node.operands):
                    self._unroll(module, graph, node.name, report)
        return report

    def _unroll(self, module: Module, graph: Graph, name: str, report: PassReport) -> None:
        try:
            loop = WhileLoop.of(module, graph, graph[name])
        except (Refused, VerifyError):
            return
        try:
            trip = _steps(loop)
        except Refused:
            return
        finally:
            sweep(graph, loop.hoisted)
        if trip is None:
            return
        if trip > self.max_trip:
            report.refused(
                "loop-long",
                name,
                f"would be unrolled into {trip} steps, more than max_trip={self.max_trip}",
                "Raise max_trip of unroll-while.",
            )
            return
        _write_steps(loop, trip)
        report.count("unrolled")
        report.note("loop-unrolled", name, f"unrolled into {trip} steps, as it is no recurrence")


def _steps(loop: WhileLoop) -> int | None:
    """The number of steps, if it is a constant.

    Raises:
        Refused: the loop stops by data.
    """
    limits = upper_bounds(loop.cond.results[0].operands[0], loop.form, lambda port: None)
    bounds = Bounds(limits, loop.sizes)
    least = bounds.least()
    if least is None or bounds.open or not least.is_constant:
        return None
    return max(least.constant, 0)


def _write_steps(loop: WhileLoop, trip: int) -> None:
    graph, node = loop.graph, loop.node
    body = [n for n in loop.body.topological() if not n.op.startswith("_")]
    carried = list(node.operands)
    for step in range(trip):
        values = dict(zip((v.arg for v in loop.variables), carried, strict=True))
        copies = graft(body, graph, values, prefix=f"{node.name}/step_{step}")
        nexts = [v.next for v in loop.variables]
        carried = [values.get(p) or Port(copies[p.node], p.index) for p in nexts]
    last = list(dict.fromkeys(port.node for port in carried))
    for at, port in enumerate(carried):
        graph.replace_uses(Port(node, at), port)
    graph.replace_control_uses(node, last)
    graph.remove(node)
