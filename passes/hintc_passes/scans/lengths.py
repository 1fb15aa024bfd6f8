"""Steps that stop changing a row once its sequence has ended."""

from __future__ import annotations

from dataclasses import dataclass

from hintc.graphdef.emit import known_array
from hintc.ir import Node, Port
from hintc_passes.analysis.merging import merge_equal
from hintc_passes.analysis.values import known_int, source_of
from hintc_passes.scans.step import Step

_SECOND = 2
"""The bit of the second axis."""


@dataclass(frozen=True)
class Freeze:
    """How a step treats rows whose sequence has ended.

    Attributes:
        lengths: the invariant argument that holds the lengths.
        nexts: what the next states are while the sequence lasts; beyond, they keep their value.
        ys: for each output what it is while the sequence lasts, and the argument or constant that
            it is beyond.
        columns: the mask is a column ``[batch, 1]``, which is broadcast over rank 2.
    """

    lengths: Port
    nexts: tuple[Port, ...]
    ys: tuple[tuple[Port, Port], ...]
    columns: bool = False


def find_freeze(step: Step) -> Freeze | None:
    """The freeze of a step if every state and output obeys the same one, else None."""
    same = merge_equal(step.graph)

    def merged(port: Port) -> Port:
        port = source_of(port)
        return same.get(port, port)

    selects = [merged(port).node for port in (*step.nexts, *step.ys)]
    ops = {node.op for node in selects}
    if not step.nexts or len(ops) > 1 or not ops <= {"Select", "SelectV2"}:
        return None
    parts = [[merged(p) for p in node.operands] for node in selects]
    mask = parts[0][0]
    if any(part[0] != mask for part in parts):
        return None
    columns = ops == {"SelectV2"}
    vector = _column_of(mask) if columns else mask
    compared = None if vector is None else _compared(merged(vector).node)
    if compared is None:
        return None
    index, lengths = (merged(p) for p in compared.operands)
    if index != step.t or lengths not in step.invariants:
        return None
    old, new = (1, 2) if compared.is_ended else (2, 1)
    count = len(step.nexts)
    if any(part[old] != state for part, state in zip(parts, step.states, strict=False)):
        return None
    return Freeze(
        lengths,
        tuple(part[new] for part in parts[:count]),
        tuple((part[new], part[old]) for part in parts[count:]),
        columns,
    )


@dataclass(frozen=True)
class _Comparison:
    """``t >= lengths`` (or ``t < lengths``): its operands, t first."""

    operands: tuple[Port, Port]
    is_ended: bool


def _compared(node: Node) -> _Comparison | None:
    if node.op not in ("Greater", "GreaterEqual", "Less", "LessEqual"):
        return None
    one, other = node.operands
    if node.op in ("GreaterEqual", "Less"):
        return _Comparison((one, other), node.op == "GreaterEqual")
    return _Comparison((other, one), node.op == "LessEqual")


def _column_of(mask: Port) -> Port | None:
    """The vector that a column ``v[:, None]`` is made of."""
    node = mask.node
    if node.op == "ExpandDims":
        return node.operands[0] if known_int(node.operands[1]) in (1, -1) else None
    masks = [node.attributes.get(f"{m}_mask", 0) for m in ("begin", "end", "new_axis")]
    others = [node.attributes.get(f"{m}_mask", 0) for m in ("ellipsis", "shrink_axis")]
    if node.op != "StridedSlice" or any(others) or masks[2] != _SECOND:
        return None
    strides = known_array(node.operands[3])
    if strides is None or strides.tolist() != [1, 1] or not (masks[0] & masks[1] & 1):
        return None
    return node.operands[0]
