"""What each op computes, in the normal form of `algebra`; constants are computed by NumPy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hintc.ir import Array, Node, Tensor
from hintc_passes.cells.algebra import Affine, Mean, Unary
from hintc_passes.cells.column_rules import COLUMN_RULES
from hintc_passes.cells.functions import clip, product
from hintc_passes.cells.rows import Value, blockwise, matmul, per_row, width_of
from hintc_passes.cells.step_values import Plain, Result, Rule, Squeezed, Stacked

MATRIX_PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")


def evaluate(node: Node, operands: list[Result]) -> list[Result] | None:
    """Results of one node that is no call, None where the algebra does not know its op."""
    if node.op == "Const":
        tensor = node.attributes["value"]
        assert isinstance(tensor, Tensor)
        return [tensor.array]
    if node.op in ("Pack", "Unpack"):
        return _stack_of_one(node, operands)
    if node.op == "Squeeze" and isinstance(operands[0], tuple):
        return _squeeze_batch(node, operands[0])
    rule = _RULES.get(node.op)
    if node.op in _BROADCASTING and any(isinstance(o, tuple) for o in operands):
        operands = [o.value if isinstance(o, Squeezed) else o for o in operands]
    plain = [o for o in operands if not isinstance(o, (Stacked, Squeezed))]
    if rule is None or len(plain) < len(operands):
        return None
    results = rule(node, plain)
    return None if results is None else list(results)


def _stack_of_one(node: Node, operands: list[Result]) -> list[Result] | None:
    (value, *others) = operands
    if others or node.attributes.get("axis", 0) != 0:
        return None
    if node.op == "Unpack":
        return [value.value] if isinstance(value, Stacked) else None
    return [Stacked(value)] if isinstance(value, tuple) else None


def _squeeze_batch(node: Node, value: Value) -> list[Result] | None:
    """Keras 3 takes axis 0 away where the batch is 1; a single column might go as well."""
    axes = _squeezed_axes(node)
    surely_rows = axes == (0,) or (not axes and width_of(value) > 1)
    return [Squeezed(value)] if surely_rows else None


def _squeezed_axes(node: Node) -> tuple[int, ...]:
    axes = node.attributes.get("squeeze_dims")
    return tuple(a for a in axes if isinstance(a, int)) if isinstance(axes, tuple) else ()


def _pass_through(node: Node, operands: list[Plain]) -> list[Plain] | None:
    return [operands[0]]


def _matmul(node: Node, operands: list[Plain]) -> list[Plain] | None:
    a, b = operands
    flag = node.attributes.get
    if not isinstance(b, np.ndarray) or b.ndim != 2 or flag("transpose_a") or flag("adj_x"):
        return None
    return _product(a, b.T if flag("transpose_b") or flag("adj_y") else b)


def _product(a: Plain, matrix: Array) -> list[Plain] | None:
    columns = width_of(a) if isinstance(a, tuple) else a.shape[-1] if a.ndim == 2 else -1
    if matrix.dtype != np.float32 or matrix.shape[0] != columns:
        return None
    if isinstance(a, np.ndarray):
        return [a @ matrix]
    return [matmul(a, np.ascontiguousarray(matrix))]


def _einsum(node: Node, operands: list[Plain]) -> list[Plain] | None:
    """``ab,bc->ac`` and ``ab,cb->ac``, whatever the letters and the order of the operands."""
    equation = node.attributes.get("equation")
    match = _EINSUM.fullmatch(equation.decode()) if isinstance(equation, bytes) else None
    if match is None:
        return None
    one, other, wanted = match.groups()
    a, b = operands
    if isinstance(a, np.ndarray):
        (one, a), (other, b) = (other, b), (one, a)
    if not isinstance(b, np.ndarray) or wanted[0] != one[0] or len({*one, *other}) != 3:
        return None
    if other == one[1] + wanted[1]:
        return _product(a, b)
    return _product(a, b.T) if other == wanted[1] + one[1] else None


_EINSUM = re.compile(r"([a-zA-Z]{2}),([a-zA-Z]{2})->([a-zA-Z]{2})")


def _mean(node: Node, operands: list[Plain]) -> list[Plain] | None:
    """The mean over columns, kept as one."""
    value, axes = operands
    if isinstance(value, np.ndarray) or not isinstance(axes, np.ndarray) or len(value) != 1:
        return None
    if node.attributes.get("keep_dims") is not True or axes.size != 1:
        return None
    return [(Affine.of(Mean(value[0])),)] if int(axes.reshape(())) in (1, -1) else None


def _squared_difference(a: Affine, b: Affine) -> Affine:
    return Affine.of(Unary("Square", _subtract(a, b)))


def _divide(node: Node, operands: list[Plain]) -> list[Plain] | None:
    value, by = operands
    if isinstance(by, tuple) and len(by) == 1:
        root = by[0].atom
        if not isinstance(root, Unary) or root.function != "Sqrt":
            return None
        inverse = (Affine.of(Unary("Rsqrt", root.operand)),)
        return _elementwise(product)(node, [value, inverse])
    if not isinstance(by, np.ndarray) or by.dtype != np.float32 or not np.all(by):
        return None
    return _folding(np.multiply, _elementwise(product))(node, [value, 1 / by])


def _row(constant: Array, width: int) -> Array | None:
    """A constant that broadcasts over the batch, as one row of `width` entries."""
    if constant.dtype != np.float32 or constant.ndim > 2:
        return None
    if constant.ndim == 2 and constant.shape[0] != 1:
        return None
    flat = constant.reshape(-1)
    if flat.size not in (1, width):
        return None
    return np.broadcast_to(flat, (width,))


def _as_values(operands: Sequence[Plain]) -> list[Value] | None:
    """Operands of an element-wise op as values of one width; None if they do not broadcast."""
    values = [o for o in operands if isinstance(o, tuple)]
    widths = {width_of(v) for v in values if not per_row(v)}
    if not values:
        return None
    if not widths:  # constants of any width, times one number in each row
        widths = {max([o.size for o in operands if isinstance(o, np.ndarray)], default=1)}
    if len(widths) != 1:
        return None
    width = widths.pop()
    found: list[Value] = []
    for operand in operands:
        if isinstance(operand, tuple):
            repeated = width > 1 and per_row(operand)
            found.append(matmul(operand, np.ones((1, width), np.float32)) if repeated else operand)
            continue
        row = _row(operand, width)
        if row is None:
            return None
        found.append((Affine.constant(row),))
    return found


def _elementwise(function: Callable[..., Affine]) -> Rule:
    def rule(node: Node, operands: list[Plain]) -> list[Plain] | None:
        values = _as_values(operands)
        return None if values is None else [blockwise(function, *values)]

    return rule


def _unary(node: Node, operands: list[Plain]) -> list[Plain] | None:
    (value,) = operands
    if isinstance(value, np.ndarray):
        return None
    return [blockwise(lambda block: Affine.of(Unary(node.op, block)), value)]


def _relu(node: Node, operands: list[Plain]) -> list[Plain] | None:
    high = 6.0 if node.op == "Relu6" else np.inf
    (value,) = operands
    if isinstance(value, np.ndarray):
        return None
    return [blockwise(lambda block: clip(block, 0.0, high), value)]


def _negative(value: Affine) -> Affine:
    return value.scaled(np.full(value.width, -1, np.float32))


def _subtract(a: Affine, b: Affine) -> Affine:
    return a + _negative(b)


def _bound(node: Node, operands: list[Plain]) -> list[Plain] | None:
    a, b = operands
    if isinstance(a, np.ndarray):
        a, b = b, a
    if isinstance(a, np.ndarray) or not isinstance(b, np.ndarray) or b.size != 1:
        return None
    at = float(b.reshape(()))
    low, high = (-np.inf, at) if node.op == "Minimum" else (at, np.inf)
    return [blockwise(lambda block: clip(block, low, high), a)]


def _clip_by_value(node: Node, operands: list[Plain]) -> list[Plain] | None:
    value, low, high = operands
    if isinstance(value, np.ndarray) or not isinstance(low, np.ndarray) or low.size != 1:
        return None
    if not isinstance(high, np.ndarray) or high.size != 1:
        return None
    bounds = float(low.reshape(())), float(high.reshape(()))
    return [blockwise(lambda block: clip(block, *bounds), value)]


def _add_n(node: Node, operands: list[Plain]) -> list[Plain] | None:
    values = _as_values(operands)
    if values is None:
        return None
    return [blockwise(lambda *blocks: sum(blocks[1:], start=blocks[0]), *values)]


def _fold(function: Callable[..., Array]) -> Rule:
    """A rule for ops that the algebra only computes on constants."""

    def rule(node: Node, operands: list[Plain]) -> list[Plain] | None:
        if not all(isinstance(o, np.ndarray) for o in operands):
            return None
        return [np.asarray(function(*operands))]

    return rule


def _squeeze(node: Node, operands: list[Plain]) -> list[Plain] | None:
    axes = _squeezed_axes(node)
    return _fold(lambda value: np.squeeze(value, axes or None))(node, operands)


def _folding(function: Callable[..., Array], rule: Rule) -> Rule:
    """`rule`, but NumPy's `function` where all operands are constants."""
    folded = _fold(function)

    def either(node: Node, operands: list[Plain]) -> list[Plain] | None:
        return folded(node, operands) or rule(node, operands)

    return either


