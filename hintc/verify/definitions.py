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
from hintc.ir.opdefs import AttributeSpec, OpSchema, schema_of
from hintc.verify.scope import DTypes, Finding, Scope, expected_operands


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
        expected = expected_operands(node)
        if expected is not None:
            yield from compare(node, "operand", f"{node.op} takes", scope.operands(node), expected)


def compare(node: Node, what: str, who: str, given: DTypes, expected: DTypes) -> Iterator[Finding]:
    """Compare number and element types; references count as what they refer to."""
    if len(given) != len(expected):
        yield node.name, f"there are {len(given)} {what}s, {who} {len(expected)}"
        return
    for at, (ours, theirs) in enumerate(zip(given, expected, strict=True)):
        if ours is None or theirs is None or ours.base is theirs.base:
            continue
        yield node.name, f"{what} {at} is {ours.name.lower()}, {who} {theirs.name.lower()}"


def attributes_match_definition(scope: Scope) -> Iterator[Finding]:
    """Attributes have the types that the op declares; those without default are there."""
    for node in scope.graph:
        schema = schema_of(node)
        if schema is None or node.op in (ARG, RESULT) or node.op in scope.module.functions:
            continue
        for spec in schema.attributes:
            value = node.attributes.get(spec.name)
            if value is not None:
                yield from _attribute(node, spec, value)
            elif spec.default is None:
                yield node.name, f"attribute '{spec.name}' ({spec.type}) of {node.op} is missing"
        if node.op != SCAN:
            yield from _undeclared(node, schema)


def _undeclared(node: Node, schema: OpSchema) -> Iterator[Finding]:
    declared = {spec.name for spec in schema.attributes}
    for name in node.attributes:
        if name not in declared and not name.startswith("_"):
            yield node.name, f"{node.op} has no attribute '{name}'"


def _attribute(node: Node, spec: AttributeSpec, value: AttributeValue) -> Iterator[Finding]:
    member = spec.type.removeprefix("list(").removesuffix(")")
    is_list = member != spec.type
    if isinstance(value, Unbound):
        return
    members = value if isinstance(value, tuple) else (value,)
    if is_list != isinstance(value, tuple) or not all(_is(m, member) for m in members):
        what = f"must be a {spec.type}, it is {repr(value)[:60]}"
        yield node.name, f"attribute '{spec.name}' of {node.op} {what}"
    elif spec.allowed and not all(m in spec.allowed for m in members):
        yield node.name, f"attribute '{spec.name}' of {node.op} cannot be {repr(value)[:60]}"


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
