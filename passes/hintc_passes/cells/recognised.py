"""What a matcher returns, in the terms of a kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hintc.ops import FusedOp
from hintc_passes.cells.algebra import Matrix
from hintc_passes.cells.step_values import Result

Groups = tuple[tuple[int, ...], ...]
"""Positions of sequences: those of a group are multiplied by the same matrices."""


def input_groups(matrices: Sequence[Mapping[int, Matrix]]) -> Groups:
    """The sequences that a cell reads, by what they are multiplied with.

    Args:
        matrices: for each gate the matrix ``[inputs, cells]`` of each sequence that it reads.
    """
    groups: dict[object, list[int]] = {}
    for index in sorted({index for gate in matrices for index in gate}):
        found = (gate.get(index) for gate in matrices)
        key = tuple(None if m is None else (m.shape, m.tobytes()) for m in found)
        groups.setdefault(key, []).append(index)
    return tuple(tuple(group) for group in groups.values())


def input_matrix(groups: Groups, gate: Mapping[int, Matrix], like: Mapping[int, Matrix]) -> Matrix:
    """The matrix ``[all inputs, cells]`` of one gate; `like` has one for every sequence."""
    parts = [gate.get(group[0], np.zeros_like(like[group[0]])) for group in groups]
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


@dataclass(frozen=True)
class Recognised:
    """A cell that a matcher found, as a kernel's operands.

    Attributes:
        x: the sequences that are the input: positions of those that are added, group by group
            of those that are put side by side.
        weights: slot name -> constant in the kernel's layout.
        states: slot name -> position of the state that starts it.
        final: for each state, the fused op's result that is its final value.
        attributes: of the fused op.
        description: what it is, for the remark.
    """

    x: Groups
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
