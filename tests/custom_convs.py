"""Models with hinted convolutions of the user's own, and the numpy kernel for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

import hintc
from hintc.convert import Converted
from hinted_graphs import HintedModel, freeze, placeholder

v1 = tf.compat.v1
Array = npt.NDArray[Any]

ACTIVATIONS = {"NONE": lambda x: x, "RELU": tf.nn.relu, "TANH": tf.tanh}


def my_conv(
    x: Array,
    filters: Array,
    bias: Array | None = None,
    *,
    strides: Any,
    padding: str,
    activation: str,
) -> Array:
    """y = activation(conv(x, filters) + bias); NHWC and HWIO, as TensorFlow's conv2d."""
    height, width = filters.shape[:2]
    if padding == "SAME":
        pads = [
            max((-(-size // stride) - 1) * stride + window - size, 0)
            for size, stride, window in zip(x.shape[1:3], strides, (height, width), strict=True)
        ]
        x = np.pad(x, ((0, 0), *((p // 2, p - p // 2) for p in pads), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (height, width), axis=(1, 2))
    y = np.einsum("nhwcij,ijco->nhwo", windows[:, :: strides[0], :: strides[1]], filters)
    y = y if bias is None else y + bias
    if activation == "NONE":
        return np.asarray(y)
    return np.asarray(np.tanh(y) if activation == "TANH" else np.maximum(y, 0))


KERNELS = {"MyConv": my_conv}


def hinted_conv(
    x: Any,
    channels: int,
    strides: tuple[int, int],
    padding: str,
    activation: str,
    bias: bool = True,
) -> Any:
    """One hinted convolution in the graph."""
    hint = hintc.OpHint("MyConv", strides=strides, padding=padding, activation=activation)
    name = f"conv{len(v1.global_variables())}"
    filters = v1.get_variable(f"{name}/filters", [3, 2, int(x.shape[-1]), channels])
    y = tf.nn.conv2d(hint.add_input(x), hint.add_input(filters), strides, padding)
    # operand 2 is left out, not moved up, without a bias
    if bias:
        y = y + hint.add_input(v1.get_variable(f"{name}/bias", [channels]), index_override=2)
    return hint.add_output(ACTIVATIONS[activation](y))


def single(batch: int | None = None, channels: int = 5, **options: Any) -> list[Any]:
    """Built-in operators on both sides of one convolution."""
    x = tf.tanh(placeholder([batch, 9, 8, 3]))
    y = hinted_conv(
        x, 5, **({"strides": (2, 1), "padding": "SAME", "activation": "RELU"} | options)
    )
    return [tf.reduce_mean(tf.exp(0.1 * y), [1], name="y")]


def several(batch: int | None = None) -> list[Any]:
    """Two in a row, one beside a built-in, without a bias, and an inner value as output."""
    x = placeholder([batch, 9, 8, 3])
    a = hinted_conv(x, 4, (1, 2), "VALID", "TANH")
    b = hinted_conv(a, 6, (2, 1), "SAME", "NONE", bias=False)
    c = hinted_conv(tf.nn.relu(b), 2, (1, 1), "SAME", "RELU")
    return [tf.identity(a, name="a"), tf.add(c, tf.reduce_max(b, 3, True), name="y")]


def converted(build: Any, **options: Any) -> tuple[HintedModel, Converted]:
    """A model frozen, and converted by hintc."""
    model = freeze(build)
    return model, hintc.convert(model.graph_def, list(model.inputs), model.outputs, **options)
