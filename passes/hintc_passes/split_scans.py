"""split-scans: one loop over stacked cells becomes one loop for each cell.

A Scan whose states fall into groups that do not depend on each other in a circle is split into
one Scan for each group, in order of dependence; what a later group reads of an earlier one becomes
an output of the earlier Scan and a sequence of the later. Each can then be recognised by itself.
Elementwise ops that only outputs need, a residual say, are done behind the Scan, on all steps at
once; a loop that does nothing else, a map, goes. Where only the last row of a state's sequence is
read, the final state is read.

Other Scans with one group stay as they are. Scans with side effects are never split.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from hintc.graphdef.shapes import shapes_remembered
from hintc.ir import Graph, Module, Node, Port, Scan
from hintc.ir.opdefs import side_effects
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass
from hintc_passes.scans.distribution import Distribution
from hintc_passes.scans.final_rows import read_final_states
from hintc_passes.scans.outputs import hoist_outputs
from hintc_passes.scans.step import Step, add_in_place_of, new_step, rewrite_scans


@register
@dataclass(frozen=True)
class SplitScans(Pass):
    """Split Scans whose states form several groups."""

    name: ClassVar[str] = "split-scans"

    @shapes_remembered()
    def run(self, module: Module) -> PassReport:
        """Split every such Scan that the main graph reaches."""
        report = PassReport()
        rewrite_scans(module, lambda graph, node: self._split(module, graph, node, report))
        return report

    def _split(self, module: Module, graph: Graph, node: Node, report: PassReport) -> None:
        read = read_final_states(module, graph, node)
        if read is not None:
            report.count("final states")
            node = read
        hoisted = self._hoist(module, graph, node, report)
        if hoisted is None:
            return
        node, step = hoisted, Step.of(module, hoisted)
        distribution = Distribution(step)
        if len(distribution.groups) < 2:
            return
        effects = side_effects(step.graph)
        if effects:
            report.refused(
                "split-side-effects",
                node.name,
                f"is not split into its {len(distribution.groups)} recurrences: the "
                f"{effects[0].op} '{effects[0].name}' must run once a step, in order",
            )
            return
        name = node.name
        parts = _Split(module, graph, node, step, distribution).run()
        report.count("split")
        report.note("split", name, f"holds {len(parts)} recurrences, one Scan each now")
        for part in parts:  # what one layer passes to the next may be more than its state
            self._hoist(module, graph, part, report)

    def _hoist(self, module: Module, graph: Graph, node: Node, report: PassReport) -> Node | None:
        """What takes the place of a Scan; None if nothing is left of it."""
        if side_effects(Step.of(module, node).graph):
            return node
        hoisted = hoist_outputs(module, graph, node)
        if hoisted is None:
            return node
        report.count("outputs hoisted")
        if graph.is_used(hoisted):
            report.note("outputs-hoisted", hoisted.name, "elementwise ops on outputs follow it now")
            return hoisted
        report.note("outputs-hoisted", hoisted.name, "all that it did is done to all rows at once")
        graph.remove(hoisted)
        return None


class _Split:
    """Replaces one Scan by one for each group."""

    def __init__(
        self,
        module: Module,
        graph: Graph,
        node: Node,
        step: Step,
        distribution: Distribution,
    ) -> None:
        self._module, self._graph, self._node, self._step = module, graph, node, step
        self._groups = distribution
        self._scan = Scan.of(node)
        self._outer = {
            port: (x, r)
            for port, x, r in zip(step.xs, self._scan.xs, self._scan.reverse_xs, strict=True)
        }
        self._invariants = dict(zip(step.invariants, self._scan.invariants, strict=True))
        self._crossing: dict[Port, None] = {}
        self._found: dict[Port, Port] = {}

    def run(self) -> list[Node]:
        self._find_crossings()
        parts = [self._part(g) for g in range(len(self._groups.groups))]
        self._graph.replace_control_uses(self._node, parts)
        self._graph.remove(self._node)
        return parts

    def _wanted(self, group: int) -> list[Port]:
        """What a group must compute for itself and for the Scan's outputs."""
        nexts = [self._step.nexts[at] for at in self._groups.groups[group]]
        return [*nexts, *(self._step.ys[k] for k in self._ys(group))]

    def _ys(self, group: int) -> list[int]:
        """Outputs of the Scan that the group gives; what depends on no state comes first."""
        found = []
        for k, port in enumerate(self._step.ys):
            home = self._groups.group_of_value(port)
            if (home if home is not None else 0) == group:
                found.append(k)
        return found

    def _find_crossings(self) -> None:
        for group in reversed(range(len(self._groups.groups))):
            own = [p for p in self._crossing if self._groups.group_of_value(p) == group]
            _, outside = self._groups.local(group, [*self._wanted(group), *own])
            for port in outside:
                home = self._groups.group_of_value(port)
                if home is not None and home != group:
                    self._crossing[port] = None

    def _part(self, group: int) -> Node:
        step, scan = self._step, self._scan
        states = self._groups.groups[group]
        sent = [p for p in self._crossing if self._groups.group_of_value(p) == group]
        ys = self._ys(group)
        nodes, outside = self._groups.local(group, [*self._wanted(group), *sent])
        xs = [p for p in outside if p in self._outer or p in self._found]
        xs.sort(key=lambda p: (p not in self._found, p.node.name))
        invariants = [p for p in step.invariants if p in outside]
        args = [(f"x_{k}", p) for k, p in enumerate(xs)]
        args += [(step.states[at].node.name, step.states[at]) for at in states]
        args += [(p.node.name, p) for p in invariants]
        results = [(f"next_{k}", step.nexts[at]) for k, at in enumerate(states)]
        results += [(f"y_{k}", p) for k, p in enumerate((*(step.ys[k] for k in ys), *sent))]
        body = self._module.add_function(
            new_step(f"{scan.body}_part_{group}", nodes, step.t, args, results)
        )
        sources = [self._outer.get(p) or (self._found[p], False) for p in xs]
        split = replace(
            scan,
            body=body.name,
            xs=tuple(source for source, _ in sources),
            states=tuple(scan.states[at] for at in states),
            invariants=tuple(self._invariants[p] for p in invariants),
            reverse_xs=tuple(backwards for _, backwards in sources),
            reverse_ys=(*(scan.reverse_ys[k] for k in ys), *(False for _ in sent)),
        )
        part = add_in_place_of(self._module, self._node, split, f"{self._node.name}/part_{group}")
        part.origin = self._node.origin or (self._node.name,)
        self._connect(part, states, ys, sent)
        return part

    def _connect(self, part: Node, states: list[int], ys: list[int], sent: list[Port]) -> None:
        for at, state in enumerate(states):
            self._graph.replace_uses(Port(self._node, state), Port(part, at))
        for at, k in enumerate(ys):
            old = Port(self._node, len(self._scan.states) + k)
            self._graph.replace_uses(old, Port(part, len(states) + at))
        for at, port in enumerate(sent):
            self._found[port] = Port(part, len(states) + len(ys) + at)
