"""Module → DOT, through pydot: one cluster for each graph, drawn so that one can read it.

By default constants, shape computations and Identity nodes are left out, a hint is one box, and
in a big graph a name scope is one box. Scans, fused calls, hints and control flow have colours of
their own. Every id is quoted: in DOT, ``a:0`` is port ``0`` of node ``a``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pydot

from hintc.ir import FunctionRef, Graph, Module, Node, Port
from hintc.viz.collapse import Layout, collapse
from hintc.viz.labels import (
    Box,
    box_of,
    group_box,
    is_fused_call,
    shape_of,
)

LIMIT = 80
"""Default for the number of boxes of a graph above which name scopes are collapsed."""
_FUNCTIONS = 12
_LABEL = 40
_LINES = 3
_MATRIX = 2

_LOOKS: dict[str, dict[str, str]] = {
    "op": {"fillcolor": "#ffffff", "color": "#9aa5b1"},
    "input": {"fillcolor": "#e4e7eb", "color": "#52606d", "shape": "ellipse"},
    "output": {"fillcolor": "#e4e7eb", "color": "#52606d", "shape": "ellipse"},
    "scan": {"fillcolor": "#ffe08a", "color": "#b44d12", "penwidth": "2"},
    "fused": {"fillcolor": "#a7e9c1", "color": "#14683c", "penwidth": "2"},
    "hint": {"fillcolor": "#dccbfb", "color": "#5b2fa8", "penwidth": "2"},
    "call": {"fillcolor": "#cfe3fb", "color": "#1f5fa8"},
    "control-flow": {"fillcolor": "#ffd3b8", "color": "#ad4410"},
    "group": {"fillcolor": "#f5f7fa", "color": "#52606d", "shape": "box3d", "style": "filled"},
    "argument": {"fillcolor": "#e4e7eb", "color": "#52606d", "shape": "ellipse"},
    "result": {"fillcolor": "#e4e7eb", "color": "#52606d", "shape": "ellipse"},
    "note": {"fillcolor": "#ffffff", "color": "#9aa5b1", "shape": "plaintext"},
}


@dataclass
class _Edge:
    times: int = 0
    labels: list[str] = field(default_factory=list)
    control: bool = True


def to_dot(module: Module, *, limit: int = LIMIT, full: bool = False, title: str = "") -> str:
    """A picture of the main graph and of the functions that it reaches.

    Args:
        module: what to draw; bodies are lifted.
        limit: with more boxes than this in a graph, whole name scopes become one box.
        full: draw every node, also constants and the bodies of fused calls.
        title: written above the picture.

    Returns:
        DOT source that pydot and Graphviz read.
    """
    dot = pydot.Dot("hintc", graph_type="digraph", compound="true", rankdir="TB")
    dot.set_graph_defaults(
        fontname=quote("Helvetica"), nodesep="0.25", ranksep="0.35", labelloc="t",
        **({"label": quote(title)} if title else {}),
    )  # fmt: skip
    dot.set_node_defaults(
        fontname=quote("Helvetica"), fontsize="11", shape="box", margin=quote("0.10,0.05"),
        style=quote("filled,rounded"),
    )  # fmt: skip
    dot.set_edge_defaults(fontname=quote("Helvetica"), fontsize="9", color=quote("#52606d"))
    reached = list(_reached(module, full=full))
    scenes = [("main graph", "", module.graph)]
    scenes += [(f"@{n}", f"@{n}/", module.functions[n].graph) for n in reached[:_FUNCTIONS]]
    for number, (label, prefix, graph) in enumerate(scenes):
        if not reached:
            _draw(dot, module, graph, prefix, limit, full)
            break
        cluster = _cluster(label, number)
        _draw(cluster, module, graph, prefix, limit, full)
        dot.add_subgraph(cluster)
    if len(reached) > _FUNCTIONS:
        note = f"… and {len(reached) - _FUNCTIONS} more functions"
        dot.add_node(_node("...", Box("note", note)))
    text: str = dot.to_string()
    return text


def _reached(module: Module, *, full: bool) -> Iterator[str]:
    """Functions that the main graph reaches; a fused call hides its body unless all is drawn."""
    seen: set[str] = set()
    waiting = [module.graph]
    for graph in waiting:
        for node in graph:
            if is_fused_call(node, module) and not full:
                continue
            for name in _called(node, full):
                if name not in seen and name in module.functions:
                    seen.add(name)
                    yield name
                    waiting.append(module.functions[name].graph)


def _called(node: Node, full: bool) -> Iterator[str]:
    """Functions that a node names; the condition of a loop says little, so it needs `full`."""
    yield node.op
    for name, value in node.attributes.items():
        if name == "cond" and not full:
            continue
        for member in value if isinstance(value, tuple) else (value,):
            if isinstance(member, FunctionRef):
                yield member.name


def _cluster(label: str, number: int) -> pydot.Subgraph:
    return pydot.Subgraph(
        f"cluster_{number}", label=quote(label), style=quote("rounded"), color=quote("#9aa5b1"),
        fontname=quote("Helvetica"), fontsize="12",
    )  # fmt: skip


def _draw(
    into: pydot.Graph, module: Module, graph: Graph, prefix: str, limit: int, full: bool
) -> None:
    layout = collapse(graph, limit=limit, full=full)
    home: dict[Node, str] = {node: prefix + node.name for node in layout.singles}
    boxes = {
        home[node]: _with_constants(box_of(node, module), node, layout) for node in layout.singles
    }
    for (name, kind), members in layout.groups.items():
        key = f"{prefix}{name}/"
        boxes[key] = group_box(name, members, kind)
        home.update(dict.fromkeys(members, key))
    for key, box in boxes.items():
        into.add_node(_node(key, box))
    for (source, target), edge in _edges(graph, layout, home, boxes).items():
        into.add_edge(_edge(source, target, edge))


def _with_constants(box: Box, node: Node, layout: Layout) -> Box:
    """The box with a line for each constant matrix that the node reads."""
    lines = []
    for slot, operand in enumerate(node.operands):
        producer = operand.node
        while producer in layout.constants and producer.operands:
            producer = producer.operands[0].node
        shape = shape_of(Port(producer)) if producer in layout.constants else None
        if shape is not None and (shape.rank or 0) >= _MATRIX:
            name = box.slots[slot] if slot < len(box.slots) else ""
            lines.append(f"{name or f'operand {slot}'}: {shape}")
    more = [f"and {len(lines) - _LINES} more"] if len(lines) > _LINES else []
    return Box(box.kind, box.title, (*box.lines, *lines[:_LINES], *more), box.tooltip, box.slots)


def _edges(
    graph: Graph, layout: Layout, home: dict[Node, str], boxes: dict[str, Box]
) -> dict[tuple[str, str], _Edge]:
    edges: dict[tuple[str, str], _Edge] = {}
    for node in graph:
        target = home.get(node)
        if target is None:
            continue
        slots = boxes[target].slots
        for slot, operand in enumerate(node.operands):
            port = layout.drawn_producer(operand)
            source = home.get(port.node)
            if boxes[target].kind == "result" and port.node in graph.args:
                continue  # a loop's invariants go straight through
            if source is not None and source != target:
                edge = edges.setdefault((source, target), _Edge())
                edge.times += 1
                edge.control = False
                edge.labels += [slots[slot]] if slot < len(slots) and slots[slot] else []
        for control in node.controls:
            source = home.get(control)
            if source is not None and source != target:
                edges.setdefault((source, target), _Edge())
    return edges


def _node(key: str, box: Box) -> pydot.Node:
    node = pydot.Node(quote(key))
    looks = {**_LOOKS[box.kind], "label": "\n".join([box.title, *box.lines])}
    for name, value in (looks | {"tooltip": box.tooltip}).items():
        if value:
            node.set(name, quote(value))
    return node


def _edge(source: str, target: str, edge: _Edge) -> pydot.Edge:
    drawn = pydot.Edge(quote(source), quote(target))
    if edge.control:
        drawn.set("style", "dashed")
        drawn.set("color", quote("#9aa5b1"))
    label = ", ".join(dict.fromkeys(edge.labels))
    if len(label) > _LABEL or (not label and edge.times > 1):
        label = f"×{edge.times}"
    if label:
        drawn.set("label", quote(f" {label}"))
    return drawn


def quote(text: str) -> str:
    """A quoted DOT string; line breaks are kept."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
