"""The spec of a fused call: the JSON text that travels with it from passes to legalisation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from hintc.errors import HintcError

AttributeValue = bool | int | float | str | tuple["AttributeValue", ...]
PREFIX = "hintc."
"""A call of op ``X`` is marked ``hintc.X``: in ``_implements`` and as custom code."""


@dataclass(frozen=True)
class Spec:
    """The parsed spec of one call.

    Args:
        op: name of the fused op.
        slots: for each operand of the call its slot, or None where only the body needs it.
        results: for each result of the call its name in the fused op.
        attributes: every attribute, defaults filled in.
    """

    op: str
    slots: tuple[str | None, ...]
    results: tuple[str, ...]
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)


def parse_spec(text: str) -> Spec:
    """A spec as it stands, without its op's declaration; attributes unchecked.

    Raises:
        HintcError: not JSON, or not of the spec's form.
    """
    try:
        raw = json.loads(text)
        op, slots, results = raw["op"], raw["slots"], raw["results"]
        attributes = raw.get("attributes", {})
        well_formed = (
            isinstance(op, str)
            and all(slot is None or isinstance(slot, str) for slot in slots)
            and all(isinstance(result, str) for result in results)
        )
        items = attributes.items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HintcError("the spec of a fused call cannot be read", why=str(error)) from error
    if not well_formed:
        raise HintcError("the spec of a fused call cannot be read", why=f"it is {text!r}")
    plain = {name: plain_value(op, name, value) for name, value in items}
    return Spec(op, tuple(slots), tuple(results), plain)


def plain_value(op: str, name: str, value: object) -> AttributeValue:
    """`value` as a spec can hold it; numpy scalars and lists become plain ones."""
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        value = item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "strict")
    if isinstance(value, list | tuple):
        return tuple(plain_value(op, name, element) for element in value)
    if isinstance(value, float) and not math.isfinite(value):
        raise HintcError(f"{op}: attribute '{name}' is {value}", why="it must be finite")
    if isinstance(value, bool | int | float | str):
        return value
    raise HintcError(
        f"{op}: attribute '{name}' is a {type(value).__name__}",
        why="an attribute is a bool, int, float, str or a list of those",
    )
