"""The region of a hinted call: the nodes on the paths from its inputs to its outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx

from hintc.hints.protocol import HintCall, is_hint
from hintc.ir import RESULT, Graph, Node
from hintc.ir.opdefs import lookup

_BACK_EDGES = ("NextIteration", "RefNextIteration")
# Stateful by their definition, yet safe in a function that is called once where they stood.
_HARMLESS = frozenset(
    {"Assert", "Print", "PrintV2", "While", "If", "Case", "StatefulPartitionedCall"}
)


@dataclass(frozen=True)
class Region:
    """A hinted call and what lies in it.

    Attributes:
        call: the hint.
        sources: hint nodes that are its arguments; they stay outside.
        sinks: hint nodes that are its results; they stay outside.
        interior: everything in between, in topological order.
    """

    call: HintCall
    sources: Mapping[Node, None]
    sinks: Mapping[Node, None]
    interior: Mapping[Node, None]


@dataclass(frozen=True)
class Escape:
    """An interior value, or control edge, that something outside needs.

    Attributes:
        node: the interior node.
        reader: the node outside; None if it is a control result of the graph.
    """

    node: Node
    reader: Node | None
    by_control: bool


def find_region(graph: Graph, call: HintCall, position: Mapping[Node, int]) -> Region:
    """The region of a call.

    Args:
        graph: has the hint nodes.
        call: of any level.
        position: of each node of the graph in a topological order. It bounds the search, so that
            the regions of all calls of a graph cost about as much as their nodes.
    """
    sources = dict.fromkeys(n for a in call.inputs for n in a.chosen)
    sinks = dict.fromkeys(n for a in call.outputs for n in a.chosen)
    ends = dict.fromkeys(n for a in call.outputs for n in a.members)
    last = max(position[n] for n in ends)
    below = _descendants(graph, sources, position, last)
    inside = _ancestors(ends, below, sources)
    # members of a "first" or "last" result that are not chosen have no other place to be
    inside.update(n for n in ends if n in below)
    kept = sorted((n for n in inside if n not in sinks), key=position.__getitem__)
    return Region(call, sources, sinks, dict.fromkeys(kept))


def _descendants(
    graph: Graph, starts: Iterable[Node], position: Mapping[Node, int], last: int
) -> set[Node]:
    seen: set[Node] = set()
    todo = list(starts)
    while todo:
        node = todo.pop()
        if node.op in _BACK_EDGES:
            continue
        for reader in graph.readers(node):
            if reader not in seen and position[reader] <= last:
                seen.add(reader)
                todo.append(reader)
    return seen


def _ancestors(ends: Iterable[Node], among: set[Node], stops: Mapping[Node, None]) -> set[Node]:
    seen: set[Node] = set()
    todo = [n for n in ends if n in among]
    while todo:
        node = todo.pop()
        for read in (*(p.node for p in node.operands), *node.controls):
            if read in among and read not in seen and read not in stops:
                seen.add(read)
                todo.append(read)
    return seen


def escapes(graph: Graph, region: Region) -> list[Escape]:
    """Where the interior is needed outside, other than through the call's results.

    A reader of the very value that an output hint declares is none: it can read the hint.
    """
    declared = {sink.operands[0] for sink in region.sinks}
    held = set(graph.control_results.values())
    found: list[Escape] = []
    for node in region.interior:
        for use in graph.uses(node):
            value = use.node.operands[use.slot]
            if use.node not in region.interior and value not in declared:
                found.append(Escape(node, use.node, False))
        for reader in graph.control_uses(node):
            if reader not in region.interior and reader not in region.sinks:
                found.append(Escape(node, reader, True))
        if node in held:
            found.append(Escape(node, None, True))
    return found


def foreign_hints(region: Region) -> list[Node]:
    """Hint nodes of other calls in the interior."""
    own = set(region.call.nodes)
    return [n for n in region.interior if n not in own and is_hint(n)]


def stateful_node(region: Region) -> Node | None:
    """An interior node with a state or a side effect that a pure function must not have."""
    for node in region.interior:
        schema = lookup(node.op)
        if schema is not None and schema.is_stateful and node.op not in _HARMLESS:
            return node
    return None


def entangled(graph: Graph, regions: Sequence[Region]) -> list[list[Region]]:
    """Groups of regions that cannot all be single nodes, because a cycle would go through them.

    A group of one is a call whose argument depends on its own result.
    """
    member = {node: at for at, region in enumerate(regions) for node in region.interior}
    quotient: nx.DiGraph[int | Node] = nx.DiGraph()
    quotient.add_nodes_from(range(len(regions)))
    for node in graph:
        if node.op in _BACK_EDGES:
            continue
        start: int | Node = member.get(node, node)
        for reader in graph.readers(node):
            end: int | Node = member.get(reader, reader)
            # inside a region, what reads a declared result will read the value itself
            own = isinstance(end, int) and node in regions[end].sinks
            if start != end and not own:
                quotient.add_edge(start, end)
    if nx.is_directed_acyclic_graph(quotient):
        return []
    groups = []
    for component in nx.strongly_connected_components(quotient):
        ids = sorted(n for n in component if isinstance(n, int))
        if len(component) > 1 and ids:
            groups.append([regions[at] for at in ids])
    return groups


class Liveness:
    """What a graph's results need; asked only when a closedness question comes up."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._live: set[Node] | None = None

    def drop_if_dead(self, node: Node) -> bool:
        """Remove `node` and all that reads it if no result needs it; whether that was done.

        In a graph without declared results everything is needed. Hint nodes are never dropped.
        """
        if not self._graph.results or node.op == RESULT:
            return False
        if self._live is None:
            self._live = _needed(self._graph)
        if node in self._live:
            return False
        doomed = {node, *nx.descendants(self._graph.nx, node)}
        if any(n in self._live or is_hint(n) for n in doomed):
            return False
        self._graph.remove([n for n in self._graph if n in doomed])
        return True


def _needed(graph: Graph) -> set[Node]:
    live: set[Node] = set()
    todo = [*graph.results, *graph.control_results.values()]
    while todo:
        node = todo.pop()
        if node not in live:
            live.add(node)
            todo.extend(p.node for p in node.operands)
            todo.extend(node.controls)
    return live
