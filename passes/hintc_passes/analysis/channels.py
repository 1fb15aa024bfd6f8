"""Output channels of convolutions and matrix products: where they are, what is one number each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hintc.ir import Array, Node
from hintc.pattern import constant_of

LINEAR_OPS = ("Conv2D", "DepthwiseConv2dNative", "MatMul")
"""Ops that are linear in their second operand, the weights; each output channel has its own."""
FUSED_NORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")


@dataclass(frozen=True)
class Channels:
    """The output channels of a linear op with constant weights.

    Attributes:
        count: how many.
        axis: of the result that they are on, counted from the end: -1, or -3 for NCHW.
        rank: of the result.
        weights: the constant, as the op reads it: [h, w, in, out], depthwise [h, w, in, multiplier]
            with channel ``in · multiplier + m``, MatMul [in, out] or transposed.
    """

    count: int
    axis: int
    rank: int
    weights: Array

    @classmethod
    def of(cls, linear: Node) -> Channels | None:
        """Those of a node of one of `LINEAR_OPS`; None if its weights are no fitting constant."""
        weights = constant_of(linear.operands[1])
        if weights is None:
            return None
        if linear.op == "MatMul":
            if weights.ndim != 2:
                return None
            return cls(weights.shape[_matrix_axis(linear)], -1, 2, weights)
        if weights.ndim != 4:
            return None
        sizes = weights.shape[2:] if linear.op == "DepthwiseConv2dNative" else weights.shape[3:]
        axis = -3 if data_format(linear) == b"NCHW" else -1
        return cls(int(np.prod(sizes)), axis, 4, weights)

    def squeezed(self, squeeze: Node) -> Channels | None:
        """Those of the op's result without some axes; None if the channels' own may be missing."""
        dims = squeeze.attributes.get("squeeze_dims", ())
        if self.axis != -1 or not isinstance(dims, tuple) or not dims:
            return None
        axes = {int(d) % self.rank for d in dims if isinstance(d, int)}
        if self.rank - 1 in axes:
            return None
        return Channels(self.count, -1, self.rank - len(axes), self.weights)

    def vector(self, array: Array) -> Array | None:
        """`array` as one number for each channel, if that is what it adds or multiplies by.

        None if broadcasting it against the result would do anything else.
        """
        if array.ndim > self.rank or any(
            size != 1 for at, size in enumerate(array.shape) if at - array.ndim != self.axis
        ):
            return None
        if array.size not in (1, self.count):
            return None
        return np.broadcast_to(array.reshape(-1), (self.count,))

    def scaled_weights(self, linear: Node, factor: Array) -> Array:
        """The weights with which `linear` gives `factor` [count] times as much."""
        if linear.op == "MatMul":
            column = (1, -1) if _matrix_axis(linear) == 1 else (-1, 1)
            return np.asarray(self.weights * factor.reshape(column))
        if linear.op == "DepthwiseConv2dNative":
            return np.asarray(self.weights * factor.reshape(self.weights.shape[2:]))
        return np.asarray(self.weights * factor)


def data_format(node: Node) -> bytes:
    """``b"NHWC"`` or ``b"NCHW"``, as the node says; by default the former."""
    value = node.attributes.get("data_format", b"NHWC")
    assert isinstance(value, bytes)
    return value


def _matrix_axis(matmul: Node) -> int:
    """Which axis of the weights of a MatMul is the output's."""
    return 0 if matmul.attributes.get("transpose_b", False) else 1
