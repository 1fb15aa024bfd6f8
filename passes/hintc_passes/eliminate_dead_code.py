"""eliminate-dead-code: remove what no result needs.

Keeps, in the main graph, what the declared results and control results need; a graph that runs
for its results does not run anything else, side effects or not. In a main graph without declared
results any node that nobody reads may be an output, so only nodes that hintc made can be dead.
In a function body, results, control results, arguments and nodes with side effects are kept.

A library function that nothing refers to is removed if hintc made it, or if the main graph has
declared results (then the module is a model, not a library). Colocations with removed nodes are
dropped. Signatures of functions, also unused arguments and results, are left alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from hintc.call_graph import Effects, reachable
from hintc.graft import remove_dead
from hintc.ir import Graph, Module, Node
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass


@register
@dataclass(frozen=True)
class EliminateDeadCode(Pass):
    """Removes what no result needs."""

    name: ClassVar[str] = "eliminate-dead-code"

    def run(self, module: Module) -> PassReport:
        """Clean callers before their callees: a call that goes may make a function unneeded."""
        report = PassReport()
        effects = Effects(module)
        main = module.graph
        _clean(main, _live_in_main(main), report)
        for name in reversed(reachable(module)):
            body = module.functions[name].graph
            _clean(body, _live_in_body(body, effects), report)
        needed = set(reachable(module))
        for name, function in list(module.functions.items()):
            if name not in needed and (function.source is None or main.results):
                del module.functions[name]
                report.count("functions removed")
        return report


def _live_in_main(graph: Graph) -> set[Node]:
    roots = [*graph.args, *graph.results, *graph.control_results.values()]
    if graph.results:
        return _needed_by(roots)
    # a node that came with the graph, or took over the name of one
    own_names = [n for n in graph if not n.origin or n.name in n.origin or n.op == "Placeholder"]
    return _needed_by([*roots, *own_names])


def _live_in_body(graph: Graph, effects: Effects) -> set[Node]:
    live = _needed_by([*graph.args, *graph.results, *graph.control_results.values()])
    acting = [node for node in graph if node not in live and effects.of(node)]
    return live | _needed_by(acting) if acting else live


def _needed_by(roots: Iterable[Node]) -> set[Node]:
    todo = list(roots)
    needed = set(todo)
    while todo:
        node = todo.pop()
        for producer in (*(p.node for p in node.operands), *node.controls):
            if producer not in needed:
                needed.add(producer)
                todo.append(producer)
    return needed


def _clean(graph: Graph, live: set[Node], report: PassReport) -> None:
    dead = [node for node in graph if node not in live]
    if not dead:
        return
    remove_dead(graph, dead)
    report.count("nodes removed", len(dead))
