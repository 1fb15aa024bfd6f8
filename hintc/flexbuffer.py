"""Attributes of custom operators as flexbuffer maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hintc.errors import HintcError
from hintc.ops import AttributeValue


def dump_attributes(attributes: Mapping[str, AttributeValue]) -> bytes:
    """A flexbuffer map: bool, int, float and string scalars keep their types.

    A list of numbers or bools becomes a typed vector (what TensorFlow's converter writes for a
    list attribute), any other list a plain one.
    """
    from flatbuffers import flexbuffers

    builder = flexbuffers.Builder()
    with builder.Map():
        for name in sorted(attributes):
            builder.Key(name)
            _add(builder, attributes[name])
    return bytes(builder.Finish())


def load_attributes(data: bytes) -> dict[str, Any]:
    """The map in `data`; `HintcError` when it is none."""
    from flatbuffers import flexbuffers

    try:
        value = flexbuffers.Loads(data) if data else {}
    except Exception as error:  # the reader raises whatever the damage leads to
        raise HintcError("custom options cannot be read", why=str(error)) from error
    if not isinstance(value, dict):
        raise HintcError("custom options are not a map", why=f"they are {value!r}")
    return value


def _add(builder: Any, value: AttributeValue) -> None:
    if not isinstance(value, tuple):
        builder.Add(value)
        return
    kinds = {type(element) for element in value}
    typed = len(kinds) == 1 and kinds <= {bool, int, float}
    with builder.TypedVector() if typed else builder.Vector():
        for element in value:
            _add(builder, element)
