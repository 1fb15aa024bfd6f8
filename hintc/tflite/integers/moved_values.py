"""Operators that only move int8 values must not change their scale.

Their kernels copy. The quantiser nevertheless gives some of them, REVERSE_V2 before a CONCATENATION
for one, another scale behind than before, and every value is silently wrong by the ratio. There a
QUANTIZE converts.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np

from hintc.ops import Target
from hintc.tflite.flatbuffer import Model, Operator, Subgraph

_MOVED = {
    **dict.fromkeys(("REVERSE_V2", "TRANSPOSE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS"), 0),
    **dict.fromkeys(("SLICE", "STRIDED_SLICE", "GATHER", "GATHER_ND", "UNPACK", "SPLIT_V"), 0),
    **dict.fromkeys(("TILE", "BROADCAST_TO", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE"), 0),
    **dict.fromkeys(("BATCH_TO_SPACE_ND", "SPACE_TO_BATCH_ND"), 0),
    "SPLIT": 1,
}
"""Operators that copy values -> which operand has them."""
_MOVED_IN_MICRO = {**_MOVED, "RELU6": 0}
"""In TFLite Micro: its micro/kernels/activations.cc clips at the input's 6, and copies the rest."""


def requantise_moved_values(model: Model, target: Target) -> int:
    """Puts a QUANTIZE behind each such operator whose scale changes; returns how many.

    Args:
        model: quantised; is changed.
        target: what shall run it.
    """
    moved = _MOVED_IN_MICRO if target == "tflm" else _MOVED
    return sum(_requantise(subgraph, moved) for subgraph in model.subgraphs)


def _requantise(subgraph: Subgraph, moved: Mapping[str, int]) -> int:
    operators: list[Operator] = []
    for op in subgraph.operators:
        operators.append(op)
        place = moved.get(subgraph.model.op_name(op))
        if place is None or subgraph.dtype(op.inputs[place]) != np.int8:
            continue
        source = op.inputs[place]
        for number, result in enumerate(op.outputs):
            if _scale(subgraph, result) != _scale(subgraph, source):
                made = copy.copy(subgraph.tensor(result))
                made.name = f"{subgraph.tensor_name(result)}/moved".encode()
                made.quantization = subgraph.tensor(source).quantization
                subgraph.graph.tensors.append(made)
                op.outputs[number] = len(subgraph.graph.tensors) - 1
                operators.append(
                    subgraph.make_op(
                        "QUANTIZE", [op.outputs[number]], [result], options="QuantizeOptions"
                    )
                )
    added = len(operators) - len(subgraph.operators)
    subgraph.operators = operators
    return added


def _scale(subgraph: Subgraph, tensor: int) -> tuple[list[float], list[int]]:
    quantization = subgraph.tensor(tensor).quantization
    return (
        [float(scale) for scale in quantization.scale],
        [int(zero) for zero in quantization.zeroPoint],
    )
