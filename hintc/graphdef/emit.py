"""The few TensorFlow ops that lowering emits, with their attributes filled in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hintc.ir import Array, AttributeValue, DType, Graph, Node, Port, Tensor
from hintc.ir.scan import dtype_of


def constant_behind(port: Port) -> Node | None:
    """The Const that a value comes from, through Identity; None if it is no constant."""
    node = port.node
    while node.op == "Identity":
        node = node.operands[0].node
    return node if node.op == "Const" else None


def constant_array(node: Node) -> Array:
    """The elements of a Const node."""
    value = node.attributes["value"]
    assert isinstance(value, Tensor)
    return value.array


def known_array(port: Port) -> Array | None:
    """The elements of a value that is a constant, through Identity; else None."""
    constant = constant_behind(port)
    return None if constant is None else constant_array(constant)


class Emitter:
    """Appends ops to one graph.

    Args:
        graph: receives the nodes.
        scope: put before their names, with a slash; "" for none.
        origin: their provenance.
    """

    def __init__(self, graph: Graph, scope: str, origin: Sequence[str]) -> None:
        self.graph = graph
        self._scope = scope
        self._origin = tuple(origin)

    def node(
        self,
        op: str,
        operands: Sequence[Port],
        attributes: dict[str, AttributeValue] | None = None,
        name: str = "",
    ) -> Port:
        """Append a node; its first result."""
        name = name or op
        full = f"{self._scope}/{name}" if self._scope else name
        return Port(self.graph.add(op, operands, attributes, name=full, origin=self._origin))

    def constant(self, value: Any, name: str = "Const") -> Port:
        """A constant with the element type of the NumPy `value`."""
        tensor = Tensor.of(value)
        return self.node("Const", (), {"dtype": tensor.dtype, "value": tensor}, name)

    def shape(self, value: Port, name: str = "Shape") -> Port:
        """The run-time shape, an int32 vector."""
        attributes: dict[str, AttributeValue] = {"T": dtype_of(value), "out_type": DType.INT32}
        return self.node("Shape", [value], attributes, name)

    def element(self, vector: Port, index: int, name: str = "element") -> Port:
        """``vector[index]``, a scalar."""
        bounds = [
            self.constant(np.array([at], np.int32), f"{name}/{part}")
            for part, at in (("begin", index), ("end", index + 1), ("strides", 1))
        ]
        attributes: dict[str, AttributeValue] = {
            "T": dtype_of(vector),
            "Index": DType.INT32,
            "shrink_axis_mask": 1,
        }
        return self.node("StridedSlice", [vector, *bounds], attributes, name)

    def tail(self, vector: Port, name: str = "tail") -> Port:
        """``vector[1:]``."""
        bounds = [
            self.constant(np.array([at], np.int32), f"{name}/{part}")
            for part, at in (("begin", 1), ("end", 0), ("strides", 1))
        ]
        attributes: dict[str, AttributeValue] = {
            "T": dtype_of(vector),
            "Index": DType.INT32,
            "end_mask": 1,
        }
        return self.node("StridedSlice", [vector, *bounds], attributes, name)

    def pack(self, values: Sequence[Port], name: str = "Pack", axis: int = 0) -> Port:
        """The values stacked along a new axis."""
        attributes: dict[str, AttributeValue] = {
            "T": dtype_of(values[0]),
            "N": len(values),
            "axis": axis,
        }
        return self.node("Pack", values, attributes, name)

    def unpack(self, value: Port, count: int, name: str = "Unpack", axis: int = 0) -> Node:
        """The `count` slices along `axis`."""
        attributes: dict[str, AttributeValue] = {
            "T": dtype_of(value),
            "num": count,
            "axis": axis,
        }
        return self.node("Unpack", [value], attributes, name).node

    def concat(self, values: Sequence[Port], name: str = "concat", axis: int = 0) -> Port:
        """The values joined along `axis`."""
        along = self.constant(np.int32(axis), f"{name}/axis")
        attributes: dict[str, AttributeValue] = {
            "T": dtype_of(values[0]),
            "Tidx": DType.INT32,
            "N": len(values),
        }
        return self.node("ConcatV2", [*values, along], attributes, name)

    def fill(self, dims: Port, dtype: DType, name: str = "zeros") -> Port:
        """Zeros (False, empty strings) of shape `dims`."""
        blank: Any = b"" if dtype is DType.STRING else 0
        tensor = Tensor.of(blank, dtype)
        zero = self.node("Const", (), {"dtype": dtype, "value": tensor}, f"{name}/value")
        return self.node("Fill", [dims, zero], {"T": dtype, "index_type": DType.INT32}, name)

    def reshape(
        self,
        value: Port,
        leading: Sequence[int],
        replaced: int,
        tail: Sequence[int],
        name: str = "Reshape",
    ) -> Port:
        """`value` with its first `replaced` dimensions as `leading`, the others as they are.

        Args:
            value: of rank ``replaced + len(tail)``.
            leading: sizes; at most one is -1, "what is left".
            replaced: how many dimensions `leading` stands for.
            tail: the other dimensions, -1 where not known: if that makes more than one -1, they
                are read at run time.
            name: of the new nodes.
        """
        dims = [*leading, *tail]
        if dims.count(-1) > 1:
            sizes = self.shape(value, f"{name}/sizes")
            parts = [
                self.constant(np.int32(d), f"{name}/leading_{k}") for k, d in enumerate(leading)
            ]
            for k, d in enumerate(tail):
                known = self.constant(np.int32(d), f"{name}/size_{k}") if d >= 0 else None
                parts.append(known or self.element(sizes, replaced + k, f"{name}/size_{k}"))
            shape = self.pack(parts, f"{name}/shape")
        else:
            shape = self.constant(np.array(dims, np.int32), f"{name}/shape")
        attributes: dict[str, AttributeValue] = {"T": dtype_of(value), "Tshape": DType.INT32}
        return self.node("Reshape", [value, shape], attributes, name)

    def gather(self, values: Port, index: Port, name: str = "row") -> Port:
        """``values[index]`` along axis 0."""
        axis = self.constant(np.int32(0), f"{name}/axis")
        attributes: dict[str, AttributeValue] = {
            "Tparams": dtype_of(values),
            "Tindices": dtype_of(index),
            "Taxis": DType.INT32,
        }
        return self.node("GatherV2", [values, index, axis], attributes, name)

    def expand(self, value: Port, name: str = "expand") -> Port:
        """A new axis in front."""
        axis = self.constant(np.int32(0), f"{name}/axis")
        attributes: dict[str, AttributeValue] = {"T": dtype_of(value), "Tdim": DType.INT32}
        return self.node("ExpandDims", [value, axis], attributes, name)

    def binary(self, op: str, left: Port, right: Port, name: str = "") -> Port:
        """An op with two operands of one element type."""
        return self.node(op, [left, right], {"T": dtype_of(left)}, name)

    def add(self, left: Port, right: Port, name: str = "add") -> Port:
        """``left + right``."""
        return self.binary("AddV2", left, right, name)

    def subtract(self, left: Port, right: Port, name: str = "sub") -> Port:
        """``left - right``."""
        return self.binary("Sub", left, right, name)

    def write_row(self, into: Port, row: Port, index: Port, rank: int | None) -> Port:
        """`into` with ``into[index] = row``; `rank` is that of `row`, None if not known."""
        if rank is None:
            zero = self.constant(np.int32(0), "write/zero")
            rest = self.binary("Mul", self.shape(row, "write/shape"), zero, "write/origin")
            start = self.concat([self.expand(index, "write/index"), rest], "write/start")
        else:
            zero = self.constant(np.int32(0), "write/zero")
            start = self.pack([index, *([zero] * rank)], "write/start")
        update = self.expand(row, "write/row")
        attributes: dict[str, AttributeValue] = {"T": dtype_of(into), "Tindices": DType.INT32}
        return self.node("XlaDynamicUpdateSlice", [into, update, start], attributes, "write")
