"""Cells hinted step by step: hints that say nothing of the chain that the steps are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from hintc.hints.protocol import (
    CELLS,
    FUNCTION_UUID,
    INPUT_INDEX,
    OUTPUT_INDEX,
    hinted_function,
    is_hint,
    strip_hint,
)
from hintc.ir import AttributeValue, Graph, Node

STATES: Mapping[str, tuple[int, ...]] = {
    "UnidirectionalSequenceLstm": (18, 19),
    "UnidirectionalSequenceRnn": (4,),
}
"""Which arguments of a hinted cell are states."""
_SELECTS = ("Select", "SelectV2")
_HANDS_ON = frozenset(
    ("Identity", *_SELECTS, "ConcatV2", "Slice", "Split", "SplitV", "StridedSlice")
)
"""Ops between two steps with lengths, or with states packed in one tensor."""


def dissolve_steps(nodes: Iterable[Node]) -> int:
    """Take the hints off cells of which one starts with the state that another leaves.

    Args:
        nodes: of one graph; those that are no hints of a cell are left alone.

    Returns:
        The number of cells.
    """
    calls = _calls(nodes)
    chained: dict[AttributeValue, None] = {}
    for call, hints in calls.items():
        for other in _calls_before(hints):
            if other != call and other in calls:
                chained |= {call: None, other: None}
    return _dissolve(calls, chained)


def dissolve_masked(graph: Graph) -> int:
    """Take the hints off cells whose own state comes back through a Select on its way.

    A hint of a sequence has room for the states that its steps leave, not for a mask on these.

    Returns:
        The number of cells.
    """
    calls = _calls(graph)
    return _dissolve(calls, [call for call, hints in calls.items() if _is_masked(call, hints)])


def _calls(nodes: Iterable[Node]) -> dict[AttributeValue, list[Node]]:
    calls: dict[AttributeValue, list[Node]] = {}
    for node in nodes:
        if is_hint(node) and hinted_function(node) in CELLS:
            calls.setdefault(node.attributes[FUNCTION_UUID], []).append(node)
    return calls


def _dissolve(
    calls: Mapping[AttributeValue, list[Node]], doomed: Collection[AttributeValue]
) -> int:
    for call in doomed:
        for node in calls[call]:
            strip_hint(node)
    return len(doomed)


def _is_masked(call: AttributeValue, hints: Iterable[Node]) -> bool:
    return any(
        found.attributes[FUNCTION_UUID] == call
        for node in hints
        if _is_state(node)
        for select in _between(node, stop=_SELECTS)
        if select.op in _SELECTS
        for found in _between(select)
        if is_hint(found)
    )


def _calls_before(hints: Iterable[Node]) -> list[AttributeValue]:
    """The hinted calls whose results are handed on to states."""
    found = (n for state in hints if _is_state(state) for n in _between(state) if is_hint(n))
    return list(dict.fromkeys(n.attributes[FUNCTION_UUID] for n in found))


def _between(start: Node, stop: Collection[str] = ()) -> list[Node]:
    """What hands on what a node reads, to results of hinted cells or to ops of `stop`."""
    found: dict[Node, None] = {}
    todo = [p.node for p in start.operands]
    while todo:
        node = todo.pop()
        if node in found or not (node.op in _HANDS_ON or is_hint(node)):
            continue
        if is_hint(node) and OUTPUT_INDEX not in node.attributes:
            continue
        found[node] = None
        if not is_hint(node) and node.op not in stop:
            todo.extend(p.node for p in node.operands)
    return list(found)


def _is_state(node: Node) -> bool:
    return node.attributes.get(INPUT_INDEX) in STATES[hinted_function(node)]
