"""What a matcher returns, in the terms of a kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from hintc.ops import FusedOp
from hintc_passes.cells.algebra import Matrix
from hintc_passes.cells.step import Result


@dataclass(frozen=True)
class Recognised:
    """A cell that a matcher found, as a kernel's operands.

    Attributes:
        x: position of the input sequence.
        weights: slot name -> constant in the kernel's layout.
        states: slot name -> position of the state that starts it.
        final: for each state, the fused op's result that is its final value.
        attributes: of the fused op.
        description: what it is, for the remark.
    """

    x: int
    weights: Mapping[str, Matrix]
    states: Mapping[str, int]
    final: Sequence[str]
    attributes: Mapping[str, bool | int | float | str]
    description: str


Matcher = Callable[[Sequence[Result], Sequence[Result]], Recognised]
"""Normal forms of (next states, outputs) -> the cell; raises `Difference`."""


@dataclass(frozen=True)
class Kernel:
    """A kernel to look for: its op, its NumPy reference, how many states its cell carries."""

    op: FusedOp
    reference: Callable[..., Mapping[str, npt.NDArray[Any]]]
    states: int
    match: Matcher
