"""Convolutions and matrix products with bias and activation in one: built-in, and as CUSTOM ops.

Filters come as TensorFlow has them: [height, width, in, out], depthwise [height, width, in,
multiplier], matrices [in, out]. The built-in kernels want other layouts (tensorflow/lite/kernels:
conv.cc, depthwise_conv.cc, fully_connected.cc): [out, height, width, in], [1, height, width,
in · multiplier] and [out, in]; the bias is always there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hintc.ops.fused_op import (
    AttributeSpec,
    BuiltinLowering,
    Constraint,
    Dims,
    FusedOp,
    OperandSlot,
    Use,
)
from hintc.ops.spec import AttributeValue

BUILTIN_ACTIVATIONS = ("NONE", "RELU", "RELU6")
"""What the built-in kernels compute; for others they compute none, silently."""
ACTIVATIONS = (*BUILTIN_ACTIVATIONS, "TANH", "SIGMOID", "ELU", "SELU", "SOFTPLUS", "HARD_SWISH")

_ACTIVATION = {"activation": AttributeSpec(str, "NONE", ACTIVATIONS)}
_WINDOW = {
    "padding": AttributeSpec(str, "VALID", ("SAME", "VALID")),
    "stride_h": AttributeSpec(int, 1),
    "stride_w": AttributeSpec(int, 1),
    "dilation_h": AttributeSpec(int, 1),
    "dilation_w": AttributeSpec(int, 1),
    **_ACTIVATION,
}
_WINDOW_FIELDS = {
    "padding": "padding",
    "stride_h": "strideH",
    "stride_w": "strideW",
    "dilation_h": "dilationHFactor",
    "dilation_w": "dilationWFactor",
    "activation": "fusedActivationFunction",
}
_ENUMS = {"padding": "Padding", "activation": "ActivationFunctionType"}
_INPUT = OperandSlot("input")
_FILTER, _BIAS = OperandSlot("filter", "weight"), OperandSlot("bias", "bias")


def _is_builtin_activation(use: Use) -> bool:
    return use.attributes["activation"] in BUILTIN_ACTIVATIONS


_KNOWN_ACTIVATION = Constraint("the kernel has no such activation", _is_builtin_activation)


def _windows(shapes: Mapping[str, Dims], attributes: Mapping[str, AttributeValue]) -> tuple[Dims]:
    """[batch, height, width, channels] of a convolution; all sizes but the filter's may be open."""
    source, kernel = shapes["input"], shapes["filter"]
    if source is None or kernel is None:
        return (None,)
    sizes = [
        _steps(source[at + 1], kernel[at], attributes, axis) for at, axis in enumerate(("h", "w"))
    ]
    return ((source[0], *sizes, -1),)


def _steps(size: int, width: int, attributes: Mapping[str, AttributeValue], axis: str) -> int:
    stride, dilation = attributes[f"stride_{axis}"], attributes[f"dilation_{axis}"]
    assert isinstance(stride, int)
    assert isinstance(dilation, int)
    if size < 0:
        return -1
    lost = 0 if attributes["padding"] == "SAME" else (width - 1) * dilation
    return -(-(size - lost) // stride)


CONV_2D = FusedOp(
    "CONV_2D",
    (_INPUT, _FILTER, _BIAS),
    ("output",),
    _WINDOW,
    BuiltinLowering(
        "CONV_2D",
        "Conv2DOptions",
        _WINDOW_FIELDS,
        lambda hybrid: 1,
        _ENUMS,
        stored={"filter": lambda array: np.transpose(array, (3, 0, 1, 2))},
    ),
    (_KNOWN_ACTIVATION,),
    doc="activation(convolution of input with filter + bias)",
    shapes=_windows,
)

DEPTHWISE_CONV_2D = FusedOp(
    "DEPTHWISE_CONV_2D",
    (_INPUT, _FILTER, _BIAS),
    ("output",),
    {**_WINDOW, "multiplier": AttributeSpec(int)},
    BuiltinLowering(
        "DEPTHWISE_CONV_2D",
        "DepthwiseConv2DOptions",
        {**_WINDOW_FIELDS, "multiplier": "depthMultiplier"},
        lambda hybrid: 2,  # knows dilations
        _ENUMS,
        stored={"filter": lambda array: array.reshape(1, *array.shape[:2], -1)},
    ),
    (_KNOWN_ACTIVATION,),
    doc="activation(convolution of each channel of input with its own filters + bias)",
    shapes=_windows,
)

FULLY_CONNECTED = FusedOp(
    "FULLY_CONNECTED",
    (_INPUT, _FILTER, _BIAS),
    ("output",),
    _ACTIVATION,
    BuiltinLowering(
        "FULLY_CONNECTED",
        "FullyConnectedOptions",
        {"activation": "fusedActivationFunction"},
        lambda hybrid: 1,
        _ENUMS,
        stored={"filter": np.transpose},
    ),
    (_KNOWN_ACTIVATION,),
    doc="activation(input · filter + bias)",
)


def _custom(name: str, builtin: FusedOp, **more: Any) -> FusedOp:
    bias = OperandSlot("bias", "bias", optional=True)
    return FusedOp.custom(
        name,
        operands=(_INPUT, _FILTER, bias),
        attributes=builtin.attributes,
        doc=builtin.doc,
        shapes=builtin.shapes,
        **more,
    )


FUSED_CONV_2D = _custom("FusedConv2D", CONV_2D)
FUSED_DEPTHWISE_CONV_2D = _custom("FusedDepthwiseConv2D", DEPTHWISE_CONV_2D)
FUSED_MAT_MUL = _custom("FusedMatMul", FULLY_CONNECTED)
