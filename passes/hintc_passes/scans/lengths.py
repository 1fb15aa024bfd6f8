"""Steps that stop changing a row once its sequence has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hintc.graphdef.emit import known_array
from hintc.ir import Node, Port
from hintc_passes.analysis.merging import merge_equal
from hintc_passes.analysis.values import known_int, source_of
from hintc_passes.scans.step import Step

_COMPARISONS = {
    "GreaterEqual": (0, True),
    "LessEqual": (1, True),
    "Less": (0, False),
    "Greater": (1, False),
}
"""Op -> (operand that is the index, whether it is true where the sequence has ended)."""


@dataclass(frozen=True)
class Freeze:
    """How a step treats rows whose sequence has ended.

    Attributes:
        lengths: the invariant argument that holds the lengths.
        nexts: what the next states are while the sequence lasts; beyond, they keep their value.
        ys: for each output what it is while the sequence lasts, and the argument or constant that
            it is beyond.
        ranks: for each state and output the rank that it must have: a SelectV2 broadcasts its
            condition; None where a Select takes whole rows.
    """

    lengths: Port
    nexts: tuple[Port, ...]
    ys: tuple[tuple[Port, Port], ...]
    ranks: tuple[int | None, ...]


@dataclass(frozen=True)
class _Choice:
    """What a result is while the sequence lasts, and beyond."""

    lengths: Port
    new: Port
    old: Port
    rank: int | None


def find_freeze(step: Step) -> Freeze | None:
    """The freeze of a step if every state and output obeys the same one, else None."""
    found = _choices(step)
    choices = [choice for choice in found if choice is not None]
    if len(choices) < len(found) or not _freeze_states(step, choices):
        return None
    count = len(step.nexts)
    return Freeze(
        choices[0].lengths,
        tuple(c.new for c in choices[:count]),
        tuple((c.new, c.old) for c in choices[count:]),
        tuple(c.rank for c in choices),
    )


def freezes_states_only(step: Step) -> bool:
    """True if all states of a step obey one freeze, but not all outputs have one."""
    found = _choices(step)
    states = [choice for choice in found[: len(step.nexts)] if choice is not None]
    return len(states) == len(step.nexts) and None in found and _freeze_states(step, states)


def _choices(step: Step) -> list[_Choice | None]:
    """What each state and output of a step chooses from."""
    same = merge_equal(step.graph)

    def merged(port: Port) -> Port:
        port = source_of(port)
        return same.get(port, port)

    return [_choice(step, merged(p).node, merged) for p in (*step.nexts, *step.ys)]


def _freeze_states(step: Step, choices: Sequence[_Choice]) -> bool:
    """True if the choices, states first, are by the same lengths, and states keep their value."""
    if not step.nexts or any(c.lengths != choices[0].lengths for c in choices):
        return False
    return all(c.old == state for c, state in zip(choices, step.states, strict=False))


def _choice(step: Step, node: Node, merged: Callable[[Port], Port]) -> _Choice | None:
    if node.op not in ("Select", "SelectV2"):
        return None
    condition, one, other = (merged(p) for p in node.operands)
    columns = 0
    if node.op == "SelectV2":
        condition, columns = _without_columns(condition, merged)
        if not columns:
            return None
    if condition.node.op not in _COMPARISONS:
        return None
    at, is_ended = _COMPARISONS[condition.node.op]
    index, lengths = (merged(condition.node.operands[k]) for k in (at, 1 - at))
    if index != step.t or lengths not in step.invariants:
        return None
    old, new = (one, other) if is_ended else (other, one)
    return _Choice(lengths, new, old, 1 + columns if node.op == "SelectV2" else None)


def _without_columns(port: Port, merged: Callable[[Port], Port]) -> tuple[Port, int]:
    """The vector behind axes that were added at the end, and how many these are."""
    node = port.node
    if node.op == "ExpandDims":
        inner, count = _without_columns(merged(node.operands[0]), merged)
        if known_int(node.operands[1]) in (-1, 1 + count):
            return inner, count + 1
    elif node.op == "StridedSlice":
        inner, count = _without_columns(merged(node.operands[0]), merged)
        added = _added_columns(node)
        if added and not count:
            return inner, added
    return port, 0


def _added_columns(node: Node) -> int:
    """How many axes a slice ``[:, None, ...]`` of a vector adds; 0 if it is another."""
    strides = known_array(node.operands[3])
    if strides is None or strides.reshape(-1)[:1].tolist() != [1]:
        return 0
    masks = {
        kind: node.attributes.get(f"{kind}_mask", 0)
        for kind in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    # what the masks say of new axes does not count
    starts, ends = (isinstance(m := masks[k], int) and m & 1 for k in ("begin", "end"))
    is_whole = starts and ends and not masks["ellipsis"]
    is_added = masks["new_axis"] == 2**strides.size - 2 and not masks["shrink_axis"]
    return strides.size - 1 if is_whole and is_added else 0
