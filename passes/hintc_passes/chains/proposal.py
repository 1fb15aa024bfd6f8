"""Which values of the steps may be carried from one to the next: where `Lockstep` is to start.

Each node gets a label from its op, its attributes and its operands: a value of the same step by
label, one of the step before as merely that, anything else by identity. Nodes of the same label,
one in every step, are probably the same part of a step. The first step is matched by hand, since
it reads initial states where the others read the step before.

This only proposes: what it overlooks stays as it is, what it finds is proved afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

from hintc.ir import Node, Port
from hintc.ir.opdefs import is_stateful, result_dtypes
from hintc_passes.analysis.merging import attributes_key
from hintc_passes.analysis.products import PRODUCTS
from hintc_passes.analysis.values import known_scalar
from hintc_passes.chains.lanes import Lane

_CARRIED: Hashable = ("carried",)
_COMPARISONS = frozenset(("Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "NotEqual"))
_ON_COMPARISONS = frozenset(("ExpandDims", "Identity", "LogicalNot", "StridedSlice", "Tile"))
"""What is done to a comparison before it chooses: it becomes a column, say."""


class Proposal:
    """Lanes of values that a later step reads, in steps with a product of matrices.

    Args:
        nodes: those that depend on the sequences, topologically, no two equal.
        step: the step of a value.
        sequences: the elements, in the order of the steps.
        same: equal values.
        readers: what reads a value or its equals.
        loosely: let ops, attributes and constants differ; for saying what differs.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        step: Callable[[Port], int],
        sequences: Sequence[Lane],
        same: Mapping[Port, Port],
        readers: Mapping[Port, Sequence[Node]],
        *,
        loosely: bool = False,
    ) -> None:
        self._step, self._same, self._readers, self._loosely = step, same, readers, loosely
        self._trip = len(sequences[0])
        self._element = {p: s for s, lane in enumerate(sequences) for p in lane if p is not None}
        self._numbers: dict[Hashable, int] = {}
        self._labels: dict[Node, int] = {}
        self._recurrent: set[int] = set()
        classes: dict[int, list[Node]] = {}
        for node in nodes:
            label = self._label(node)
            if label is not None:
                classes.setdefault(label, []).append(node)
        for members in list(classes.values()):
            members.sort(key=lambda n: step(Port(n)))
            self._split(members, classes)
        self._complete = {k: v for k, v in classes.items() if self._covers(v, 1, self._trip)}
        self._lagging = {k for k, v in classes.items() if self._covers(v, 1, self._trip - 1)}
        self._firsts = self._match_first(nodes, sequences)

    def _covers(self, nodes: Sequence[Node], first: int, end: int) -> bool:
        """One node for each of the steps ``first … end - 1``; step 0 may have one beside."""
        steps = [self._step(Port(n)) for n in nodes]
        if first == 1 and steps and steps[0] == 0:
            steps = steps[1:]
        return len(steps) == end - first and all(s == k for k, s in enumerate(steps, first))

    def _split(self, members: list[Node], classes: dict[int, list[Node]]) -> None:
        """Tell nodes of one label apart that each read the one of the step before.

        Two states that differ in their first value only have one label.
        """
        label = self._labels[members[0]]
        if label not in self._recurrent or len(members) < self._trip:
            return
        threads: dict[Node, Node] = {}
        for node in members:
            before = [p.node for p in (self._same.get(p, p) for p in node.operands)]
            threads[node] = next((threads[n] for n in before if n in threads), node)
        apart = {head: [n for n in members if threads[n] is head] for head in threads.values()}
        ends = self._trip, self._trip - 1
        if not all(any(self._covers(nodes, 1, e) for e in ends) for nodes in apart.values()):
            return
        del classes[label]
        for head, nodes in apart.items():
            number = self._numbers.setdefault(("thread", head), len(self._numbers))
            classes[number] = nodes
            self._recurrent.add(number)
            self._labels |= dict.fromkeys(nodes, number)

    def _label(self, node: Node) -> int | None:
        if is_stateful(node) or node.controls:
            return None
        now = self._step(Port(node))
        described = [self._describe(self._same.get(p, p), now) for p in node.operands]
        if any(d is None for d in described):
            return None
        attributes = () if self._loosely else attributes_key(node)
        key = ("" if self._loosely else node.op, attributes, tuple(described))
        label = self._labels[node] = self._numbers.setdefault(key, len(self._numbers))
        carried = any(d == _CARRIED for d in described)
        inside = (self._labels.get(self._same.get(p, p).node) for p in node.operands)
        if carried or any(number in self._recurrent for number in inside):
            self._recurrent.add(label)
        return label

    def _describe(self, port: Port, now: int) -> Hashable:
        step = self._step(port)
        if port in self._element:
            return ("element", self._element[port], now - step)
        if step == now:
            label = self._labels.get(port.node)
            return None if label is None else ("same", label, port.index)
        if 0 <= step == now - 1:
            return _CARRIED
        if step < 0:
            return ("fixed",) if self._loosely else ("fixed", self._described_fixed(port))
        return None

    def _described_fixed(self, port: Port) -> Hashable:
        """The value, or, where it compares with what may be the index of the step, its kind."""
        node = port.node
        if not _counts(node):
            return port
        read = [self._same.get(p, p) for p in node.operands]
        if node.op in _ON_COMPARISONS:
            return (node.op, attributes_key(node), self._described_fixed(read[0]), *read[1:])
        return (node.op, *(None if known_scalar(p) is not None else p for p in read))

    # -- the first step ----------------------------------------------------------------------

    def _match_first(self, nodes: Sequence[Node], sequences: Sequence[Lane]) -> dict[Node, Node]:
        """For nodes of step 1 those of step 0 that play the same role, where there is just one."""
        ports = {lane[1]: lane[0] for lane in sequences if lane[0] and lane[1]}
        found: dict[Node, Node] = {}
        open_: dict[Node, list[Node]] = {}
        for node in nodes:
            if self._labels.get(node) not in self._complete or self._step(Port(node)) != 1:
                continue
            wanted = [self._in_first(self._same.get(p, p), ports, found) for p in node.operands]
            anchor = next((p for p in wanted if p is not None and self._step(p) == 0), None)
            if anchor is None:
                continue
            readers = dict.fromkeys(self._readers.get(anchor, ()))
            fitting = [n for n in readers if self._fits(n, node, wanted)]
            if len(fitting) > 1:
                read = {self._same.get(p, p).node for p in node.operands}
                fitting = [n for n in fitting if n in read] or fitting
            if len(fitting) > 1:
                fitting = [n for n in fitting if self._starts_before(n, node)] or fitting
            if len(fitting) == 1:
                found[node] = fitting[0]
            elif fitting:
                open_[node] = fitting
        taken = set(found.values())
        for node, fitting in open_.items():
            free = [n for n in fitting if n not in taken]
            if len(free) == 1:
                found[node] = free[0]
        return found

    def _in_first(
        self, port: Port, ports: Mapping[Port, Port], found: Mapping[Node, Node]
    ) -> Port | None:
        """What step 0 reads where step 1 reads `port`; None if that cannot be told."""
        if port in ports:
            return ports[port]
        if self._step(port) < 0:
            return None if _counts(port.node) else port
        twin = found.get(port.node)
        return None if twin is None else Port(twin, port.index)

    def _fits(self, candidate: Node, node: Node, wanted: Sequence[Port | None]) -> bool:
        if self._step(Port(candidate)) != 0 or not (self._loosely or candidate.op == node.op):
            return False
        read = [self._same.get(p, p) for p in candidate.operands]
        if len(read) != len(wanted) or (
            not self._loosely and attributes_key(candidate) != attributes_key(node)
        ):
            return False
        return all(
            w is None or w == r or (self._loosely and self._step(w) < 0)
            for w, r in zip(wanted, read, strict=True)
        )

    def _starts_before(self, candidate: Node, node: Node) -> bool:
        """True if, where a node of step 1 reads the step before, one of step 0 reads no step."""
        pairs = zip(node.operands, candidate.operands, strict=True)
        same = ((self._same.get(p, p), self._same.get(r, r)) for p, r in pairs)
        return all(self._step(p) != 0 or p in self._element or self._step(r) < 0 for p, r in same)

    # -- the result --------------------------------------------------------------------------

    def lanes(self) -> list[Lane]:
        """Values of every step that the next one reads; none if no step has a product."""
        found: dict[Lane, None] = {}
        has_product = False
        for label, members in self._complete.items():
            steady = [n for n in members if self._step(Port(n)) > 0]
            first = self._firsts.get(steady[0])
            has_product = has_product or steady[0].op in PRODUCTS
            if label not in self._recurrent or first is None:
                continue
            nodes = [first, *steady]
            for index in self._carried_results(nodes[-2]):
                found[tuple(Port(n, index) for n in nodes)] = None
        lagging = (n for n, k in self._labels.items() if k in self._lagging)
        has_product = has_product or any(n.op in PRODUCTS for n in lagging)
        return list(found) if has_product else []

    def masks(self) -> list[Lane]:
        """Values of every step that a Select chooses: outputs that are zero beyond a length."""
        found: list[Lane] = []
        for members in self._complete.values():
            steady = [n for n in members if self._step(Port(n)) > 0]
            first = self._firsts.get(steady[0])
            if first is not None and first.op in ("Select", "SelectV2"):
                found.append(tuple(Port(n) for n in (first, *steady)))
        return found

    def _carried_results(self, node: Node) -> list[int]:
        """The results of a node of the last step but one that the last step may need."""
        now = self._step(Port(node))
        return [
            index
            for index in range(len(result_dtypes(node) or ()))
            if any(
                self._trip == 2
                or self._labels.get(reader) in self._lagging
                or self._step(Port(reader)) == now + 1
                for reader in self._readers.get(Port(node, index), ())
            )
        ]


def _counts(node: Node) -> bool:
    """True for a comparison with a constant that may be the index of the step."""
    while node.op in _ON_COMPARISONS:
        node = node.operands[0].node
    return node.op in _COMPARISONS and any(known_scalar(p) is not None for p in node.operands)
