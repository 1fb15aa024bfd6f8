"""fix-batch: inputs whose first size is free get a fixed one.

TFLite Micro plans its memory before the model runs, so for ``target="tflm"`` every size has to be
known: the free first size of an input, its batch, becomes 1. For other targets nothing is done
unless a size is asked for.

Leaves alone sizes that are free elsewhere, e.g. of time: nobody can guess those.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hintc.ir import Module, Shape
from hintc.ops import Target
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass

_MICRO_BATCH = 1


@register
@dataclass(frozen=True)
class FixBatch(Pass):
    """Give the free first size of inputs a value.

    Attributes:
        target: "tflm" asks for a batch of 1.
        size: the batch; None leaves it free, except for "tflm".
    """

    name: ClassVar[str] = "fix-batch"
    target: Target = "tflite"
    size: int | None = None

    def run(self, module: Module) -> PassReport:
        """Fix the batch of every Placeholder of the main graph."""
        report = PassReport()
        size = self.size if self.size is not None or self.target != "tflm" else _MICRO_BATCH
        if size is None:
            return report
        for node in module.graph:
            shape = node.attributes.get("shape") if node.op == "Placeholder" else None
            if isinstance(shape, Shape) and shape.dims and shape.dims[0] < 0:
                fixed = Shape((size, *shape.dims[1:]))
                node.attributes["shape"] = fixed
                node.attributes.pop("_output_shapes", None)
                why = f"its batch is fixed: {shape} becomes {fixed}"
                report.note("batch-fixed", node.name, why)
                report.count("fixed")
        return report
