"""Questions about single values: what is behind a name, which constant, which dimension."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from hintc.graphdef.emit import known_array
from hintc.ir import Graph, Node, Port
from hintc.ir.opdefs import is_stateful


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


def is_zeros(port: Port) -> bool:
    """True if every element is provably zero: a constant, or Fill with one."""
    port = source_of(port)
    if port.node.op == "Fill":
        return is_zeros(port.node.operands[1])
    if port.node.op == "ZerosLike":
        return True
    array = known_array(port) if port.node.op == "Const" else None
    return array is not None and array.dtype.kind in "fiub" and not np.any(array)


def is_unit_step(value: Port, variable: Port, ones: Collection[Port] = ()) -> bool:
    """True if `value` is ``variable + 1``, where each of `ones` is known to be 1."""
    value = source_of(value)
    if value.node.op not in ("AddV2", "Add"):
        return False
    left, right = (source_of(p) for p in value.node.operands)
    if right == variable:
        left, right = right, left
    return left == variable and (right in ones or known_int(right) == 1)


def first_dimension_of(port: Port) -> Port | None:
    """`x` if the value is ``Shape(x)[0]``, else None."""
    node = source_of(port).node
    if node.op != "StridedSlice" or node.attributes.get("shrink_axis_mask") != 1:
        return None
    masks = ("begin_mask", "ellipsis_mask", "new_axis_mask")
    begin = known_int(node.operands[1])
    shape = source_of(node.operands[0]).node
    if shape.op != "Shape" or begin != 0 or any(node.attributes.get(m) for m in masks):
        return None
    return source_of(shape.operands[0])


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
