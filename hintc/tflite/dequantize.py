"""Dequantised constants that stay right when a model with state tensors is resized.

DEQUANTIZE computes a constant's value at the first invoke only and keeps it in the arena of
persistent tensors. A state tensor of another batch size moves everything in that arena, and the
kept value is not computed again: after a resize every later result is wrong (measured on
TensorFlow 2.21 and LiteRT 2.3, errors of 1 to NaN). So in a subgraph with state tensors of a
dynamic size such an operator becomes a CAST, which computes at every invoke.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hintc.tflite.flatbuffer import Array, Operator, Subgraph
from hintc.tflite.schema import schema

_CAST_FLOAT16 = 5
"""First version of CAST that reads float16."""


def recompute_constants(subgraph: Subgraph) -> None:
    """Replaces each DEQUANTIZE of a constant, in place, by operators that run at each invoke."""
    operators: list[Operator] = []
    for op in subgraph.operators:
        if subgraph.model.op_name(op) == "DEQUANTIZE":
            operators += _recomputed(subgraph, op)
        else:
            operators.append(op)
    subgraph.operators = operators


def _recomputed(subgraph: Subgraph, op: Operator) -> list[Operator]:
    source, result = op.inputs[0], op.outputs[0]
    stored, real = subgraph.constant(source), subgraph.constant(result)
    if stored is None or real is None:
        return [op]
    if stored.dtype == np.float16:
        return [_cast(subgraph, source, result, _CAST_FLOAT16)]
    quantization = subgraph.tensor(source).quantization
    zero = quantization.zeroPoint
    if zero is not None and np.any(zero):
        # Rare (weights are quantised symmetrically): worth its float32 bytes, not more code.
        subgraph.tensor(result).buffer = subgraph.model.add_buffer(real)
        return []
    return _scaled(subgraph, stored, quantization, result)


def _scaled(subgraph: Subgraph, stored: Array, quantization: Any, result: int) -> list[Operator]:
    """CAST and MUL: `stored` times its scales into `result`."""
    scale = np.asarray(quantization.scale, np.float32)
    shape = [1] * stored.ndim
    if scale.size > 1:
        shape[quantization.quantizedDimension] = -1
    name = subgraph.tensor_name(result)
    # A copy without scales, so that no kernel takes it for a quantised tensor.
    plain = subgraph.add_constant(f"{name}/stored", stored)
    factor = subgraph.add_constant(f"{name}/scale", scale.reshape(shape))
    real = subgraph.add_tensor(f"{name}/cast", stored.shape)
    multiply = subgraph.make_op("MUL", [real, factor], [result], options="MulOptions")
    return [_cast(subgraph, plain, real, 1), multiply]


def _cast(subgraph: Subgraph, source: int, result: int, version: int) -> Operator:
    types = schema().TensorType
    return subgraph.make_op(
        "CAST",
        [source],
        [result],
        version=version,
        options="CastOptions",
        fields={"inDataType": subgraph.tensor(source).type, "outDataType": types.FLOAT32},
    )
