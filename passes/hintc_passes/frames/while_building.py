"""From a frame of control flow v1 to a While."""

from __future__ import annotations

from collections.abc import Sequence

from hintc.call_graph import Effects
from hintc.ir import FunctionRef, Module, Node, Port
from hintc.ir.scan import dtype_of
from hintc.remark import Refused
from hintc_passes.frames.region_function import Inside, nodes_inside, region_function
from hintc_passes.frames.regions import Loop, Regions
from hintc_passes.frames.replacing import check_closed, take_over


def build_while(module: Module, regions: Regions, loop: Loop, effects: Effects) -> Node:
    """Replace the frame by a While, or a StatelessWhile, named as the frame.

    Its variables are those of the frame, then the values that enter it and never change.

    Raises:
        Refused: the loop cannot be a function; nothing was changed.
    """
    return _Building(module, regions, loop, effects).run()


class _Building:
    def __init__(self, module: Module, regions: Regions, loop: Loop, effects: Effects) -> None:
        self._module, self._regions, self._loop = module, regions, loop
        self._graph = regions.graph
        self._merges = list(loop.variables)
        self._enters = [enter for enter in loop.enters if enter in self._graph]
        self._firsts = [loop.variables[m][0].operands[0] for m in self._merges]
        self._nexts = [loop.variables[m][1].operands[0] for m in self._merges]
        for port in (*self._firsts, *(e.operands[0] for e in self._enters)):
            if dtype_of(port).is_ref:
                raise Refused(
                    "frame-malformed", f"the loop reads the reference '{port}'", "Freeze the graph."
                )
        self._check_controls()
        self._go_on = loop.conditions[0].operands[0]
        self._cond = self._inside([self._go_on], [loop.conditions[0]], effects)
        nexts = [following for _, following in loop.variables.values()]
        self._body = self._inside(self._nexts, nexts, effects)
        self._doomed = [*loop.members, *loop.exits]
        check_closed(self._graph, self._doomed, loop.exits)

    def _inside(self, results: Sequence[Port], ends: Sequence[Node], effects: Effects) -> Inside:
        """What computes `results`, and what `ends` wait for."""
        waits = list(dict.fromkeys(c for end in ends for c in end.controls))
        owns = self._loop.members.__contains__
        return nodes_inside(results, self._is_inside, owns, effects, waits)

    def _check_controls(self) -> None:
        """Raises a Refused where a variable waits for a side effect."""
        for node in (*self._loop.variables, *self._loop.switches):
            if any(control in self._regions.acting for control in node.controls):
                raise Refused("frame-malformed", f"'{node.name}' waits for a side effect")

    def _is_inside(self, port: Port) -> bool:
        """False for variables of the loop and values that enter it."""
        loop, node = self._loop, port.node
        return node not in loop.variables and node not in loop.switches and node.op != "Enter"

    def _alias(self, port: Port) -> Port:
        """A variable is its Merge; a value that never changes is what enters."""
        if port.node in self._loop.switches:
            return Port(self._loop.switches[port.node])
        if port.node in self._loop.variables:
            return port
        return port.node.operands[0]

    def run(self) -> Node:
        aliases = {p: self._alias(p) for part in (self._cond, self._body) for p in part.reads}
        variables = [Port(m) for m in self._merges]
        known = set(variables)
        invariants = list(dict.fromkeys(p for p in aliases.values() if p not in known))
        args = [(f"variable_{k}", p) for k, p in enumerate(variables)]
        args += [(f"invariant_{k}", p) for k, p in enumerate(invariants)]
        base = self._loop.name
        cond = region_function(
            self._module, f"{base}_cond", self._cond, args, aliases, [("go_on", self._go_on)]
        )
        nexts = [(f"next_{k}", p) for k, p in enumerate(self._nexts)]
        body = region_function(self._module, f"{base}_body", self._body, args, aliases, nexts)
        for (label, _), arg in zip(
            args[len(variables) :], body.graph.args[len(variables) :], strict=True
        ):
            body.graph.add_result(f"next_{label}", Port(arg))
        operands = [*self._firsts, *invariants]
        stateful = self._cond.is_stateful or self._body.is_stateful
        enter = self._enters[0]
        node = self._graph.add(
            "While" if stateful else "StatelessWhile",
            operands,
            {
                "T": tuple(dtype_of(p) for p in operands),
                "cond": FunctionRef(cond.name),
                "body": FunctionRef(body.name),
                "parallel_iterations": enter.attributes.get("parallel_iterations", 10),
                "_lower_using_switch_merge": True,
            },
            name=base,
            controls=self._waits(),
            device=self._loop.conditions[0].device,
            origin=(base,),
        )
        self._replace(node)
        return node

    def _waits(self) -> list[Node]:
        acting = self._regions.acting
        waits = [c for enter in self._enters for c in enter.controls]
        return [c for c in dict.fromkeys(waits) if c in acting]

    def _replace(self, node: Node) -> None:
        at = {merge: k for k, merge in enumerate(self._merges)}
        switches = self._loop.switches
        values = {
            Port(leaving): Port(node, at[switches[leaving.operands[0].node]])
            for leaving in self._loop.exits
        }
        take_over(self._regions, self._loop, [node], values, self._doomed)
