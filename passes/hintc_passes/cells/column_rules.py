"""Rules for ops that cut a value into columns, or join such: the layout of packed gates."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from hintc.ir import Array, Node
from hintc_passes.cells.rows import Value, slice_columns, width_of
from hintc_passes.cells.step_values import Plain, Rule


def _concat(node: Node, operands: list[Plain]) -> list[Plain] | None:
    *parts, axis = operands
    if not isinstance(axis, np.ndarray):
        return None
    if all(isinstance(p, np.ndarray) for p in parts):
        return [np.concatenate([np.asarray(p) for p in parts], int(axis))]
    if int(axis) not in (1, -1):
        return None
    joined: Value = ()
    for part in parts:
        if isinstance(part, np.ndarray):
            return None
        joined += part
    return [joined]


def _split(node: Node, operands: list[Plain]) -> list[Plain] | None:
    axis, value = operands
    count = node.attributes.get("num_split")
    if not isinstance(axis, np.ndarray) or not isinstance(count, int):
        return None
    if isinstance(value, np.ndarray):
        return list(np.split(value, count, int(axis)))
    width = width_of(value)
    if int(axis) not in (1, -1) or width % count:
        return None
    return _cut(value, [width // count] * count)


def _split_v(node: Node, operands: list[Plain]) -> list[Plain] | None:
    value, sizes, axis = operands
    if isinstance(value, np.ndarray) or not isinstance(sizes, np.ndarray):
        return None
    if not isinstance(axis, np.ndarray) or int(axis) not in (1, -1):
        return None
    known = [int(s) for s in sizes]
    if known.count(-1) == 1:
        known[known.index(-1)] = width_of(value) - sum(s for s in known if s >= 0)
    return _cut(value, known) if sum(known) == width_of(value) else None


def _cut(value: Value, widths: Sequence[int]) -> list[Plain]:
    edges = np.cumsum([0, *widths])
    return [slice_columns(value, int(low), int(high)) for low, high in itertools.pairwise(edges)]


def _slice(node: Node, operands: list[Plain]) -> list[Plain] | None:
    value, begin, size = operands
    if not isinstance(begin, np.ndarray) or not isinstance(size, np.ndarray):
        return None
    if isinstance(value, np.ndarray):
        ends = [None if n == -1 else b + n for b, n in zip(begin, size, strict=True)]
        return [value[tuple(slice(b, e) for b, e in zip(begin, ends, strict=True))]]
    if begin.shape != (2,):
        return None
    if begin[0] != 0 or size[0] != -1:
        return None
    start = int(begin[1])
    stop = width_of(value) if size[1] == -1 else start + int(size[1])
    return [slice_columns(value, start, stop)]


def _strided_slice(node: Node, operands: list[Plain]) -> list[Plain] | None:
    value, *bounds = operands
    arrays = [b for b in bounds if isinstance(b, np.ndarray)]
    if len(arrays) != 3 or _mask(node, "ellipsis"):
        return None
    index = _index(node, *arrays)
    if isinstance(value, np.ndarray):
        return [value[index]]
    if len(index) != 2 or index[0] != slice(None) or not isinstance(index[1], slice):
        return None
    start, stop, step = index[1].indices(width_of(value))
    return [slice_columns(value, start, max(start, stop))] if step == 1 else None


def _mask(node: Node, name: str) -> int:
    mask = node.attributes.get(f"{name}_mask", 0)
    return mask if isinstance(mask, int) else 0


def _index(node: Node, begin: Array, end: Array, strides: Array) -> tuple[slice | int | None, ...]:
    """The NumPy index of a StridedSlice; a full axis is ``slice(None)``, a new one None."""
    index: list[slice | int | None] = []
    for axis, (low, high, step) in enumerate(zip(begin, end, strides, strict=True)):
        bit = 1 << axis
        if _mask(node, "new_axis") & bit:
            index.append(None)
            continue
        if _mask(node, "shrink_axis") & bit:
            index.append(int(low))
            continue
        start = None if _mask(node, "begin") & bit else int(low)
        stop = None if _mask(node, "end") & bit else int(high)
        index.append(slice(start, stop, None if step == 1 else int(step)))
    return tuple(index)


COLUMN_RULES: Mapping[str, Rule] = {
    "ConcatV2": _concat,
    "Split": _split,
    "SplitV": _split_v,
    "Slice": _slice,
    "StridedSlice": _strided_slice,
}
