"""Control edges that hold nothing, and the checks that only they kept."""

from __future__ import annotations

from hintc.call_graph import CONTROL_FLOW_V1, Effects
from hintc.ir import RESULT, Graph, Node
from hintc.ir.opdefs import IF_OPS
from hintc.remark import PassReport
from hintc.rewrite import remove_unread

SUMMARIES = (
    *("CloseSummaryWriter", "CreateSummaryDbWriter", "CreateSummaryFileWriter"),
    *("FlushSummaryWriter", "ImportEvent", "SummaryWriter", "WriteAudioSummary"),
    *("WriteGraphSummary", "WriteHistogramSummary", "WriteImageSummary", "WriteRawProtoSummary"),
    *("WriteScalarSummary", "WriteSummary"),
)
"""Ops that write down how training goes."""
_CHECKS = frozenset(("Assert", "NoOp", *SUMMARIES))


def drop_idle_controls(graph: Graph, effects: Effects, kept: set[str], report: PassReport) -> None:
    """Drop edges from nodes without side effects that wait for none; nodes named in `kept` stay."""
    acting = _acting(graph, effects)
    in_frames = any(node.op in CONTROL_FLOW_V1 for node in graph)
    freed: dict[Node, None] = {}
    for node in graph:
        # in a v1 loop or branch, a node without operands runs where its control operands run
        if not node.controls or (in_frames and not node.operands):
            continue
        idle = [
            c
            for c in node.controls
            if c not in acting and (not in_frames or c.op in _CHECKS) and c.name not in kept
        ]
        if idle:
            freed.update(dict.fromkeys(idle))
            graph.set_controls(node, [c for c in node.controls if c not in idle])
            report.count("control edges", len(idle))
    for name, node in list(graph.control_results.items()):
        if node not in acting and _is_check(node):
            freed[node] = None
            del graph.control_results[name]
            report.count("control edges")
    _remove_checks(graph, [n for n in freed if n.name not in kept], report)


def _is_check(node: Node) -> bool:
    """True for what is only there to raise; of branches those without an effect are asked for."""
    return node.op in _CHECKS or node.op in IF_OPS


def _acting(graph: Graph, effects: Effects) -> set[Node]:
    """Nodes with side effects, and all that run after one."""
    todo = [node for node in graph if effects.of(node)]
    acting, readers = set(todo), graph.nx.adj
    while todo:
        for consumer in readers[todo.pop()]:
            if consumer not in acting:
                acting.add(consumer)
                todo.append(consumer)
    return acting


def _remove_checks(graph: Graph, freed: list[Node], report: PassReport) -> None:
    """Remove checks that nobody waits for any more, and what only they read."""
    todo = freed
    while todo:
        node = todo.pop()
        if node not in graph or graph.is_used(node) or node.op == RESULT:
            continue
        if not _is_check(node):
            remove_unread(graph, [node])
            continue
        before = [*(p.node for p in node.operands), *node.controls]
        graph.remove(node)
        report.count("checks")
        todo.extend(before)
