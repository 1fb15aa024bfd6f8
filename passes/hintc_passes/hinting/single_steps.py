"""Cells hinted step by step: hints that say nothing of the chain that the steps are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hintc.hints.protocol import (
    CELLS,
    FUNCTION_UUID,
    INPUT_INDEX,
    OUTPUT_INDEX,
    hinted_function,
    is_hint,
    strip_hint,
)
from hintc.ir import AttributeValue, Node

STATES: Mapping[str, tuple[int, ...]] = {
    "UnidirectionalSequenceLstm": (18, 19),
    "UnidirectionalSequenceRnn": (4,),
}
"""Which arguments of a hinted cell are states."""
_HANDS_ON = frozenset(
    ("Identity", "Select", "SelectV2", "ConcatV2", "Slice", "Split", "SplitV", "StridedSlice")
)
"""Ops between two steps with lengths, or with states packed in one tensor."""


def dissolve_steps(nodes: Iterable[Node]) -> int:
    """Take the hints off cells of which one starts with the state that another leaves.

    Args:
        nodes: of one graph; those that are no hints of a cell are left alone.

    Returns:
        The number of cells.
    """
    calls: dict[AttributeValue, list[Node]] = {}
    for node in nodes:
        if is_hint(node) and hinted_function(node) in CELLS:
            calls.setdefault(node.attributes[FUNCTION_UUID], []).append(node)
    chained: dict[AttributeValue, None] = {}
    for call, hints in calls.items():
        before = _calls_before([n for n in hints if _is_state(n)])
        for other in before:
            if other != call and other in calls:
                chained |= {call: None, other: None}
    for call in chained:
        for node in calls[call]:
            strip_hint(node)
    return len(chained)


def _is_state(node: Node) -> bool:
    return node.attributes.get(INPUT_INDEX) in STATES[hinted_function(node)]


def _calls_before(states: Iterable[Node]) -> list[AttributeValue]:
    """The hinted calls whose results are handed on to `states`."""
    found: dict[AttributeValue, None] = {}
    todo = [p.node for node in states for p in node.operands]
    seen = set(todo)
    while todo:
        node = todo.pop()
        if is_hint(node) and OUTPUT_INDEX in node.attributes:
            found[node.attributes[FUNCTION_UUID]] = None
        elif node.op in _HANDS_ON:
            new = {p.node for p in node.operands} - seen
            seen |= new
            todo.extend(new)
    return list(found)
