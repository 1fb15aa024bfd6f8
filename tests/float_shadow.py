"""A quantised .tflite model with the same operators on float32: what its wiring computes.

Rounding hides wrong wiring. The shadow of a model has the weights that its file has, as real
numbers, and no other rounding, so that it can be compared with the source closely.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hintc.tflite.flatbuffer import Array, Model, Subgraph
from hintc.tflite.schema import schema

_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")


def float_shadow(tflite: bytes) -> bytes:
    """The model with float32 instead of each quantised or float16 tensor; its ends too."""
    model = Model.read(tflite)
    for subgraph in model.subgraphs:
        for index in range(len(subgraph.graph.tensors)):
            _make_float(subgraph, index)
        _remove_conversions(subgraph)
        for op in subgraph.operators:
            op.intermediates = []
            for table in (op.builtinOptions, op.builtinOptions2):
                if hasattr(table, "asymmetricQuantizeInputs"):
                    table.asymmetricQuantizeInputs = False
    return model.write()


def _make_float(subgraph: Subgraph, index: int) -> None:
    tensor, dtype = subgraph.tensor(index), subgraph.dtype(index)
    quantization = tensor.quantization
    scaled = quantization is not None and quantization.scale is not None
    half = dtype == np.float16
    if not half and not (scaled and len(quantization.scale) and dtype != np.float32):
        return
    stored = subgraph.constant(index)
    if stored is not None:
        real = stored if half else _real(stored, quantization)
        tensor.buffer = subgraph.model.add_buffer(np.asarray(real, np.float32))
    tensor.type, tensor.quantization = schema().TensorType.FLOAT32, None


def _real(stored: Array, quantization: Any) -> Array:
    scale: Array = np.asarray(quantization.scale, np.float32)
    zero: Array = np.asarray(quantization.zeroPoint, np.float32)
    if scale.size > 1:
        shape = [1] * stored.ndim
        shape[quantization.quantizedDimension] = -1
        scale, zero = scale.reshape(shape), np.resize(zero, scale.shape).reshape(shape)
    real: Array = (stored.astype(np.float32) - zero) * scale
    return real


def _remove_conversions(subgraph: Subgraph) -> None:
    """Reads what a QUANTIZE or DEQUANTIZE reads, instead of its result."""
    same: dict[int, int] = {}
    kept = []
    for op in subgraph.operators:
        op.inputs = [same.get(tensor, tensor) for tensor in op.inputs]
        result = int(op.outputs[0]) if op.outputs else -1
        inner = result >= 0 and not subgraph.tensor(result).isVariable
        if subgraph.model.op_name(op) in _CONVERSIONS and inner:
            same[result] = op.inputs[0]
        else:
            kept.append(_copied(subgraph, op))
    subgraph.operators = kept
    subgraph.graph.outputs = [same.get(tensor, tensor) for tensor in subgraph.graph.outputs]
    for signature in subgraph.model.root.signatureDefs or []:
        for entry in signature.outputs if subgraph is subgraph.model.subgraphs[0] else []:
            entry.tensorIndex = same.get(entry.tensorIndex, entry.tensorIndex)


def _copied(subgraph: Subgraph, op: Any) -> Any:
    """A QUANTIZE that writes a state is a copy."""
    if subgraph.model.op_name(op) not in _CONVERSIONS:
        return op
    kind = schema().TensorType.FLOAT32
    fields = {"inDataType": kind, "outDataType": kind}
    return subgraph.make_op("CAST", op.inputs, op.outputs, options="CastOptions", fields=fields)