_BROADCASTING = frozenset(("Add", "AddV2", "BiasAdd", "Mul", "Sub"))
_add = _folding(np.add, _elementwise(lambda a, b: a + b))
_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        ("Identity", "StopGradient", "PreventGradient", "CheckNumerics", "Snapshot"), _pass_through
    ),
    **dict.fromkeys(MATRIX_PRODUCTS, _matmul),
    "Einsum": _einsum,
    "Mean": _mean,
    "SquaredDifference": _elementwise(_squared_difference),
    "Square": _elementwise(lambda a: Affine.of(Unary("Square", a))),
    "Add": _add,
    "AddV2": _add,
    "BiasAdd": _add,
    "AddN": _add_n,
    "Sub": _folding(np.subtract, _elementwise(_subtract)),
    "Neg": _folding(np.negative, _elementwise(_negative)),
    "Mul": _folding(np.multiply, _elementwise(product)),
    **dict.fromkeys(("RealDiv", "Div"), _divide),
    **dict.fromkeys(("Sigmoid", "Tanh", "Elu", "Selu", "Softplus", "Softsign", "Exp"), _unary),
    **dict.fromkeys(("Sqrt", "Rsqrt"), _unary),
    **dict.fromkeys(("Relu", "Relu6"), _relu),
    **dict.fromkeys(("Minimum", "Maximum"), _bound),
    "ClipByValue": _clip_by_value,
    **COLUMN_RULES,
    "Transpose": _fold(np.transpose),
    "Reshape": _fold(np.reshape),
    "ExpandDims": _fold(lambda value, axis: np.expand_dims(value, int(axis))),
    "Squeeze": _squeeze,
}
