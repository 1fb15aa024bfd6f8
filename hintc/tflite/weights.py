"""Smaller weights for fused kernels: symmetric int8, or float16 behind DEQUANTIZE."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hintc.ops import BuiltinLowering
from hintc.ops.arithmetic import symmetric_int8
from hintc.tflite.call import FusedCall
from hintc.tflite.flatbuffer import Operator, Subgraph
from hintc.tflite.schema import schema

_DEQUANTIZE_FLOAT16 = 3
"""First version of DEQUANTIZE that reads float16."""

Float = npt.NDArray[np.float32]


class WeightStore:
    """The smaller copies of one subgraph's constants, made once each."""

    def __init__(self, subgraph: Subgraph) -> None:
        self._subgraph = subgraph
        self._int8: dict[int, int] = {}
        self._float16: dict[int, int] = {}

    def to_int8(self, lowering: BuiltinLowering, operands: dict[str, int]) -> str | None:
        """Replaces the weights among `operands` by int8 copies, all or none.

        Returns:
            Why none was replaced; None on success. The kernel cannot take some of them as int8
            and others as float.
        """
        slots = sorted(lowering.int8 & operands.keys())
        values = {slot: self._subgraph.constant(operands[slot]) for slot in slots}
        for slot, value in values.items():
            if value is None:
                return f"operand '{slot}' is not a constant"
            if not np.isfinite(value).all():
                return f"operand '{slot}' holds values that are not finite"
        for slot, value in values.items():
            operands[slot] = self._int8_copy(operands[slot], np.asarray(value, np.float32))
        return None

    def to_float16(
        self, call: FusedCall, operands: dict[str, int]
    ) -> tuple[list[Operator], list[str]]:
        """Replaces constant float32 operands by float16 ones behind DEQUANTIZE.

        Those already behind a DEQUANTIZE stay, as do values beyond float16's range. Returns the
        new operators, to be placed before the call, and what stayed float32 and why.
        """
        kept: list[str] = []
        made: list[Operator] = []
        states = {slot.name for slot in call.fused.operands if slot.kind == "state"}
        for slot, index in operands.items():
            value = self._subgraph.constant(index)
            if slot in states or value is None or value.dtype != np.float32:
                continue
            if self._subgraph.producer(index) is not None or value.size == 0:
                continue
            if float(np.abs(value).max()) > float(np.finfo(np.float16).max):
                kept.append(f"operand '{slot}' is beyond float16's range")
                continue
            if index not in self._float16:
                made.append(self._float16_copy(index, value.astype(np.float16)))
            operands[slot] = self._float16[index]
        return made, kept

    def _int8_copy(self, index: int, value: Float) -> int:
        if index not in self._int8:
            stored, scale = symmetric_int8(value)
            name = f"{self._subgraph.tensor_name(index)}_int8"
            copy = self._subgraph.add_constant(name, stored)
            self._subgraph.tensor(copy).quantization = _quantization(scale)
            self._int8[index] = copy
        return self._int8[index]

    def _float16_copy(self, index: int, value: npt.NDArray[np.float16]) -> Operator:
        graph, name = self._subgraph, self._subgraph.tensor_name(index)
        stored = graph.add_constant(f"{name}_float16", value)
        self._float16[index] = graph.add_tensor(f"{name}_dequantized", value.shape)
        return graph.make_op(
            "DEQUANTIZE",
            [stored],
            [self._float16[index]],
            version=_DEQUANTIZE_FLOAT16,
            options="DequantizeOptions",
        )


def _quantization(scale: float) -> Any:
    parameters = schema().QuantizationParametersT()
    parameters.scale = [scale]
    parameters.zeroPoint = [0]
    return parameters
