"""Which nodes of a graph share a box, and which are not drawn, so that big graphs stay readable."""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from hintc.errors import VerifyError
from hintc.ir import ARG, Graph, Node, Port
from hintc.viz.labels import HINT

_PASS_THROUGH = frozenset({"Identity", "ReadVariableOp", "StopGradient", "Snapshot"})
_ENDS = 6
"""More arguments or results than this share one box."""
_REPEATS = 6
"""In a big graph, more numbered scopes than this share one box."""
_NUMBERED = re.compile(r"(_\d+)+$")


@dataclass
class Layout:
    """Where each node of a graph went.

    Attributes:
        singles: nodes with a box of their own.
        groups: name and kind of a box for several nodes, and these.
        constants: nodes not drawn because their value is constant.
        hidden: nodes not drawn for another reason: they only compute shapes.
        bypassed: nodes not drawn that hand on their operand.
    """

    singles: list[Node] = field(default_factory=list)
    groups: dict[tuple[str, str], list[Node]] = field(default_factory=dict)
    constants: set[Node] = field(default_factory=set)
    hidden: set[Node] = field(default_factory=set)
    bypassed: set[Node] = field(default_factory=set)

    def drawn_producer(self, port: Port) -> Port:
        """The value behind bypassed nodes."""
        while port.node in self.bypassed:
            port = port.node.operands[0]
        return port


def collapse(graph: Graph, *, limit: int, full: bool) -> Layout:
    """Decide what is drawn.

    Args:
        graph: the graph.
        limit: with more boxes than this, whole name scopes become one box.
        full: draw every node on its own, whatever `limit` is.
    """
    if full:
        return Layout(singles=list(graph))
    layout = Layout()
    _hide(graph, layout)
    gone = layout.constants | layout.hidden | layout.bypassed
    grouped: set[Node] = set()
    for name, members in _hints(graph).items():
        visible = [n for n in members if n not in gone and n not in grouped]
        if len(visible) > 1:
            layout.groups[(name, "hint")] = visible
            grouped.update(visible)
    for name, ends in (("arguments", graph.args), ("results", graph.results)):
        drawn = [n for n in ends if n not in gone]
        if len(drawn) > _ENDS:
            layout.groups[(name, name.removesuffix("s"))] = drawn
            grouped.update(drawn)
    rest = [n for n in graph if n not in gone and n not in grouped]
    _group_scopes(rest, limit - len(layout.groups), layout)
    return layout


# -- values that are not drawn -------------------------------------------------------------


def _hide(graph: Graph, layout: Layout) -> None:
    """Sort constants, shape computations and nodes that hand on their operand out."""
    try:
        order = graph.topological()
    except VerifyError:
        return  # a broken graph is drawn as it is
    kept = {*graph.args, *graph.results}
    for node in order:
        if node.op == ARG and not graph.uses(node):
            layout.hidden.add(node)
        if node in kept or HINT in node.attributes or not graph.uses(node):
            continue
        producers = {p.node for p in node.operands}
        if node.op == "Const" or (
            node.op in _PASS_THROUGH and producers and producers <= layout.constants
        ):
            layout.constants.add(node)
        elif node.op in ("Shape", "Size", "Rank") or (
            producers & layout.hidden and producers <= layout.hidden | layout.constants
        ):
            layout.hidden.add(node)
        elif node.op in _PASS_THROUGH and len(node.operands) == 1 and not node.controls:
            layout.bypassed.add(node)


# -- hints ---------------------------------------------------------------------------------


def _hints(graph: Graph) -> dict[str, list[Node]]:
    """Nodes by hint of level 1: its inputs and outputs, and what lies between."""
    borders: dict[bytes, list[Node]] = defaultdict(list)
    for node in graph:
        uuid = node.attributes.get(HINT)
        if isinstance(uuid, bytes) and node.attributes.get("_tflite_ophint_level", 1) == 1:
            borders[uuid].append(node)
    names: dict[str, list[Node]] = {}
    for border in borders.values():
        function = border[0].attributes.get("_tflite_function_name")
        base = f"hint {function.decode() if isinstance(function, bytes) else '?'}"
        name = base if base not in names else f"{base} #{len(names) + 1}"
        names[name] = _interior(graph, border)
    return names


