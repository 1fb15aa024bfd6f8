"""fuse-conv: a convolution or matrix product, its bias and its activation become one call.

Recognises Conv2D, DepthwiseConv2dNative and MatMul with constant float32 weights; then, as far as
they are there, BiasAdd or Add of a constant with one number for each channel, and an activation. In
a Conv1D, which TensorFlow writes as a Conv2D between ExpandDims and Squeeze, the Squeeze is moved
behind bias and activation first, which changes no value; and a Pad that adds what padding SAME
would add becomes that padding.

Makes, with ``emit=builtin``, a call of CONV_2D, DEPTHWISE_CONV_2D or FULLY_CONNECTED with the
activation in it; with ``emit=custom`` one of FusedConv2D, FusedDepthwiseConv2D or FusedMatMul, for
which whoever runs the model brings kernels.

Leaves alone, with a remark: channels in front (NCHW), explicit paddings, activations that the
built-in kernels do not have, and, with ``emit=builtin``, models whose weights are to be quantised,
which TensorFlow's converter does for its own operators only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from hintc.call_graph import needed_graphs
from hintc.graphdef.shapes import infer_shapes
from hintc.ir import DType, Module, Node, Port, Shape
from hintc.ops import FusedOp, Target
from hintc.ops.convolution import (
    BUILTIN_ACTIVATIONS,
    CONV_2D,
    DEPTHWISE_CONV_2D,
    FULLY_CONNECTED,
    FUSED_CONV_2D,
    FUSED_DEPTHWISE_CONV_2D,
    FUSED_MAT_MUL,
)
from hintc.pattern import Match, OpBuilder
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Emitter, Pass, Refused, RewritePass
from hintc_passes.analysis.channels import LINEAR_OPS, Channels, data_format

_OPS: dict[str, tuple[FusedOp, FusedOp]] = {
    "Conv2D": (CONV_2D, FUSED_CONV_2D),
    "DepthwiseConv2dNative": (DEPTHWISE_CONV_2D, FUSED_DEPTHWISE_CONV_2D),
    "MatMul": (FULLY_CONNECTED, FUSED_MAT_MUL),
}
"""The built-in op and the custom one of each op of TensorFlow."""
_ACTIVATIONS = {
    "Relu": "RELU",
    "Relu6": "RELU6",
    "Tanh": "TANH",
    "Sigmoid": "SIGMOID",
    "Elu": "ELU",
    "Selu": "SELU",
    "Softplus": "SOFTPLUS",
}
_WINDOWED = ("Conv2D", "DepthwiseConv2dNative")
_ADDS = ("Add", "AddV2", "BiasAdd")


@register
@dataclass(frozen=True)
class FuseConv(Pass):
    """Makes one call of a convolution or matrix product, its bias and its activation.

    Attributes:
        emit: ``builtin``: TFLite's own operators; ``custom``: ones under names of their own.
        target: what shall run the model.
        quantize: how the weights will be stored.
    """

    name: ClassVar[str] = "fuse-conv"
    emit: Literal["builtin", "custom"] = "builtin"
    target: Target = "tflite"
    quantize: str | None = None

    def run(self, module: Module) -> PassReport:
        """First let Conv1D look like Conv2D, then fuse."""
        report = PassReport()
        if self.emit == "builtin" and self.quantize is not None:
            report.note(
                "conv-quantised",
                "",
                "convolutions are left to TensorFlow's converter, which fuses and quantises them",
                "Use emit=custom if your own kernels shall get them, in float32.",
            )
            return report
        rules = (
            _FoldPads(_padded_shapes(module)),
            _SinkSqueeze(),
            _Fuse(emit=self.emit, target=self.target),
        )
        for rule in rules:
            found = rule.run(module)
            if found.changed:
                report.count(rule.name, found.counts["rewritten"])
            report.remarks.extend(found.remarks)
            report.near_misses.extend(found.near_misses)
        return report


@dataclass(frozen=True)
class _FoldPads(RewritePass):
    """A convolution of what is padded with zeros as SAME would is one with padding SAME."""

    name: ClassVar[str] = "paddings folded"
    shapes: Mapping[Port, Shape] = field(default_factory=dict)

    def pattern(self, op: OpBuilder, x: Any) -> Any:
        """TensorFlow pads with zeros in Pad; PadV2 may pad with anything."""
        padded = op.Pad(x, op.constant(as_="paddings"))
        kernel = op.constant(as_="filter")
        return op[_WINDOWED](padded, kernel, padding="VALID", data_format="NHWC", as_="linear")

    def accept(self, match: Match) -> Refused | None:
        """With a stride of 1 it is the same for all sizes; else the sizes must be known."""
        linear, paddings = match.node("linear"), match.constant("paddings")
        channels = Channels.of(linear)
        shape = self.shapes.get(match["x"], Shape(None)).dims
        sizes = shape[1:3] if shape is not None and len(shape) == 4 else (-1, -1)
        window = _window(linear)
        given = np.zeros((4, 2)) if paddings is None else paddings
        if channels is not None and not given[[0, 3]].any():
            same = [
                _same_padding(size, width, window, axis)
                for size, width, axis in zip(sizes, channels.weights.shape[:2], "hw", strict=True)
            ]
            if [tuple(row) for row in given[1:3].tolist()] == same:
                return None
        return Refused("conv-pad-stays", "the Pad before it is not what padding SAME would add")

    def rewrite(self, match: Match, new: Emitter) -> Node:
        """The convolution, with its own padding."""
        linear = match.node("linear")
        attributes = {**dict(linear.attributes.items()), "padding": b"SAME"}
        return new.add(linear.op, [match["x"], match["filter"]], attributes)


def _same_padding(
    size: int, width: int, window: Mapping[str, object], axis: str
) -> tuple[int, int] | None:
    """What SAME adds before and after (tensorflow/core/framework/common_shape_fns.cc)."""
    stride, dilation = window[f"stride_{axis}"], window[f"dilation_{axis}"]
    assert isinstance(stride, int)
    assert isinstance(dilation, int)
    lost = (width - 1) * dilation
    if stride > 1:
        if size < 0:
            return None
        lost = max((-(-size // stride) - 1) * stride + lost + 1 - size, 0)
    return lost // 2, lost - lost // 2


def _padded_shapes(module: Module) -> dict[Port, Shape]:
    """Shapes of what is padded before a convolution, all at once."""
    found: dict[Port, Shape] = {}
    for graph in needed_graphs(module):
        padded = [n.operands[0].node for n in graph if n.op in _WINDOWED]
        found.update(infer_shapes(module, graph, [p.operands[0] for p in padded if p.op == "Pad"]))
    return found


@dataclass(frozen=True)
class _SinkSqueeze(RewritePass):
    """``f(squeeze(conv))`` is ``squeeze(f(conv))`` for a bias by channel and an activation."""

    name: ClassVar[str] = "squeezes moved"

    def pattern(self, op: OpBuilder, x: Any) -> Any:
        """One step at a time: the bias, then the activation."""
        conv = op[_WINDOWED](x, op.constant(as_="filter"), as_="linear")
        bias, inner = op.constant(as_="bias"), op.constant(as_="inner_bias")
        value = op.optional(lambda v: op[_ADDS](v, inner, as_="inner_add"), conv)
        squeezed = op.Squeeze(value, as_="squeeze")
        return op.any_of(
            op[tuple(_ACTIVATIONS)](squeezed, as_="step"), op[_ADDS](squeezed, bias, as_="step")
        )

    def accept(self, match: Match) -> Refused | None:
        """The squeezed axes must not be the channels', nor the bias more than one by channel."""
        channels = Channels.of(match.node("linear"))
        squeezed = None if channels is None else channels.squeezed(match.node("squeeze"))
        if squeezed is None or not _fits(match, "bias", squeezed):
            return Refused("not-by-channel", "it is not one number for each channel")
        return None

    def rewrite(self, match: Match, new: Emitter) -> Node:
        """The step, then the Squeeze."""
        squeeze, step = match.node("squeeze"), match.node("step")
        attributes = {k: v for k, v in step.attributes.items() if k != "_output_shapes"}
        operands = [squeeze.operands[0]]
        if match.get("bias") is not None:
            bias = match.constant("bias")
            assert bias is not None
            channels = Channels.of(match.node("linear"))
            assert channels is not None
            operands.append(Port(new.constant(_vector(bias, channels), DType.FLOAT, name="bias")))
        moved = new.add(step.op, operands, attributes)
        return new.add("Squeeze", [moved], dict(squeeze.attributes.items()))


