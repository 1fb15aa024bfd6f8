"""Graph: nodes and their edges, stored in one networkx multigraph.

Vertices are `Node` objects. Every data edge has the key `(slot, port)`: operand `slot` of the
consumer reads result `port` of the producer. A control edge has the key `(position, CONTROL)`.
Operands are kept in order on the node too; `hintc.verify` checks that the two agree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import networkx as nx

from hintc.errors import HintcError, VerifyError
from hintc.ir.attributes import Attributes, AttributeValue
from hintc.ir.node import CONTROL, RESULT, Node, Port, Use

_NEXT_ITERATION = ("NextIteration", "RefNextIteration")
_MERGE = ("Merge", "RefMerge")


class Graph:
    """Nodes and their edges, in order of insertion.

    Attributes:
        args: the inputs: `_Arg` nodes of a function body; the declared inputs of a main graph.
        results: the `_Retval` nodes, in order. A main graph lifted without outputs has none.
        control_results: nodes that must run whenever the graph runs, by result name.
    """

    def __init__(self) -> None:
        self._nx: Any = nx.MultiDiGraph()  # networkx types edge keys as str; ours are tuples
        self._names: dict[str, Node] = {}
        self._suffixes: dict[str, int] = {}
        self.args: list[Node] = []
        self.results: list[Node] = []
        self.control_results: dict[str, Node] = {}

    # -- reading ---------------------------------------------------------------------------

    @property
    def nx(self) -> nx.MultiDiGraph[Node]:
        """The live graph, read-only: every networkx algorithm works on it without a copy."""
        view: nx.MultiDiGraph[Node] = self._nx.copy(as_view=True)
        return view

    def __iter__(self) -> Iterator[Node]:
        return iter(list(self._nx))

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, item: object) -> bool:
        if isinstance(item, Node):
            return item.graph is self and self._names.get(item.name) is item
        return item in self._names

    def __getitem__(self, name: str) -> Node:
        try:
            return self._names[name]
        except KeyError:
            raise HintcError("the graph has no such node", node=name) from None

    def find(self, name: str) -> Node | None:
        """The node of that name, None if there is none."""
        return self._names.get(name)

    def uses(self, value: Node | Port) -> list[Use]:
        """Data uses of a port, or of all ports of a node, in a stable order."""
        return list(self.each_use(value))

    def each_use(self, value: Node | Port) -> Iterator[Use]:
        """`uses` one by one, for who may not need all; edges must not change meanwhile."""
        node, index = value if isinstance(value, Port) else (value, None)
        for consumer, keys in self._nx._adj[node].items():
            for slot, port in keys:
                if port != CONTROL and (index is None or port == index):
                    yield Use(consumer, slot)

    def control_uses(self, node: Node) -> list[Node]:
        """Nodes that wait for `node` by a control edge."""
        return [
            consumer
            for consumer, keys in self._nx._adj[node].items()
            if any(port == CONTROL for _, port in keys)
        ]

    def readers(self, node: Node) -> Iterable[Node]:
        """What reads or waits for `node`, each once; edges must not change meanwhile."""
        readers: Iterable[Node] = self._nx._adj[node]
        return readers

    def edges_into(self, node: Node) -> Iterator[tuple[Node, int, int]]:
        """The edges that end in `node`, as they are stored: producer and key (see the module)."""
        for producer, keys in self._nx._pred[node].items():
            for slot, port in keys:
                yield producer, slot, port

    def is_used(self, node: Node) -> bool:
        """True if any edge, data or control, leaves the node, or it is a control result."""
        return bool(self._nx._adj[node]) or any(n is node for n in self.control_results.values())

    def topological(self) -> list[Node]:
        """Nodes so that each comes after what it reads; `NextIteration` back edges are ignored.

        Ties are broken by insertion order, so the result is a function of the graph.

        Raises:
            VerifyError: the graph has another cycle; names one node on it.
        """
        waiting: dict[Node, int] = {}
        ready: list[Node] = []
        for node in self:
            count = _count_forward_producers(node)
            if count:
                waiting[node] = count
            else:
                ready.append(node)
        ready.reverse()
        order: list[Node] = []
        successors = self._nx._adj  # a view of it is made anew for each node
        while ready:
            node = ready.pop()
            order.append(node)
            freed = []
            may_close = node.op in _NEXT_ITERATION
            for consumer in successors[node]:
                if consumer in waiting and not (may_close and consumer.op in _MERGE):
                    waiting[consumer] -= 1
                    if not waiting[consumer]:
                        del waiting[consumer]
                        freed.append(consumer)
            freed.reverse()
            ready += freed
        if waiting:
            raise VerifyError(
                "the graph has a cycle",
                node=_a_node_on_a_cycle(waiting),
                remedy="Only NextIteration may close a loop.",
            )
        return order

    def of_ops(self, ops: Collection[str]) -> list[Node]:
        """Nodes whose op is one of `ops`, in topological order; free of charge if there are none.

        Raises:
            VerifyError: as `topological`, if there are any.
        """
        if not any(node.op in ops for node in self._names.values()):
            return []
        return [node for node in self.topological() if node.op in ops]

    # -- writing ---------------------------------------------------------------------------

    def add(
        self,
        op: str,
        operands: Sequence[Port | Node] = (),
        attributes: Mapping[str, AttributeValue] | Attributes | None = None,
        *,
        name: str | None = None,
        controls: Sequence[Node] = (),
        device: str = "",
        origin: Iterable[str] = (),
    ) -> Node:
        """Append a node. `name` is made unique; it defaults to the op's name."""
        if not isinstance(attributes, Attributes):
            attributes = Attributes(attributes)
        node = self.append(self.unique_name(name or op), op, attributes)
        node.device = device
        node.origin = tuple(origin)
        self.set_operands(node, operands)
        if controls:
            self.set_controls(node, controls)
        return node

    def append(self, name: str, op: str, attributes: Attributes) -> Node:
        """Append a node without edges, under exactly this name.

        Raises:
            HintcError: the name is taken.
        """
        if name in self._names:
            raise HintcError(
                "two nodes have this name",
                node=name,
                remedy="Names must be unique in a graph.",
            )
        node = Node(self, name, op, attributes)
        self._names[name] = node
        self._nx.add_node(node)
        return node

    def add_result(self, name: str, value: Port) -> Node:
        """Declare `value` a result of the graph, called `name`."""
        node = self.add(RESULT, [value], {"result": name.encode()}, name=f"ret/{name}")
        self.results.append(node)
        return node

    def set_operands(self, node: Node, operands: Sequence[Port | Node]) -> None:
        """Replace all data operands.

        Raises:
            HintcError: an operand is not in this graph; then nothing is changed.
        """
        ports = tuple(p if isinstance(p, Port) else Port(p) for p in operands)
        for port in ports:
            self._own(port.node, node)
        for slot, (producer, index) in enumerate(node._operands):
            self._nx.remove_edge(producer, node, (slot, index))
        node._operands = ports
        for slot, (producer, index) in enumerate(ports):
            self._nx.add_edge(producer, node, (slot, index))

    def set_operand(self, node: Node, slot: int, value: Port | Node) -> None:
        """Replace one data operand.

        Raises:
            HintcError: the operand is not in this graph; then nothing is changed.
        """
        port = value if isinstance(value, Port) else Port(value)
        self._own(port.node, node)
        old = node._operands[slot]
        self._nx.remove_edge(old.node, node, (slot, old.index))
        self._nx.add_edge(port.node, node, (slot, port.index))
        node._operands = (*node._operands[:slot], port, *node._operands[slot + 1 :])

    def set_controls(self, node: Node, controls: Sequence[Node]) -> None:
        """Replace all control operands.

        Raises:
            HintcError: one of them is not in this graph; then nothing is changed.
        """
        for control in controls:
            self._own(control, node)
        for at, control in enumerate(node._controls):
            self._nx.remove_edge(control, node, (at, CONTROL))
        node._controls = tuple(controls)
        for at, control in enumerate(node._controls):
            self._nx.add_edge(control, node, (at, CONTROL))

    def replace_uses(
        self, old: Port, new: Port, *, where: Callable[[Use], bool] | None = None
    ) -> int:
        """Let the data uses of `old` (those for which `where` holds) read `new`; how many."""
        uses = [u for u in self.uses(old) if where is None or where(u)]
        for use in uses:
            self.set_operand(use.node, use.slot, new)
        return len(uses)

    def replace_control_uses(self, old: Node, new: Sequence[Node]) -> None:
        """Let what waits for `old` wait for all of `new` instead (each once)."""
        for consumer in self.control_uses(old):
            kept: list[Node] = []
            for control in consumer.controls:
                for node in new if control is old else (control,):
                    if node not in kept:
                        kept.append(node)
            self.set_controls(consumer, kept)

    def rename(self, node: Node, name: str) -> None:
        """Give a node another name.

        Raises:
            HintcError: the name is taken by another node, or the node is not in the graph.
        """
        if node not in self:
            raise HintcError("the node is of another graph, or was removed", node=node.name)
        if self._names.get(name, node) is not node:
            raise HintcError(f"the name '{name}' is taken", node=node.name)
        del self._names[node._name]
        node._name = name
        self._names[name] = node

    def remove(self, nodes: Node | Iterable[Node]) -> None:
        """Remove nodes that nothing outside of `nodes` reads or waits for.

        Raises:
            HintcError: a node that stays still needs one of them, or one is not in the graph.
        """
        doomed = {nodes: None} if isinstance(nodes, Node) else dict.fromkeys(nodes)
        for node in doomed:
            if node not in self:
                raise HintcError("the node is of another graph, or was removed", node=node.name)
            for consumer in self._nx._adj[node]:
                if consumer not in doomed:
                    raise HintcError(
                        f"cannot remove the node, '{consumer.name}' still reads it",
                        node=node.name,
                    )
        self._nx.remove_nodes_from(doomed)
        for node in doomed:
            del self._names[node._name]
        if any(n in doomed for n in self.args):
            self.args = [n for n in self.args if n not in doomed]
        if any(n.op == RESULT for n in doomed):  # there may be as many results as removals
            self.results = [n for n in self.results if n not in doomed]
        for key in [k for k, n in self.control_results.items() if n in doomed]:
            del self.control_results[key]

    def copy(self) -> Graph:
        """An independent graph with the same nodes, edges, args, results and sources."""
        twin = Graph()
        twins: dict[Node, Node] = {}
        for node in self._nx:
            new = twin.append(node.name, node.op, node.attributes.copy())
            new.device, new.origin = node.device, node.origin
            new.source, new.result_names = node.source, node.result_names
            twins[node] = new
        for node, new in twins.items():
            if node._operands:
                twin.set_operands(new, [Port(twins[p.node], p.index) for p in node._operands])
            if node._controls:
                twin.set_controls(new, [twins[c] for c in node._controls])
        twin.args = [twins[n] for n in self.args]
        twin.results = [twins[n] for n in self.results]
        twin.control_results = {k: twins[n] for k, n in self.control_results.items()}
        return twin

    def unique_name(self, base: str) -> str:
        """`base`, or `base_1`, `base_2`, …: the first that is free. Amortised constant time."""
        if base not in self._names:
            return base
        at = self._suffixes.get(base, 0) + 1
        while f"{base}_{at}" in self._names:
            at += 1
        self._suffixes[base] = at
        return f"{base}_{at}"

    def _own(self, node: Node, reader: Node) -> None:
        if self._names.get(node._name) is not node:
            raise HintcError(
                f"operand '{node.name}' is a node of another graph, or was removed",
                node=reader.name,
            )


def producers(ports: Iterable[Port]) -> set[Node]:
    """The nodes that the values depend on through data, those that compute them included."""
    found: set[Node] = set()
    pending = [port.node for port in ports]
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending.extend(operand.node for operand in node.operands)
    return found


def _is_back_edge(producer: Node, consumer: Node) -> bool:
    return producer.op in _NEXT_ITERATION and consumer.op in _MERGE


def _forward_producers(node: Node) -> set[Node]:
    producers = {p.node for p in node.operands}
    producers.update(node.controls)
    if node.op in _MERGE:
        producers = {p for p in producers if not _is_back_edge(p, node)}
    return producers


def _count_forward_producers(node: Node) -> int:
    operands, controls = node._operands, node._controls
    if not controls and len(operands) <= 1 and node.op not in _MERGE:
        return len(operands)  # most nodes
    return len(_forward_producers(node))


def _a_node_on_a_cycle(waiting: Mapping[Node, int]) -> str:
    node = next(iter(waiting))
    seen: set[Node] = set()
    while node not in seen:
        seen.add(node)
        node = next((p for p in _forward_producers(node) if p in waiting), node)
    return node.name
