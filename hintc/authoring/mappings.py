"""How the hints inside a loop are wired to the hint around it (hints of level 2 and above)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hintc.errors import HintAssertionError

# list name -> keys of its entries as the graph spells them.
_ENTRY_KEYS: dict[str, tuple[str, str]] = {
    "parent_first_child_input": ("parent_ophint_input_index", "first_child_ophint_input_index"),
    "parent_last_child_output": ("parent_output_index", "child_output_index"),
    "internal_children_input_output": ("child_input_index", "child_output_index"),
}

# TensorFlow's docstring names these two differently from its code; callers followed either.
_DOCSTRING_SPELLING: dict[str, dict[str, str]] = {
    "parent_first_child_input": {
        "parent_input_index": "parent_ophint_input_index",
        "child_input_index": "first_child_ophint_input_index",
    },
}

Mappings = dict[str, list[dict[str, int]]]


def checked_mappings(function_name: str, level: object, mappings: object) -> Mappings | None:
    """Check the children's mappings of a hint and spell their keys as the graph does.

    Args:
        function_name: name of the hinted function, for messages.
        level: level of the hint; 1 has no children and so no mappings.
        mappings: the dict given to `OpHint`, or None. It is not changed.

    Returns:
        A copy with the keys of the graph format, in the caller's order; None at level 1.

    Raises:
        HintAssertionError: level and mappings do not fit, or a list, key or index is wrong.
    """
    if not isinstance(level, int) or isinstance(level, bool) or level < 1:
        raise _refusal(function_name, f"level must be an int of 1 or more, not {level!r}")
    if level == 1:
        if mappings is not None:
            raise _refusal(
                function_name,
                "children_inputs_mappings given at level 1",
                "Leave them out, or pass level=2 for a hint that wraps other hints",
            )
        return None
    if not isinstance(mappings, Mapping):
        raise _refusal(
            function_name,
            f"level {level} needs children_inputs_mappings as a dict, got {mappings!r}",
            f"Give the lists {', '.join(_ENTRY_KEYS)}",
        )
    missing = [name for name in _ENTRY_KEYS if name not in mappings]
    unknown = [str(name) for name in mappings if name not in _ENTRY_KEYS]
    if missing or unknown:
        problem = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown)}"
        raise _refusal(function_name, f"children_inputs_mappings {problem}")
    return {name: _checked_list(function_name, name, mappings[name]) for name in mappings}


def mappings_json(mappings: Mappings) -> bytes:
    """The text stored in the graph: JSON with Python's default spacing, as TensorFlow writes it."""
    return json.dumps(mappings).encode()


def _checked_list(function_name: str, name: str, entries: Any) -> list[dict[str, int]]:
    if not isinstance(entries, list | tuple):
        raise _refusal(function_name, f"children_inputs_mappings['{name}'] is not a list")
    return [_checked_entry(function_name, name, entry) for entry in entries]


def _checked_entry(function_name: str, name: str, entry: Any) -> dict[str, int]:
    keys = _ENTRY_KEYS[name]
    where = f"an entry of children_inputs_mappings['{name}']"
    if not isinstance(entry, Mapping):
        raise _refusal(function_name, f"{where} is not a dict: {entry!r}")
    spelling = _DOCSTRING_SPELLING.get(name, {})
    renamed: dict[str, Any] = {str(spelling.get(key, key)): index for key, index in entry.items()}
    if len(renamed) != len(entry) or set(renamed) != set(keys):
        raise _refusal(
            function_name,
            f"{where} has the keys {', '.join(map(repr, entry))}",
            f"Give exactly {keys[0]!r} and {keys[1]!r}",
        )
    for key, index in renamed.items():
        if not isinstance(index, int) or isinstance(index, bool) or index < -1:
            raise _refusal(
                function_name,
                f"{where} has {key} = {index!r}",
                "Give an argument index, or -1 for the highest that exists",
            )
    return renamed


def _refusal(function_name: str, what: str, remedy: str | None = None) -> HintAssertionError:
    return HintAssertionError(f"hint '{function_name}': {what}", remedy=remedy)
