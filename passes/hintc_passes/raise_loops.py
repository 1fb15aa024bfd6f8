"""raise-loops: functional loops that step through time become Scans.

Recognises While and StatelessWhile that count up or down to a bound (several bounds joined by
And), where each variable of the loop is a counter, a TensorList, a value that never changes, or a
carried state. A row that a step takes from a list or an unchanging tensor, in order or from the
end, comes from a sequence of the Scan; the lists that steps write are its outputs. A list of one
row that every step overwrites becomes the last row. States that provably stay equal are carried
once.

Refuses, with a remark, and leaves the loop alone: loops whose number of steps is not known when
they start, lists used in any other way, side effects, states that change their shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hintc.call_graph import needed_graphs
from hintc.errors import VerifyError
from hintc.graphdef.shapes import shapes_remembered
from hintc.ir import Graph, Module, Node
from hintc.ir.opdefs import WHILE_OPS
from hintc.registry import register
from hintc.remark import PassReport, Refused
from hintc.rewrite import Pass
from hintc_passes.loops.inner_constants import put_constants_inside
from hintc_passes.loops.raising import raise_loop


@register
@dataclass(frozen=True)
class RaiseLoops(Pass):
    """Turn loops over time into Scans."""

    name: ClassVar[str] = "raise-loops"

    @shapes_remembered()
    def run(self, module: Module) -> PassReport:
        """Raise every loop that the main graph reaches, inner loops first."""
        report = PassReport()
        for graph in needed_graphs(module):
            for node in graph.of_ops(WHILE_OPS):
                self._raise(module, graph, node, report)
        put_constants_inside(module)
        return report

    def _raise(self, module: Module, graph: Graph, node: Node, report: PassReport) -> None:
        name = node.name
        try:
            raise_loop(module, graph, node)
        except Refused as refusal:
            report.refused(refusal.code, name, refusal.reason, refusal.remedy)
        except VerifyError as error:  # a polymorphic body, say
            report.refused("loop-types", name, f"the loop's types are not known: {error}")
        else:
            report.count("raised")
