"""What an op's definition says: names, numbers and types of its operands, results, attributes.

TensorFlow's registry is asked only when an op is first looked up, so importing this is light.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hintc.ir.attributes import Attributes, AttributeValue
from hintc.ir.dtypes import DType
from hintc.ir.node import ARG, RESULT, Node

SCAN = "Scan"
"""Op of hintc's own recurrence node, see `hintc.ir.scan`."""
WHILE_OPS = ("StatelessWhile", "While")
"""Ops of functional loops."""
IF_OPS = ("StatelessIf", "If")
"""Ops of functional conditions."""


@dataclass(frozen=True)
class ArgSpec:
    """One operand or result of an OpDef: a tensor, `number_attr` of them, or a typed list."""

    name: str
    type: DType | None = None
    type_attr: str = ""
    number_attr: str = ""
    type_list_attr: str = ""
    is_ref: bool = False
    defaults: Mapping[str, AttributeValue] = field(default_factory=dict)
    """Of the attributes above; a SavedModel leaves out attributes that have their default."""

    def dtypes(self, attributes: Attributes) -> tuple[DType | None, ...]:
        """The element types this argument stands for, given a node's attributes."""
        if self.type_list_attr:
            return tuple(
                t for t in as_tuple(attributes.get(self.type_list_attr, ())) if isinstance(t, DType)
            )
        dtype = self.type
        if self.type_attr:
            found = self._value(attributes, self.type_attr)
            dtype = found if isinstance(found, DType) else None
        count = self._value(attributes, self.number_attr) if self.number_attr else 1
        return (dtype,) * (count if isinstance(count, int) else 0)

    def _value(self, attributes: Attributes, name: str) -> AttributeValue | None:
        return attributes.get(name, self.defaults.get(name))


@dataclass(frozen=True)
class AttributeSpec:
    """Type (``"type"``, ``"list(int)"``, …) and default of an attribute of an OpDef."""

    name: str
    type: str
    default: AttributeValue | None = None
    allowed: tuple[AttributeValue, ...] = ()

    @functools.cached_property
    def member(self) -> str:
        """The type of a member of a list, of the value itself if it is none."""
        return self.type.removeprefix("list(").removesuffix(")")

    @functools.cached_property
    def is_list(self) -> bool:
        """True for lists."""
        return self.member != self.type


@dataclass(frozen=True)
class OpSchema:
    """An OpDef as plain data."""

    name: str
    operands: tuple[ArgSpec, ...]
    results: tuple[ArgSpec, ...]
    attributes: tuple[AttributeSpec, ...] = ()
    is_stateful: bool = False

    def attribute(self, name: str) -> AttributeSpec | None:
        """The attribute of that name, None if the op has none."""
        return next((a for a in self.attributes if a.name == name), None)

    @functools.cached_property
    def attribute_names(self) -> frozenset[str]:
        """Names of all attributes."""
        return frozenset(a.name for a in self.attributes)

    @functools.cached_property
    def layout_attributes(self) -> tuple[str, ...]:
        """Names of the attributes that say how many operands and results there are."""
        names = (
            name
            for arg in (*self.operands, *self.results)
            for name in (arg.number_attr, arg.type_list_attr)
            if name
        )
        return tuple(dict.fromkeys(names))

    @functools.cached_property
    def function_attributes(self) -> tuple[str, ...]:
        """Names of the attributes that are functions, or lists of them."""
        return tuple(a.name for a in self.attributes if a.member == "func")


def as_tuple(value: AttributeValue | None) -> Sequence[AttributeValue]:
    """A list attribute's members; a lone value as a tuple of one; None as the empty tuple."""
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


STUB_INDICES = "_tflite_input_indices"
"""On a stub, what a hinted call was converted to: the indices of the arguments that are there."""


@functools.cache
def lookup(op: str) -> OpSchema | None:
    """The schema of an op; None if neither TensorFlow nor hintc knows it."""
    own = _OWN.get(op)
    return own if own is not None else _from_tensorflow(op)


def schema_of(node: Node) -> OpSchema | None:
    """The schema of a node's op; None if it is not known, or the node is the stub of a hint.

    A stub's op is the name that somebody gave to a hint; it means nothing that it may also be the
    name of one of TensorFlow's ops.
    """
    return None if STUB_INDICES in node.attributes else lookup(node.op)


def result_dtypes(node: Node) -> tuple[DType | None, ...] | None:
    """Element type of each result (None inside: not known); None if the op is not known."""
    schema = schema_of(node)
    return None if schema is None else dtypes_of(schema.results, node.attributes)


def is_stateful(node: Node) -> bool:
    """True if the op is declared stateful, or is not known."""
    schema = schema_of(node)
    return schema is None or schema.is_stateful


def side_effects(nodes: Iterable[Node]) -> list[Node]:
    """Those of a body's nodes that are declared stateful, or not known; arguments are left out."""
    return [node for node in nodes if is_stateful(node) and not node.op.startswith("_")]


def dtypes_of(args: Iterable[ArgSpec], attributes: Attributes) -> tuple[DType | None, ...]:
    """Element types that operands or results of a schema have under a node's attributes."""
    found: list[DType | None] = []
    for arg in args:
        found += arg.dtypes(attributes)
    return tuple(found)


def _from_tensorflow(op: str) -> OpSchema | None:
    import tensorflow as tf  # noqa: F401  (fills the registry)
    from tensorflow.python.framework import op_def_registry

    definition = op_def_registry.get(op)
    if definition is None:
        return None
    attributes = tuple(_attribute(a) for a in definition.attr)
    defaults = {a.name: a.default for a in attributes if a.default is not None}
    return OpSchema(
        op,
        tuple(_arg(a, defaults) for a in definition.input_arg),
        tuple(_arg(a, defaults) for a in definition.output_arg),
        attributes,
        definition.is_stateful,
    )


def _arg(arg: Any, defaults: Mapping[str, AttributeValue]) -> ArgSpec:
    names = {arg.type_attr, arg.number_attr, arg.type_list_attr}
    return ArgSpec(
        arg.name,
        DType(arg.type) if arg.type else None,
        arg.type_attr,
        arg.number_attr,
        arg.type_list_attr,
        arg.is_ref,
        {name: value for name, value in defaults.items() if name in names},
    )


def _attribute(attr: Any) -> AttributeSpec:
    from hintc.ir.wire import decode

    return AttributeSpec(
        attr.name,
        attr.type,
        decode(attr.default_value) if attr.HasField("default_value") else None,
        tuple(as_tuple(decode(attr.allowed_values))) if attr.HasField("allowed_values") else (),
    )


_OWN = {
    schema.name: schema
    for schema in (
        OpSchema(
            ARG,
            (),
            (ArgSpec("output", type_attr="T"),),
            (AttributeSpec("T", "type"), AttributeSpec("index", "int")),
        ),
        OpSchema(RESULT, (ArgSpec("input", type_attr="T"),), ()),
        OpSchema(
            SCAN,
            (
                ArgSpec("trip_count", DType.INT32),
                ArgSpec("operands", type_list_attr="Tin"),
            ),
            (ArgSpec("results", type_list_attr="Tout"),),
            (
                AttributeSpec("body", "func"),
                AttributeSpec("Tin", "list(type)"),
                AttributeSpec("Tout", "list(type)"),
                AttributeSpec("xs", "int"),
                AttributeSpec("states", "int"),
                AttributeSpec("invariants", "int"),
                AttributeSpec("ys", "int"),
                AttributeSpec("reverse_xs", "list(bool)"),
                AttributeSpec("reverse_ys", "list(bool)"),
            ),
        ),
    )
}
