"""inline-functions: put the bodies of called functions in line.

Recognises `PartitionedCall`, `StatefulPartitionedCall` and nodes whose op is a library function's
name, in the main graph and in every function that it needs. Makes the body's nodes, named
``call/inner`` (see `hintc.inlining`); a function that nothing refers to any more is removed.

Leaves alone functions with the attribute ``_implements`` (a fused call, or somebody's composite),
``_hintc_hint`` (a collected hint) or ``_noinline``, and recursive ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hintc.call_graph import callees, reachable
from hintc.inlining import CALL_OPS, callee, inline_call
from hintc.ir import Function, Graph, Module, Node
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass

KEEPS = ("_implements", "_hintc_hint")
"""Attributes of a function that say: this call means something as a whole."""


@register
@dataclass(frozen=True)
class InlineFunctions(Pass):
    """Puts the bodies of called functions in line."""

    name: ClassVar[str] = "inline-functions"

    def run(self, module: Module) -> PassReport:
        """Inline callees before their callers, so that each body is copied as it will stay."""
        report = PassReport()
        needed = reachable(module)
        recursive = _recursive(module, needed)
        inlined: dict[str, None] = {}
        for graph in [*(module.functions[name].graph for name in needed), module.graph]:
            for node in graph:
                function = _inlinable(module, graph, node, recursive, report)
                if function is not None:
                    inline_call(module, graph, node)
                    inlined[function.name] = None
                    report.count("inlined")
        _remove_unneeded(module, inlined, report)
        return report


def _inlinable(
    module: Module, graph: Graph, node: Node, recursive: set[str], report: PassReport
) -> Function | None:
    if node.op not in CALL_OPS and node.op not in module.functions:
        return None
    function = callee(module, node)
    if function is None or any(key in function.attributes for key in KEEPS):
        return None
    if function.attributes.get("_noinline") is True or node.attributes.get("_noinline") is True:
        return None
    if function.name in recursive:
        report.note("recursive", node.name, f"function '{function.name}' calls itself")
        return None
    return function


def _recursive(module: Module, needed: list[str]) -> set[str]:
    """Functions on a cycle of references; `needed` has callees first, so cycles go forward."""
    position = {name: at for at, name in enumerate(needed)}
    calls = {name: callees(module, module.functions[name].graph) for name in needed}
    suspects = {
        name
        for name in needed
        for inner in calls[name]
        if position.get(inner, -1) >= position[name]
    }
    return {name for name in needed if suspects and _calls_itself(name, calls)}


def _calls_itself(name: str, calls: dict[str, list[str]]) -> bool:
    todo, seen = list(calls[name]), set[str]()
    while todo:
        inner = todo.pop()
        if inner == name:
            return True
        if inner not in seen:
            seen.add(inner)
            todo.extend(calls.get(inner, ()))
    return False


def _remove_unneeded(module: Module, inlined: dict[str, None], report: PassReport) -> None:
    """Remove what was inlined, and what only that needed, unless a stranger refers to it."""
    if not inlined:
        return
    concerned = set(reachable(module, also=inlined))
    strangers = [f for name, f in module.functions.items() if name not in concerned]
    # a copy, so that what nobody runs is not lifted for good
    referred = [name for f in strangers for name in callees(module, f.copy().graph)]
    for name in concerned - set(reachable(module, also=referred)):
        del module.functions[name]
        report.count("functions removed")
