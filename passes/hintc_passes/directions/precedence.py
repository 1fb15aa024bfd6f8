"""Which nodes must run before which, while nodes of a graph are joined."""

from __future__ import annotations

from hintc.ir import Graph, Node


class Precedence:
    """A topological order that is kept while calls are joined (after Pearce and Kelly, 2006).

    Only what stands between two nodes is looked at, so that many joins cost about as much as the
    graph is large. Nodes that are new in the graph have no place in the order.
    """

    def __init__(self, graph: Graph) -> None:
        self._place: dict[Node, float] = {n: at for at, n in enumerate(graph.topological())}

    def first(self, one: Node, other: Node) -> tuple[Node, Node]:
        """The two in order."""
        return (one, other) if self._place[one] <= self._place[other] else (other, one)

    def before(self, first: Node, second: Node) -> list[Node] | None:
        """What `second` needs and stands after `first`, in order; None if it needs `first`."""
        limit = self._place[first]
        found: dict[Node, None] = {}
        pending = [second]
        while pending:
            node = pending.pop()
            for needed in (*(p.node for p in node.operands), *node.controls):
                if needed is first:
                    return None
                if needed not in found and self._place.get(needed, limit + 1) > limit:
                    found[needed] = None
                    pending.append(needed)
        return sorted(found, key=lambda n: self._place.get(n, limit))

    def join(self, first: Node, moved: list[Node], joint: Node) -> None:
        """`joint` stands where `first` stood, and what `before` gave just before it."""
        place = self._place.pop(first)
        for number, node in enumerate(moved):
            # the interval below a place is used once, when the call that has it is joined
            self._place[node] = place - 1 + (number + 1) / (len(moved) + 1)
        self._place[joint] = place
