"""reroll-chains: a hinted cell that was called once for each step becomes a Scan.

Recognises the call of a collected recurrent cell whose body unpacks a sequence, computes the same
step for each element, and packs the outputs. That the steps are the same is proved by reading them
in lockstep (`hintc_passes.loops.lanes`).

Refuses, with a remark, chains whose steps differ, or that carry values over more than one step.
Hints of users' own functions keep their one call: their kernel takes the whole sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hintc.call_graph import needed_graphs
from hintc.graphdef.scan_lowering import remove_unused_functions
from hintc.hints.protocol import called_function, record_of
from hintc.ir import Graph, Module, Node
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass
from hintc_passes.loops.refusal import Refusal
from hintc_passes.loops.rolling import roll, trip_count_of


@register
@dataclass(frozen=True)
class RerollChains(Pass):
    """Turn unrolled recurrences into Scans."""

    name: ClassVar[str] = "reroll-chains"

    def run(self, module: Module) -> PassReport:
        """Re-roll every hinted cell that the main graph reaches."""
        report = PassReport()
        rolled: dict[str, None] = {}
        for graph in needed_graphs(module):
            for node in graph.topological():
                self._reroll(module, graph, node, report, rolled)
        remove_unused_functions(module, rolled)
        return report

    def _reroll(
        self,
        module: Module,
        graph: Graph,
        node: Node,
        report: PassReport,
        rolled: dict[str, None],
    ) -> None:
        function = called_function(module, node)
        record = record_of(function)
        if function is None or record is None or not record.is_cell:
            return
        trip, name = trip_count_of(function.graph), node.name
        if trip < 2:  # one step of a loop
            return
        try:
            roll(module, graph, node, function, record.function)
        except Refusal as refusal:
            report.refused(refusal.code, name, refusal.reason, refusal.remedy)
            return
        rolled[function.name] = None
        report.count("re-rolled")
        report.note("re-rolled", name, f"its {trip} steps are one recurrence now")
