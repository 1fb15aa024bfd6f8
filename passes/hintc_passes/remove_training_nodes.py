"""remove-training-nodes: take out what only training, or checking, needs.

In the main graph and in all functions that it needs:

* conditions on whether one trains: an If or Case whose choice is constant becomes the branch that
  is taken;
* control edges that hold nothing: from a node that has no side effects and waits for none.
  `Assert` and summaries count as having none, so they go, as do NoOps that only gather such edges;
* `Identity`, `CheckNumerics`, `StopGradient`, `PreventGradient`: readers read the operand;
* `PlaceholderWithDefault` becomes its default, if inputs are declared and it is not one of them;
* dropout that keeps everything (rate 0), and multiplication by ones that cannot broadcast.

Left alone: FakeQuant ops, which say how to quantise; Identities of hints (they carry ``_tflite_*``
attributes); nodes in `protected` or whose name a declared result bears; in a main graph without
declared results also what nobody reads; what reads a reference variable; what other nodes, or the
node itself, wait for where the edge cannot be moved. Such a node becomes an Identity if it is not
one. Library functions are kept, but for branches that are taken never or always.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hintc.call_graph import Effects, reachable
from hintc.ir import Module
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass
from hintc_passes.training.idle_arithmetic import IdleDropout, TimesOne, make_ones_scalar
from hintc_passes.training.idle_controls import SUMMARIES, drop_idle_controls
from hintc_passes.training.known_branches import take_known_branches
from hintc_passes.training.pass_through import bypass_all


@register
@dataclass(frozen=True)
class RemoveTrainingNodes(Pass):
    """Takes out what only training, or checking, needs.

    Attributes:
        protected: names of nodes of the main graph that stay.
    """

    name: ClassVar[str] = "remove-training-nodes"
    protected: tuple[str, ...] = ()

    def run(self, module: Module) -> PassReport:
        """Control edges first: they are what keeps other nodes from going."""
        report = PassReport()
        _use_defaults(module, report)
        take_known_branches(module, report)
        effects = Effects(module, but=("Assert", *SUMMARIES))
        bodies = [module.functions[name].graph for name in reachable(module)]
        for graph in (module.graph, *bodies):
            kept = set(self.protected) if graph is module.graph else set()
            drop_idle_controls(graph, effects, kept, report)
            bypass_all(module, graph, kept, report)
            make_ones_scalar(graph)
        for rule in (IdleDropout(), TimesOne()):
            found = rule.run(module)
            if found.changed:
                report.count(rule.name, found.counts["rewritten"])
            report.remarks.extend(found.remarks)
        return report


def _use_defaults(module: Module, report: PassReport) -> None:
    graph = module.graph
    for node in graph:
        if node.op != "PlaceholderWithDefault" or node in graph.args:
            continue
        if not graph.args:
            report.refused(
                "inputs-not-declared",
                node.name,
                "a value may be fed to this placeholder instead of its default",
                "Declare the inputs.",
            )
            continue
        node.op = "Identity"
        node.attributes["T"] = node.attributes["dtype"]
        for key in ("dtype", "shape"):
            node.attributes.pop(key, None)
        report.count("placeholders")
