"""MyConv in numpy: what the op computes, and a kernel for it."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Array = npt.NDArray[np.float32]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "Relu": lambda y: np.maximum(y, 0),
    "Relu6": lambda y: np.clip(y, 0, 6),
    "Tanh": np.tanh,
}


def my_conv(
    x: Array, filter: Array, bias: Array, *, strides: tuple[int, int], padding: str, activation: str
) -> Array:
    """activation(convolution of x with filter + bias).

    Args:
        x: float32 [batch, height, width, in].
        filter: float32 [rows, columns, in / groups, out].
        bias: float32 [out].
        strides: down and to the right.
        padding: SAME or VALID.
        activation: one of `ACTIVATIONS`.
    """
    rows, columns, channels, _ = filter.shape
    if padding == "SAME":
        down, right = _same(x.shape[1], rows, strides[0]), _same(x.shape[2], columns, strides[1])
        x = np.pad(x, ((0, 0), down, right, (0, 0)))
    windows = sliding_window_view(x, (rows, columns), axis=(1, 2))[:, :: strides[0], :: strides[1]]
    groups = x.shape[3] // channels
    parts = zip(np.split(windows, groups, 3), np.split(filter, groups, 3), strict=True)
    sums = [np.tensordot(part, weights.transpose(2, 0, 1, 3), 3) for part, weights in parts]
    return ACTIVATIONS[activation](np.concatenate(sums, 3) + bias)


def _same(size: int, window: int, stride: int) -> tuple[int, int]:
    """What padding SAME adds before and after."""
    added = max((-(-size // stride) - 1) * stride + window - size, 0)
    return added // 2, added - added // 2
