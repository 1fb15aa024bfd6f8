"""A hinted call whose body is an unrolled chain → a Scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hintc.graft import graft
from hintc.graphdef.emit import Emitter
from hintc.ir import Function, Graph, Module, Node, Port, Scan, producers
from hintc.ir.opdefs import side_effects
from hintc.remark import Refused
from hintc_passes.analysis.merging import merge_equal
from hintc_passes.chains.lanes import Chain, Kind, Lane, Lockstep, steps_in
from hintc_passes.chains.step_function import a_value, step_function


@dataclass(frozen=True)
class _Sequence:
    """A tensor that the body unpacks or packs along axis 0, and its elements by step."""

    tensor: Port
    lane: Lane
    backwards: bool


def trip_count_of(body: Graph) -> int:
    """The number of steps that a body's Packs of results show; 0 if none."""
    sizes = {len(_packed(r).operands) for r in body.results if _is_stack(_packed(r))}
    return sizes.pop() if len(sizes) == 1 else 0


def roll(module: Module, graph: Graph, call: Node, function: Function, hint: str) -> Node:
    """Replace a call by the Scan that its body, an unrolled chain, is.

    Raises:
        Refused: the body is no such chain; nothing was changed.
    """
    return _Rolling(module, graph, call, function, hint).run()


def _is_stack(node: Node) -> bool:
    return node.op == "Pack" and not node.attributes.get("axis")


def _packed(result: Node) -> Node:
    node = result.operands[0].node
    while node.op == "Identity":
        node = node.operands[0].node
    return node


