"""What one look at a graph finds out for all chains of steps in it."""

from __future__ import annotations

from hintc.ir import Graph, Node, Port
from hintc_passes.analysis.merging import merge_equal
from hintc_passes.chains.positions import Positions
from hintc_passes.chains.sequences import find_elements


class Unrolled:
    """What one look at a graph finds out for all its chains.

    All chains are found before the first is replaced, and nothing is removed before the last is.

    Attributes:
        same: equal values, see `merge_equal`.
        readers: what reads a value or its equals, Identity nodes and equals of others left out.
        equals: the values that equal one, itself left out.
        moved: what is read instead of a value, since its chain was replaced.
        doomed: nodes that chains have left behind.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.same = merge_equal(graph)
        order = graph.topological()
        self.moved: dict[Port, Port] = {}
        self.doomed: list[Node] = []
        self.equals: dict[Port, list[Port]] = {}
        for port, twin in self.same.items():
            if port != twin:
                self.equals.setdefault(twin, []).append(port)
        merged = {p.node for ports in self.equals.values() for p in ports}
        self.readers: dict[Port, list[Node]] = {}
        for node in order:
            if node not in merged:
                for port in dict.fromkeys(self.same.get(p, p) for p in node.operands):
                    self.readers.setdefault(port, []).append(node)
        sequences = find_elements(graph, self.same, self.readers)
        self.positions = Positions(order, sequences, self.same)
        self.nodes = {
            domain: [n for n in nodes if n not in merged]
            for domain, nodes in self.positions.nodes.items()
        }

    def now(self, port: Port) -> Port:
        """The value that took the place of another."""
        while port in self.moved:
            port = self.moved[port]
        return port
