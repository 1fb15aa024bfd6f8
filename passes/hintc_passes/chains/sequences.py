"""Values that are consecutive elements of a tensor: what the steps of a chain take turns with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hintc.graphdef.emit import Emitter, known_array
from hintc.ir import DType, Graph, Node, Port, Shape
from hintc.ir.scan import dtype_of
from hintc_passes.analysis.values import known_int

ELEMENT_OPS = frozenset(("GatherV2", "Split", "StridedSlice", "Unpack"))
"""Ops that give elements of a tensor."""


@dataclass(frozen=True)
class Elements:
    """Consecutive elements of one tensor, two at least, that something reads.

    Attributes:
        tensor: what they are elements of.
        axis: along this axis, which they do not have.
        first: the index of the first.
        ports: the elements, by rising index.
        size: of the axis where the op says it, else None.
    """

    tensor: Port
    axis: int
    first: int
    ports: tuple[Port, ...]
    size: int | None

    def time_major(self, emit: Emitter, tensor: Port, shape: Shape) -> Port:
        """A tensor ``[T, …]`` of them.

        Args:
            emit: adds what it takes.
            tensor: has the value of `self.tensor`.
            shape: its static shape.
        """
        dims, size = shape.dims, self.size
        if size is None and dims is not None and dims[self.axis] >= 0:
            size = dims[self.axis]
        if size is None or (self.axis and dims is None):  # maybe fewer: then the slices fail
            return emit.pack(self.ports, "elements")
        if self.axis and dims is not None:
            order = [self.axis, *(a for a in range(len(dims)) if a != self.axis)]
            tensor = transpose(emit, tensor, order)
        return tensor if size == len(self.ports) else self._cut(emit, tensor)

    def _cut(self, emit: Emitter, tensor: Port) -> Port:
        bounds = [
            emit.constant(np.array([at], np.int32), f"elements/{part}")
            for part, at in (
                ("begin", self.first),
                ("end", self.first + len(self.ports)),
                ("strides", 1),
            )
        ]
        types = {"T": dtype_of(tensor), "Index": DType.INT32}
        return emit.node("StridedSlice", [tensor, *bounds], dict(types), "elements")


def transpose(emit: Emitter, value: Port, order: Sequence[int]) -> Port:
    """The axes of `value` in another order."""
    perm = emit.constant(np.array(order, np.int32), "transpose/perm")
    types = {"T": dtype_of(value), "Tperm": DType.INT32}
    return emit.node("Transpose", [value, perm], dict(types), "transpose")


def find_elements(
    graph: Graph, same: Mapping[Port, Port], readers: Mapping[Port, Sequence[Node]]
) -> list[Elements]:
    """All of them, each tensor's by axis; linear.

    Args:
        graph: is not changed.
        same: equal values, see `merge_equal`.
        readers: what reads a value or its equals.
    """
    slices: dict[tuple[Port, int], dict[int, Port]] = {}
    counts: dict[tuple[Port, int], int] = {}
    for node in graph:
        if node.op in ("Unpack", "Split"):
            _take_all(node, same, readers, slices, counts)
    whole = set(counts)
    for node in graph:
        if node.op in ("StridedSlice", "GatherV2"):
            place = _place_of_slice(node) if node.op == "StridedSlice" else _place_of_gather(node)
            if place is not None and same.get(Port(node), Port(node)) == Port(node):
                axis, index = place
                tensor = same.get(node.operands[0], node.operands[0])
                # beside all elements, a slice is something else: an initial state's input, say
                if (tensor, axis) not in whole:
                    slices.setdefault((tensor, axis), {}).setdefault(index, Port(node))
    found = []
    for (tensor, axis), by_index in slices.items():
        read = sorted(k for k, port in by_index.items() if readers.get(port))
        if len(read) > 1 and read[-1] - read[0] == len(read) - 1:
            ports = tuple(by_index[k] for k in read)
            found.append(Elements(tensor, axis, read[0], ports, counts.get((tensor, axis))))
    return found


def _take_all(
    node: Node,
    same: Mapping[Port, Port],
    readers: Mapping[Port, Sequence[Node]],
    slices: dict[tuple[Port, int], dict[int, Port]],
    counts: dict[tuple[Port, int], int],
) -> None:
    """The results of an Unpack, or those of a Split without the axis of size 1."""
    axis: object
    if node.op == "Unpack":
        axis, count = node.attributes.get("axis", 0), node.attributes.get("num")
        ports = {k: Port(node, k) for k in range(count)} if isinstance(count, int) else {}
    else:
        axis, count = known_int(node.operands[0]), node.attributes.get("num_split")
        if not isinstance(axis, int) or not isinstance(count, int):
            return
        ports = {
            k: port
            for k in range(count)
            if (port := _squeezed(Port(node, k), axis, readers)) is not None
        }
    if not isinstance(axis, int) or not isinstance(count, int) or axis < 0:
        return
    tensor = same.get(node.operands[-1], node.operands[-1])
    counts[tensor, axis] = count
    known = slices.setdefault((tensor, axis), {})
    for k, port in ports.items():
        known.setdefault(k, same.get(port, port))


def _squeezed(part: Port, axis: int, readers: Mapping[Port, Sequence[Node]]) -> Port | None:
    """The part without its `axis`, if that is how it is read."""
    for node in readers.get(part, ()):
        dims = node.attributes.get("squeeze_dims")
        if node.op == "Squeeze" and dims in (axis, (axis,)):
            return Port(node)
    return None


def _place_of_slice(node: Node) -> tuple[int, int] | None:
    """Axis and index of ``x[:, …, index]``, everything else taken in full."""
    masks = [node.attributes.get(f"{m}_mask", 0) for m in ("shrink_axis", "begin", "end")]
    shrink, starts, stops = (m if isinstance(m, int) else 0 for m in masks)
    if any(node.attributes.get(f"{m}_mask") for m in ("ellipsis", "new_axis")):
        return None
    begin, strides = known_array(node.operands[1]), known_array(node.operands[3])
    if begin is None or strides is None or (strides != 1).any() or shrink.bit_count() != 1:
        return None
    axis = shrink.bit_length() - 1
    if axis >= begin.size or starts >> axis & 1 or int(begin[axis]) < 0:
        return None
    for other in range(begin.size):
        whole = (starts >> other & 1 or int(begin[other]) == 0) and stops >> other & 1
        if other != axis and not whole:
            return None
    return axis, int(begin[axis])


def _place_of_gather(node: Node) -> tuple[int, int] | None:
    """Axis and index of a gather of one element."""
    index, axis = known_array(node.operands[1]), known_int(node.operands[2])
    if index is None or index.ndim or axis is None or node.attributes.get("batch_dims"):
        return None
    return (axis, int(index)) if axis >= 0 and int(index) >= 0 else None
