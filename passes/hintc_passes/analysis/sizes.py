"""Ops that give the sizes of a value, and what they give where these are known."""

from __future__ import annotations

import math

import numpy as np

from hintc.ir import DType, Node
from hintc.rewrite import become_constant

OF_SHAPE = ("Shape", "Size", "Rank")


def write_down(node: Node, shape: tuple[int, ...]) -> None:
    """Turn a node of `OF_SHAPE`, whose operand has this shape, into a constant."""
    value = {"Shape": shape, "Size": math.prod(shape), "Rank": len(shape)}[node.op]
    dtype = node.attributes.get("out_type", DType.INT32)
    assert isinstance(dtype, DType)
    become_constant(node, np.array(value, dtype.numpy), node.operands[0].node.controls)
