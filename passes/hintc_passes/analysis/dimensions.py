"""Dimensions that are known at run time only, compared symbolically."""

from __future__ import annotations

from hintc.graphdef.emit import known_array
from hintc.ir import Port, Shape, Tensor
from hintc_passes.analysis.values import dimension_of, known_int, source_of

Dimension = int | tuple[Port, int]
"""A size, or the dimension of that number of a value."""

_SAME = frozenset(
    (
        *("BiasAdd", "Cast", "Relu", "Relu6", "ReverseV2", "Sigmoid", "Tanh", "ZerosLike"),
        *("Abs", "Elu", "Exp", "Neg", "Selu", "Softplus", "Softsign", "Square"),
    )
)
"""Ops whose result has the shape of operand 0."""
_BROADCASTING = frozenset(("Add", "AddV2", "Maximum", "Minimum", "Mul", "RealDiv", "Sub"))
_DEPTH = 60
"""How far back a dimension is followed: a recurrent cell is about 15 nodes deep."""


def same_shape(one: Port, other: Port, rank: int) -> bool:
    """True if two values of this rank provably have the same shape at run time."""
    return _dimensions(one, rank, _DEPTH) == _dimensions(other, rank, _DEPTH)


def dimension(port: Port, axis: int) -> Dimension:
    """One dimension of a value, followed back as far as it is provably the same."""
    found = _dimensions(port, axis + 1, _DEPTH)
    return found[axis] if axis < len(found) else (source_of(port), axis)


def first_dimension(port: Port) -> Dimension:
    """The first dimension of a value of rank 1 at least; a Placeholder's own shape is known."""
    found = dimension(port, 0)
    if isinstance(found, int):
        return found
    shape = found[0].node.attributes.get("shape")
    if found[0].node.op == "Placeholder" and isinstance(shape, Shape) and shape.dims:
        size = shape.dims[found[1]]
        return size if size >= 0 else found
    return found


def _dimensions(port: Port, rank: int, depth: int) -> tuple[Dimension, ...]:
    """The dimensions of a value, each followed back as far as it is provably the same.

    Where only one dimension is asked for, `rank` may be less than that of the value.
    """
    port = source_of(port)
    found = _followed(port, rank, depth) if depth else None
    return found if found is not None else tuple((port, axis) for axis in range(rank))


def _followed(port: Port, rank: int, depth: int) -> tuple[Dimension, ...] | None:
    node = port.node
    if node.op == "Const":
        value = node.attributes.get("value")
        return value.shape.dims if isinstance(value, Tensor) else None
    if node.op in _SAME:
        return _dimensions(node.operands[0], rank, depth - 1)
    if node.op in _BROADCASTING:
        return _broadcast(port, rank, depth)
    follow = {
        "Fill": _of_fill,
        "MatMul": _of_product,
        "Split": _of_split,
        "StridedSlice": _of_slice,
        "Transpose": _of_transpose,
    }.get(node.op)
    return None if follow is None else follow(port, rank, depth)


def _broadcast(port: Port, rank: int, depth: int) -> tuple[Dimension, ...] | None:
    left, right = (_dimensions(p, rank, depth - 1) for p in port.node.operands)
    if right in (left, ()):
        return left
    return right if left == () else None


def _of_fill(port: Port, rank: int, depth: int) -> tuple[Dimension, ...] | None:
    dims = source_of(port.node.operands[0])
    array = known_array(dims)
    if array is not None:
        return tuple(int(dim) for dim in array.reshape(-1))
    if dims.node.op != "Pack":
        return None
    found: list[Dimension] = []
    for element in dims.node.operands:
        size = known_int(element)
        found.append(_of_element(source_of(element), depth) if size is None else size)
    return tuple(found)


def _of_element(size: Port, depth: int) -> Dimension:
    """The dimension that a scalar is: ``Shape(x)[n]``, or no other's."""
    found = dimension_of(size)
    if found is None:
        return size, -1
    of, axis = found
    dims = _dimensions(of, axis + 1, depth - 1)
    return dims[axis] if axis < len(dims) else (size, -1)


def _of_product(port: Port, rank: int, depth: int) -> tuple[Dimension, ...] | None:
    node = port.node
    if node.attributes.get("transpose_a") or node.attributes.get("transpose_b"):
        return None
    left, right = (_dimensions(p, 2, depth - 1) for p in node.operands)
    return left[0], right[1]


def _of_split(port: Port, rank: int, depth: int) -> tuple[Dimension, ...] | None:
    node = port.node
    axis, parts = known_int(node.operands[0]), node.attributes.get("num_split")
    found = list(_dimensions(node.operands[1], rank, depth - 1))
    if axis is None or not isinstance(parts, int) or not 0 <= axis < len(found):
        return None
    size = found[axis]
    if not isinstance(size, int):
        return None
    found[axis] = size // parts
    return tuple(found)


def _of_slice(port: Port, rank: int, depth: int) -> tuple[Dimension, ...] | None:
    """``x[n]``, which removes the first axis, and ``x[:, a:b]``."""
    node = port.node
    shrink, starts, stops = (
        node.attributes.get(f"{kind}_mask", 0) for kind in ("shrink_axis", "begin", "end")
    )
    if any(node.attributes.get(f"{kind}_mask") for kind in ("ellipsis", "new_axis")):
        return None
    if shrink == 1 and not starts and not stops and known_int(node.operands[1]) is not None:
        return _dimensions(node.operands[0], rank + 1, depth - 1)[1:]
    begin, end, strides = (known_array(p) for p in node.operands[1:])
    if begin is None or end is None or strides is None or (strides != 1).any() or shrink:
        return None
    found = list(_dimensions(node.operands[0], rank, depth - 1))
    if not isinstance(starts, int) or not isinstance(stops, int) or begin.size > len(found):
        return None
    for axis in range(begin.size):
        first = None if starts >> axis & 1 else int(begin[axis])
        last = None if stops >> axis & 1 else int(end[axis])
        size = found[axis]
        if first is None and last is None:
            continue
        if not isinstance(size, int):
            return None
        found[axis] = len(range(size)[first:last])
    return tuple(found)


def _of_transpose(port: Port, rank: int, depth: int) -> tuple[Dimension, ...] | None:
    order = known_array(port.node.operands[1])
    if order is None:
        return None
    found = _dimensions(port.node.operands[0], order.size, depth - 1)
    return tuple(found[int(axis)] for axis in order) if len(found) == order.size else None
