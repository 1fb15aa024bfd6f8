"""Products whose output has a finer scale than XNNPACK can compute it in.

It refuses a product whose output has a scale of 1/256 or less of input times weights, and with it
the whole model (measured: an error in `allocate_tensors`, or a crash). A layer
that has weights only for those of its inputs that are small beside the others has such an output.
There the operator gets a coarser scale, still finer than a step of its sums, and a QUANTIZE
converts.
"""

from __future__ import annotations

import numpy as np

from hintc.tflite.flatbuffer import Model, Operator, Subgraph
from hintc.tflite.integers.written_through import written_through
from hintc.tflite.schema import schema

_PRODUCTS = frozenset(("BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"))
"""Operators whose first operand is weighted by the second."""
_FINEST, _TAKEN = 256.0, 128.0
"""Of a step of the sums: what is too fine, and what is taken instead."""


def coarsen_fine_products(model: Model) -> int:
    """Puts a QUANTIZE behind each such product; returns how many.

    Args:
        model: quantised; is changed.
    """
    return sum(_coarsen(subgraph) for subgraph in model.subgraphs)


def _coarsen(subgraph: Subgraph) -> int:
    operators: list[Operator] = []
    for op in subgraph.operators:
        operators.append(op)
        scale = _coarser(subgraph, op)
        if scale:
            operators.append(
                written_through(subgraph, op, 0, "coarse", "QUANTIZE", "QuantizeOptions")
            )
            scales = schema().QuantizationParametersT()
            scales.scale, scales.zeroPoint = [scale], [0]
            subgraph.tensor(op.outputs[0]).quantization = scales
    added = len(operators) - len(subgraph.operators)
    subgraph.operators = operators
    return added


def _coarser(subgraph: Subgraph, op: Operator) -> float:
    """The scale that the output should have instead of its own; 0 where its own is right."""
    if subgraph.model.op_name(op) not in _PRODUCTS:
        return 0.0
    ends = [*op.inputs[:2], op.outputs[0]]
    if any(subgraph.dtype(tensor) != np.int8 for tensor in ends):
        return 0.0
    read, weights, made = (max(subgraph.tensor(tensor).quantization.scale) for tensor in ends)
    step = float(read) * float(weights)
    return step / _TAKEN if step >= _FINEST * float(made) else 0.0
