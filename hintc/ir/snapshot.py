"""Whether a graph is still what it was: for who remembers what was found out about it."""

from __future__ import annotations

from operator import is_

from hintc.ir.graph import Graph


class Snapshot:
    """Nodes, edges, attributes and results of a graph at one moment, by identity.

    What is assigned anew counts as changed even if it is equal; an edit is never missed.
    """

    __slots__ = ("_parts",)

    def __init__(self, graph: Graph) -> None:
        self._parts = _parts(graph)

    def holds(self, graph: Graph) -> bool:
        """True if `graph` has not been edited since."""
        now = _parts(graph)
        return len(now) == len(self._parts) and all(map(is_, now, self._parts))


def _parts(graph: Graph) -> list[object]:
    parts: list[object] = []
    for node in graph:
        attributes = node.attributes
        parts += (
            node,
            node.name,
            node.op,
            node.operands,
            node.controls,
            attributes,
            attributes.touched,  # a new set with each assignment
        )
    for nodes in (graph.args, graph.results, graph.control_results.values()):
        parts.append(None)
        parts += nodes
    parts += graph.control_results
    return parts
