"""The integer kernel of UNIDIRECTIONAL_SEQUENCE_LSTM: int8 values and weights, int16 inside.

What `hintc.ops.sequence_lstm` is to real numbers this is to those of the kernel, bit by bit. Facts
from TensorFlow Lite: kernels/unidirectional_sequence_lstm.cc (PopulateQuantizedLstmParams8x8_16:
the scales; PrecomputeZeroPointTimesWeightWithBias), kernels/lstm_eval.cc (the 8x8_16 functions: the
order of steps) and kernels/internal/reference/portable_tensor_utils.cc (each step).

Gates are held in Q3.12 before their activation, in Q0.15 after it; with layer normalisation they
have scales of their own before it. The cell state's scale is a power of two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from hintc.ops.fixed_point import (
    Integers,
    Multiplier,
    quotient,
    saturated,
    shifted_right,
    sigmoid,
    tanh,
    wrapped,
)
from hintc.ops.quantized import Quantized, rescale
from hintc.ops.sequence_lstm import GATES, UNIDIRECTIONAL_SEQUENCE_LSTM
from hintc.ops.spec import AttributeValue

_Q3_12, _Q0_15 = 2.0**-12, 2.0**-15
_ONE = 32767
"""1 in Q0.15, for coupled gates."""
_GUARD = 10000
"""Times the scale of the coefficients: the variance of a row without any."""


def reference(
    operands: Mapping[str, Quantized],
    inside: Mapping[str, Quantized],
    attributes: Mapping[str, AttributeValue],
) -> dict[str, Integers]:
    """The kernel in numpy.

    Args:
        operands: by slot name, shaped as for `hintc.ops.sequence_lstm.reference`: matrices, input
            and output_state int8; peepholes, layer-norm coefficients and cell_state int16; biases
            int32. Both states must be there, with their scales.
        inside: the scales of the kernel's intermediate tensors: ``"hidden"``, the output before its
            projection, and with layer normalisation the four gates by name before it.
        attributes: as declared; missing ones have their defaults.

    Returns:
        output and final_output_state (int8 values, in the output state's scale) and
        final_cell_state (int16 values), shaped as the reference in real numbers has them.
    """
    attrs = UNIDIRECTIONAL_SEQUENCE_LSTM.checked_attributes(attributes)
    cell = _Cell(operands, inside, attrs)
    inputs = operands["input"].integers
    inputs = inputs if attrs["time_major"] else inputs.swapaxes(0, 1)
    h, c = operands["output_state"].integers, operands["cell_state"].integers
    outputs = np.zeros((*inputs.shape[:2], h.shape[-1]), np.int64)
    for step, x in enumerate(inputs):
        h, c = cell.step(x, h, c)
        outputs[step] = h
    return {
        "output": outputs if attrs["time_major"] else outputs.swapaxes(0, 1),
        "final_output_state": h,
        "final_cell_state": c,
    }


class _Cell:
    """One step of the kernel, with the scales that it has found beforehand in float32."""

    def __init__(
        self,
        operands: Mapping[str, Quantized],
        inside: Mapping[str, Quantized],
        attributes: Mapping[str, AttributeValue],
    ) -> None:
        self._operands, self._inside = operands, inside
        self._cell_exponent = round(math.log2(operands["cell_state"].scale))
        self._cell_clip = _clip(attributes["cell_clip"], operands["cell_state"], 16)
        self._proj_clip = _clip(attributes["proj_clip"], operands["output_state"], 8)

    def step(self, x: Integers, h: Integers, c: Integers) -> tuple[Integers, Integers]:
        """Both states after it; values int8 [batch, n_out] and int16 [batch, n_cell]."""
        gates = {
            gate: self._gate(gate, x, h, c)
            for gate in GATES[:3]
            if f"input_to_{gate}_weights" in self._operands
        }
        forget = sigmoid(gates["forget"])
        entered = sigmoid(gates["input"]) if "input" in gates else _ONE - forget
        made = entered * tanh(gates["cell"], 3)
        c = saturated(
            wrapped(shifted_right(forget * c, 15), 16)
            + wrapped(shifted_right(made, 30 + self._cell_exponent), 16),
            16,
        )
        c = _clipped(c, self._cell_clip)
        shown = tanh(c, 15 + self._cell_exponent)
        return self._output(sigmoid(self._gate("output", x, h, c)) * shown), c

    def _gate(self, gate: str, x: Integers, h: Integers, c: Integers) -> Integers:
        """A gate before its activation, in Q3.12."""
        norm = self._operands.get(f"{gate}_layer_norm_coefficients")
        bias = self._operands[f"{gate}_gate_bias"].integers
        scale = _Q3_12 if norm is None else self._inside[gate].scale
        z = np.zeros((len(x), len(bias)), np.int64)
        added: Integers | None = bias if norm is None else None
        for name, state, values in (("input", "input", x), ("recurrent", "output_state", h)):
            weights, source = self._operands[f"{name}_to_{gate}_weights"], self._operands[state]
            product = _product(values - source.zero_point, weights, added)
            z = saturated(z + rescale(weights, source, scale).times(product), 16)
            added = None
        peephole = self._operands.get(f"cell_to_{gate}_weights")
        if peephole is not None:
            factor = float(np.float32(2.0**self._cell_exponent * peephole.scale / scale))
            z = saturated(z + Multiplier.of(factor).times(peephole.integers * c), 16)
        return z if norm is None else _normalised(z, norm, bias)

    def _output(self, hidden: Integers) -> Integers:
        """The output, of the product of two values in Q0.15."""
        inside, state = self._inside["hidden"], self._operands["output_state"]
        hidden = Multiplier.of(float(np.float32(_Q0_15 / inside.scale * _Q0_15))).times(hidden)
        weights = self._operands.get("projection_weights")
        if weights is None:
            return saturated(hidden + inside.zero_point, 8)
        # the kernel subtracts the zero point where it should add it, and adds it with the bias
        hidden = saturated(hidden - inside.zero_point, 8) + inside.zero_point
        bias = self._operands.get("projection_bias")
        product = _product(hidden, weights, None if bias is None else bias.integers)
        projected = rescale(weights, inside, state.scale).times(product)
        return _clipped(saturated(projected + state.zero_point, 8), self._proj_clip)


def _product(x: Integers, weights: Quantized, bias: Integers | None) -> Integers:
    found = x @ weights.integers.T
    return found if bias is None else found + bias


def _normalised(z: Integers, norm: Quantized, bias: Integers) -> Integers:
    """Layer normalisation of int16 rows; Q3.12. The bias is in 1/1024 of the norm's scale."""
    count = z.shape[-1]
    mean = quotient(z.sum(-1) * 1024, count)
    # 2**20 // count is too small by up to count / 2**20
    variance = quotient((z * z).sum(-1) * ((1 << 20) // count) - mean * mean, 1 << 20)
    guard = max(1, int(np.float32(_GUARD) * np.float32(norm.scale)))
    scale = Multiplier.of(norm.scale).shifted(12)
    rows = []
    for row, middle, spread in zip(z, mean, variance, strict=True):
        root = Multiplier.inverse_root(int(spread) if spread >= 1 else guard)
        scaled = root.times(1024 * row - middle) * norm.integers + bias
        rounded = quotient(scaled + np.where(scaled > 0, 512, -512), 1024)
        rows.append(saturated(scale.times(rounded), 16))
    return np.array(rows)


def _clip(limit: AttributeValue, state: Quantized, bits: int) -> int:
    """A limit in steps of the state; 0 is none."""
    value = float(limit) if isinstance(limit, int | float) else 0.0
    if value <= 0:
        return 0
    return int(saturated(np.array(np.float32(value) / np.float32(state.scale)), bits))


def _clipped(values: Integers, limit: int) -> Integers:
    """Around the integer 0, whatever the zero point is."""
    return np.clip(values, -limit, limit) if limit > 0 else values
