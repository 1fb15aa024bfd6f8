"""Results of conditions that nobody reads; with them, variables of loops.

The gradient of a condition adds results to it, one for each value inside that the gradient reads;
a graph that was frozen after training still has them, and nothing reads them. Source:
tensorflow/python/ops/cond_v2.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from hintc.call_graph import Effects, callees_of
from hintc.ir import Function, FunctionRef, Graph, Module, Node, Port, Shape
from hintc.ir.opdefs import IF_OPS, WHILE_OPS
from hintc_passes.loops.unread_variables import drop_unread_variables

BRANCHES = ("then_branch", "else_branch")
"""Attributes of an If that are functions: for a true and for a false condition."""


def drop_unread_results(module: Module) -> dict[str, None]:
    """Take away what no reader of a condition or loop needs, outer ones first.

    In a main graph without declared results, everything may be read.

    Returns:
        Names of functions that gave more than is read; another caller may still need them.
    """
    left: dict[str, None] = {}
    effects = Effects(module)
    todo, seen = [module.graph], {module.graph}
    while todo:
        graph = todo.pop()
        for node in list(graph):
            may_drop = graph.results or graph is not module.graph
            if node.op in IF_OPS and may_drop:
                left.update(dict.fromkeys(_drop(module, graph, node)))
            elif node.op in WHILE_OPS and may_drop:
                left.update(dict.fromkeys(drop_unread_variables(module, graph, node, effects)))
            bodies = [module.functions[name].graph for name in callees_of(module, node)]
            todo += [body for body in dict.fromkeys(bodies) if body not in seen]
            seen.update(bodies)
    return left


def _drop(module: Module, graph: Graph, node: Node) -> list[str]:
    """Leave a condition with the results that are read; the functions that it had before."""
    dtypes = node.attributes["Tout"]
    assert isinstance(dtypes, tuple)
    read = sorted({use.node.operands[use.slot].index for use in graph.uses(node)})
    if not read or len(read) == len(dtypes):
        return []
    before = []
    for key in BRANCHES:
        ref = node.attributes[key]
        assert isinstance(ref, FunctionRef)
        before.append(ref.name)
        shorter = _with_results(module, module.function(ref.name, node=node), read)
        node.attributes[key] = FunctionRef(shorter.name, ref.attributes)
    node.attributes["Tout"] = tuple(dtypes[at] for at in read)
    for key in ("output_shapes", "_output_shapes"):
        shapes = node.attributes.get(key)
        if isinstance(shapes, tuple) and len(shapes) == len(dtypes):
            node.attributes[key] = tuple(
                s for s in (shapes[at] for at in read) if isinstance(s, Shape)
            )
    for new, old in enumerate(read):
        if new != old:
            graph.replace_uses(Port(node, old), Port(node, new))
    return before


def _with_results(module: Module, function: Function, kept: Sequence[int]) -> Function:
    """A new function that gives only some results of another."""
    shorter = function.copy()
    shorter.source = None
    body = shorter.graph
    body.remove([node for at, node in enumerate(body.results) if at not in kept])
    return module.add_function(shorter)
