"""Nodes that only hand on their operand: who reads them reads the operand."""

from __future__ import annotations

from hintc.call_graph import CONTROL_FLOW_V1
from hintc.graft import COLOCATION, colocated_with, rename_colocations
from hintc.ir import ARG, RESULT, Graph, Module, Node, Port
from hintc.remark import PassReport

_PASS_THROUGH = frozenset(("Identity", "CheckNumerics", "StopGradient", "PreventGradient"))
_HINT_PREFIX = "_tflite_"
_REFERENCES = ("Variable", "VariableV2", "TemporaryVariable", "Assign", "AssignAdd", "AssignSub")


def bypass_all(module: Module, graph: Graph, kept: set[str], report: PassReport) -> None:
    """Take them out of `graph`; one that has to stay becomes an Identity, if it is none."""
    names = {_result_tensor(result) for result in graph.results} if graph is module.graph else set()
    is_open = graph is module.graph and not graph.results
    replaced: dict[str, str] = {}
    for node in graph:
        if node.op not in _PASS_THROUGH or len(node.operands) != 1 or _is_hint(node):
            continue
        stays = node.name in kept or node.name in names or (is_open and not graph.is_used(node))
        if stays or not _can_bypass(graph, node):
            _make_identity(node, report)
            continue
        value = node.operands[0]
        if value.node.op != ARG:
            replaced[node.name] = value.node.name
        report.count(node.op)
        _bypass(graph, node, value)
    if replaced:
        _move_colocations(graph, replaced)


def _result_tensor(result: Node) -> str:
    declared = result.attributes.get("result", b"")
    assert isinstance(declared, bytes)
    return declared.decode().removesuffix(":0")


def _is_hint(node: Node) -> bool:
    return any(key.startswith(_HINT_PREFIX) for key in node.attributes)


def _can_bypass(graph: Graph, node: Node) -> bool:
    producer = node.operands[0].node
    if producer.op in _REFERENCES or producer.op.startswith(("Ref", "Scatter")):
        return False
    # what waits for a Switch does not know which branch is dead; what waits for its reader does
    if producer.op in CONTROL_FLOW_V1 and (
        graph.control_uses(node) or any(n is node for n in graph.control_results.values())
    ):
        return False
    if not node.controls:
        return True
    readers = graph.uses(node)
    return len(readers) == 1 and readers[0].node.op != RESULT and not graph.control_uses(node)


def _make_identity(node: Node, report: PassReport) -> None:
    if node.op == "Identity":
        return
    report.count(node.op)
    node.op = "Identity"
    node.attributes.pop("message", None)


def _bypass(graph: Graph, node: Node, value: Port) -> None:
    readers = [use.node for use in graph.uses(node)]
    graph.replace_uses(Port(node), value)
    for reader in dict.fromkeys(readers):
        if node.controls:
            graph.set_controls(reader, list(dict.fromkeys((*reader.controls, *node.controls))))
    heirs = [] if value.node.op == ARG else [value.node]
    graph.replace_control_uses(node, heirs)
    for name, end in list(graph.control_results.items()):
        if end is node and heirs:
            graph.control_results[name] = value.node
        elif end is node:
            del graph.control_results[name]
    graph.remove(node)


def _move_colocations(graph: Graph, replaced: dict[str, str]) -> None:
    for node in graph:
        if COLOCATION not in node.attributes:
            continue
        names = {}
        for name in colocated_with(node):
            now = name
            while now in replaced:
                now = replaced[now]
            names[name] = now
        if any(now != name for name, now in names.items()):
            rename_colocations(node, names)
