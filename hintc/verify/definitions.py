"""Rules that come from the ops' definitions."""

from __future__ import annotations

from collections.abc import Iterator

from hintc.ir import (
    ARG,
    RESULT,
    SCAN,
    AttributeValue,
    DType,
    FunctionRef,
    Node,
    Shape,
    Tensor,
    Unbound,
)
from hintc.ir.opdefs import AttributeSpec, OpSchema
from hintc.verify.scope import DTypes, Finding, Scope


def ports_exist(scope: Scope) -> Iterator[Finding]:
    """Every operand names a result that its producer has."""
    for node in scope.graph:
        for slot, (producer, index) in enumerate(node.operands):
            results = scope.results(producer)
            if index < 0 or (results is not None and index >= len(results)):
                has = "" if results is None else f", which has {len(results)}"
                source = f"'{producer.name}' ({producer.op}){has}"
                yield node.name, f"operand {slot} reads result {index} of {source}"


def operands_match_definition(scope: Scope) -> Iterator[Finding]:
    """Number and element types of operands are those that the op and its attributes ask for."""
    for node in scope.graph:
        if node.op in scope.module.functions:
            continue
        expected = scope.expected_operands(node)
        if expected is not None:
            yield from compare(node, "operand", f"{node.op} takes", scope.operands(node), expected)


def compare(node: Node, what: str, who: str, given: DTypes, expected: DTypes) -> Iterator[Finding]:
    """Compare number and element types; references count as what they refer to."""
    if len(given) != len(expected):
        yield node.name, f"there are {len(given)} {what}s, {who} {len(expected)}"
        return
    if given == expected:
        return
    for at, (ours, theirs) in enumerate(zip(given, expected, strict=True)):
        if ours is None or theirs is None or ours.base is theirs.base:
            continue
        yield node.name, f"{what} {at} is {ours.name.lower()}, {who} {theirs.name.lower()}"


def attributes_match_definition(scope: Scope) -> Iterator[Finding]:
    """Attributes have the types that the op declares; those without default are there."""
    for node in scope.graph:
        schema = scope.schema(node)
        if schema is None or node.op in (ARG, RESULT) or node.op in scope.module.functions:
            continue
        for spec in schema.attributes:
            value = node.attributes.get(spec.name)
            if value is not None:
                wrong = _what_is_wrong(spec, value)
                if wrong is not None:
                    yield node.name, f"attribute '{spec.name}' of {node.op} {wrong}"
            elif spec.default is None:
                yield node.name, f"attribute '{spec.name}' ({spec.type}) of {node.op} is missing"
        if node.op != SCAN:
            yield from _undeclared(node, schema)


def _undeclared(node: Node, schema: OpSchema) -> Iterator[Finding]:
    for name in node.attributes:
        if name not in schema.attribute_names and not name.startswith("_"):
            yield node.name, f"{node.op} has no attribute '{name}'"


def _what_is_wrong(spec: AttributeSpec, value: AttributeValue) -> str | None:
    """What a value of an attribute breaks; None if nothing."""
    if isinstance(value, Unbound):
        return None
    if isinstance(value, tuple):
        fits = spec.is_list and all(_is(member, spec.member) for member in value)
        is_allowed = not spec.allowed or all(member in spec.allowed for member in value)
    else:
        fits = not spec.is_list and _is(value, spec.member)
        is_allowed = not spec.allowed or value in spec.allowed
    if not fits:
        return f"must be a {spec.type}, it is {repr(value)[:60]}"
    if not is_allowed:
        return f"cannot be {repr(value)[:60]}"
    return None


_TYPES: dict[str, type] = {
    "string": bytes,
    "int": int,
    "float": float,
    "bool": bool,
    "type": DType,
    "shape": Shape,
    "tensor": Tensor,
    "func": FunctionRef,
}


def _is(value: AttributeValue, kind: str) -> bool:
    if kind == "int":  # bool and DType are ints to Python, not to TensorFlow
        return isinstance(value, int) and not isinstance(value, bool | DType)
    return isinstance(value, (Unbound, _TYPES.get(kind, object)))
