"""Which nodes must run before which, while nodes of a graph are joined."""

from __future__ import annotations

from hintc.ir import Graph, Node

Place = tuple[int, ...]
_BEFORE, _JOINT = 0, 1


class Precedence:
    """A topological order that is kept while calls are joined (after Pearce and Kelly, 2006).

    Only what stands between two nodes is looked at, so that many joins cost about as much as the
    graph is large. Nodes that are new in the graph have no place, and are always looked through.
    """

    def __init__(self, graph: Graph) -> None:
        self._place: dict[Node, Place] = {n: (at,) for at, n in enumerate(graph.topological())}

    def first(self, one: Node, other: Node) -> tuple[Node, Node]:
        """The two in order."""
        return (one, other) if self._place[one] <= self._place[other] else (other, one)

    def between(self, first: Node, second: Node) -> list[Node] | None:
        """What `second` needs and stands after `first`, in order; None if it needs `first`."""
        limit = self._place[first]
        found: dict[Node, Place | None] = {}
        pending = [second]
        while pending:
            node = pending.pop()
            for needed in (*(p.node for p in node.operands), *node.controls):
                if needed is first:
                    return None
                place = self._place.get(needed)
                if needed not in found and (place is None or place > limit):
                    found[needed] = place
                    pending.append(needed)
        return sorted((n for n, place in found.items() if place), key=self._place.__getitem__)

    def join(self, first: Node, moved: list[Node], joint: Node) -> None:
        """`joint` stands where `first` stood, and what `between` gave just before it."""
        # longer places sort behind all that is before `first`, and before all that is behind it
        place = self._place.pop(first)
        for number, node in enumerate(moved):
            self._place[node] = (*place, _BEFORE, number)
        self._place[joint] = (*place, _JOINT)
