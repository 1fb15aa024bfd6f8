"""TensorArrays, resources beside the graph's values, become TensorLists, which are values.

The flow of a TensorArray, a number that only orders its operations, becomes the list.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hintc.graphdef.emit import known_array
from hintc.ir import AttributeValue, DType, Node, Port, Shape, Tensor
from hintc.remark import PassReport, Refused
from hintc_passes.analysis.dimensions import first_dimension
from hintc_passes.analysis.values import dimension_of, known_int, source_of
from hintc_passes.frames.array_flow import Array, find_arrays
from hintc_passes.frames.regions import Regions

_GATHER, _SCATTER, _WRITE = "TensorArrayGatherV3", "TensorArrayScatterV3", "TensorArrayWriteV3"
_READ, _SIZE, _CLOSE = "TensorArrayReadV3", "TensorArraySizeV3", "TensorArrayCloseV3"
_REMEDY = "Use the array as loops do: read, write, stack, unstack, each on the latest version."


def replace_arrays(regions: Regions, report: PassReport) -> Iterator[tuple[str, Refused]]:
    """Replace every TensorArray that can be; counts ``arrays``.

    Returns:
        Names and reasons of those that cannot.
    """
    lengths: dict[Node, int] = {}
    for array in find_arrays(regions):
        if array.trouble is not None:
            yield array.node.name, Refused("tensor-array", array.trouble, _REMEDY)
        elif not _is_in_trouble(regions, array):
            _Replacing(regions, array, lengths).run()
            report.count("arrays")


def _is_in_trouble(regions: Regions, array: Array) -> bool:
    """True if it passes through a loop or condition that stays."""
    return any(
        region.construct is not None and region.construct.trouble is not None
        for node in (array.node, *array.ops, *array.carriers)
        for region in regions.of[node].chain()
    )


class _Replacing:
    def __init__(self, regions: Regions, array: Array, lengths: dict[Node, int]) -> None:
        self._regions, self._graph, self._array = regions, regions.graph, array
        self._lengths = lengths
        self._size = array.node.operands[0]
        self._grows = array.node.attributes.get("dynamic_size") is True
        dtype = array.node.attributes["dtype"]
        assert isinstance(dtype, DType)
        self._dtype = dtype
        self._shape = self._element_shape()
        self._list: dict[str, AttributeValue] = {"element_dtype": dtype}

    def _element_shape(self) -> Shape:
        """That of the array, or what is asked of it when it is read."""
        for node in (self._array.node, *self._array.ops):
            shape = node.attributes.get("element_shape")
            if isinstance(shape, Shape) and shape.dims is not None:
                return shape
        return Shape(None)

    def run(self) -> None:
        array = self._array
        ops = sorted(array.ops, key=lambda node: node.op != _GATHER)  # they look at _SIZE
        for node in ops:
            {
                _GATHER: self._gather,
                _SCATTER: self._scatter,
                _WRITE: self._write,
                _READ: self._read,
                _SIZE: self._size_of,
                _CLOSE: self._close,
            }[node.op](node)
        for carrier in array.carriers:
            carrier.attributes["T"] = DType.VARIANT
            carrier.attributes.pop("_output_shapes", None)
        if self._graph.uses(Port(array.node, 1)):
            self._reserve(array.node)
        self._drop_handle()

    # -- one operation each ------------------------------------------------------------------

    def _reserve(self, node: Node) -> None:
        shape = self._shape_operand(node, self._size, self._shape)
        attributes = {**self._list, "shape_type": DType.INT32}
        new = self._put(node, "TensorListReserve", [shape, self._size], attributes)
        self._graph.replace_uses(Port(node, 1), Port(new))

    def _gather(self, node: Node) -> None:
        _, indices, flow = node.operands
        asked = node.attributes.get("element_shape")
        known = isinstance(asked, Shape) and asked.dims is not None
        operand = self._shape_operand(node, flow, asked if known else self._shape)
        if self._covers(indices, flow):
            attributes = {**self._list, "num_elements": -1}
            stack = self._swap(node, "TensorListStack", [flow, operand], attributes)
            length = known_int(self._size)
            if length is not None and not self._grows:
                self._lengths[stack] = length
        else:
            self._swap(node, "TensorListGather", [flow, indices, operand], self._list)

    def _scatter(self, node: Node) -> None:
        _, indices, value, flow = node.operands
        if source_of(flow) == Port(self._array.node, 1) and self._fills(indices, value):
            shape = self._shape_operand(node, value, self._shape)
            attributes = {**self._list, "shape_type": DType.INT32}
            self._swap(node, "TensorListFromTensor", [value, shape], attributes)
        else:
            operands = [flow, value, indices]
            self._swap(node, "TensorListScatterIntoExistingList", operands, self._list)

    def _write(self, node: Node) -> None:
        _, index, value, flow = node.operands
        attributes: dict[str, AttributeValue] = {**self._list}
        if self._grows:
            attributes["resize_if_index_out_of_bounds"] = True
        self._swap(node, "TensorListSetItem", [flow, index, value], attributes)

    def _read(self, node: Node) -> None:
        _, index, flow = node.operands
        shape = self._shape_operand(node, flow, self._shape)
        self._swap(node, "TensorListGetItem", [flow, index, shape], self._list)

    def _size_of(self, node: Node) -> None:
        self._swap(node, "TensorListLength", [node.operands[1]], {})

    def _close(self, node: Node) -> None:
        self._swap(node, "NoOp", [], {})

    # -- proofs ------------------------------------------------------------------------------

    def _covers(self, indices: Port, flow: Port) -> bool:
        """True if the indices are 0, 1, 2, … for all rows of the array."""
        count = _counting(indices)
        if count is None:
            return False
        if isinstance(count, Port) and source_of(count).node.op == _SIZE:
            handle, version = source_of(count).node.operands
            own = handle in self._array.handles
            return own and (not self._grows or source_of(version) == source_of(flow))
        return not self._grows and _equal(count, self._size)

    def _fills(self, indices: Port, value: Port) -> bool:
        """True if the indices are 0, 1, 2, … and the array is as long as the value."""
        count = _counting(indices)
        if count is None:
            return False
        if self._grows:
            return known_int(self._size) == 0
        return _equal(count, self._size) or self._length_of(value) == known_int(self._size)

    def _length_of(self, value: Port) -> int | None:
        """The number of rows of a value, if it is known."""
        dimension = first_dimension(value)
        if isinstance(dimension, int):
            return dimension
        port, axis = dimension
        return self._lengths.get(port.node) if axis == 0 else None

    # -- graph -------------------------------------------------------------------------------

    def _shape_operand(self, reader: Node, pin: Port, shape: AttributeValue | None) -> Port:
        """A constant with the shape of an element, in the frame where `reader` is."""
        dims = shape.dims if isinstance(shape, Shape) else None
        value = Tensor.of(np.array(-1 if dims is None else dims, np.int32))
        region = self._regions.of[reader]
        node = self._graph.add(
            "Const",
            (),
            {"dtype": DType.INT32, "value": value},
            name=f"{reader.name}/element_shape",
            controls=() if region is self._regions.root else (pin.node,),
            device=reader.device,
            origin=(reader.name,),
        )
        self._regions.place(node, region)
        return Port(node)

    def _put(
        self, old: Node, op: str, operands: list[Port], attributes: dict[str, AttributeValue]
    ) -> Node:
        """A node with the name and the place of `old`, which gets another name."""
        name = old.name
        self._graph.rename(old, self._graph.unique_name(f"{name}/array"))
        new = self._graph.add(
            op,
            operands,
            attributes,
            name=name,
            controls=old.controls,
            device=old.device,
            origin=old.origin or (name,),
        )
        self._regions.place(new, self._regions.of[old])
        if old in self._regions.acting:
            self._regions.acting.add(new)
        return new

    def _swap(
        self, old: Node, op: str, operands: list[Port], attributes: dict[str, AttributeValue]
    ) -> Node:
        new = self._put(old, op, operands, attributes)
        self._graph.replace_uses(Port(old), Port(new))
        self._graph.replace_control_uses(old, [new])
        for key, ending in self._graph.control_results.items():
            if ending is old:
                self._graph.control_results[key] = new
        self._forget(old)
        return new

    def _forget(self, node: Node) -> None:
        self._graph.remove(node)
        self._regions.forget(node)

    def _drop_handle(self) -> None:
        """Remove what passed the handle on, readers first, and the array."""
        passing = dict.fromkeys(port.node for port in self._array.handles)
        for node in reversed(passing):
            if not self._graph.is_used(node):
                self._forget(node)


def _counting(indices: Port) -> Port | int | None:
    """`n` if the value is 0, 1, …, n - 1."""
    node = source_of(indices).node
    if node.op == "Range":
        start, limit, delta = node.operands
        return limit if known_int(start) == 0 and known_int(delta) == 1 else None
    array = known_array(indices)
    if array is None or array.ndim != 1 or not np.array_equal(array, np.arange(array.size)):
        return None
    return int(array.size)


def _equal(one: Port | int, other: Port) -> bool:
    if isinstance(one, Port):
        number = known_int(one)
        if number is None:
            tensor = dimension_of(one)
            return source_of(one) == source_of(other) or (
                tensor is not None and tensor == dimension_of(other)
            )
        one = number
    return one == known_int(other)
