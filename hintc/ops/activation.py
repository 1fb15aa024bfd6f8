"""The activations that fused kernels know, in numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hintc.errors import HintcError

Array = npt.NDArray[np.float64]

ACTIVATIONS = ("NONE", "RELU", "RELU6", "TANH")
"""Names from the schema's ActivationFunctionType that the recurrent kernels take."""


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def activate(name: str, x: Array) -> Array:
    """The activation called `name` of `x`, element by element; `HintcError` if unknown."""
    if name == "NONE":
        return x
    if name == "RELU":
        return np.maximum(x, 0.0)
    if name == "RELU6":
        return np.clip(x, 0.0, 6.0)
    if name == "TANH":
        return np.asarray(np.tanh(x))
    raise HintcError(f"unknown activation '{name}'", why="known: " + ", ".join(ACTIVATIONS))
