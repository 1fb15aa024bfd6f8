"""Loop distribution: which part of a step belongs to which group of states.

States that depend on each other are one group; groups are ordered so that each depends on earlier
ones only. A node that the next states of a group need belongs to the first such group; a node that
only outputs need belongs to the last group that it reads from. Nodes that depend on no state go
with everyone who reads them.
Source: K. Kennedy, K. McKinley, "Loop Distribution with Arbitrary Control Flow", 1990.
"""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx

from hintc.ir import Node, Port, producers
from hintc_passes.scans.step import Step, dependencies


class Distribution:
    """The groups of a step.

    Attributes:
        groups: positions of states, group by group.
        home: the group of each node that depends on a state and is needed.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._before = dependencies(step.graph, [p.node for p in step.states])
        self._position = {port.node: at for at, port in enumerate(step.states)}
        self.groups = self._ordered_groups()
        self._group = {at: g for g, group in enumerate(self.groups) for at in group}
        self.home: dict[Node, int] = {}
        self._place()

    def group_of_value(self, port: Port) -> int | None:
        """The group that has or computes a value; None where it depends on no state."""
        if port.node in self._position:
            return self._group[self._position[port.node]]
        return self.home.get(port.node)

    def _ordered_groups(self) -> list[list[int]]:
        graph: nx.DiGraph[int] = nx.DiGraph()
        graph.add_nodes_from(range(len(self._step.states)))
        for at, following in enumerate(self._step.nexts):
            for state in self._before[following.node]:
                graph.add_edge(self._position[state], at)
        condensed = nx.condensation(graph)
        order = nx.lexicographical_topological_sort(
            condensed, key=lambda n: min(condensed.nodes[n]["members"])
        )
        return [sorted(condensed.nodes[n]["members"]) for n in order]

    def _place(self) -> None:
        step = self._step
        for number, group in enumerate(self.groups):
            for node in producers(step.nexts[at] for at in group):
                if self._before[node] and node not in self._position:
                    self.home.setdefault(node, number)
        only_outputs = producers(step.ys)
        for node in step.graph.topological():
            if node in only_outputs and node not in self.home and node not in self._position:
                places = [self.group_of_value(p) for p in node.operands]
                known = [p for p in places if p is not None]
                if known:
                    self.home[node] = max(known)

    def local(self, group: int, wanted: Sequence[Port]) -> tuple[list[Node], list[Port]]:
        """Nodes that compute `wanted` in the group, and the values it needs from others.

        Values from others are results of other groups, states of other groups, and arguments.
        """
        nodes: dict[Node, None] = {}
        outside: dict[Port, None] = {}
        pending = list(wanted)
        while pending:
            port = pending.pop()
            home = self.group_of_value(port)
            if port.node.op == "_Arg" or home not in (group, None):
                outside[port] = None
            elif port.node not in nodes:
                nodes[port.node] = None
                pending.extend(port.node.operands)
        return [n for n in self._step.graph if n in nodes], list(outside)
