"""From Switch and Merge of control flow v1 to an If."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hintc.call_graph import Effects
from hintc.graphdef.emit import Emitter
from hintc.hints.protocol import CELLS, hinted_function, is_hint
from hintc.ir import Function, FunctionRef, Module, Node, Port
from hintc.ir.opdefs import is_stateful
from hintc.ir.scan import dtype_of
from hintc.remark import Refused
from hintc_passes.analysis.values import source_of
from hintc_passes.frames.region_function import Inside, nodes_inside, region_function
from hintc_passes.frames.regions import Condition, Regions
from hintc_passes.frames.replacing import check_closed, take_over


@dataclass(frozen=True)
class _Group:
    """Merges that become one If, and what they join: for False, and for True."""

    merges: Sequence[Node]
    values: tuple[Sequence[Port], Sequence[Port]]
    insides: tuple[Inside, Inside]


def build_ifs(
    module: Module, regions: Regions, condition: Condition, effects: Effects
) -> list[Node]:
    """Replace a condition by one If, or StatelessIf, for each level of its Merges.

    Raises:
        Refused: a branch cannot be a function; nothing was changed.
    """
    return _Building(module, regions, condition, effects).run()


class _Building:
    def __init__(
        self, module: Module, regions: Regions, condition: Condition, effects: Effects
    ) -> None:
        self._module, self._regions, self._condition = module, regions, condition
        self._graph = regions.graph
        self._effects = effects
        self._switches = {s: None for s in condition.switches if s in self._graph}
        # a later group may read what an earlier one gives
        self._groups = [
            self._group(merges) for _, merges in sorted(condition.merges.items(), reverse=True)
        ]
        self._check()

    def _group(self, merges: Sequence[Node]) -> _Group:
        sides = [[self._operand(m, at) for m in merges] for at in (0, 1)]
        insides = [
            nodes_inside(
                side, self._is_inside, self._owns, self._effects, self._waited_for(merges, at)
            )
            for at, side in enumerate(sides)
        ]
        return _Group(merges, (sides[0], sides[1]), (insides[0], insides[1]))

    def _waited_for(self, merges: Sequence[Node], branch: int) -> list[Node]:
        """Nodes of a branch that the Merges wait for."""
        region = self._condition.branches[branch]
        controls = dict.fromkeys(c for merge in merges for c in merge.controls)
        return [c for c in controls if self._regions.of[c] is region]

    def _operand(self, merge: Node, branch: int) -> Port:
        """What a Merge gives if the predicate is False (0) or True (1)."""
        return next(p for p in merge.operands if self._side(p) == branch)

    def _side(self, port: Port) -> int:
        if port.node in self._switches:
            return port.index
        return self._condition.branches.index(self._regions.of[port.node])

    def _owns(self, node: Node) -> bool:
        return node in self._condition.members or node in self._switches

    def _is_inside(self, port: Port) -> bool:
        return port.node in self._condition.members

    def _alias(self, port: Port) -> Port:
        """What a Switch passes on is what it reads."""
        return port.node.operands[0] if port.node in self._switches else port

    def _check(self) -> None:
        """Nothing is run twice, and nothing is lost.

        Raises:
            Refused: something would be.
        """
        used: set[Node] = set()
        for group in self._groups:
            inside = {n for part in group.insides for n in part.nodes}
            for node in inside & used:
                if is_stateful(node):
                    raise Refused(
                        "branch-shared", f"'{node.name}' serves conditions that need each other"
                    )
            used |= inside
        for node in self._condition.members:
            if node not in used and not self._graph.is_used(node) and not self._is_idle(node):
                raise Refused("branch-open", f"what '{node.name}' gives reaches no Merge")
        merges = [m for group in self._groups for m in group.merges]
        self._doomed = [*self._condition.members, *self._switches, *merges]
        check_closed(self._graph, self._doomed, merges)

    def _is_idle(self, node: Node) -> bool:
        """True for what freezing leaves in branches without a reader.

        Constants, pivots, and hinted results of cells, such as the c of a last step.
        """
        if node.op != "Identity":
            return node.op in ("Const", "NoOp")
        if is_hint(node) and hinted_function(node) in CELLS and self._graph.results:
            return True
        switch = node.operands[0].node
        return switch in self._switches and (
            source_of(switch.operands[0]) == self._condition.predicate
        )

    # -- building ----------------------------------------------------------------------------

    def run(self) -> list[Node]:
        if not self._groups:
            self._graph.remove(self._doomed)
            return []
        built = [self._build(group) for group in self._groups]
        values: dict[Port, Port] = {}
        for group, node in zip(self._groups, built, strict=True):
            values |= self._values(group, node)
        take_over(self._regions, self._condition, built, values, self._doomed)
        return built

    def _values(self, group: _Group, node: Node) -> dict[Port, Port]:
        count = len(group.merges)
        values = {Port(merge): Port(node, k) for k, merge in enumerate(group.merges)}
        for at, merge in enumerate(self._indexed(group)):
            values[Port(merge, 1)] = Port(node, count + at)
        return values

    def _indexed(self, group: _Group) -> list[Node]:
        """Merges of which it is read which operand was alive."""
        return [m for m in group.merges if self._graph.uses(Port(m, 1))]

    def _build(self, group: _Group) -> Node:
        insides = group.insides
        aliases = {p: self._alias(p) for part in insides for p in part.reads}
        outside = list(dict.fromkeys(aliases.values()))
        args = [(f"operand_{k}", p) for k, p in enumerate(outside)]
        name = _name(group.merges[0])
        functions = [
            self._branch(f"{name}_{('false', 'true')[at]}", group, at, args, aliases)
            for at in (0, 1)
        ]
        stateful = any(part.is_stateful for part in insides)
        return self._graph.add(
            "If" if stateful else "StatelessIf",
            [self._condition.predicate, *outside],
            {
                "Tcond": dtype_of(self._condition.predicate),
                "Tin": tuple(dtype_of(p) for p in outside),
                "Tout": tuple(dtype_of(r.operands[0]) for r in functions[0].graph.results),
                "then_branch": FunctionRef(functions[1].name),
                "else_branch": FunctionRef(functions[0].name),
                "_lower_using_switch_merge": True,
            },
            name=name,
            controls=self._waits(group),
            device=group.merges[0].device,
            origin=(name,),
        )

    def _branch(
        self,
        name: str,
        group: _Group,
        at: int,
        args: Sequence[tuple[str, Port]],
        aliases: dict[Port, Port],
    ) -> Function:
        results = [(f"result_{k}", port) for k, port in enumerate(group.values[at])]
        function = region_function(self._module, name, group.insides[at], args, aliases, results)
        emit = Emitter(function.graph, "", (name,))
        for merge in self._indexed(group):
            index = merge.operands.index(self._operand(merge, at))
            number = len(function.graph.results)
            function.graph.add_result(f"result_{number}", emit.constant(np.int32(index), "index"))
        return function

    def _waits(self, group: _Group) -> list[Node]:
        """What is outside, acts, and comes before the branches or what they read."""
        waits = [c for part in group.insides for c in part.waits]
        waits += [c for node in (*group.merges, *self._switches) for c in node.controls]
        acting = self._regions.acting
        return [c for c in dict.fromkeys(waits) if c in acting and not self._owns(c)]


def _name(merge: Node) -> str:
    """The scope of a Merge, which is the name of the condition."""
    scope = merge.name.rpartition("/")[0]
    return scope or merge.name
