"""The hint protocol, read: hinted calls in a graph, and the record of one that was collected.

A hint is a set of Identity nodes with `_tflite_*` attributes, one for each argument and result of
a call (`tf.compat.v1.lite.OpHint`). Collecting turns a call into a PartitionedCall of a function
whose attribute `_hintc_hint` says what the hint said: see `HintRecord`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hintc.errors import HintError
from hintc.ir import AttributeValue, DType, Function, FunctionRef, Graph, Module, Node, Tensor
from hintc.ir.opdefs import STUB_INDICES

FUNCTION_NAME = "_tflite_function_name"
FUNCTION_UUID = "_tflite_function_uuid"
INPUT_INDEX = "_tflite_function_input_index"
OUTPUT_INDEX = "_tflite_function_output_index"
SORT_INDEX = "_tflite_function_sort_index"
AGGREGATE = "_tflite_function_aggregate"
LEVEL = "_tflite_ophint_level"
MAPPINGS = "_tflite_children_ophint_inputs_mapping"
CONSTANT_PREFIX = "_tflite_attr_"
RECORD = "_hintc_hint"
"""On a function that is the body of a collected call: a `HintRecord` as JSON."""
CALL_OP = "PartitionedCall"

STACK, FIRST, LAST, SINGLE = "stack", "first", "last", ""
_AGGREGATES = (SINGLE, STACK, FIRST, LAST)

CELLS: Mapping[str, str] = {
    "UnidirectionalSequenceLstm": "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "UnidirectionalSequenceRnn": "UNIDIRECTIONAL_SEQUENCE_RNN",
}
"""Hinted functions that are kernels of TensorFlow Lite, and the kernels' names."""

_PRUNED = (
    "If the graph was frozen, name the nodes of hintc.find_all_hinted_output_nodes as outputs too."
)

PlainValue = bool | int | float | str | tuple["PlainValue", ...]


@dataclass(frozen=True)
class HintArgument:
    """One argument, or one result, of a hinted call.

    Attributes:
        index: its position in the call.
        aggregate: how its members become one tensor: "stack", "first", "last"; "" for a lone one.
        members: the hint nodes by sort index; one if not aggregated.
    """

    index: int
    aggregate: str
    members: tuple[Node, ...]

    @property
    def chosen(self) -> tuple[Node, ...]:
        """The members that are the argument: all of a stack, else one."""
        if self.aggregate == FIRST:
            return self.members[:1]
        return self.members[-1:] if self.aggregate == LAST else self.members


