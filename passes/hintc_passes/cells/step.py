"""Evaluates the body of a Scan to the normal form of `algebra`.

Ops that the algebra does not know become opaque atoms that remember their op and node, so that a
refusal can name the first thing that is not part of a cell's maths. Nothing here decides what a
cell is.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from hintc.ir import ARG, Array, FunctionRef, Graph, Module, Node, Port, Tensor
from hintc_passes.cells.algebra import (
    Affine,
    Mean,
    Opaque,
    Symbol,
    Unary,
    Value,
    blockwise,
    clip,
    matmul,
    per_row,
    product,
    slice_columns,
    width_of,
)


@dataclass(frozen=True)
class Stacked:
    """A value with an axis of size 1 in front, as a hint's stack of one member makes it."""

    value: Value


Plain: TypeAlias = Value | Array
"""A value of shape ``[batch, n]``, or a constant of any shape."""
Result: TypeAlias = Plain | Stacked
"""What an op may give."""


class UnknownWidthError(Exception):
    """A symbol's number of columns is not known, so its maths cannot be written down."""


@dataclass
class Step:
    """Values of one body.

    Args:
        module: where functions called by the body are.
        arguments: for every argument of the body its value; None where its width is not known.
    """

    module: Module
    arguments: Sequence[Result | None]
    _known: dict[Port, Result] = field(default_factory=dict)
    _scope: str = ""

    def run(self, graph: Graph) -> list[Result]:
        """Values of the body's results, in order.

        Raises:
            UnknownWidthError: a result depends on an argument whose width is not known.
        """
        needed = _cone(graph)
        for node in graph.topological():
            if node in needed:
                self._visit(node, graph)
        return [self._known[r.operands[0]] for r in graph.results]

    def _visit(self, node: Node, graph: Graph) -> None:
        if node.op == ARG:
            value = self.arguments[graph.args.index(node)]
            if value is None:
                raise UnknownWidthError(node.name)
            self._known[Port(node)] = value
            return
        operands = [self._known[p] for p in node.operands]
        results = self._call(node, operands) if _is_call(node) else evaluate(node, operands)
        if results is None:
            count = max((p.index for p in _ports_read(node)), default=0) + 1
            results = [self._opaque(node, i, operands) for i in range(count)]
        for index, result in enumerate(results):
            self._known[Port(node, index)] = result

    def _call(self, node: Node, operands: list[Result]) -> list[Result] | None:
        ref = node.attributes["f"]
        assert isinstance(ref, FunctionRef)
        inner = Step(self.module, operands, _scope=f"{self._scope}{node.name}/")
        return inner.run(self.module.function(ref.name, node=node).graph)

    def _opaque(self, node: Node, result: int, operands: list[Result]) -> Value:
        widths = [width_of(o) for o in operands if isinstance(o, tuple)]
        width = max(widths, default=1)
        weight = _varying_weight(node, operands)
        return (Affine.of(Opaque(node.op, self._scope + node.name, result, 0, width, weight)),)


def _varying_weight(node: Node, operands: Sequence[Result]) -> int | None:
    """Position of the invariant that the node, or one before it, takes for a matrix."""
    atoms = [o[0].atom if isinstance(o, tuple) and o else None for o in operands]
    weight = atoms[1] if node.op in _PRODUCTS else None
    if isinstance(weight, Symbol) and weight.kind == "invariant":
        return weight.index
    found = (atom.weight for atom in atoms if isinstance(atom, Opaque))
    return next((at for at in found if at is not None), None)


def _cone(graph: Graph) -> set[Node]:
    seen: set[Node] = set()
    stack = [r.operands[0].node for r in graph.results]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(p.node for p in node.operands)
    return seen


def _ports_read(node: Node) -> list[Port]:
    return [use.node.operands[use.slot] for use in node.graph.uses(node)]


def _is_call(node: Node) -> bool:
    return node.op in ("PartitionedCall", "StatefulPartitionedCall")


def evaluate(node: Node, operands: list[Result]) -> list[Result] | None:
    """Results of one node that is no call, None where the algebra does not know its op."""
    if node.op == "Const":
        tensor = node.attributes["value"]
        assert isinstance(tensor, Tensor)
        return [tensor.array]
    if node.op in ("Pack", "Unpack"):
        return _stack_of_one(node, operands)
    rule = _RULES.get(node.op)
    plain = [o for o in operands if not isinstance(o, Stacked)]
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


def symbol(kind: str, index: int, width: int) -> Value:
    """A whole argument as a value."""
    return (Affine.of(Symbol(kind, index, 0, width, width)),)


_PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
# -- rules: (node, operands) -> results, or None where the algebra does not apply ------------------


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
    axes = node.attributes.get("squeeze_dims")
    dims = tuple(a for a in axes if isinstance(a, int)) if isinstance(axes, tuple) else ()
    return _fold(lambda value: np.squeeze(value, dims or None))(node, operands)


def _folding(function: Callable[..., Array], rule: Rule) -> Rule:
    """`rule`, but NumPy's `function` where all operands are constants."""
    folded = _fold(function)

    def either(node: Node, operands: list[Plain]) -> list[Plain] | None:
        return folded(node, operands) or rule(node, operands)

    return either


Rule: TypeAlias = Callable[[Node, list[Plain]], list[Plain] | None]

_add = _folding(np.add, _elementwise(lambda a, b: a + b))
_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        ("Identity", "StopGradient", "PreventGradient", "CheckNumerics", "Snapshot"), _pass_through
    ),
    **dict.fromkeys(_PRODUCTS, _matmul),
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
    "ConcatV2": _concat,
    "Split": _split,
    "SplitV": _split_v,
    "Slice": _slice,
    "StridedSlice": _strided_slice,
    "Transpose": _fold(np.transpose),
    "Reshape": _fold(np.reshape),
    "ExpandDims": _fold(lambda value, axis: np.expand_dims(value, int(axis))),
    "Squeeze": _squeeze,
}
