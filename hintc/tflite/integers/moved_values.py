"""Operators that only move int8 values must not change their scale.

Their kernels copy. The quantiser nevertheless gives some of them, REVERSE_V2 before a CONCATENATION
for one, another scale behind than before, and every value is silently wrong by the ratio. There a
QUANTIZE converts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hintc.ops import Target
from hintc.tflite.flatbuffer import Model, Operator, Subgraph
from hintc.tflite.integers.ranges import Range, Ranges, joint, range_of
from hintc.tflite.integers.written_through import written_through

_MOVED = {
    **dict.fromkeys(("REVERSE_V2", "TRANSPOSE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS"), 0),
    **dict.fromkeys(("SLICE", "STRIDED_SLICE", "GATHER", "GATHER_ND", "UNPACK", "SPLIT_V"), 0),
    **dict.fromkeys(("TILE", "BROADCAST_TO", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE"), 0),
    **dict.fromkeys(("BATCH_TO_SPACE_ND", "SPACE_TO_BATCH_ND"), 0),
    "SPLIT": 1,
}
"""Operators that copy values -> which operand has them."""
_JOINED = ("CONCATENATION", "PACK")
"""Operators that put their operands beside each other."""
_MOVED_IN_MICRO = {**_MOVED, "RELU6": 0}
"""In TFLite Micro: its micro/kernels/activations.cc clips at the input's 6, and copies the rest."""


def moved_ranges(model: Model, ranges: Ranges) -> Ranges:
    """The ranges of what such operators read, for their results too; joined ones for joined values.

    The quantiser gives both ends one scale, and takes it from either. By that of a single result, a
    step of a sequence or a few words of a table, all else that the operand holds would be clipped.

    Args:
        model: legalised, in float.
        ranges: what was measured.

    Returns:
        The new ranges of the results.
    """
    found: Ranges = {}
    for number, subgraph in enumerate(model.subgraphs):
        for op in subgraph.operators:
            moved = [
                found.get((number, t)) or ranges.get((number, t)) or _range_of_constant(subgraph, t)
                for t in _moved_operands(subgraph, op)
            ]
            results = [(number, int(result)) for result in op.outputs]
            if moved and None not in moved:
                found |= dict.fromkeys((r for r in results if r in ranges), joint(*moved))
    return found


def _moved_operands(subgraph: Subgraph, op: Operator) -> list[int]:
    name = subgraph.model.op_name(op)
    if name in _JOINED:
        return list(op.inputs)
    return [op.inputs[_MOVED[name]]] if name in _MOVED else []


def _range_of_constant(subgraph: Subgraph, tensor: int) -> Range | None:
    value = subgraph.constant(tensor)
    return None if value is None or value.dtype != np.float32 else range_of(value)


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
                operators.append(
                    written_through(subgraph, op, number, "moved", "QUANTIZE", "QuantizeOptions")
                )
                moved_to = subgraph.tensor(op.outputs[number])
                moved_to.quantization = subgraph.tensor(source).quantization
    added = len(operators) - len(subgraph.operators)
    subgraph.operators = operators
    return added


def _scale(subgraph: Subgraph, tensor: int) -> tuple[list[float], list[int]]:
    quantization = subgraph.tensor(tensor).quantization
    return (
        [float(scale) for scale in quantization.scale],
        [int(zero) for zero in quantization.zeroPoint],
    )
