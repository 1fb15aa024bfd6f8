"""Sequences seen in another order: behind transpositions and reversals, step by step or not."""

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
            view = view.through(moved)
        return view

    def through(self, moved: View) -> View:
        """The same value, seen from behind `moved`, which is `source` as a view of another."""
        turned = {at for at, axis in enumerate(self.axes) if axis in moved.reversed}
        axes = tuple(moved.axes[axis] for axis in self.axes)
        return View(moved.source, axes, self.reversed ^ turned)


def _arrangement(node: Node) -> View | None:
    """A node's value as a view of what it reads; None if it does more than rearrange that."""
    if node.op == "Identity":
        return View(node.operands[0])
    if node.op == "Pack":
        return _backwards(node)
    if node.op not in ("Transpose", "ReverseV2"):
        return None
    given = known_array(node.operands[1])
    if given is None or given.ndim != 1:
        return None
    axes = tuple(int(axis) % RANK for axis in given)
    if node.op == "ReverseV2":
        return View(node.operands[0], reversed=frozenset(axes))
    return View(node.operands[0], axes) if sorted(axes) == list(range(RANK)) else None


def _backwards(pack: Node) -> View | None:
    """``stack(unstack(x)[::-1])`` on the first axis."""
    steps = pack.operands
    unpack = steps[0].node
    if unpack.op != "Unpack" or pack.attributes.get("axis") or unpack.attributes.get("axis"):
        return None
    if unpack.attributes.get("num") != len(steps):
        return None
    if any(step != Port(unpack, at) for at, step in enumerate(reversed(steps))):
        return None
    return View(unpack.operands[0], reversed=frozenset({0}))


def views_of(graph: Graph, port: Port) -> Iterator[Node]:
    """The nodes that only rearrange a value, those before the others that read them."""
    pending = [port]
    while pending:
        for use in graph.uses(pending.pop()):
            if use.slot == 0 and _arrangement(use.node) is not None:
                yield use.node
                pending.append(Port(use.node))