@dataclass(frozen=True)
class _Fuse(RewritePass):
    """One call for all of it."""

    name: ClassVar[str] = "fused"
    emit: Literal["builtin", "custom"] = "builtin"
    target: Target = "tflite"

    def pattern(self, op: OpBuilder, x: Any) -> Any:
        """``activation(linear(x, filter) + bias)``, bias and activation as far as there are."""
        linear = op[LINEAR_OPS](x, op.constant(as_="filter"), as_="linear")
        bias = op.constant(as_="bias")
        value = op.optional(lambda v: op[_ADDS](v, bias, as_="bias_add"), linear)
        return op.optional(lambda v: op[tuple(_ACTIVATIONS)](v, as_="activation"), value)

    def accept(self, match: Match) -> Refused | None:
        """Only what the op computes, exactly."""
        return next(self._refusals(match), None)

    def _refusals(self, match: Match) -> Iterator[Refused]:
        linear = match.node("linear")
        channels = Channels.of(linear)
        if linear.attributes["T"] is not DType.FLOAT or channels is None:
            yield Refused("conv-type", f"'{linear.name}' does not multiply float32 weights")
        elif data_format(linear) != b"NHWC":
            yield Refused("conv-layout", "its channels are in front", "Export with NHWC.")
        elif not _fits(match, "bias", channels):
            yield Refused("not-by-channel", "what is added is not one number for each channel")
        if linear.attributes.get("padding") == b"EXPLICIT":
            yield Refused("conv-padding", "its padding is neither SAME nor VALID")
        if linear.attributes.get("transpose_a") or linear.attributes.get("transpose_b"):
            yield Refused("conv-transposed", f"'{linear.name}' transposes what it multiplies")
        if self.emit == "builtin" and _activation(match) not in BUILTIN_ACTIVATIONS:
            yield Refused(
                "conv-activation",
                f"the kernel has no {_activation(match).lower()}; it stays an operator of its own",
            )

    def rewrite(self, match: Match, new: Emitter) -> Node:
        """The call; a bias that is missing, or a number, becomes a vector for the kernel."""
        linear = match.node("linear")
        op = _OPS[linear.op][self.emit == "custom"]
        channels = Channels.of(linear)
        assert channels is not None
        operands: dict[str, Port | Node] = {"input": match["x"], "filter": match["filter"]}
        bias = match.constant("bias") if match.get("bias") is not None else None
        if bias is not None and bias.shape == (channels.count,):
            operands["bias"] = match["bias"]
        elif bias is not None or self.emit == "builtin":
            vector = _vector(np.zeros((), np.float32) if bias is None else bias, channels)
            operands["bias"] = new.constant(vector, DType.FLOAT, name="bias")
        return new.call(op, operands, {**_window(linear), "activation": _activation(match)})


