"""Arithmetic that changes nothing: dropout that keeps everything, multiplication by ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hintc.ir import Graph, Port, Tensor
from hintc.ir.scan import dtype_of
from hintc.pattern import Match, OpBuilder, constant_of
from hintc.remark import Refused
from hintc.rewrite import Emitter, RewritePass, remove_unread


@dataclass(frozen=True)
class IdleDropout(RewritePass):
    """Dropout whose rate is 0: TF2's, the older one with Cast, and TF1's with Floor."""

    name: ClassVar[str] = "dropouts"

    def pattern(self, op: OpBuilder, x: Any, scale: Any, rate: Any, keep: Any, shape: Any) -> Any:
        """``where(noise >= rate, x * scale, 0)`` or ``x * scale * floor(keep + noise)``."""
        noise = op.RandomUniform(shape)
        scaled = op.any_of(op.RealDiv(x, scale), op.Mul(x, scale))
        stays = op.GreaterEqual(noise, rate)
        return op.any_of(
            op["SelectV2", "Select"](stays, scaled, op.constant(0)),
            op.Mul(scaled, op.Cast(stays)),
            op.Mul(scaled, op.Floor(op["Add", "AddV2"](keep, noise))),
        )

    def accept(self, match: Match) -> Refused | None:
        """Only if nothing is dropped and nothing scaled. Noise is in [0, 1)."""
        rate, keep = match.get("rate"), match.get("keep")
        drops = _number(rate) != 0 if rate is not None else keep is None or _number(keep) != 1
        if not drops and _number(match["scale"]) == 1:
            return None
        return Refused(
            "dropout-active",
            "this dropout is not known to keep everything: its rate is not the constant 0",
            "Export the model for inference (training=False, rate 0).",
        )

    def rewrite(self, match: Match, new: Emitter) -> Port:
        """The value itself."""
        return match["x"]


@dataclass(frozen=True)
class TimesOne(RewritePass):
    """``x * 1`` and ``x * ones_like(x)``: what Keras leaves of a dropout mask."""

    name: ClassVar[str] = "multiplications by one"
    keep_escaping: ClassVar[bool] = True  # gates of a cell share their mask

    def pattern(self, op: OpBuilder, x: Any) -> Any:
        """Ones of another shape might broadcast, so only a scalar one is surely harmless."""
        return op.Mul(x, op.any_of(op.OnesLike(x), op.constant(where=_is_scalar_one)))

    def rewrite(self, match: Match, new: Emitter) -> Port:
        """The value itself."""
        return match["x"]


def make_ones_scalar(graph: Graph) -> None:
    """Multiply by 1 instead of by ones like another element of what the operand is an element of.

    An unrolled layer of Keras makes its dropout mask once, like its first step's input.
    """
    for node in [n for n in graph if n.op == "Mul"]:
        for slot, ones in enumerate(node.operands):
            one, other = ones.node, node.operands[1 - slot].node
            if one.op != "OnesLike" or one.controls or other.op != "Unpack":
                continue
            if one.operands[0].node is other:
                dtype = dtype_of(ones)
                value = Tensor.of(np.ones((), dtype.numpy), dtype)
                scalar = graph.add(
                    "Const", (), {"dtype": dtype, "value": value}, name=f"{one.name}/scalar"
                )
                graph.set_operand(node, slot, Port(scalar))
                remove_unread(graph, [one])


def _is_scalar_one(array: Any) -> bool:
    return bool(array.ndim == 0 and array == 1)


def _number(port: Port) -> float | None:
    """The value of a scalar that is constant, or a difference or quotient of such."""
    array = constant_of(port)
    if array is not None:
        return float(array) if array.ndim == 0 and array.dtype.kind in "fiu" else None
    if port.node.op not in ("Sub", "RealDiv") or len(port.node.operands) != 2:
        return None
    left, right = (_number(operand) for operand in port.node.operands)
    if left is None or right is None:
        return None
    with np.errstate(all="ignore"):
        found = np.subtract(left, right) if port.node.op == "Sub" else np.divide(left, right)
    return float(found)
