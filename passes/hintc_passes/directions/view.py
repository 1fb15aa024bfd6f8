"""Sequences seen in another order: behind transpositions and reversals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hintc.graphdef.emit import known_array
from hintc.ir import Graph, Node, Port

RANK = 3
"""Of the sequences that recurrent kernels read and give; transposing and reversing keep it."""


@dataclass(frozen=True)
class View:
    """A value of rank 3 as another one with its axes permuted and some of them reversed.

    Attributes:
        source: the other value.
        axes: for each axis of the value, the axis of `source` that it is.
        reversed: the axes of the value that run the other way.
    """

    source: Port
    axes: tuple[int, ...] = tuple(range(RANK))
    reversed: frozenset[int] = frozenset()

    @classmethod
    def of(cls, port: Port) -> View:
        """A value of rank 3, seen from as far away as can be."""
        view = cls(port)
        while (moved := _arrangement(view.source.node)) is not None:
            axes, flipped = moved
            turned = {at for at, axis in enumerate(view.axes) if axis in flipped}
            view = cls(
                view.source.node.operands[0],
                tuple(axes[axis] for axis in view.axes),
                view.reversed ^ turned,
            )
        return view


def _arrangement(node: Node) -> tuple[tuple[int, ...], frozenset[int]] | None:
    """What a node does to its operand's axes: their order, those it reverses; None: more."""
    same = tuple(range(RANK))
    if node.op == "Identity":
        return same, frozenset()
    if node.op not in ("Transpose", "ReverseV2"):
        return None
    given = known_array(node.operands[1])
    if given is None or given.ndim != 1:
        return None
    axes = tuple(int(axis) % RANK for axis in given)
    if node.op == "ReverseV2":
        return same, frozenset(axes)
    return (axes, frozenset()) if sorted(axes) == list(same) else None


def views_of(graph: Graph, port: Port) -> Iterator[Node]:
    """The nodes that only rearrange a value, those before the others that read them."""
    pending = [port]
    while pending:
        for use in graph.uses(pending.pop()):
            if use.slot == 0 and _arrangement(use.node) is not None:
                yield use.node
                pending.append(Port(use.node))
