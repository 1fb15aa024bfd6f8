"""Arithmetic of the numpy references: exact, or with int8 weights as TensorFlow Lite's kernels do.

The scheme is that of kernels/internal/tensor_utils (SymmetricQuantizeFloats and
AsymmetricQuantizeFloats) and of lite/kernels/lstm_eval.cc: one scale for a weight tensor, one for
each row of what multiplies it, found anew at every step; sums in integers, all else in float.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Float = npt.NDArray[np.float32]

INT8_MAX = 127
"""Symmetric: -128 is not used, so that a product of two values cannot overflow the kernel's."""
_LEVELS = 255
_LOWEST = -128


def symmetric_int8(values: Float) -> tuple[npt.NDArray[np.int8], float]:
    """Per-tensor symmetric quantisation: ``values ~ scale * q``, q in [-127, 127].

    The scale of an all-zero tensor is 1 (a scale of 0 is not a legal one).
    """
    largest = float(np.abs(values).max(initial=0.0))
    scale = float(np.float32(largest / INT8_MAX))
    if scale == 0.0:
        return np.zeros(values.shape, np.int8), 1.0
    rounded = np.clip(np.rint(values / np.float32(scale)), -INT8_MAX, INT8_MAX)
    return rounded.astype(np.int8), scale


class Exact:
    """Real numbers, in float64."""

    def weight(self, value: Array) -> Array:
        """A weight that multiplies element by element, as the kernel sees it."""
        return value

    def product(self, x: Array, weights: Array) -> Array:
        """``x weights^T``: [batch, n] with [m, n] to [batch, m]."""
        return np.asarray(x @ weights.T)


class Hybrid(Exact):
    """int8 weights and float inputs, whose rows the kernel quantises too.

    Args:
        asymmetric: rows have a zero point (the option ``asymmetric_quantize_inputs``).

    Attributes:
        margin: how near a quantised value came to a tie of rounding, in steps of its scale: 0 to
            0.5. The kernel's float32 may fall on the other side of a tie that is nearer than its
            own rounding errors (about 1e-5), and then differs by one step.
    """

    def __init__(self, asymmetric: bool = False) -> None:
        self.asymmetric = asymmetric
        self.margin = 0.5

    def weight(self, value: Array) -> Array:
        """The weight after quantisation."""
        stored, scale = symmetric_int8(value.astype(np.float32))
        return stored.astype(np.float64) * scale

    def product(self, x: Array, weights: Array) -> Array:
        """``x weights^T`` of what both are after quantisation, a scale for each row of x."""
        scales, zeros = (self._asymmetric if self.asymmetric else self._symmetric)(x)
        steps = x.astype(np.float32) * (np.float32(1) / scales) + zeros
        self.margin = min(self.margin, float(np.abs(steps - np.floor(steps) - 0.5).min()))
        lowest = _LOWEST if self.asymmetric else -INT8_MAX
        stored = np.clip(np.trunc(steps + np.copysign(0.5, steps)), lowest, INT8_MAX)
        return np.asarray((stored - zeros) * scales.astype(np.float64) @ self.weight(weights).T)

    def _symmetric(self, x: Array) -> tuple[Float, Float]:
        """Scale and zero point of each row, [batch, 1]."""
        largest = np.abs(x).max(-1, keepdims=True).astype(np.float32)
        scales = np.where(largest == 0, np.float32(1), largest / np.float32(INT8_MAX))
        return scales.astype(np.float32), np.zeros_like(scales)

    def _asymmetric(self, x: Array) -> tuple[Float, Float]:
        low = np.minimum(x.astype(np.float32).min(-1, keepdims=True), 0).astype(np.float64)
        high = np.maximum(x.astype(np.float32).max(-1, keepdims=True), 0).astype(np.float64)
        scales = np.where(high == low, 1.0, (high - low) / _LEVELS)
        # The zero point is derived from the end of the range that is nearer to zero.
        from_low = _LOWEST - low / scales
        from_high = INT8_MAX - high / scales
        nearer = np.abs(_LOWEST) + np.abs(low / scales) < INT8_MAX + np.abs(high / scales)
        zeros = np.clip(np.rint(np.where(nearer, from_low, from_high)), _LOWEST, INT8_MAX)
        return scales.astype(np.float32), np.where(high == low, 0, zeros).astype(np.float32)


EXACT = Exact()