def _interior(graph: Graph, border: Sequence[Node]) -> list[Node]:
    inputs = {n for n in border if "_tflite_function_input_index" in n.attributes}
    outputs = {n for n in border if n not in inputs}
    behind = _reach(outputs, inputs, lambda n: (p.node for p in n.operands))
    ahead = _reach(inputs, outputs, lambda n: (u.node for u in graph.uses(n)), within=behind)
    return [n for n in behind if n in ahead or n in outputs]


def _reach(
    start: Iterable[Node],
    stop: Set[Node],
    step: Callable[[Node], Iterable[Node]],
    within: Mapping[Node, None] | None = None,
) -> dict[Node, None]:
    """Nodes that `step` leads to, those of `start` and `stop` included; in order of discovery."""
    found = dict.fromkeys(start)
    waiting = list(found)
    while waiting:
        node = waiting.pop()
        if node in stop:
            continue
        for neighbour in step(node):
            if neighbour not in found and (within is None or neighbour in within):
                found[neighbour] = None
                waiting.append(neighbour)
    return found


# -- name scopes ---------------------------------------------------------------------------


@dataclass
class _Scope:
    """Nodes whose names start alike: with `path`, or with `path` and a number."""

    path: str
    nodes: list[Node]
    depth: int
    numbered: bool = False
    closed: bool = False

    def children(self, *, by_stem: bool) -> list[_Scope]:
        """The next level: one for each next component of the names, or for each stem of these."""
        found: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            component = node.name.split("/")[self.depth : self.depth + 1]
            key = component[0] if component else ""
            found[_NUMBERED.sub("", key) if by_stem else key].append(node)
        prefix = self.path.rpartition("/")[0] if self.numbered else self.path
        return [
            _Scope(
                f"{prefix}/{key}".strip("/") + ("_*" if by_stem and len(nodes) > 1 else ""),
                nodes,
                self.depth + (not by_stem),
                by_stem,
            )
            for key, nodes in found.items()
        ]


def _group_scopes(nodes: list[Node], limit: int, layout: Layout) -> None:
    """Open the largest scopes as long as the boxes stay below `limit`."""
    crowded = len(nodes) > limit
    count, order = 1, 0
    heap = [(-len(nodes), order, _Scope("", nodes, 0))]
    final: list[_Scope] = []
    while heap:
        _, _, scope = heapq.heappop(heap)
        shut = scope.closed or len(scope.nodes) == 1
        children = [] if shut else _open(scope, limit - count + 1, crowded)
        if not children:
            final.append(scope)
            continue
        count += len(children) - 1
        for child in children:
            order += 1
            heapq.heappush(heap, (-len(child.nodes), order, child))
    for scope in final:
        if len(scope.nodes) == 1:
            layout.singles += scope.nodes
        elif scope.nodes:
            layout.groups[(scope.path, "group")] = scope.nodes


def _open(scope: _Scope, room: int, crowded: bool) -> list[_Scope]:
    """The children, by stem if they are too many; none if there is no room for them either."""
    children = scope.children(by_stem=False)
    if crowded:
        children = _merge_repeated(children)
    if len(children) > room and not scope.numbered:
        children = scope.children(by_stem=True)
    return children if len(children) <= room else []


def _merge_repeated(scopes: list[_Scope]) -> list[_Scope]:
    """The same scopes, but ``step_1``, ``step_2``, … of an unrolled loop are one, and stay so."""
    by_stem: dict[str, list[_Scope]] = defaultdict(list)
    for scope in scopes:
        numbered = len(scope.nodes) > 1
        by_stem[_NUMBERED.sub("", scope.path) if numbered else f"{scope.path}/"].append(scope)
    merged: list[_Scope] = []
    for stem, alike in by_stem.items():
        if len(alike) <= _REPEATS:
            merged += alike
        else:
            nodes = [node for scope in alike for node in scope.nodes]
            merged.append(_Scope(f"{stem}_* (×{len(alike)})", nodes, 0, closed=True))
    return merged
