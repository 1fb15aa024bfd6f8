"""fuse-my-conv: a convolution, its bias and its activation become one MyConv.

Recognises: Conv2D (float32, NHWC, not dilated, constant filter), BiasAdd, and Relu, Relu6 or Tanh.
Makes: the CUSTOM operator MyConv; `my_conv` says what it computes.
Refuses: convolutions with fewer channels than the option `min_channels`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import hintc
from hintc.ir import DType, Node
from hintc.ops import AttributeSpec, declare
from hintc.pattern import Match, OpBuilder, Open, Result
from hintc.rewrite import Emitter, Refused
from hintc_fuse_my_conv.kernel import ACTIVATIONS, my_conv

MY_CONV = declare(
    hintc.FusedOp.custom(
        "MyConv",
        operands=("x", "filter", "bias"),
        attributes={
            "strides": AttributeSpec(tuple),
            "padding": AttributeSpec(str, choices=("SAME", "VALID")),
            "activation": AttributeSpec(str, choices=tuple(ACTIVATIONS)),
        },
        doc="activation(convolution of x with filter + bias)",
        reference=my_conv,
    )
)


@hintc.register
@dataclass(frozen=True)
class FuseMyConv(hintc.RewritePass):
    """Makes MyConv of convolution, bias and activation.

    Args:
        min_channels: leave convolutions with fewer output channels to TFLite's own kernel.
    """

    name: ClassVar[str] = "fuse-my-conv"
    min_channels: int = 1

    def pattern(self, op: OpBuilder, x: Open, bias: Open) -> Result:
        """The maths that is looked for; what the kernel does not know is excluded here."""
        conv = op.Conv2D(
            x,
            op.constant(as_="filter"),
            T=DType.FLOAT,
            data_format="NHWC",
            dilations=[1, 1, 1, 1],
            padding=lambda padding: padding in (b"SAME", b"VALID"),
            as_="conv",
        )
        return op[tuple(ACTIVATIONS)](op.BiasAdd(conv, bias, data_format="NHWC"), as_="activation")

    def accept(self, match: Match) -> Refused | None:
        """Why a match is left alone; None if it is not."""
        filters = match.constant("filter")
        if filters is not None and filters.shape[-1] >= self.min_channels:
            return None
        return Refused(
            "few-channels",
            f"it has fewer than {self.min_channels} channels",
            "Lower the option 'min_channels' to fuse it.",
        )

    def rewrite(self, match: Match, new: Emitter) -> Node:
        """The call, with the attributes that its kernel needs."""
        conv: Any = match.node("conv").attributes
        attributes = {
            "strides": conv["strides"][1:3],
            "padding": conv["padding"],
            "activation": match.node("activation").op,
        }
        operands = {"x": match["x"], "filter": match["filter"], "bias": match["bias"]}
        return new.call(MY_CONV, operands, attributes)
