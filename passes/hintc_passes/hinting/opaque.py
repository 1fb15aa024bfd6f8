"""A function for a stub of a user's op whose body is lost: right types and shapes, no values."""

from __future__ import annotations

from collections.abc import Sequence

from hintc.ir import AttributeValue, DType, Function, Graph, Node, Port, Shape, Tensor
from hintc.ir.scan import dtype_of

Attrs = dict[str, AttributeValue]


def opaque_function(
    name: str, operands: Sequence[Port], results: Sequence[tuple[DType, Shape]]
) -> Function:
    """A function that fails when it runs and says why; the converter reads only its signature.

    Args:
        name: of the hinted function.
        operands: what it will be called with; at least one.
        results: element type and shape of each result; the ranks must be known.
    """
    function = Function(f"{name.lower()}_without_body")
    for at, port in enumerate(operands):
        function.add_arg(f"operand_{at}", dtype_of(port))
    body = function.graph
    failure = _failure(body, name)
    for at, (dtype, shape) in enumerate(results):
        zero = _constant(body, 0, dtype)
        dims = [_size(body, size) for size in shape.dims or ()]
        if dims:
            attributes: Attrs = {"N": len(dims), "T": DType.INT32, "axis": 0}
            packed = Port(body.add("Pack", dims, attributes, name="dims"))
        else:
            packed = _constant(body, [], DType.INT32)
        node = body.add(
            "Fill",
            [packed, zero],
            {"T": dtype, "index_type": DType.INT32},
            name=f"result_{at}",
            controls=[failure],
        )
        body.add_result(f"output_{at}", Port(node))
    return function


def _failure(body: Graph, name: str) -> Node:
    text = (
        f"The stub of '{name}' came without its body, so only a converted model with a kernel "
        "for it can compute it."
    )
    condition = _constant(body, False, DType.BOOL)
    attributes: Attrs = {"dtype": DType.STRING, "value": Tensor.of(text.encode(), DType.STRING)}
    message = body.add("Const", (), attributes, name="message")
    return body.add(
        "Assert", [condition, Port(message)], {"T": (DType.STRING,), "summarize": 3}, name="fail"
    )


def _size(body: Graph, size: int) -> Port:
    """A dimension as an int32 scalar; one that no shape inference can tell if it is unknown."""
    if size >= 0:
        return _constant(body, size, DType.INT32)
    where = body.add("Where", [body.args[0]], {"T": body.args[0].attributes["T"]}, name="where")
    shape = body.add(
        "Shape", [where], {"T": DType.INT64, "out_type": DType.INT32}, name="where_shape"
    )
    bounds = [_constant(body, [at], DType.INT32) for at in (0, 1, 1)]
    masks = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask")
    attributes: Attrs = {"T": DType.INT32, "Index": DType.INT32, "shrink_axis_mask": 1}
    attributes |= dict.fromkeys(masks, 0)
    return Port(body.add("StridedSlice", [Port(shape), *bounds], attributes, name="size"))


def _constant(body: Graph, value: object, dtype: DType) -> Port:
    attributes: Attrs = {"value": Tensor.of(value, dtype), "dtype": dtype}
    return Port(body.add("Const", (), attributes, name="const"))
