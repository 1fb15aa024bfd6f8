"""`OpHint`: marks a part of a TensorFlow graph as one call of a function.

Each argument and result of the call goes through one Identity node that carries `_tflite_*`
attributes; the graph computes the same as before. A converter reads the attributes back and
replaces what lies between them by one operation. The attributes and node names are those of
`tf.compat.v1.lite.OpHint`, so either side can be exchanged for TensorFlow's.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from hintc.authoring.constants import CONSTANT_PREFIX, constant_attributes
from hintc.authoring.mappings import checked_mappings, mappings_json
from hintc.errors import HintAttributeError, HintError

# A symbolic tf.Tensor. TensorFlow ships no type information.
Tensor: TypeAlias = Any

_AGGREGATES = ("stack", "first", "last")


@dataclass
class _Tag:
    """What the members of one tag share."""

    index: int
    aggregate: str
    members: int = 0


class OpHint:
    """One call of a pseudo function named `function_name`; an object marks one call.

    Args:
        function_name: name of the function: the op type of the stub, the custom op's name.
        level: 1 for a call, 2 and above for a hint around a loop that contains hints.
        children_inputs_mappings: at level 2 and above how the children connect, a dict of three
            lists of dicts: `parent_first_child_input` (`parent_ophint_input_index`,
            `first_child_ophint_input_index`), `parent_last_child_output` (`parent_output_index`,
            `child_output_index`), `internal_children_input_output` (`child_input_index`,
            `child_output_index`). Index -1 means the highest that exists. The first list may
            also spell its keys `parent_input_index` and `child_input_index`.
        **kwargs: constant attributes of the call: bool, int, float, str, bytes, or lists and
            arrays of them; stored as `_tflite_attr_<name>` on every hint node of the call.

    Raises:
        HintAssertionError: level and mappings do not fit (also an AssertionError).
        HintError: the name or a constant is unusable (also a ValueError).
    """

    FUNCTION_NAME_ATTR: ClassVar[str] = "_tflite_function_name"
    FUNCTION_UUID_ATTR: ClassVar[str] = "_tflite_function_uuid"
    FUNCTION_INPUT_INDEX_ATTR: ClassVar[str] = "_tflite_function_input_index"
    FUNCTION_OUTPUT_INDEX_ATTR: ClassVar[str] = "_tflite_function_output_index"
    FUNCTION_SORT_INDEX_ATTR: ClassVar[str] = "_tflite_function_sort_index"
    FUNCTION_AGGREGATE_ATTR: ClassVar[str] = "_tflite_function_aggregate"
    TFLITE_INPUT_INDICES: ClassVar[str] = "_tflite_input_indices"
    FUNCTION_LEVEL_ATTR: ClassVar[str] = "_tflite_ophint_level"
    CHILDREN_INPUTS_MAPPINGS: ClassVar[str] = "_tflite_children_ophint_inputs_mapping"
    CONSTANT_PREFIX: ClassVar[str] = CONSTANT_PREFIX

    AGGREGATE_STACK: ClassVar[str] = "stack"
    AGGREGATE_FIRST: ClassVar[str] = "first"
    AGGREGATE_LAST: ClassVar[str] = "last"

    def __init__(
        self,
        function_name: str,
        level: int = 1,
        children_inputs_mappings: Mapping[str, Any] | None = None,
        **kwargs: object,
    ) -> None:
        if not function_name or not isinstance(function_name, str):
            raise HintError(f"a hint's function name must be a nonempty str, got {function_name!r}")
        self._function_name = function_name
        self._call_id = uuid.uuid1().hex
        shared = self._shared_attributes(level, children_inputs_mappings, kwargs)
        self._inputs = _Arguments(
            function_name, self._call_id, "InputHint", self.FUNCTION_INPUT_INDEX_ATTR, shared
        )
        self._outputs = _Arguments(
            function_name, self._call_id, "OutputHint", self.FUNCTION_OUTPUT_INDEX_ATTR, shared
        )

    @property
    def function_name(self) -> str:
        """Name of the hinted function."""
        return self._function_name

    @property
    def call_id(self) -> str:
        """Identifier of this call, 32 hexadecimal digits, unique."""
        return self._call_id

    def add_input(
        self,
        arg: Tensor,
        tag: str | None = None,
        name: str | None = None,
        aggregate: str | None = None,
        index_override: int | None = None,
    ) -> Tensor:
        """Mark a tensor as an argument of the call.

        Args:
            arg: a symbolic tensor, or what converts to one (variable, array), of any shape.
            tag: groups several tensors into one argument, e.g. a time step each.
            name: label, becomes the end of the node's name.
            aggregate: with a tag, how its members become the argument: "stack" along a new
                first axis, or the "first" or "last" member only.
            index_override: position of the argument; default the lowest that is free.

        Returns:
            The tensor to use instead of `arg`: same shape, dtype and value.

        Raises:
            HintError: tag without aggregate or the reverse, unknown aggregate, a position that is
                taken, or one that differs from the tag's.
            HintAttributeError: `arg` is an eager tensor or a KerasTensor.
        """
        return self._inputs.add(arg, tag, name, aggregate, index_override)

    def add_output(
        self,
        arg: Tensor,
        tag: str | None = None,
        name: str | None = None,
        aggregate: str | None = None,
        index_override: int | None = None,
    ) -> Tensor:
        """Mark a tensor as a result of the call. As `add_input`, with its own numbering."""
        return self._outputs.add(arg, tag, name, aggregate, index_override)

    def add_inputs(self, *args: Tensor, names: Sequence[str | None] | None = None) -> list[Tensor]:
        """Mark tensors as arguments, in order; `names` gives a label for each."""
        return self._inputs.add_all(args, names)

    def add_outputs(self, *args: Tensor, names: Sequence[str | None] | None = None) -> list[Tensor]:
        """Mark tensors as results, in order; `names` gives a label for each."""
        return self._outputs.add_all(args, names)

    def _shared_attributes(
        self, level: int, mappings: Mapping[str, Any] | None, constants: Mapping[str, object]
    ) -> dict[str, Any]:
        """The attributes that every hint node of this call has."""
        from tensorflow.core.framework import attr_value_pb2

        checked = checked_mappings(self._function_name, level, mappings)
        attributes = {
            self.FUNCTION_NAME_ATTR: attr_value_pb2.AttrValue(s=self._function_name.encode()),
            self.FUNCTION_UUID_ATTR: attr_value_pb2.AttrValue(s=self._call_id.encode()),
            self.FUNCTION_LEVEL_ATTR: attr_value_pb2.AttrValue(i=level),
        }
        if checked is not None:
            attributes[self.CHILDREN_INPUTS_MAPPINGS] = attr_value_pb2.AttrValue(
                s=mappings_json(checked)
            )
        return attributes | constant_attributes(self._function_name, constants)


class _Arguments:
    """The arguments, or the results, of one call: their numbering and their nodes."""

    def __init__(
        self,
        function_name: str,
        call_id: str,
        prefix: str,
        index_attribute: str,
        shared: Mapping[str, Any],
    ) -> None:
        self._function_name = function_name
        self._call_id = call_id
        self._prefix = prefix
        self._index_attribute = index_attribute
        self._shared = shared
        self._used: set[int] = set()
        self._lowest_free = 0
        self._tags: dict[str, _Tag] = {}

    def add(
        self,
        arg: Tensor,
        tag: str | None,
        name: str | None,
        aggregate: str | None,
        index_override: int | None,
    ) -> Tensor:
        """Insert the Identity for one argument; numbers are taken only if that succeeds."""
        require_graph_tensor(self._function_name, arg)
        if tag is None:
            self._check_untagged(aggregate)
            index = self._new_index(index_override)
            hinted = self._identity(arg, index, None, None, name)
        else:
            entry = self._tag(tag, aggregate, index_override)
            index = entry.index
            hinted = self._identity(arg, index, entry.members, entry.aggregate, name)
            entry.members += 1
            self._tags[tag] = entry
        self._used.add(index)
        while self._lowest_free in self._used:
            self._lowest_free += 1
        return hinted

    def add_all(self, args: Sequence[Tensor], names: Sequence[str | None] | None) -> list[Tensor]:
        labels = [None] * len(args) if names is None else list(names)
        if len(labels) != len(args):
            raise self._error(f"{len(args)} tensors but {len(labels)} names")
        return [
            self.add(arg, None, label, None, None) for arg, label in zip(args, labels, strict=True)
        ]

    def _check_untagged(self, aggregate: str | None) -> None:
        if aggregate is not None:
            raise self._error(
                f"aggregate {aggregate!r} without a tag",
                "Give both tag and aggregate, or neither",
            )

    def _tag(self, tag: str, aggregate: str | None, index_override: int | None) -> _Tag:
        if aggregate is None:
            raise self._error(
                f"tag {tag!r} without an aggregate",
                f"Give aggregate as one of {', '.join(map(repr, _AGGREGATES))}",
            )
        if aggregate not in _AGGREGATES:
            raise self._error(
                f"tag {tag!r} has the unknown aggregate {aggregate!r}",
                f"Give one of {', '.join(map(repr, _AGGREGATES))}",
            )
        known = self._tags.get(tag)
        if known is None:
            return _Tag(self._new_index(index_override), aggregate)
        if aggregate != known.aggregate:
            raise self._error(
                f"tag {tag!r} has the aggregate {known.aggregate!r} and now {aggregate!r}",
                "All members of a tag have the same aggregate",
            )
        if index_override is not None and index_override != known.index:
            raise self._error(
                f"tag {tag!r} has the index {known.index} and now {index_override!r}",
                "All members of a tag share one index",
            )
        return known

    def _new_index(self, override: int | None) -> int:
        if override is None:
            return self._lowest_free
        try:
            index = override.__index__()
        except AttributeError:
            index = -1
        if index < 0 or isinstance(override, bool):
            raise self._error(f"index_override must be an int of 0 or more, got {override!r}")
        if index in self._used:
            raise self._error(
                f"index {index} is already used by another argument",
                "Give another index_override, or none to take the next free one",
            )
        return index

    def _identity(
        self, arg: Tensor, index: int, sort: int | None, aggregate: str | None, name: str | None
    ) -> Tensor:
        import tensorflow as tf
        from tensorflow.core.framework import attr_value_pb2

        parts = (self._prefix, self._function_name, self._call_id, index, sort, name)
        try:
            hinted = tf.identity(arg, name="-".join(map(str, parts)))
        except (RuntimeError, TypeError, ValueError) as error:
            label = f" '{name}'" if name is not None else ""
            raise self._error(
                f"argument {index}{label} cannot be hinted", why=str(error)
            ) from error
        attributes = dict(self._shared)
        attributes[self._index_attribute] = attr_value_pb2.AttrValue(i=index)
        if sort is not None and aggregate is not None:
            attributes[OpHint.FUNCTION_SORT_INDEX_ATTR] = attr_value_pb2.AttrValue(i=sort)
            attributes[OpHint.FUNCTION_AGGREGATE_ATTR] = attr_value_pb2.AttrValue(
                s=aggregate.encode()
            )
        for attribute, value in attributes.items():
            hinted.op._set_attr(attribute, value)
        return hinted

    def _error(self, what: str, remedy: str | None = None, *, why: str | None = None) -> HintError:
        kind = "an input" if self._prefix == "InputHint" else "an output"
        return HintError(
            f"hint '{self._function_name}', adding {kind}: {what}", why=why, remedy=remedy
        )


def require_graph_tensor(function_name: str, arg: Tensor) -> None:
    """Refuse what cannot become a node of the graph under construction.

    Args:
        function_name: name of the hinted function, for the message.
        arg: what is to be hinted.

    Raises:
        HintAttributeError: execution is eager, or `arg` is an eager tensor of no traced function
            or a KerasTensor (also an AttributeError).
        HintError: `arg` is a structure of tensors, not a tensor.
    """
    import tensorflow as tf

    what = f"hint '{function_name}': "
    if any(base.__name__ == "KerasTensor" for base in type(arg).__mro__):
        raise HintAttributeError(
            what + "a KerasTensor cannot be hinted",
            why="it stands for a tensor that does not exist yet",
            remedy="Put the hint inside the call method of a layer, or build the model in a "
            "tf.Graph",
        )
    # A function under trace captures eager tensors; a plain graph cannot.
    eager = tf.is_tensor(arg) and not hasattr(arg, "graph") and not isinstance(arg, tf.Variable)
    in_function = tf.compat.v1.get_default_graph().building_function
    if tf.executing_eagerly() or (eager and hasattr(arg, "numpy") and not in_function):
        raise HintAttributeError(
            what + "an eager tensor cannot be hinted",
            why="a hint is an attribute of a graph node and eager execution has no graph",
            remedy="Build the model in a tf.Graph (e.g. after "
            "tf.compat.v1.disable_eager_execution()) or in a tf.function",
        )
    parts = tf.nest.flatten(arg, expand_composites=True)
    if any(part is not arg and tf.is_tensor(part) for part in parts):
        raise HintError(
            what + f"expected one tensor, got a {type(arg).__name__} of {len(parts)}",
            remedy="Hint each tensor on its own",
        )
