"""Where each node of a graph with control flow v1 runs: in which step of a loop, on which branch.

A node runs in the innermost region of what it reads and waits for, as dead inputs make a node dead.
"""

from __future__ import annotations

from collections.abc import Iterable

from hintc.call_graph import Effects
from hintc.ir import RESULT, Graph, Node, Port
from hintc_passes.analysis.values import source_of
from hintc_passes.frames.regions import ENTERS, SWITCHES, Condition, Loop, Region, Regions

_NEXT = ("NextIteration", "RefNextIteration")
_MERGES = ("Merge", "RefMerge")
_EXITS = ("Exit", "RefExit")


def find_regions(graph: Graph, effects: Effects) -> Regions:
    """Find where each node runs; what is not well formed is noted as trouble of its construct."""
    return _Finder(graph, effects).run()


class _Finder:
    def __init__(self, graph: Graph, effects: Effects) -> None:
        self._graph = graph
        self._effects = effects
        self._found = Regions(graph)
        self._level: dict[Node, int] = {}
        self._conditions: dict[Node, Condition] = {}
        self._loops: dict[Node, Loop] = {}
        for node in graph:
            if node.op in ENTERS:
                loop = self._frame(node)
                loop.enters.append(node)
                loop.open += 1

    def _frame(self, enter: Node) -> Loop:
        name = enter.attributes.get("frame_name")
        text = name.decode() if isinstance(name, bytes) else enter.name
        if text not in self._found.loops:
            self._found.loops[text] = Loop(text, self._found.root)
        return self._found.loops[text]

    # -- order -------------------------------------------------------------------------------

    def run(self) -> Regions:
        graph, found = self._graph, self._found
        waiting = {node: len(self._before(node)) for node in graph}
        for node in graph:
            loop = self._loop_entered(node)
            if loop is not None and loop.open:
                waiting[node] += 1
                loop.waiting.append(node)
        ready = [node for node, count in waiting.items() if not count]
        for node in ready:  # grows meanwhile
            self._visit(node)
            freed = [*dict.fromkeys(self._after(node)), *self._entered(node)]
            for following in freed:
                waiting[following] -= 1
                if not waiting[following]:
                    ready.append(following)
        found.order = ready
        found.stuck = next((n for n, count in waiting.items() if count), None)
        self._check_ends()
        return found

    def _before(self, node: Node) -> set[Node]:
        before = {p.node for p in node.operands}.union(node.controls)
        return {n for n in before if n.op not in _NEXT} if node.op in _MERGES else before

    def _after(self, node: Node) -> list[Node]:
        after = [u.node for u in self._graph.uses(node)] + self._graph.control_uses(node)
        return [n for n in after if n.op not in _MERGES] if node.op in _NEXT else after

    def _loop_entered(self, node: Node) -> Loop | None:
        """The loop that a Merge begins a variable of."""
        if node.op not in _MERGES or not any(p.node.op in _NEXT for p in node.operands):
            return None
        enter = next((p.node for p in node.operands if p.node.op in ENTERS), None)
        return None if enter is None else self._frame(enter)

    def _entered(self, node: Node) -> list[Node]:
        """The Merges that may be visited once the last Enter of their loop was."""
        if node.op not in ENTERS:
            return []
        loop = self._frame(node)
        loop.open -= 1
        return [] if loop.open else loop.waiting

    # -- regions -----------------------------------------------------------------------------

    def _visit(self, node: Node) -> None:
        before = self._before(node)
        self._level[node] = max((self._level[n] for n in before), default=0)
        if self._effects.of(node) or not before.isdisjoint(self._found.acting):
            self._found.acting.add(node)
        if node.op in ENTERS:
            self._enter(node)
        elif node.op in _MERGES:
            loop = self._loop_entered(node)
            if loop is not None:
                self._loop_merge(node, loop)
            else:
                self._merge(node)
        elif node.op in SWITCHES:
            self._switch(node)
        elif node.op in _EXITS:
            self._exit(node)
        else:
            region = self._inner(node, self._around(node))
            self._found.place(node, region)
            loop = region.loop
            if node.op == "LoopCond":
                self._condition(node, region)
            elif node.op in _NEXT and loop is not None and region is not loop.step:
                loop.blame(node, "does not run exactly where the loop's body does")
            elif node.op == RESULT and region.construct is not None:
                region.construct.blame(node, "is a result of the graph, but may be dead")

    def _around(self, node: Node) -> list[Region]:
        found = [self._side(port, node) for port in node.operands if port.node in self._found.of]
        return found + [self._found.of[n] for n in node.controls]

    def _side(self, port: Port, reader: Node) -> Region:
        """Where a value is alive."""
        node = port.node
        if node in self._loops:
            loop = self._loops[node]
            if port.index == 1:
                return loop.step
            if reader.op not in _EXITS:
                loop.blame(reader, "reads a value that leaves the loop, but is no Exit")
            return loop.after
        if node in self._conditions:
            return self._conditions[node].branches[port.index]
        return self._found.of[node]

    def _inner(self, node: Node, regions: Iterable[Region]) -> Region:
        """The innermost of regions that must lie in each other and in one frame."""
        inner = self._found.root
        given = list(dict.fromkeys(regions))
        for region in given:
            if region.is_in(inner):
                inner = region
            elif not inner.is_in(region):
                self._blame(node, (inner, region), "needs values that are never alive together")
        if any(region.loop is not inner.loop for region in given):
            self._blame(node, given, "reads values of different loops")
        return inner

    def _blame(self, node: Node, regions: Iterable[Region], reason: str) -> None:
        for region in regions:
            for around in region.chain():
                if around.construct is not None:
                    around.construct.blame(node, reason)

    def _enter(self, node: Node) -> None:
        loop = self._frame(node)
        around = self._found.root
        for region in self._around(node):
            if region.is_in(around):
                around = region
            elif not around.is_in(region):
                self._blame(node, (around, region), "needs values that are never alive together")
        if around.is_in(loop.parent):
            loop.parent = loop.check.parent = around
        elif not loop.parent.is_in(around):
            loop.blame(node, "enters the loop from another place than others do")
        if node.op != "Enter":
            loop.blame(node, "passes a reference to a variable into the loop")
        self._found.place(node, loop.check)

    def _loop_merge(self, node: Node, loop: Loop) -> None:
        enters = [p.node for p in node.operands if p.node.op in ENTERS]
        nexts = [p.node for p in node.operands if p.node.op in _NEXT]
        self._level[node] = max(self._level[n] for n in loop.enters)
        if len(node.operands) != 2 or not enters or not nexts or self._graph.uses(Port(node, 1)):
            loop.blame(node, "does not join one first and one next value")
        elif enters[0].attributes.get("is_constant") or self._frame(enters[0]) is not loop:
            loop.blame(node, "starts with a value that does not change")
        loop.variables[node] = (enters[0], nexts[0])
        self._found.place(node, loop.check)

    def _condition(self, node: Node, region: Region) -> None:
        loop = region.loop
        if loop is None:
            return
        loop.conditions.append(node)
        if region is not loop.check or len(loop.conditions) > 1:
            loop.blame(node, "is not the only condition of the loop")

    def _switch(self, node: Node) -> None:
        data, predicate = node.operands
        region = self._inner(node, self._around(node))
        self._found.place(node, region)
        source = source_of(predicate)
        loop = region.loop
        if source.node.op == "LoopCond" and loop is not None:
            if source.node not in loop.conditions or data.node not in loop.variables:
                loop.blame(node, "is no variable of the loop, but ends with it")
            loop.switches[node] = data.node
            self._loops[node] = loop
            return
        key = (region, source)
        condition = self._found.conditions.get(key)
        if condition is None:
            condition = self._found.conditions[key] = Condition(*key)
        condition.switches.append(node)
        self._conditions[node] = condition
        if node.op != "Switch":
            condition.blame(node, "passes a reference to a variable into a branch")

    def _merge(self, node: Node) -> None:
        sides = [self._side(port, node) for port in node.operands if port.node in self._found.of]
        condition = sides[0].construct if sides else None
        if (
            not isinstance(condition, Condition)
            or len(node.operands) != 2
            or set(sides) != set(condition.branches)
            or not all(
                condition.parent.is_in(region) or region in condition.branches
                for region in (self._found.of[n] for n in node.controls)
            )
        ):
            self._blame(node, sides, "does not join the two branches of one condition")
            self._found.place(node, self._found.root if not sides else _common(sides))
            return
        self._level[node] += 1
        condition.merges.setdefault(self._level[node], []).append(node)
        self._found.place(node, condition.parent)

    def _exit(self, node: Node) -> None:
        region = self._side(node.operands[0], node)
        loop = region.loop
        if loop is None:
            self._found.place(node, region)
            return
        if region is not loop.after or node.controls:
            loop.blame(node, "leaves the loop with a value that is not a loop variable")
        loop.exits.append(node)
        self._found.place(node, loop.parent)

    def _check_ends(self) -> None:
        for loop in self._found.loops.values():
            if not loop.conditions or not loop.variables:
                loop.blame(loop.enters[0], "enters a loop without condition or variables")
            merged = {enter for enter, _ in loop.variables.values()}
            for enter in loop.enters:
                if enter.attributes.get("is_constant"):
                    continue
                readers = {use.node for use in self._graph.uses(enter)}
                if len(readers) > 1 or (readers and enter not in merged):
                    loop.blame(enter, "is read otherwise than by the variable that it starts")


def _common(regions: list[Region]) -> Region:
    """The innermost region that is around all of them."""
    return next(r for r in regions[0].chain() if all(other.is_in(r) for other in regions))
