"""Variables of loops that neither a reader of the loop nor its condition needs.

The gradient of a loop adds variables to it, lists that collect what each step computes; in graph
mode, layers of Keras 2 have them before there is a gradient. A graph that was frozen after training
still has them, and nothing reads them. Source: tensorflow/python/ops/while_v2.py.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hintc.call_graph import Effects
from hintc.graft import remove_dead
from hintc.ir import Function, FunctionRef, Graph, Module, Node, Port
from hintc.ir.attributes import Attributes

PARTS = ("cond", "body")
"""Attributes of a While that are functions of all its variables."""


def drop_unread_variables(
    module: Module, graph: Graph, node: Node, effects: Effects
) -> Sequence[str]:
    """Leave a loop with the variables that are needed; the functions that it had before."""
    refs = {key: node.attributes.get(key) for key in PARTS}
    functions = {
        key: module.functions[ref.name]
        for key, ref in refs.items()
        if isinstance(ref, FunctionRef) and ref.name in module.functions
    }
    if len(functions) < len(PARTS):
        return []
    read = {use.node.operands[use.slot].index for use in graph.uses(node)}
    needed = _needed(functions["cond"].graph, functions["body"].graph, read, effects)
    kept = [at for at, arg in enumerate(functions["body"].graph.args) if arg in needed]
    if not read or len(kept) == len(node.operands):
        return []
    for key, function in functions.items():
        ref = refs[key]
        assert isinstance(ref, FunctionRef)
        shorter = _with_variables(module, function, kept, needed)
        node.attributes[key] = FunctionRef(shorter.name, ref.attributes)
    for key in ("T", "output_shapes", "_output_shapes"):
        _keep_entries(node.attributes, key, kept, len(node.operands))
    graph.set_operands(node, [node.operands[at] for at in kept])
    for new, old in enumerate(kept):
        if new != old:
            graph.replace_uses(Port(node, old), Port(node, new))
    return [function.name for function in functions.values()]


def _needed(cond: Graph, body: Graph, read: Collection[int], effects: Effects) -> set[Node]:
    """The nodes of condition and body that must stay.

    A variable stays as a whole: its two arguments and what the body gives for the next step.
    """
    todo = [*cond.results, *cond.control_results.values(), *body.control_results.values()]
    todo += [node for graph in (cond, body) for node in graph if effects.of(node)]
    todo += [body.results[at] for at in read]
    variables = (cond.args, body.args, body.results)
    places = {node: at for nodes in variables for at, node in enumerate(nodes)}
    needed: set[Node] = set()
    while todo:
        node = todo.pop()
        if node in needed:
            continue
        needed.add(node)
        todo += [*(port.node for port in node.operands), *node.controls]
        if node in places:
            todo += [nodes[places[node]] for nodes in variables]
    return needed


def _with_variables(
    module: Module, function: Function, kept: Sequence[int], needed: Collection[Node]
) -> Function:
    """A new function of fewer variables."""
    names = {node.name for node in function.graph if node in needed}
    shorter = function.copy()
    shorter.source = None
    _keep_entries(shorter.attributes, "_input_shapes", kept, len(shorter.graph.args))
    remove_dead(shorter.graph, [node for node in shorter.graph if node.name not in names])
    for index, arg in enumerate(shorter.graph.args):
        arg.attributes["index"] = index
    return module.add_function(shorter)


def _keep_entries(attributes: Attributes, name: str, kept: Sequence[int], count: int) -> None:
    """Of an attribute with an entry for each of `count` variables, keep those of some."""
    entries = attributes.get(name)
    if isinstance(entries, tuple) and len(entries) == count:
        attributes[name] = tuple(entries[at] for at in kept)
