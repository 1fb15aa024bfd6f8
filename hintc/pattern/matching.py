"""Matching a pattern at a node of a graph, with backtracking."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hintc.ir import Array, AttributeValue, Graph, Node, Port, Tensor
from hintc.ir.opdefs import lookup
from hintc.pattern.language import (
    AnyOf,
    Capture,
    Constant,
    Open,
    Operation,
    Pattern,
    Rest,
    Result,
    Through,
    Value,
    result_depth,
    result_ops,
)
from hintc.remark import NearMiss

COMMUTATIVE = frozenset(
    (
        "Add",
        "AddV2",
        "Equal",
        "LogicalAnd",
        "LogicalOr",
        "Maximum",
        "Minimum",
        "Mul",
        "NotEqual",
        "SquaredDifference",
    )
)
"""Binary ops whose operands a pattern may meet in either order."""
_HINT = "_tflite_function_uuid"


def is_hint(node: Node) -> bool:
    """True if the node is the Identity of a hint: a border, never looked through."""
    return _HINT in node.attributes


def constant_of(port: Port) -> Array | None:
    """The elements of a constant, also behind Identities that are no hints; None if it is none."""
    node = port.node
    while node.op == "Identity" and len(node.operands) == 1 and not is_hint(node):
        node = node.operands[0].node
    if node.op != "Const":
        return None
    tensor = node.attributes.get("value")
    return tensor.array if isinstance(tensor, Tensor) else None


@dataclass(frozen=True)
class Match:
    """A place in a graph that a pattern fits.

    Attributes:
        graph: where it is.
        roots: the values that the pattern's roots matched.
        nodes: the node of each operation.
        passed: nodes that were looked through.
    """

    graph: Graph
    roots: tuple[Port, ...] = ()
    nodes: Mapping[Operation, Node] = field(default_factory=dict)
    passed: tuple[Node, ...] = ()
    _values: Mapping[str, Port] = field(default_factory=dict)
    _rests: Mapping[str, tuple[Port, ...]] = field(default_factory=dict)
    _attributes: Mapping[str, AttributeValue] = field(default_factory=dict)

    @property
    def root(self) -> Node:
        """The node that computes the first root."""
        return self.roots[0].node

    @property
    def interior(self) -> tuple[Node, ...]:
        """All nodes that the pattern describes; constants and open values are not among them."""
        return tuple(dict.fromkeys((*self.nodes.values(), *self.passed)))

    def __getitem__(self, name: str) -> Port:
        """The value that an open value, or a constant with a name, stands for."""
        return self._values[name]

    def get(self, name: str) -> Port | None:
        """The same, None if it is on an alternative that was not taken."""
        return self._values.get(name)

    def node(self, name: str) -> Node:
        """The node of the operation that the pattern calls `name` (``as_=name``)."""
        return next(node for operation, node in self.nodes.items() if operation.name == name)

    def has_node(self, name: str) -> bool:
        """True if that operation is on the alternative that was taken."""
        return any(operation.name == name for operation in self.nodes)

    def rest(self, name: str) -> tuple[Port, ...]:
        """The operands that `op.rest(name)` took."""
        return self._rests[name]

    def attribute(self, name: str) -> AttributeValue:
        """The attribute that `op.attribute(name)` took."""
        return self._attributes[name]

    def constant(self, name: str) -> Array | None:
        """The elements of the value `name`; None if it is not constant."""
        return constant_of(self[name])


class Matcher:
    """Tries a pattern at nodes of a graph."""

    def __init__(self, pattern: Pattern, graph: Graph) -> None:
        self._pattern = pattern
        self._graph = graph
        self._miss: NearMiss | None = None
        self._anchor = ""

    def match(self, node: Node) -> Match | NearMiss:
        """The first match whose first root is computed by `node`, or why there is none."""
        self._start_at(node)
        for found in self._at_anchor(node):
            return found
        return self._miss or NearMiss(node.name, node.name, f"the op is {node.op}", 0)

    def _start_at(self, node: Node) -> None:
        self._anchor, self._miss = node.name, None

    def _at_anchor(self, node: Node) -> Iterator[Match]:
        anchor, *others = self._pattern.roots
        start = Match(self._graph)
        for index in sorted(_indices(anchor)):
            root = Port(node, index)
            for found in self._value(anchor, root, start):
                yield from self._other_roots(others, replace(found, roots=(root,)))

    def _other_roots(self, roots: Sequence[Value], so_far: Match) -> Iterator[Match]:
        if not roots:
            yield so_far
            return
        for candidate in self._candidates(roots[0], so_far):
            for found in self._value(roots[0], candidate, so_far):
                yield from self._other_roots(
                    roots[1:], replace(found, roots=(*found.roots, candidate))
                )

    def _candidates(self, root: Value, so_far: Match) -> Iterator[Port]:
        """Values that a further root may be: bound already, or above something bound."""
        if isinstance(root, Result) and root.node in so_far.nodes:
            yield Port(so_far.nodes[root.node], root.index)
            return
        level = dict.fromkeys(
            use.node for port in _bound(root, so_far) for use in self._graph.uses(port)
        )
        ops, tried = result_ops(root), set[Node]()
        for _ in range(result_depth(root)):
            for node in level:
                if node.op in ops and node not in tried:
                    tried.add(node)
                    yield from (Port(node, index) for index in sorted(_indices(root)))
            level = dict.fromkeys(use.node for n in level for use in self._graph.uses(n))

    def _value(self, value: Value, port: Port, so_far: Match) -> Iterator[Match]:
        match value:
            case Open():
                yield from self._open(value.name, port, so_far)
            case Constant():
                yield from self._constant(value, port, so_far)
            case AnyOf():
                for choice in value.choices:
                    yield from self._value(choice, port, so_far)
            case Through():
                yield from self._through(value, port, so_far)
            case Result():
                if port.index == value.index:
                    yield from self._operation(value.node, port.node, so_far)
                else:
                    self._differs(
                        so_far, port.node, f"result {port.index} is used, not {value.index}"
                    )

    def _open(self, name: str, port: Port, so_far: Match) -> Iterator[Match]:
        known = so_far._values.get(name)
        if known is None:
            yield replace(so_far, _values={**so_far._values, name: port})
        elif known == port:
            yield so_far
        else:
            self._differs(so_far, port.node, f"'{name}' is '{known}' in another place")

    def _constant(self, value: Constant, port: Port, so_far: Match) -> Iterator[Match]:
        array = constant_of(port)
        if array is None:
            self._differs(so_far, port.node, "it is not constant")
        elif value.value is not None and not _equals(array, value.value):
            self._differs(so_far, port.node, f"the constant is not {value.value}")
        elif value.where is not None and not value.where(array):
            self._differs(so_far, port.node, "the constant does not hold what it must")
        elif value.name:
            yield from self._open(value.name, port, so_far)
        else:
            yield so_far

    def _through(self, value: Through, port: Port, so_far: Match) -> Iterator[Match]:
        passed: tuple[Node, ...] = ()
        while True:
            yield from self._value(
                value.inner, port, replace(so_far, passed=(*so_far.passed, *passed))
            )
            node = port.node
            if node.op not in value.ops or not node.operands or port.index or is_hint(node):
                return
            passed = (*passed, node)
            port = node.operands[0]

    def _operation(self, operation: Operation, node: Node, so_far: Match) -> Iterator[Match]:
        known = so_far.nodes.get(operation)
        if known is not None:
            if known is node:
                yield so_far
            else:
                self._differs(so_far, node, f"it should be '{known.name}', which fits elsewhere")
            return
        if node.op not in operation.ops:
            expected = " or ".join(sorted(operation.ops))
            self._differs(so_far, node, f"the op is {node.op}, not {expected}")
            return
        captured = self._match_attributes(operation, node, so_far)
        if captured is None:
            return
        start = replace(so_far, nodes={**so_far.nodes, operation: node}, _attributes=captured)
        yield from self._any_order(operation, node, start)

    def _any_order(self, operation: Operation, node: Node, so_far: Match) -> Iterator[Match]:
        wanted, given = operation.operands, node.operands
        open_at = next((i for i, w in enumerate(wanted) if isinstance(w, Rest)), None)
        if open_at is not None and len(given) >= len(wanted) - 1:
            rest, end = wanted[open_at], open_at + len(given) - len(wanted) + 1
            assert isinstance(rest, Rest)
            so_far = replace(so_far, _rests={**so_far._rests, rest.name: given[open_at:end]})
            wanted = wanted[:open_at] + wanted[open_at + 1 :]
            given = given[:open_at] + given[end:]
        if len(wanted) != len(given):
            self._differs(so_far, node, f"it has {len(given)} operands, not {len(wanted)}")
            return
        yield from self._operands(wanted, given, so_far)
        if node.op in COMMUTATIVE and not operation.ordered and len(given) == 2:
            yield from self._operands(wanted, (given[1], given[0]), so_far)

    def _operands(
        self, wanted: Sequence[Value | Rest], given: Sequence[Port], so_far: Match
    ) -> Iterator[Match]:
        if not wanted:
            yield so_far
            return
        first = wanted[0]
        assert not isinstance(first, Rest)
        for found in self._value(first, given[0], so_far):
            yield from self._operands(wanted[1:], given[1:], found)

    def _match_attributes(
        self, operation: Operation, node: Node, so_far: Match
    ) -> Mapping[str, AttributeValue] | None:
        captured = dict(so_far._attributes)
        for name, wanted in operation.attributes.items():
            value = _attribute(node, name)
            if isinstance(wanted, Capture):
                fits = value is not None and captured.setdefault(wanted.name, value) == value
            elif callable(wanted):
                fits = value is not None and bool(wanted(value))
            else:
                fits = value == _plain(wanted)
            if not fits:
                self._differs(so_far, node, f"attribute '{name}' is {value!r}")
                return None
        return captured

    def _differs(self, so_far: Match, node: Node, reason: str) -> None:
        matched = len(so_far.nodes)
        if self._miss is None or matched > self._miss.matched:
            self._miss = NearMiss(self._anchor, node.name, reason, matched)


def _indices(value: Value) -> frozenset[int]:
    """The result numbers that a root may have."""
    match value:
        case Result():
            return frozenset((value.index,))
        case AnyOf():
            return frozenset(itertools.chain(*(_indices(choice) for choice in value.choices)))
        case Through():
            return _indices(value.inner) | {0}
    return frozenset()


def _bound(value: Value | Rest, so_far: Match) -> Iterator[Port]:
    """The values inside `value` that are known already."""
    match value:
        case Open() if value.name in so_far._values:
            yield so_far._values[value.name]
        case AnyOf():
            for choice in value.choices:
                yield from _bound(choice, so_far)
        case Through():
            yield from _bound(value.inner, so_far)
        case Result() if value.node in so_far.nodes:
            yield Port(so_far.nodes[value.node], value.index)
        case Result():
            for operand in value.node.operands:
                yield from _bound(operand, so_far)


def _attribute(node: Node, name: str) -> AttributeValue | None:
    if name in node.attributes:
        return node.attributes[name]
    schema = lookup(node.op)
    spec = schema.attribute(name) if schema is not None else None
    return spec.default if spec is not None else None


def _plain(value: Any) -> Any:
    """An attribute as a pattern gives it (str, list) as nodes hold it (bytes, tuple)."""
    if isinstance(value, list | tuple):
        return tuple(v.encode() if isinstance(v, str) else v for v in value)
    return value.encode() if isinstance(value, str) else value


def _equals(array: Array, value: Any) -> bool:
    wanted = np.asarray(value)
    if wanted.ndim and wanted.shape != array.shape:
        return False
    return bool(np.all(array == wanted))
