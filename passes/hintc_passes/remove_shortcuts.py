"""remove-shortcuts: conditions that only save time give way to the branch that always works.

Recognises an If one of whose branches gives, whenever it is taken, what the other would give too.
static_rnn writes each step with lengths so::

    if max(lengths) <= t: old
    elif min(lengths) > t: new
    else: where(lengths <= t, old, new)

Where all lengths are at most t the last line gives `old` as well, and where none is it gives `new`.
Makes the nodes of that last branch, in line, for every step. A cell hinted inside has one step in
its hint, which says nothing of the chain: where one such cell starts with the state that another
leaves, both lose their hints, and the chain is recognised by what it computes. So does a cell that
a loop in Python calls, with a mask on its states between one step and the next.

First, conditions lose results that nobody reads and loops such variables: gradients have added
some.

Leaves alone conditions of which this cannot be proved, branches with side effects, and those that
might fail for values they are not meant for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from hintc.call_graph import Effects, callees_of, needed_graphs
from hintc.graphdef.scan_lowering import remove_unused_functions
from hintc.graphdef.shapes import shapes_remembered
from hintc.inlining import inline_branch
from hintc.ir import FunctionRef, Module, Node
from hintc.ir.opdefs import IF_OPS, WHILE_OPS
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass
from hintc_passes.hinting.single_steps import dissolve_masked, dissolve_steps
from hintc_passes.loops.shortcuts import Shortcuts
from hintc_passes.loops.unread_results import BRANCHES, drop_unread_results

_MAY_FAIL = ("Gather", "ResourceGather", "TensorArray", "TensorList", *WHILE_OPS)
"""Ops, by how they begin, that may fail, or never end, for values that they are not meant for."""
_DIVISIONS = frozenset(("Div", "FloorDiv", "FloorMod", "Mod", "TruncateDiv", "TruncateMod"))


@register
@dataclass(frozen=True)
class RemoveShortcuts(Pass):
    """Take the branch that always works."""

    name: ClassVar[str] = "remove-shortcuts"

    @shapes_remembered()
    def run(self, module: Module) -> PassReport:
        """Remove every shortcut that the main graph reaches, outer ones first."""
        report = PassReport()
        left = drop_unread_results(module)
        if left:
            report.count("functions shortened", len(left))
        shortcuts, effects = Shortcuts(module), Effects(module)
        for graph in reversed(needed_graphs(module)):
            taken: list[Node] = []
            pending = graph.of_ops(IF_OPS)[::-1]
            while pending:
                node = pending.pop()
                branch = shortcuts.general_branch(node)
                if branch is None or not _may_always_run(module, effects, node, branch):
                    continue
                left.update(dict.fromkeys(ref.name for ref in _branches(node)))
                ref = node.attributes[branch]
                assert isinstance(ref, FunctionRef)
                nodes = inline_branch(module, graph, node, ref)
                taken += nodes
                pending.extend(n for n in nodes if n.op in IF_OPS)
                report.count("removed")
            dissolved = dissolve_steps(n for n in taken if n in graph) + dissolve_masked(graph)
            if dissolved:
                report.count("hints dissolved", dissolved)
        remove_unused_functions(module, left)
        return report


def _branches(node: Node) -> Iterator[FunctionRef]:
    for key in BRANCHES:
        ref = node.attributes[key]
        assert isinstance(ref, FunctionRef)
        yield ref


def _may_always_run(module: Module, effects: Effects, node: Node, branch: str) -> bool:
    """True if nobody notices that one branch never runs and the other always does."""
    if any(effects.of(n) for ref in _branches(node) for n in module.function(ref.name).graph):
        return False
    ref = node.attributes[branch]
    assert isinstance(ref, FunctionRef)
    pending, seen = [ref.name], {ref.name}
    while pending:
        for inner in module.function(pending.pop()).graph:
            if inner.op.startswith(_MAY_FAIL) or inner.op in _DIVISIONS:
                return False
            called = set(callees_of(module, inner))
            pending += called - seen
            seen |= called
    return True
