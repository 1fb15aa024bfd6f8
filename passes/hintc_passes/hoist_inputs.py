"""hoist-inputs: a loop multiplies all its inputs with their weights at once, before it starts.

In a step ``x_t W + h R`` the first product does not wait for the step before. One product over the
whole sequence is faster than one a step, and the loop is smaller. It applies to Scans that become
loops: a fused kernel takes the inputs as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hintc.graphdef.shapes import shapes_remembered
from hintc.ir import Graph, Module, Node
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass
from hintc_passes.scans.inputs import hoist_inputs
from hintc_passes.scans.step import rewrite_scans


@register
@dataclass(frozen=True)
class HoistInputs(Pass):
    """Compute products of a loop's inputs with weights before the loop."""

    name: ClassVar[str] = "hoist-inputs"

    @shapes_remembered()
    def run(self, module: Module) -> PassReport:
        """Hoist from every Scan that the main graph reaches and that no fused op computes."""
        report = PassReport()

        def hoist(graph: Graph, node: Node) -> None:
            hoisted = hoist_inputs(module, graph, node)
            if hoisted is not None:
                report.count("hoisted")
                report.note(
                    "inputs-hoisted", hoisted.name, "its inputs meet their weights before the loop"
                )

        rewrite_scans(module, hoist)
        return report
