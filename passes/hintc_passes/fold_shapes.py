"""fold-shapes: sizes that do not depend on what is fed become constants.

Turns `Shape`, `Size` and `Rank` of a value of the main graph into constants where TensorFlow's
shape functions tell its sizes, through fused calls and loops too. Runs late: recurrences are found
by how they take the sizes of their inputs. What follows from a size, an initial state of zeros say,
is then a constant too, so that a model with a fixed batch computes no sizes when it runs, which
TFLite Micro could not.

Leaves graphs with control flow v1 alone: there an operand says in which frame a node runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hintc.call_graph import CONTROL_FLOW_V1
from hintc.graphdef.shapes import infer_shapes
from hintc.ir import Module
from hintc.pattern import is_hint
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass
from hintc_passes.analysis.sizes import OF_SHAPE, write_down


@register
@dataclass(frozen=True)
class FoldShapes(Pass):
    """Write down sizes that do not depend on what is fed."""

    name: ClassVar[str] = "fold-shapes"

    def run(self, module: Module) -> PassReport:
        """Fold in the main graph."""
        report = PassReport()
        graph = module.graph
        asking = [node for node in graph if node.op in OF_SHAPE and not is_hint(node)]
        if not asking or any(node.op in CONTROL_FLOW_V1 for node in graph):
            return report
        shapes = infer_shapes(module, graph, [node.operands[0] for node in asking])
        for node in asking:
            shape = shapes[node.operands[0]]
            if shape.dims is not None and shape.is_static:
                write_down(node, shape.dims)
                report.count("folded")
        return report