@dataclass(frozen=True)
class HintCall:
    """A hinted call as its hint nodes in one graph describe it.

    Attributes:
        function: name of the hinted function.
        uuid: id of the call.
        level: 1 for a call; 2 and above for a hint around calls.
        inputs, outputs: by index.
        attributes: constant attributes, without their prefix, as they are in the graph.
        mappings: of a level above 1: list name -> entries; see `hintc.authoring.mappings`.
    """

    function: str
    uuid: str
    level: int
    inputs: tuple[HintArgument, ...]
    outputs: tuple[HintArgument, ...]
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    mappings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All its hint nodes."""
        return tuple(m for a in (*self.inputs, *self.outputs) for m in a.members)

    def error(self, what: str, remedy: str = "") -> HintError:
        """An error that names this call."""
        return HintError(f"hint '{self.function}', call {self.uuid}: {what}", remedy=remedy or None)

    def check_complete(self) -> None:
        """Every call has both sides.

        Raises:
            HintError: it has no inputs or no outputs.
        """
        if not self.outputs:
            raise self.error(
                "it has inputs but no outputs", f"Give its results to add_output. {_PRUNED}"
            )
        if not self.inputs:
            raise self.error("it has outputs but no inputs", "Give its arguments to add_input.")


@dataclass(frozen=True)
class HintRecord:
    """What stays of a hint when its call was collected.

    Attributes:
        function: name of the hinted function.
        uuid: id of the call.
        inputs: for each operand of the call its (index, aggregate); index -1: a value that the
            interior reads although it was not declared.
        outputs: for each result of the call its (index, aggregate).
        attributes: constant attributes, as plain values.
        input_names, output_names: name of the (first) hint node of each operand and result.
    """

    function: str
    uuid: str
    inputs: tuple[tuple[int, str], ...]
    outputs: tuple[tuple[int, str], ...]
    attributes: Mapping[str, PlainValue] = field(default_factory=dict)
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """As the function attribute `_hintc_hint` holds it."""
        return json.dumps(self.__dict__, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, text: bytes) -> HintRecord:
        """The inverse of `to_bytes`; HintError if it is not one."""
        try:
            raw = json.loads(text)
            return cls(
                raw["function"],
                raw["uuid"],
                tuple((int(index), str(aggregate)) for index, aggregate in raw["inputs"]),
                tuple((int(index), str(aggregate)) for index, aggregate in raw["outputs"]),
                {str(name): _plain_json(value) for name, value in raw["attributes"].items()},
                tuple(raw.get("input_names", ())),
                tuple(raw.get("output_names", ())),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HintError(f"the attribute {RECORD} cannot be read", why=repr(error)) from error

    @property
    def is_cell(self) -> bool:
        """True if the function is a recurrent cell that has a kernel."""
        return self.function in CELLS

    @property
    def is_sequence(self) -> bool:
        """True if one call stands for all steps of a sequence."""
        return any(a == STACK for _, a in (*self.inputs, *self.outputs))


def record_of(function: Function | None) -> HintRecord | None:
    """The hint whose body a function is; None for any other function."""
    if function is None:
        return None
    text = function.attributes.get(RECORD)
    return HintRecord.from_bytes(text) if isinstance(text, bytes) else None


def called_function(module: Module, node: Node) -> Function | None:
    """The function that a PartitionedCall refers to; None for another op or a missing function."""
    if node.op != CALL_OP:
        return None
    ref = node.attributes.get("f")
    return module.functions.get(ref.name) if isinstance(ref, FunctionRef) else None


def hint_call_record(module: Module, node: Node) -> HintRecord | None:
    """The record of a collected hint call; None if the node is none."""
    return record_of(called_function(module, node))


def is_hint(node: Node) -> bool:
    """True if the node is a hint of an argument or a result."""
    at = node.attributes
    if FUNCTION_UUID not in at or not (INPUT_INDEX in at or OUTPUT_INDEX in at):
        return False
    return bool(at[FUNCTION_UUID])


def hinted_function(node: Node) -> str:
    """The function that a hint node says its argument or result belongs to."""
    return _text(node, FUNCTION_NAME)


def is_stub(node: Node) -> bool:
    """True if the node is a stub: the one operation that a converted hint became."""
    return STUB_INDICES in node.attributes


def strip_hint(node: Node) -> None:
    """Remove the hint's attributes: the node becomes a plain Identity."""
    for name in [n for n in node.attributes if n.startswith("_tflite_")]:
        del node.attributes[name]


def read_hints(graph: Graph) -> list[HintCall]:
    """The open hinted calls of a graph, in the order in which the graph first mentions them.

    Hint nodes that belong to a stub of the same graph are closed, so they are left out.

    Raises:
        HintError: attributes are missing or contradict each other; names call and argument.
    """
    by_uuid: dict[str, list[Node]] = {}
    stubs: set[str] = set()
    for node in graph:
        if is_stub(node):
            stubs.add(node.name)
        elif is_hint(node):
            by_uuid.setdefault(_text(node, FUNCTION_UUID), []).append(node)
    return [_read_call(uuid, nodes) for uuid, nodes in by_uuid.items() if uuid not in stubs]


def _read_call(uuid: str, nodes: list[Node]) -> HintCall:
    first = nodes[0]
    call = HintCall(_text(first, FUNCTION_NAME), uuid, _number(first, LEVEL, 1), (), ())
    for node in nodes:
        if _text(node, FUNCTION_NAME) != call.function:
            raise call.error(f"'{node.name}' says it is a call of '{_text(node, FUNCTION_NAME)}'")
    return replace(
        call,
        inputs=_read_side(call, nodes, INPUT_INDEX),
        outputs=_read_side(call, nodes, OUTPUT_INDEX),
        attributes=_read_attributes(call, nodes),
        mappings=_read_mappings(call, first),
    )


