"""Constants that a loop hands to loops inside it: there they are constants again."""

from __future__ import annotations

from collections import Counter

from hintc.call_graph import functions_of, needed_graphs
from hintc.ir import SCAN, Module, Node, Port, Scan
from hintc_passes.analysis.values import source_of


def put_constants_inside(module: Module) -> None:
    """In the body of a Scan that holds Scans, let constants take the place of arguments.

    The weights of an inner cell are constants for whoever looks at that loop alone. The bodies of
    Scans without Scans stay as they are; so do functions that more than one node runs.
    """
    graphs = needed_graphs(module)
    uses = Counter(name for graph in graphs for node in graph for name in functions_of(node))
    for graph in reversed(graphs):  # callers first
        for node in [n for n in graph if n.op == SCAN and uses[Scan.of(n).body] == 1]:
            _put_inside(module, node)


def _put_inside(module: Module, node: Node) -> None:
    scan = Scan.of(node)
    body = scan.body_function(module).graph
    if not any(inner.op == SCAN for inner in body):
        return
    first = len(body.args) - len(scan.invariants)
    for arg, port in zip(body.args[first:], scan.invariants, strict=True):
        constant = source_of(port).node
        if constant.op == "Const" and body.uses(Port(arg)):
            copy = body.add(
                "Const",
                (),
                {key: constant.attributes[key] for key in ("dtype", "value")},
                name=f"{arg.name}/value",
                origin=constant.origin or (constant.name,),
            )
            body.replace_uses(Port(arg), Port(copy))
