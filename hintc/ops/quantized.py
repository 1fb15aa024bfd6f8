"""Integers that stand for real numbers, and the factor between two of their scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hintc.ops.fixed_point import Integers, Multiplier


@dataclass(frozen=True)
class Quantized:
    """Integers that stand for ``scale * (values - zero_point)``.

    Args:
        values: any integer type; empty where only the scale counts.
        scale: as the model has it, a float32.
        zero_point: 0 for weights.
    """

    values: npt.NDArray[np.integer]
    scale: float
    zero_point: int = 0

    @property
    def integers(self) -> Integers:
        """The values in 64 bits."""
        return self.values.astype(np.int64)


def rescale(weights: Quantized, source: Quantized, target: float) -> Multiplier:
    """From the scale of a product to another; in float32, as the kernels do."""
    product = np.float32(weights.scale) * np.float32(source.scale)
    return Multiplier.of(float(product / np.float32(target)))
