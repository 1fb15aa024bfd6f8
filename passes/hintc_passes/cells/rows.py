"""Values as rows of affine blocks side by side: what cuts, joins and multiplies them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TypeAlias

from hintc_passes.cells.algebra import Affine, Matrix, Mean, Unary
from hintc_passes.cells.functions import named

Value: TypeAlias = tuple[Affine, ...]
"""Blocks side by side along the last axis."""


def width_of(value: Value) -> int:
    """Number of columns."""
    return sum(block.width for block in value)


def slice_columns(value: Value, start: int, stop: int) -> Value:
    """Columns ``start:stop``."""
    cut: list[Affine] = []
    at = 0
    for block in value:
        low, high = max(start - at, 0), min(stop - at, block.width)
        if low < high:
            cut.append(named(block.columns(low, high)))
        at += block.width
    return tuple(cut)


def aligned(values: Sequence[Value]) -> list[tuple[Affine, ...]]:
    """The values cut at the union of their block borders: one tuple of blocks per piece."""
    borders: set[int] = {0}
    for value in values:
        at = 0
        for block in value:
            at += block.width
            borders.add(at)
    edges = sorted(borders)
    return [
        tuple(slice_columns(value, low, high)[0] for value in values)
        for low, high in itertools.pairwise(edges)
    ]


def blockwise(function: Callable[..., Affine], *values: Value) -> Value:
    """Apply an element-wise function to values of the same width."""
    return tuple(named(function(*blocks)) for blocks in aligned(values))


def matmul(value: Value, matrix: Matrix) -> Value:
    """``value @ matrix``."""
    total = Affine(matrix.shape[1])
    at = 0
    for block in value:
        total = total + block.times(matrix[at : at + block.width])
        at += block.width
    return (total,)


def per_row(value: Value) -> bool:
    """True for one number in each row that is made of means over columns."""
    return len(value) == 1 and value[0].width == 1 and _is_mean(value[0])


def _is_mean(value: Affine) -> bool:
    for atom, _ in value.terms:
        inner = atom.operand if isinstance(atom, Unary) else None
        if not isinstance(atom, Mean) and not (inner is not None and _is_mean(inner)):
            return False
    return bool(value.terms)
