"""Steps that stop changing a row once its sequence has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hintc.ir import Graph, Module, Node, Port
from hintc_passes.analysis.merging import merge_equal
from hintc_passes.analysis.values import source_of
from hintc_passes.scans.masks import Masks, Term
from hintc_passes.scans.step import Step


@dataclass(frozen=True)
class Freeze:
    """How a step treats rows whose sequence has ended.

    Attributes:
        lengths: the vector that holds the lengths, outside of the loop.
        backwards: the steps go through time from its end, so a row rests first.
        nexts: what the next states are while the sequence lasts; beyond, they keep their value.
        ys: for each output what it is while the sequence lasts, and the argument, constant or
            zeros that it is beyond.
        held: for each output the state that it is beyond, if that is the last output; else None.
        ranks: for each state and output the rank that it must have: a SelectV2 broadcasts its
            condition; None where a Select takes whole rows.
    """

    lengths: Port
    backwards: bool
    nexts: tuple[Port, ...]
    ys: tuple[tuple[Port, Port], ...]
    held: tuple[int | None, ...]
    ranks: tuple[int | None, ...]


@dataclass(frozen=True)
class _Choice:
    """What a result is while the sequence lasts, and beyond."""

    mask: Term
    new: Port
    old: Port
    rank: int | None

    @property
    def same(self) -> tuple[Port | None, bool]:
        """Equal for choices by the same mask."""
        return self.mask.lengths, self.mask.backwards


def find_freeze(module: Module, graph: Graph, node: Node, step: Step) -> Freeze | None:
    """The freeze of a Scan's step if every state and output obeys the same one, else None."""
    found = _choices(module, graph, node, step)
    choices = [choice for choice in found if choice is not None]
    if len(choices) < len(found) or not _freeze_states(step, choices):
        return None
    lengths, backwards = choices[0].same
    assert lengths is not None
    count = len(step.nexts)
    nexts = tuple(c.new for c in choices[:count])
    ys = tuple((c.new, c.old) for c in choices[count:])
    kept = {(new, state): k for k, (new, state) in enumerate(zip(nexts, step.states, strict=True))}
    held = tuple(kept.get(y) for y in ys)
    return Freeze(lengths, backwards, nexts, ys, held, tuple(c.rank for c in choices))


def freezes_states_only(module: Module, graph: Graph, node: Node, step: Step) -> bool:
    """True if all states of a step obey one freeze, but not all outputs have one."""
    found = _choices(module, graph, node, step)
    states = [choice for choice in found[: len(step.nexts)] if choice is not None]
    return len(states) == len(step.nexts) and None in found and _freeze_states(step, states)


def _choices(module: Module, graph: Graph, node: Node, step: Step) -> list[_Choice | None]:
    """What each state and output of a step chooses from."""
    same, masks = merge_equal(step.graph), Masks(module, graph, node, step)

    def merged(port: Port) -> Port:
        port = source_of(port)
        return same.get(port, port)

    return [_choice(masks, merged(p).node, merged) for p in (*step.nexts, *step.ys)]


def _freeze_states(step: Step, choices: Sequence[_Choice]) -> bool:
    """True if the choices, states first, are by the same lengths, and states keep their value."""
    if not step.nexts or any(c.same != choices[0].same for c in choices):
        return False
    return all(c.old == state for c, state in zip(choices, step.states, strict=False))


def _choice(masks: Masks, node: Node, merged: Callable[[Port], Port]) -> _Choice | None:
    if node.op not in ("Select", "SelectV2"):
        return None
    condition, one, other = (merged(p) for p in node.operands)
    mask = masks.mask(condition)
    if mask is None or (len(mask.axes) == 1 and node.op == "SelectV2"):
        return None
    old, new = (one, other) if mask.ended else (other, one)
    return _Choice(mask, new, old, len(mask.axes) if len(mask.axes) > 1 else None)
