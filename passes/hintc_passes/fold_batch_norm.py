"""fold-batch-norm: scale and shift of a convolution's channels go into its weights.

Recognises, after Conv2D, DepthwiseConv2dNative or MatMul with constant weights (with a bias or
without, a Squeeze between for Conv1D): FusedBatchNorm, V2, V3 in inference mode; multiplication
or division by a constant with one number for each channel; and, where there is a bias already, a
further constant that is added or subtracted. Batch normalisation that is written out is the second
and third, once `fold-constants` has computed what depends on constants only::

    y = (x W + b - mean) / sqrt(variance + epsilon) * scale + offset
      = x (W f) + ((b - mean) f + offset),      f = scale / sqrt(variance + epsilon)

Makes the linear op with weights ``W f`` and at most one bias, computed in float64. Results differ
by rounding.

Leaves alone, with a remark: normalisation in training mode, channels on different axes, constants
that broadcast otherwise than over channels, weights that others read too, factors that are not
finite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hintc.graft import COLOCATION
from hintc.ir import Array, AttributeValue, DType, Node, Port
from hintc.pattern import Match, OpBuilder
from hintc.registry import register
from hintc.rewrite import Emitter, Refused, RewritePass
from hintc_passes.analysis.channels import FUSED_NORMS, LINEAR_OPS, Channels, data_format

_ADDS = ("Add", "AddV2", "BiasAdd")


@dataclass(frozen=True)
class _Affine:
    """What follows the linear op: ``y · factor + shift``, one number for each channel."""

    factor: Array
    shift: Array


@register
@dataclass(frozen=True)
class FoldBatchNorm(RewritePass):
    """Puts scale and shift of channels into the weights of what computes them."""

    name: ClassVar[str] = "fold-batch-norm"

    def pattern(self, op: OpBuilder, x: Any) -> Any:
        """What follows a linear op, whose bias may be there or not."""
        linear = op[LINEAR_OPS](x, op.constant(as_="weights"), as_="linear")
        product = op.optional(lambda v: op.Squeeze(v, as_="squeeze"), linear)
        biased = op[_ADDS](product, op.constant(as_="bias"), as_="bias_add")
        value, constant = op.any_of(biased, product), op.constant(as_="constant")
        norm = [op.constant(as_=name) for name in ("scale", "offset", "mean", "variance")]
        return op.any_of(
            op[FUSED_NORMS](value, *norm, as_="norm"),
            op.Mul(value, constant, as_="step"),
            op.RealDiv(value, constant, as_="step"),
            op[_ADDS](biased, constant, as_="step"),
            op.Sub(biased, constant, as_="step"),
        )

    def accept(self, match: Match) -> Refused | None:
        """Only what is proved to be one number for each channel."""
        linear = match.node("linear")
        if linear.attributes["T"] is not DType.FLOAT:
            return Refused("fold-type", f"'{linear.name}' does not compute in float32")
        if match.has_node("norm") and match.node("norm").attributes.get("is_training", True):
            return Refused(
                "batch-norm-training",
                "it normalises by mean and variance of the batch that it is given",
                "Export the model for inference (training=False).",
            )
        if _is_shared(match["weights"]):
            return Refused(
                "weights-shared",
                f"the weights '{match['weights']}' are also read elsewhere and would be stored "
                "twice",
            )
        channels = _channels(match)
        affine = None if channels is None else _affine(match, channels)
        if channels is None or affine is None:
            return Refused(
                "not-by-channel", f"it is not one number for each channel of '{linear.name}'"
            )
        folded = channels.scaled_weights(linear, affine.factor)
        if not (np.isfinite(folded).all() and np.isfinite(affine.shift).all()):
            return Refused("fold-not-finite", "the new weights would not be finite numbers")
        return None

    def rewrite(self, match: Match, new: Emitter) -> Port | Node:
        """The linear op with new weights, and one bias if there is any."""
        linear, channels = match.node("linear"), _channels(match)
        affine = None if channels is None else _affine(match, channels)
        assert channels is not None
        assert affine is not None
        weights = new.constant(
            channels.scaled_weights(linear, affine.factor), DType.FLOAT, name="weights"
        )
        value = new.add(linear.op, [match["x"], weights], _copied(linear), name=linear.op)
        if match.has_node("squeeze"):
            squeeze = match.node("squeeze")
            value = new.add("Squeeze", [value], _copied(squeeze))
        if not (match.has_node("bias_add") or match.has_node("norm")):
            return value
        bias = new.constant(affine.shift, DType.FLOAT, name="bias")
        return new.add(
            "BiasAdd", [value, bias], {"T": DType.FLOAT, "data_format": data_format(linear)}
        )


def _channels(match: Match) -> Channels | None:
    """The channels of the value that is scaled; None if the pieces do not agree on them."""
    channels = Channels.of(match.node("linear"))
    if channels is not None and match.has_node("squeeze"):
        channels = channels.squeezed(match.node("squeeze"))
    return channels


def _affine(match: Match, channels: Channels) -> _Affine | None:
    """All that follows the linear op as one factor and one shift, in float64."""
    factor, shift = np.ones(channels.count), np.zeros(channels.count)
    if match.has_node("bias_add"):
        bias = _vector(match, "bias", match.node("bias_add"), channels)
        if bias is None:
            return None
        shift = shift + bias
    if match.has_node("norm"):
        return _normalised(match, channels, shift)
    step = match.node("step")
    constant = _vector(match, "constant", step, channels)
    if constant is None:
        return None
    with np.errstate(all="ignore"):
        return _STEPS.get(step.op, _added)(factor, shift, constant)


def _added(factor: Array, shift: Array, constant: Array) -> _Affine:
    return _Affine(factor, shift + constant)


_STEPS: dict[str, Callable[[Array, Array, Array], _Affine]] = {
    "Mul": lambda factor, shift, constant: _Affine(factor * constant, shift * constant),
    "RealDiv": lambda factor, shift, constant: _Affine(factor / constant, shift / constant),
    "Sub": lambda factor, shift, constant: _Affine(factor, shift - constant),
}
"""What a step makes of ``y · factor + shift``."""


def _normalised(match: Match, channels: Channels, shift: Array) -> _Affine | None:
    norm = match.node("norm")
    if channels.rank != 4 or data_format(norm) != data_format(match.node("linear")):
        return None
    given = [match.constant(name) for name in ("scale", "offset", "mean", "variance")]
    if any(array is None or array.shape != (channels.count,) for array in given):
        return None
    scale, offset, mean, variance = (np.asarray(array, np.float64) for array in given)
    epsilon = norm.attributes.get("epsilon", 1e-4)
    assert isinstance(epsilon, float)
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + epsilon)
        return _Affine(factor, (shift - mean) * factor + offset)


def _vector(match: Match, name: str, reader: Node, channels: Channels) -> Array | None:
    """The constant `name`, which `reader` adds or multiplies by, as one number for each channel."""
    array = match.constant(name)
    assert array is not None
    if reader.op == "BiasAdd":
        axis = -1 if data_format(reader) == b"NHWC" else 1 - channels.rank
        fits = axis == channels.axis and array.shape == (channels.count,)
        return np.asarray(array, np.float64) if fits else None
    vector = channels.vector(array)
    return None if vector is None else np.asarray(vector, np.float64)


def _is_shared(weights: Port) -> bool:
    """True if the constant, or a copy of it on the way, is read more than once."""
    port = weights
    while len(port.node.graph.uses(port)) == 1:
        if port.node.op == "Const":
            return False
        port = port.node.operands[0]
    return True


def _copied(node: Node) -> dict[str, AttributeValue]:
    """The attributes of a node for another of its kind."""
    return {name: value for name, value in node.attributes.items() if name != COLOCATION}