class _Rolling:
    def __init__(
        self, module: Module, graph: Graph, call: Node, function: Function, hint: str
    ) -> None:
        self._module, self._graph, self._call = module, graph, call
        self._function, self._body, self._hint = function, function.graph, hint
        self._trip = trip_count_of(self._body)
        effects = side_effects(self._body)
        if effects:
            raise Refused(
                "chain-side-effects",
                f"the {effects[0].op} '{effects[0].name}' must run once a step",
                "Remove it from the steps before conversion.",
            )
        self._same = merge_equal(self._body)
        self._results = [self._merged(r.operands[0]) for r in self._body.results]
        self._xs, self._chain, self._lockstep = self._read()
        self._ys = [s for s in self._outputs(self._lockstep) if s.lane in self._chain.lanes]

    def _merged(self, port: Port) -> Port:
        return self._same.get(port, port)

    # -- reading the chain -------------------------------------------------------------------

    def _read(self) -> tuple[list[_Sequence], Chain, Lockstep]:
        refusal: Refused | None = None
        for backwards in (False, True):
            xs = self._inputs(backwards)
            elements = [x.lane for x in xs]
            steps = steps_in(self._body, self._same, elements)
            lockstep = Lockstep(steps, self._same, elements, self._trip)
            try:
                lanes = [y.lane for y in self._outputs(lockstep)]
                return xs, lockstep.run(lanes), lockstep
            except Refused as found:
                refusal = refusal or found
        assert refusal is not None
        raise refusal

    def _inputs(self, backwards: bool) -> list[_Sequence]:
        found = []
        for node in self._body:
            if node.op == "Unpack" and node.attributes.get("num") == self._trip:
                if node.attributes.get("axis") or self._merged(Port(node)) != Port(node):
                    continue
                lane = tuple(Port(node, k) for k in range(self._trip))
                tensor = self._merged(node.operands[0])
                found.append(_Sequence(tensor, lane[::-1] if backwards else lane, backwards))
        if not found:
            raise Refused(
                "chain-without-input",
                "the steps do not take turns with an unpacked sequence",
                "Feed each step an element of tf.unstack.",
            )
        return found

    def _outputs(self, lockstep: Lockstep) -> list[_Sequence]:
        found = []
        for port in dict.fromkeys(self._results):
            if _is_stack(port.node):
                lane: Lane = tuple(self._merged(p) for p in port.node.operands)
                steps = [lockstep.step(p) for p in lane if p is not None]
                backwards = steps[0] > steps[-1]
                found.append(_Sequence(port, lane[::-1] if backwards else lane, backwards))
        return found

    # -- building the Scan -------------------------------------------------------------------

    def run(self) -> Node:
        chain = self._chain
        plan = [self._plan_result(port) for port in self._results]
        xs = [x for x in self._xs if x.lane in chain.lanes]
        states = chain.of_kind(Kind.CARRIED)
        body, invariants = self._step_function(xs, states)
        module, graph, call = self._module, self._graph, self._call
        origin = call.origin or (call.name,)
        emit = Emitter(graph, call.name, origin)
        outside = self._outside(
            [x.tensor for x in xs]
            + [a_value(s) for s in states]
            + [p for kind, _, p in plan if kind == "outside"]
        )
        name = call.name
        graph.rename(call, graph.unique_name(f"{name}/call"))
        operands = dict(zip((Port(a) for a in self._body.args), call.operands, strict=True))
        scan = Scan(
            module.add_function(body).name,
            emit.constant(np.int32(self._trip), "trip_count"),
            tuple(outside[x.tensor] for x in xs),
            tuple(outside[a_value(s)] for s in states),
            tuple(operands[p] for p in invariants),
            tuple(x.backwards for x in xs),
            tuple(y.backwards for y in self._ys),
            hint=self._hint,
            unrolled=True,
        ).add_to(module, graph, name=name, origin=origin)
        scan.device = call.device
        graph.set_controls(scan, call.controls)
        for index, (kind, at, port) in enumerate(plan):
            old = Port(call, index)
            if kind == "outside":
                graph.replace_uses(old, outside[port])
            elif kind == "last" and graph.uses(old):
                graph.replace_uses(old, self._last_row(emit, Port(scan, len(states) + at), at))
            else:
                result = at if kind == "state" else len(states) + at
                graph.replace_uses(old, Port(scan, result))
        graph.replace_control_uses(call, [scan])
        graph.remove(call)
        return scan

    def _plan_result(self, port: Port) -> tuple[str, int, Port]:
        """How a result of the call is had from the Scan: kind, position, value."""
        chain = self._chain
        for at, y in enumerate(self._ys):
            if y.tensor == port:
                return "y", at, port
        for at, state in enumerate(chain.of_kind(Kind.CARRIED)):
            if chain.following[state][-1] == port:
                return "state", at, port
        for at, y in enumerate(self._ys):
            if y.lane[-1] == port:
                return "last", at, port
        if self._lockstep.step(port) <= 0:
            return "outside", 0, port
        raise Refused(
            "chain-result",
            f"the result '{port}' is neither an output of every step nor a state",
            "Return what each step gives, or the last state; compute the rest outside the cell.",
        )

    def _last_row(self, emit: Emitter, rows: Port, at: int) -> Port:
        place = 0 if self._ys[at].backwards else self._trip - 1
        return emit.gather(rows, emit.constant(np.int32(place), "last"), f"y_{at}_last")

    def _step_function(
        self, xs: Sequence[_Sequence], states: Sequence[Lane]
    ) -> tuple[Function, list[Port]]:
        """The step, with what is the same in every step inside; it reads arguments of the call."""
        fixed = producers(lane[0] for lane in self._chain.of_kind(Kind.FIXED) if lane[0])
        invariants = [Port(arg) for arg in self._body.args if arg in fixed]
        return step_function(
            f"{self._function.name}_step",
            self._chain,
            [x.lane for x in xs],
            states,
            [y.lane for y in self._ys],
            invariants,
            [n for n in self._body.topological() if n in fixed and n.op != "_Arg"],
            self._same,
        ), invariants

    def _outside(self, wanted: Sequence[Port]) -> dict[Port, Port]:
        """Values of the body that do not change over time, computed where the call was."""
        call = self._call
        values = dict(zip((Port(a) for a in self._body.args), call.operands, strict=True))
        needed = producers(wanted)
        nodes = [n for n in self._body if n in needed and n.op != "_Arg"]
        copies = graft(nodes, self._graph, values, prefix=call.name)
        return {p: values.get(p) or Port(copies[p.node], p.index) for p in wanted}
