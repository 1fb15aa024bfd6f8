"""Whether a graph is still what it was: for who remembers what was found out about it."""

from __future__ import annotations

from collections.abc import Iterator
from operator import is_

from hintc.ir.graph import Graph


class Snapshot:
    """Nodes, edges, attributes and results of a graph at one moment, by identity.

    What is assigned anew counts as changed even if it is equal; an edit is never missed.
    """

    __slots__ = ("_parts",)

    def __init__(self, graph: Graph) -> None:
        self._parts = list(_parts(graph))

    def holds(self, graph: Graph) -> bool:
        """True if `graph` has not been edited since."""
        now = list(_parts(graph))
        return len(now) == len(self._parts) and all(map(is_, now, self._parts))


def _parts(graph: Graph) -> Iterator[object]:
    for node in graph:
        yield node
        yield node.name
        yield node.op
        yield node.operands
        yield node.controls
        yield node.attributes
        yield node.attributes.touched  # a new set with each assignment
    for nodes in (graph.args, graph.results, graph.control_results.values()):
        yield None
        yield from nodes
    yield from graph.control_results
