"""Patterns: a piece of a graph written as the maths it is, traced once, matched with backtracking.

A pattern is a function of an op builder and of the values it leaves open::

    def pattern(op, x, w, b):
        return op.Relu(op.BiasAdd(op.Conv2D(x, w, as_="conv"), b))

``op.Name(*operands, **attributes)`` is a node; an attribute is given as a value, a predicate or
`op.attribute`. A value used twice is one value of the graph (a DAG, not a tree). See `OpBuilder`
for alternatives, constants, nodes to look through and open numbers of operands.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from hintc.errors import HintcError
from hintc.ir import Array


@dataclass(frozen=True, eq=False)
class Open:
    """Any value; the same one wherever it is used in the pattern."""

    name: str


@dataclass(frozen=True, eq=False)
class Rest:
    """Any number of operands."""

    name: str


@dataclass(frozen=True, eq=False)
class Capture:
    """Any attribute value; the same one wherever it is used in the pattern."""

    name: str


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant that holds `value` (None: any), for which `where` holds."""

    value: Any = None
    where: Callable[[Array], bool] | None = None
    name: str = ""


@dataclass(frozen=True, eq=False)
class AnyOf:
    """The first of several values that matches."""

    choices: tuple[Value, ...]


@dataclass(frozen=True, eq=False)
class Through:
    """`inner`, possibly behind nodes of these ops that hand on their first operand."""

    inner: Value
    ops: frozenset[str]


@dataclass(frozen=True, eq=False)
class Operation:
    """A node: one of `ops`, with these operands and attributes."""

    ops: frozenset[str]
    operands: tuple[Value | Rest, ...]
    attributes: Mapping[str, Any]
    name: str
    ordered: bool


@dataclass(frozen=True, eq=False)
class Result:
    """Result `index` of an operation; ``value[1]`` is its sibling."""

    node: Operation
    index: int = 0
    __iter__: ClassVar[None] = None

    def __getitem__(self, index: int) -> Result:
        return Result(self.node, index)

    def results(self, count: int) -> tuple[Result, ...]:
        """The first `count` results, to unpack."""
        return tuple(Result(self.node, index) for index in range(count))


Value: TypeAlias = Open | Constant | AnyOf | Through | Result


class OpBuilder:
    """What a pattern function writes nodes with: ``op.Relu(x)``, ``op["Add", "AddV2"](x, y)``.

    A node takes operands, attributes by keyword, and ``as_`` (a name for `Match.node`) and
    ``ordered_`` (True: a commutative op in this order only). An attribute is a value (text is
    bytes), a predicate, or `attribute`; one that the node lacks has its OpDef's default.
    """

    def __getattr__(self, name: str) -> Callable[..., Result]:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, names: str | tuple[str, ...]) -> Callable[..., Result]:
        ops = frozenset((names,) if isinstance(names, str) else names)

        def operation(
            *operands: Value | Rest, as_: str = "", ordered_: bool = False, **attributes: Any
        ) -> Result:
            if sum(isinstance(o, Rest) for o in operands) > 1:
                raise HintcError(f"{'/'.join(sorted(ops))} has two open numbers of operands")
            return Result(Operation(ops, operands, attributes, as_, ordered_))

        return operation

    def any_of(self, *choices: Value) -> AnyOf:
        """The first of these values that matches."""
        return AnyOf(choices)

    def optional(self, around: Callable[[Value], Value], value: Value) -> AnyOf:
        """``around(value)`` or `value` itself, e.g. ``op.optional(op.Relu, x)``."""
        return AnyOf((around(value), value))

    def through(self, value: Value, *ops: str) -> Through:
        """`value`, possibly behind nodes of `ops` (default Identity) that are no hints."""
        return Through(value, frozenset(ops or ("Identity",)))

    def constant(
        self, value: Any = None, where: Callable[[Array], bool] | None = None, as_: str = ""
    ) -> Constant:
        """A constant, also behind Identities.

        Args:
            value: what every element, or the whole array, must equal; None: anything.
            where: must hold for the array.
            as_: name for `Match.constant`.
        """
        return Constant(value, where, as_)

    def rest(self, name: str) -> Rest:
        """Any number of operands, at most once in a node; see `Match.rest`."""
        return Rest(name)

    def attribute(self, name: str) -> Capture:
        """Any attribute value; see `Match.attribute`."""
        return Capture(name)


@dataclass(frozen=True)
class Pattern:
    """A traced pattern. The first root is the anchor: where matching starts.

    Attributes:
        roots: the values that a rewrite replaces.
    """

    roots: tuple[Value, ...]

    @property
    def anchor_ops(self) -> frozenset[str]:
        """The ops that can produce the first root."""
        return result_ops(self.roots[0])

    @property
    def depth(self) -> int:
        """The longest path of operations in the pattern."""
        return max(result_depth(root) for root in self.roots)


def trace(function: Callable[..., Value | tuple[Value, ...]]) -> Pattern:
    """Call a pattern function once.

    Args:
        function: takes an `OpBuilder`, then the values it leaves open, which are known to the
            match by the parameters' names; returns the root, or several roots.

    Raises:
        HintcError: a root is not computed by a node.
    """
    names = list(inspect.signature(function).parameters)[1:]
    returned = function(OpBuilder(), *(Open(name) for name in names))
    roots = returned if isinstance(returned, tuple) else (returned,)
    if not roots or not all(result_ops(root) for root in roots):
        raise HintcError("a pattern must return results of nodes")
    return Pattern(roots)


def result_ops(value: Value) -> frozenset[str]:
    """The ops that can compute `value`; none if it is not always computed by a node."""
    match value:
        case Result():
            return value.node.ops
        case AnyOf():
            found = [result_ops(choice) for choice in value.choices]
            return frozenset().union(*found) if all(found) else frozenset()
        case Through():
            inner = result_ops(value.inner)
            return inner | value.ops if inner else inner
    return frozenset()


def result_depth(value: Value | Rest) -> int:
    """The longest path of operations in `value`."""
    match value:
        case Result():
            return 1 + max((result_depth(o) for o in value.node.operands), default=0)
        case AnyOf():
            return max(result_depth(choice) for choice in value.choices)
        case Through():
            return 1 + result_depth(value.inner)
    return 0
