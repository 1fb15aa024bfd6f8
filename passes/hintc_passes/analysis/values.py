"""Questions about single values: what is behind a name, which constant, which dimension."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from hintc.call_graph import functions_of
from hintc.graphdef.emit import known_array
from hintc.ir import ARG, DType, Graph, Node, Port, Tensor
from hintc.ir.opdefs import is_stateful

_SMALL = 16
_REARRANGING = (
    *("BroadcastTo", "ExpandDims", "Reshape", "Slice", "Squeeze", "StridedSlice", "Tile"),
    "Transpose",
)
"""Ops whose result has elements of operand 0 only."""
_SIZES = ("Rank", "Shape", "Size", "ZerosLike")
_GIVEN = (ARG, "Placeholder", "PlaceholderWithDefault")


def source_of(port: Port) -> Port:
    """The value behind Identity nodes."""
    while port.node.op == "Identity":
        port = port.node.operands[0]
    return port


def known_int(port: Port) -> int | None:
    """The value of a constant integer scalar (or vector of one), else None."""
    if source_of(port).node.op != "Const":
        return None
    array = known_array(port)
    if array is None or array.size != 1 or array.dtype.kind not in "iu":
        return None
    return int(array.reshape(-1)[0])


def known_scalar(port: Port) -> int | None:
    """The value of a constant integer scalar, else None."""
    array = known_array(port)
    if array is None or array.ndim or array.dtype.kind not in "iu":
        return None
    return int(array)


def reads_first(node: Node) -> bool:
    """True for ``x[0]``, the axis removed."""
    if node.op != "StridedSlice" or node.attributes.get("shrink_axis_mask") != 1:
        return False
    masks = ("begin_mask", "ellipsis_mask", "new_axis_mask")
    if any(node.attributes.get(mask) for mask in masks):
        return False
    return known_int(node.operands[1]) == 0


def is_zeros(port: Port) -> bool:
    """True if every element is provably zero: a constant, Fill with one, a part of such."""
    port = source_of(port)
    if port.node.op in _REARRANGING:
        return is_zeros(port.node.operands[0])
    if port.node.op == "Fill":
        return is_zeros(port.node.operands[1])
    if port.node.op == "ZerosLike":
        return True
    array = known_array(port) if port.node.op == "Const" else None
    return array is not None and array.dtype.kind in "fiub" and not np.any(array)


def is_small(node: Node) -> bool:
    """True for constants that are part of a step, an axis or a forget bias, rather than weights."""
    value = node.attributes.get("value") if node.op == "Const" else None
    if not isinstance(value, Tensor) or value.shape.dims is None:
        return False
    return int(np.prod(value.shape.dims)) <= (_SMALL if value.dtype is not DType.FLOAT else 1)


def is_given(port: Port) -> bool:
    """True for a value that what is fed may change; sizes of what is fed do not count."""
    pending, seen = [port], set[Node]()
    while pending:
        node = pending.pop().node
        if node in seen or node.op in _SIZES:
            continue
        if node.op in _GIVEN or is_stateful(node) or functions_of(node):
            return True
        seen.add(node)
        pending.extend(node.operands)
    return False


def dimension_of(port: Port) -> tuple[Port, int] | None:
    """`(x, n)` if the value is ``Shape(x)[n]``, else None."""
    node = source_of(port).node
    if node.op != "StridedSlice" or node.attributes.get("shrink_axis_mask") != 1:
        return None
    masks = ("begin_mask", "ellipsis_mask", "new_axis_mask")
    axis = known_int(node.operands[1])
    shape = source_of(node.operands[0]).node
    if (
        shape.op != "Shape"
        or axis is None
        or axis < 0
        or any(node.attributes.get(m) for m in masks)
    ):
        return None
    return source_of(shape.operands[0]), axis


def readers(graph: Graph, port: Port) -> list[tuple[Node, int]]:
    """(node, slot) of all that reads a value, directly or through Identity nodes."""
    found: list[tuple[Node, int]] = []
    pending = [port]
    while pending:
        for use in graph.uses(pending.pop()):
            if use.node.op == "Identity":
                pending.append(Port(use.node))
            else:
                found.append((use.node, use.slot))
    return found


def sweep(graph: Graph, nodes: Iterable[Node]) -> None:
    """Remove those of `nodes`, and of what they alone read, that nothing reads any more."""
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if node not in graph or graph.is_used(node) or node in graph.args:
            continue
        if node.op in ("_Arg", "_Retval", "Placeholder", "PlaceholderWithDefault"):
            continue
        if is_stateful(node):
            continue
        before = [p.node for p in node.operands] + list(node.controls)
        graph.remove(node)
        pending.extend(before)
