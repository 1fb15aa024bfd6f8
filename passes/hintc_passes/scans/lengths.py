"""Steps that stop changing a row once its sequence has ended."""

from __future__ import annotations

from dataclasses import dataclass

from hintc.ir import Port
from hintc_passes.analysis.merging import merge_equal
from hintc_passes.analysis.values import source_of
from hintc_passes.scans.step import Step


@dataclass(frozen=True)
class Freeze:
    """How a step treats rows whose sequence has ended.

    Attributes:
        lengths: the invariant argument that holds the lengths.
        nexts: what the next states are while the sequence lasts; beyond, they keep their value.
        ys: for each output what it is while the sequence lasts, and the argument or constant that
            it is beyond.
    """

    lengths: Port
    nexts: tuple[Port, ...]
    ys: tuple[tuple[Port, Port], ...]


def find_freeze(step: Step) -> Freeze | None:
    """The freeze of a step if every state and output obeys the same one, else None."""
    same = merge_equal(step.graph)

    def merged(port: Port) -> Port:
        port = source_of(port)
        return same.get(port, port)

    selects = [merged(port).node for port in (*step.nexts, *step.ys)]
    if not step.nexts or any(node.op != "Select" for node in selects):
        return None
    parts = [[merged(p) for p in node.operands] for node in selects]
    ended = parts[0][0]
    if ended.node.op not in ("GreaterEqual", "LessEqual") or any(p[0] != ended for p in parts):
        return None
    index, lengths = (merged(p) for p in ended.node.operands)
    if ended.node.op == "LessEqual":
        index, lengths = lengths, index
    if index != step.t or lengths not in step.invariants:
        return None
    count = len(step.nexts)
    if any(part[1] != state for part, state in zip(parts, step.states, strict=False)):
        return None
    return Freeze(
        lengths,
        tuple(part[2] for part in parts[:count]),
        tuple((part[2], part[1]) for part in parts[count:]),
    )
