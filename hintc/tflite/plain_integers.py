"""Operators that compute with the scale of int8, int16 or uint8 values, on values without one.

TensorFlow's converter keeps such integers as they are. TFLite's kernels of these operators take
them for quantised ones all the same, with a scale of 0: they give 0, or end the process (kernels/
reduce.cc, comparisons.cc, add.cc, sub.cc, mul.cc and squared_difference.cc; measured in LiteRT 2.3
and TensorFlow 2.21). Of all the operators that the converter lets through these are EQUAL and MEAN
of uint8; the others may stand in models from elsewhere.
"""

from __future__ import annotations

from hintc.errors import HintcError
from hintc.tflite.flatbuffer import Model, Subgraph

_BYTES = frozenset(
    (
        *("ADD", "EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "MEAN", "MUL"),
        *("NOT_EQUAL", "SQUARED_DIFFERENCE", "SUB", "SUM"),
    )
)
NEED_SCALES = {
    "int8": _BYTES,
    "uint8": _BYTES,
    "int16": frozenset({"MEAN", "NOT_EQUAL", "SUB", "SUM"}),
}
"""Dtype of the first operand -> the operators that need its scale."""


def check_plain_integers(model: Model) -> None:
    """Refuses operators on integers without a scale that their kernels need.

    Raises:
        HintcError: names the operator.
    """
    for subgraph, op in model.operators():
        name = model.op_name(op)
        first = op.inputs[0] if len(op.inputs) else -1
        if first < 0 or name not in NEED_SCALES.get(str(subgraph.dtype(first)), ()):
            continue
        if not has_scale(subgraph, first):
            raise HintcError(
                f"TFLite's {name} gets {subgraph.dtype(first)} values wrong that are no quantised "
                "ones",
                node=subgraph.tensor_name(op.outputs[0]),
                why="its kernel multiplies with their scale, and they have none",
                remedy="Cast to int32 or float32 before it.",
            )


def has_scale(subgraph: Subgraph, tensor: int) -> bool:
    """Do the tensor's integers stand for real numbers?"""
    quantization = subgraph.tensor(tensor).quantization
    return quantization is not None and quantization.scale is not None