def _fits(match: Match, name: str, channels: Channels) -> bool:
    """True if the constant, if there is one, is one number for each channel."""
    if match.get(name) is None:
        return True
    array = match.constant(name)
    return array is not None and channels.vector(array) is not None


def _vector(array: Any, channels: Channels) -> Any:
    return np.ascontiguousarray(np.broadcast_to(array.reshape(-1), (channels.count,)))


def _activation(match: Match) -> str:
    return _ACTIVATIONS[match.node("activation").op] if match.has_node("activation") else "NONE"


def _window(linear: Node) -> dict[str, object]:
    """Padding, strides and dilations of a convolution as the op has them; none of a MatMul."""
    if linear.op == "MatMul":
        return {}
    padding, strides = linear.attributes["padding"], linear.attributes["strides"]
    dilations = linear.attributes.get("dilations", (1, 1, 1, 1))
    assert isinstance(padding, bytes)
    assert isinstance(strides, tuple)
    assert isinstance(dilations, tuple)
    window: dict[str, object] = {
        "padding": padding.decode(),
        "stride_h": strides[1],
        "stride_w": strides[2],
        "dilation_h": dilations[1],
        "dilation_w": dilations[2],
    }
    if linear.op == "DepthwiseConv2dNative":
        channels = Channels.of(linear)
        assert channels is not None
        window["multiplier"] = int(channels.weights.shape[3])
    return window
