"""reroll-chains: a recurrence whose steps are written one after the other becomes a Scan.

Recognises, in the main graph and in functions, nodes that compute the same for consecutive elements
of a tensor (results of Unpack, slices) and of what the step before computed: static RNNs, layers
with ``unroll=True``, loops in Python. And the call of a collected recurrent cell whose body unpacks
a sequence, computes the same step for each element, and packs the outputs. That the steps are the
same is proved by reading them in lockstep (`hintc_passes.chains.lanes`).

Only what a step needs of the step before is taken, so an output layer of each step stays. Steps
without a product of matrices stay as they are, too: no kernel computes them.

Refuses, with a remark, chains whose steps differ, or that carry values over more than one step.
Hints of users' own functions keep their one call: their kernel takes the whole sequence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from hintc.call_graph import needed_graphs
from hintc.collector import collector_paused
from hintc.graphdef.scan_lowering import remove_unused_functions
from hintc.graphdef.shapes import shapes_remembered
from hintc.hints.protocol import called_function, record_of
from hintc.ir import Graph, Module, Node, Port
from hintc.registry import register
from hintc.remark import PassReport, Refused
from hintc.rewrite import Pass
from hintc_passes.analysis.values import sweep
from hintc_passes.chains.finding import FailedChain, find_chains
from hintc_passes.chains.found_chain import FoundChain
from hintc_passes.chains.rolling import roll, trip_count_of
from hintc_passes.chains.sequences import ELEMENT_OPS
from hintc_passes.chains.unrolled import Unrolled


@register
@dataclass(frozen=True)
class RerollChains(Pass):
    """Turn unrolled recurrences into Scans."""

    name: ClassVar[str] = "reroll-chains"

    @shapes_remembered()
    def run(self, module: Module) -> PassReport:
        """Re-roll every hinted cell, and every other chain, that the main graph reaches."""
        report = PassReport()
        rolled: dict[str, None] = {}
        for graph in needed_graphs(module):
            for node in graph.topological():
                self._reroll(module, graph, node, report, rolled)
        remove_unused_functions(module, rolled)
        hinted = {id(f.graph) for f in module.functions.values() if record_of(f) is not None}
        with collector_paused():
            for graph in needed_graphs(module):
                if id(graph) not in hinted:
                    _reroll_unhinted(module, graph, report)
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
        except Refused as refusal:
            report.refused(refusal.code, name, refusal.reason, refusal.remedy)
            return
        rolled[function.name] = None
        report.count("re-rolled")
        report.note("re-rolled", name, f"its {trip} steps are one recurrence now")


def _reroll_unhinted(module: Module, graph: Graph, report: PassReport) -> None:
    """Re-roll the chains of one graph, if it may have any.

    A chain that reads what other chains compute is seen once these are Scans; so the graph is
    looked at again while there is something new.
    """
    if not any(node.op in ELEMENT_OPS for node in graph) or _has_frames(graph):
        return
    kept: dict[str, Refused] = {}
    rolled: set[Port] = set()
    done: set[Node] = set()
    while True:
        unrolled = Unrolled(graph)
        chains = list(find_chains(unrolled))
        # what a chain leaves behind of its sequences is no chain of its own
        left = [c for c in chains if not (isinstance(c, FailedChain) and c.tensors & rolled)]
        refused, new = _replace_all(module, left, report, done)
        sweep(graph, unrolled.doomed)
        rolled |= new
        kept |= {c.node.name: why for c, why in refused if not new or c.tensors & rolled}
        if not new:
            break
    for name, why in kept.items():
        report.refused(why.code, name, why.reason, why.remedy)


def _replace_all(
    module: Module,
    chains: Iterable[FoundChain | FailedChain],
    report: PassReport,
    done: set[Node],
) -> tuple[list[tuple[FoundChain | FailedChain, Refused]], set[Port]]:
    """What is refused, and the sequences of what is not."""
    refused: list[tuple[FoundChain | FailedChain, Refused]] = []
    rolled: set[Port] = set()
    for chain in chains:
        if isinstance(chain, FailedChain):
            refused.append((chain, chain.refusal))
            continue
        if chain.node in done:  # it is still needed, and would be found for ever
            continue
        done.add(chain.node)
        try:
            scan = chain.replace(module)
        except Refused as refusal:
            refused.append((chain, refusal))
            continue
        report.count("re-rolled")
        report.note("re-rolled", scan.name, f"its {chain.trip} steps are one recurrence now")
        rolled |= chain.tensors
    return refused, rolled


def _has_frames(graph: Graph) -> bool:
    """True if there are loops of control flow v1: what is new would have to be put in a frame."""
    return any(node.op in ("Enter", "RefEnter") for node in graph)
