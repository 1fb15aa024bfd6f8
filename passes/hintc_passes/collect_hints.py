"""collect-hints: every hinted call becomes one call of a function that holds what it hints.

Recognises the hints of level 1 in the main graph and in every function it reaches: loop bodies,
branches, called functions. Makes a PartitionedCall with one operand for each declared argument and
one result for each declared result; members of a "stack" are packed before and unpacked after it.
The function's attribute `_hintc_hint` says what the hint said (`hintc.hints.protocol.HintRecord`).
Hints of level 2 and above only say how calls connect, so they dissolve.

Constants that the interior reads go into the function; other values that it reads without having
been declared become further operands. Refuses a hint that is not closed: whose interior is needed
elsewhere, or whose arguments depend on its own results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hintc.call_graph import needed_graphs
from hintc.collector import collector_paused
from hintc.hints.protocol import HintCall, read_hints
from hintc.ir import Graph, Module, Node
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass
from hintc_passes.hinting.call import make_call
from hintc_passes.hinting.constants import Constants
from hintc_passes.hinting.region import (
    Liveness,
    Region,
    entangled,
    escapes,
    find_region,
    foreign_hints,
    stateful_node,
)
from hintc_passes.hinting.stacking import cancel_own_packs, cancel_readers
from hintc_passes.hinting.wrapper import dissolve, remove_identities


@register
@dataclass(frozen=True)
class CollectHints(Pass):
    """Hinted calls become calls of functions."""

    name: ClassVar[str] = "collect-hints"

    def run(self, module: Module) -> PassReport:
        """Collect the hints of the main graph and of all functions that it reaches."""
        report = PassReport()
        for graph in needed_graphs(module):
            with collector_paused():  # a function grows for each call
                calls = read_hints(graph)
                if calls:
                    _Collection(module, graph, calls, report).run()
        return report


class _Collection:
    """The hints of one graph, from the innermost outwards."""

    def __init__(
        self, module: Module, graph: Graph, calls: Sequence[HintCall], report: PassReport
    ) -> None:
        self.module = module
        self.graph = graph
        self.calls = calls
        self.report = report
        self.liveness = Liveness(graph)
        self.constants = Constants()
        self.packs: list[Node] = []
        self.unpacks: list[Node] = []

    def run(self) -> None:
        for call in self.calls:
            call.check_complete()
        self._dissolve_wrappers()
        pending = [call for call in self.calls if call.level == 1]
        while pending:
            waiting = self._collect_round(pending)
            if len(waiting) == len(pending):
                self._refuse_overlapping(waiting)
                break
            pending = waiting
        # a call that lay in another one went into that one's body, with its packs
        merged = cancel_own_packs(self.graph, [p for p in self.packs if p in self.graph])
        merged += cancel_readers(self.graph, [u for u in self.unpacks if u in self.graph])
        if merged:
            self.report.count("stacks merged", merged)

    def _dissolve_wrappers(self) -> None:
        wrappers = [call for call in self.calls if call.level > 1]
        position = _positions(self.graph) if wrappers else {}
        regions = [find_region(self.graph, wrapper, position) for wrapper in wrappers]
        for region in regions:
            dissolve(
                self.module, self.graph, region.call, list(region.interior), self.calls, self.report
            )
            self.report.count("wrappers")

    def _collect_round(self, pending: Sequence[HintCall]) -> list[HintCall]:
        """Collect the calls that no other pending call lies in; the calls that must wait."""
        position = _positions(self.graph)
        open_nodes = {node for call in pending for node in call.nodes}
        waiting, ready = [], []
        for call in pending:
            region = find_region(self.graph, call, position)
            if any(node in open_nodes for node in foreign_hints(region)):
                waiting.append(call)
            elif self._is_sound(region):
                ready.append(region)
        groups = entangled(self.graph, ready)
        for group in groups:
            self._refuse_entangled(group)
        tangled = {id(region) for group in groups for region in group}
        for region in ready:
            if id(region) not in tangled:
                self._collect(region)
        return waiting

    def _collect(self, region: Region) -> None:
        made = make_call(self.module, self.graph, region, self.constants)
        self.packs += made.packs
        self.unpacks += made.unpacks
        remove_identities(self.graph, [n for n in region.call.nodes if n in self.graph])
        self.report.count("calls")

    def _is_sound(self, region: Region) -> bool:
        call, name = region.call, next(iter(region.sinks)).name
        for escape in escapes(self.graph, region):
            if escape.reader is not None and (
                escape.reader not in self.graph or self.liveness.drop_if_dead(escape.reader)
            ):
                continue
            reader = f"'{escape.reader.name}'" if escape.reader else "the function's caller"
            how = "waited for" if escape.by_control else "read"
            self.report.refused(
                "hint-not-closed",
                name,
                f"'{escape.node.name}' lies inside the hint '{call.function}', call {call.uuid}, "
                f"and is {how} outside of it by {reader}.",
                f"Declare '{escape.node.name}' with add_output, or take {reader} out of the model.",
            )
            return False
        stateful = stateful_node(region)
        if stateful is not None:
            self.report.refused(
                "hint-stateful",
                name,
                f"'{stateful.name}' ({stateful.op}) inside the hint '{call.function}', call "
                f"{call.uuid}, has a state or a side effect.",
                "Build the inference graph without it, or keep it outside of the hint.",
            )
        return stateful is None

    def _refuse_entangled(self, group: Sequence[Region]) -> None:
        calls = [f"'{r.call.function}' ({r.call.uuid})" for r in group]
        for region in group:
            call = region.call
            reason = (
                f"An argument of the hint '{call.function}', call {call.uuid}, depends on one of "
                "its own results through nodes outside of it."
                if len(group) == 1
                else f"The hints {', '.join(calls)} depend on each other's results."
            )
            self.report.refused(
                "hint-entangled",
                next(iter(region.sinks)).name,
                reason,
                "Move what connects them into the hint, or hint the steps one by one.",
            )

    def _refuse_overlapping(self, calls: Sequence[HintCall]) -> None:
        for call in calls:
            others = [f"'{c.function}' ({c.uuid})" for c in calls if c is not call]
            self.report.refused(
                "hint-overlaps",
                call.outputs[0].members[0].name,
                f"The hint '{call.function}', call {call.uuid}, lies partly inside another one: "
                f"{', '.join(others)}.",
                "Hints must be apart or one inside the other.",
            )


def _positions(graph: Graph) -> dict[Node, int]:
    return {node: at for at, node in enumerate(graph.topological())}
