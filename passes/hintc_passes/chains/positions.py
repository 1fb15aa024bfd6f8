"""Where values stand in chains: the first and the last element of a sequence that they need.

Sequences of equal length whose tensors are equally many sequences away from the inputs form one
domain: the steps of one chain may read them together. What is computed from elements is of their
domain; what is computed from several is of that which is furthest from the inputs, or of none if
there are two. So values of a domain never feed the tensors of its own sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from hintc.ir import Node, Port
from hintc_passes.chains.lanes import NEVER
from hintc_passes.chains.sequences import Elements

Domain = tuple[int, int]
"""Length of the sequences, and how many sequences are before them."""


class Position(NamedTuple):
    """Where a value stands.

    Attributes:
        level: how many sequences are before it, one after the other.
        domain: whose elements of that level it needs; None for those of several, or of none.
        first, last: indices of these elements.
    """

    level: int
    domain: Domain | None
    first: int
    last: int


_BEFORE = Position(0, None, 0, 0)


class Positions:
    """The positions of all values of a graph; linear.

    Args:
        order: the graph's nodes, topologically.
        sequences: all that chains may read.
        same: equal values, see `merge_equal`.
    """

    def __init__(
        self, order: Sequence[Node], sequences: Sequence[Elements], same: Mapping[Port, Port]
    ) -> None:
        self._same = same
        self._nodes: dict[Node, Position] = {}
        self._elements: dict[Port, Position] = {}
        self.sequences: dict[Domain, list[Elements]] = {}
        self.nodes: dict[Domain, list[Node]] = {}
        """The nodes of each domain, topologically."""
        self._carriers: dict[Node, list[tuple[Elements, int]]] = {}
        self._tensors: dict[Port, Port] = {}
        for sequence in sequences:
            for k, port in enumerate(sequence.ports):
                self._carriers.setdefault(port.node, []).append((sequence, k))
                self._tensors[port] = sequence.tensor
        for node in order:
            self._place(node)

    def of(self, port: Port) -> Position:
        """The position of a value."""
        port = self._same.get(port, port)
        return self._elements.get(port) or self._nodes[port.node]

    def _place(self, node: Node) -> None:
        before = [self.of(port) for port in node.operands]
        if node.op == "Shape":  # all elements have one shape
            read = self._same.get(node.operands[0], node.operands[0])
            before = [self.of(self._tensors.get(read, read))]
        level = max((p.level for p in before), default=0)
        for sequence, k in self._carriers.get(node, ()):
            domain = (len(sequence.ports), self.of(sequence.tensor).level)
            port = sequence.ports[k]
            self._elements[port] = Position(domain[1] + 1, domain, k, k)
            if k == 0:
                self.sequences.setdefault(domain, []).append(sequence)
        if node in self._carriers or not level:
            self._nodes[node] = Position(level, None, 0, 0) if level else _BEFORE
            return
        top = [p for p in before if p.level == level]
        domain_of = top[0].domain
        if domain_of is None or any(p.domain != domain_of for p in top):
            self._nodes[node] = Position(level, None, 0, 0)
            return
        self._nodes[node] = Position(
            level, domain_of, min(p.first for p in top), max(p.last for p in top)
        )
        self.nodes.setdefault(domain_of, []).append(node)

    def steps(self, domain: Domain, *, backwards: bool) -> Callable[[Port], int]:
        """The step that computes a value, if the steps take turns with the elements.

        `NEVER` for what does not depend on the domain, the number of steps for what may depend on
        it in another way.
        """
        trip, level = domain

        def step(port: Port) -> int:
            found = self.of(port)
            if found.domain == domain:
                return trip - 1 - found.first if backwards else found.last
            return NEVER if found.level <= level else trip

        return step
