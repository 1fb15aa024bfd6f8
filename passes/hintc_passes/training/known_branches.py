"""Conditions whose choice is known become the branch that is taken."""

from __future__ import annotations

from collections.abc import Sequence

from hintc.call_graph import functions_of, needed_graphs
from hintc.graphdef.scan_lowering import remove_unused_functions
from hintc.inlining import inline_branch
from hintc.ir import FunctionRef, Module, Node, Port
from hintc.ir.opdefs import IF_OPS
from hintc.pattern import constant_of
from hintc.remark import PassReport

_CONDITIONS = (*IF_OPS, "Case", "StatelessCase")


def take_known_branches(module: Module, report: PassReport) -> None:
    """Do so in every graph that the module needs; branches that nobody takes any more go."""
    left: dict[str, None] = {}
    for graph in reversed(needed_graphs(module)):
        todo = [node for node in graph if node.op in _CONDITIONS]
        while todo:
            node = todo.pop()
            branch = _known_branch(node)
            if branch is None or (graph is module.graph and not graph.is_used(node)):
                continue
            left.update(dict.fromkeys(functions_of(node)))
            todo += [n for n in inline_branch(module, graph, node, branch) if n.op in _CONDITIONS]
            report.count("conditions")
    remove_unused_functions(module, left)


def _known_branch(node: Node) -> FunctionRef | None:
    """The branch that a condition always takes; None if that is not known."""
    if node.op in IF_OPS:
        holds = _truth(node.operands[0])
        name = "then_branch" if holds else "else_branch"
        branch = None if holds is None else node.attributes.get(name)
    else:
        index, branches = constant_of(node.operands[0]), node.attributes.get("branches")
        if index is None or not isinstance(branches, tuple) or not branches:
            return None
        # an index out of range takes the last branch
        at = int(index) if 0 <= int(index) < len(branches) else -1
        branch = branches[at]
    return branch if isinstance(branch, FunctionRef) else None


def _truth(port: Port) -> bool | None:
    """The value of a scalar truth value that is constant, or combined of such."""
    array = constant_of(port)
    if array is not None:
        return bool(array) if array.ndim == 0 and array.dtype.kind == "b" else None
    return _combined(port.node.op, [_truth(operand) for operand in port.node.operands])


def _combined(op: str, known: Sequence[bool | None]) -> bool | None:
    deciding = {"LogicalAnd": False, "LogicalOr": True}
    if op in deciding:
        if deciding[op] in known:
            return deciding[op]
        return None if None in known else not deciding[op]
    if op not in ("Identity", "StopGradient", "LogicalNot") or known[0] is None:
        return None
    return known[0] != (op == "LogicalNot")