def _read_side(call: HintCall, nodes: list[Node], key: str) -> tuple[HintArgument, ...]:
    by_index: dict[int, list[Node]] = {}
    for node in nodes:
        if key in node.attributes:
            by_index.setdefault(_number(node, key), []).append(node)
    side = "input" if key == INPUT_INDEX else "output"
    return tuple(
        _read_argument(call, f"{side} {index}", index, by_index[index])
        for index in sorted(by_index)
    )


def _read_argument(call: HintCall, where: str, index: int, nodes: list[Node]) -> HintArgument:
    sorts = {node: _number(node, SORT_INDEX, -1) for node in nodes}
    aggregates = {_text(node, AGGREGATE) for node in nodes}
    if len(aggregates) > 1:
        raise call.error(
            f"{where} has the aggregates {', '.join(map(repr, sorted(aggregates)))}",
            "All members of a tag have the same aggregate.",
        )
    aggregate = aggregates.pop()
    if aggregate not in _AGGREGATES or bool(aggregate) != all(s >= 0 for s in sorts.values()):
        raise call.error(
            f"{where} has the aggregate '{aggregate}' and the sort indices {list(sorts.values())}",
            "A tag has an aggregate and sort indices.",
        )
    members = tuple(sorted(nodes, key=sorts.__getitem__))
    found = [sorts[node] for node in members]
    if len(set(found)) != len(found):
        raise call.error(
            f"'{members[0].name}' and '{members[1].name}' both say that they are its {where}",
            "The graph was imported, or a function inlined, twice with its hints: let hintc "
            "inline it, or give each copy a hint of its own.",
        )
    if aggregate == STACK and found != list(range(len(found))):
        missing = next(s for s in range(len(found) + 1) if s not in sorts.values())
        raise call.error(
            f"member {missing} of {where}, a stack of at least {max(found) + 1}, is missing",
            _PRUNED,
        )
    return HintArgument(index, aggregate, members)


def _read_attributes(call: HintCall, nodes: list[Node]) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {}
    for node in nodes:
        for name in node.attributes:
            if not name.startswith(CONSTANT_PREFIX):
                continue
            value = node.attributes[name]
            short = name.removeprefix(CONSTANT_PREFIX)
            if found.setdefault(short, value) != value:
                raise call.error(f"constant '{short}' has two values; one is on '{node.name}'")
    return found


def _read_mappings(call: HintCall, node: Node) -> Mapping[str, Any]:
    text = _text(node, MAPPINGS)
    if not text:
        return {}
    try:
        mappings = json.loads(text)
    except ValueError as error:
        raise call.error("its children's mappings are not JSON") from error
    if not isinstance(mappings, dict):
        raise call.error("its children's mappings are not a JSON object")
    return mappings


def plain_value(value: AttributeValue) -> PlainValue:
    """An attribute as plain Python: bytes as text, tensors as nested tuples.

    Raises:
        HintError: it is of a kind that a constant attribute cannot have, or not UTF-8.
    """
    if isinstance(value, Tensor):
        return _plain_json(value.array.tolist())
    if isinstance(value, bytes):
        return _plain_json(value)
    if isinstance(value, tuple):
        return tuple(plain_value(v) for v in value)
    if isinstance(value, bool | int | float) and not isinstance(value, DType):
        return value
    raise HintError(f"a hint's constant cannot be a {type(value).__name__}")


def _plain_json(value: object) -> PlainValue:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise HintError(f"a hint's constant is not UTF-8: {value!r}") from error
    if isinstance(value, list | tuple):
        return tuple(_plain_json(v) for v in value)
    if isinstance(value, bool | int | float | str):
        return value
    raise HintError(f"a hint's constant cannot be a {type(value).__name__}")


def _text(node: Node, name: str) -> str:
    value = node.attributes.get(name, b"")
    if not isinstance(value, bytes):
        raise HintError(f"the attribute {name} is not a string", node=node.name)
    return value.decode()


def _number(node: Node, name: str, default: int | None = None) -> int:
    value = node.attributes.get(name, default)
    if not isinstance(value, int):
        raise HintError(f"the attribute {name} is missing or no integer", node=node.name)
    return value
