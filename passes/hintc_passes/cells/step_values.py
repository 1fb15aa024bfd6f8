"""What an op of a step reads and gives: rows of blocks, constants, values with an axis of 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from hintc.ir import Array, Node
from hintc_passes.cells.rows import Value


@dataclass(frozen=True)
class Stacked:
    """A value with an axis of size 1 in front, as a hint's stack of one member makes it."""

    value: Value


@dataclass(frozen=True)
class Squeezed:
    """A value ``[batch, n]`` without axis 0, or with it, as the batch is 1 or not.

    Beside a whole value it means what it did before: ``[n]`` broadcasts to ``[1, n]``.
    """

    value: Value


Plain: TypeAlias = Value | Array
"""A value of shape ``[batch, n]``, or a constant of any shape."""
Result: TypeAlias = Plain | Stacked | Squeezed
"""What an op may give."""
Rule: TypeAlias = Callable[[Node, list[Plain]], list[Plain] | None]
"""Results from a node and its operands; None where the algebra does not apply."""
