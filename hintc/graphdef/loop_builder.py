"""Builds the While form of one Scan; see `hintc.graphdef.scan_lowering`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hintc.graft import graft
from hintc.graphdef.accumulator import accumulator
from hintc.graphdef.emit import Emitter, constant_array, constant_behind
from hintc.graphdef.final_rows import read_final_rows_from_states
from hintc.graphdef.scan_step import checked_scan, step_nodes
from hintc.graphdef.shapes import infer_results, infer_shapes
from hintc.ir import (
    DType,
    Function,
    FunctionRef,
    Graph,
    Module,
    Node,
    Port,
    Shape,
)
from hintc.ir.opdefs import is_stateful
from hintc.ir.scan import dtype_of


@dataclass(frozen=True)
class _Variable:
    """One loop variable: its name in the functions and its first value."""

    name: str
    first: Port


class LoopBuilder:
    """Turns one Scan into a loop.

    Args:
        module: gets the two functions of the loop.
        graph: has the Scan.
        node: the Scan.
        args: shapes of the arguments of `graph`, if it is a function body and they are known.
    """

    def __init__(
        self, module: Module, graph: Graph, node: Node, args: Sequence[Shape] | None = None
    ) -> None:
        self._module, self._graph, self._node = module, graph, node
        self._args = args
        self._scan = checked_scan(module, node)
        self._body = self._scan.body_function(module).graph
        self._emit = Emitter(graph, node.name, node.origin or (node.name,))

    def build(self) -> Node:
        """Add the loop, move all uses to it, remove the Scan."""
        scan, graph, node = self._scan, self._graph, self._node
        read_final_rows_from_states(self._module, graph, node)
        live = [k for k in range(len(scan.reverse_ys)) if graph.uses(self._y(k))]
        constants = self._constants()
        variables = self._variables(live, constants)
        name = re.sub(r"\W", "_", node.name)
        body = Function(f"{name}_body")
        self._fill_body(body, variables, live, constants)
        cond = Function(f"{name}_cond")
        self._fill_cond(cond, variables)
        self._module.add_function(cond)
        self._module.add_function(body)
        graph.rename(node, graph.unique_name(f"{node.name}/scan"))
        loop = self._add_loop(variables, cond, body)
        for at in range(len(scan.states)):
            graph.replace_uses(Port(node, at), Port(loop, 1 + at))
        for at, k in enumerate(live):
            graph.replace_uses(self._y(k), Port(loop, 1 + len(scan.states) + at))
        graph.replace_control_uses(node, [loop])
        graph.remove(node)
        return loop

    def _y(self, k: int) -> Port:
        return Port(self._node, len(self._scan.states) + k)

    def _result(self, at: int) -> Port:
        return self._body.results[at].operands[0]

    def _constants(self) -> dict[int, Node]:
        """Invariants that are constants, by position."""
        found = {}
        for at, port in enumerate(self._scan.invariants):
            constant = constant_behind(port)
            if constant is not None:
                found[at] = constant
        return found

    def _variables(self, live: Sequence[int], constants: dict[int, Node]) -> list[_Variable]:
        scan = self._scan
        found = [_Variable("t", self._emit.constant(np.int32(0), "t"))]
        found += [_Variable(f"state_{k}", p) for k, p in enumerate(scan.states)]
        found += [
            _Variable(f"y_{k}", p) for k, p in zip(live, self._accumulators(live), strict=True)
        ]
        if constant_behind(scan.trip_count) is None:
            found.append(_Variable("trip_count", scan.trip_count))
        found += [_Variable(f"x_{k}", p) for k, p in enumerate(scan.xs)]
        found += [
            _Variable(f"invariant_{k}", p)
            for k, p in enumerate(scan.invariants)
            if k not in constants
        ]
        return found

    # -- accumulators ------------------------------------------------------------------------

    def _accumulators(self, live: Sequence[int]) -> list[Port]:
        self._ranks: dict[int, int | None] = {}
        if not live:
            return []
        shapes = self._result_shapes()
        found = []
        for k in live:
            at = len(self._scan.states) + k
            self._ranks[k] = shapes[at].rank
            found.append(accumulator(self._emit, self._module, self._scan, at, shapes[at]))
        return found

    def _result_shapes(self) -> list[Shape]:
        """Shapes of a step's results, from those of the Scan's operands."""
        scan = self._scan
        given = (*scan.xs, *scan.states, *scan.invariants)
        outer = infer_shapes(self._module, self._graph, given, self._args)
        args = [Shape(())]
        args += [_row(outer[p]) for p in scan.xs]
        args += [outer[p] for p in (*scan.states, *scan.invariants)]
        return infer_results(self._module, self._body, args)

    # -- functions ---------------------------------------------------------------------------

    def _fill_body(
        self,
        function: Function,
        variables: Sequence[_Variable],
        live: Sequence[int],
        constants: dict[int, Node],
    ) -> None:
        scan, body = self._scan, self._body
        emit = Emitter(function.graph, "", self._node.origin or (self._node.name,))
        args = {v.name: Port(function.add_arg(v.name, dtype_of(v.first))) for v in variables}
        for at, constant in constants.items():
            copy = graft([constant], function.graph, {})[constant]
            function.graph.set_controls(copy, [])
            args[f"invariant_{at}"] = Port(copy)
        t, trip = args["t"], self._trip_count(emit, args)
        index = {False: t}
        if any((*scan.reverse_xs, *scan.reverse_ys)):
            index[True] = emit.subtract(emit.subtract(trip, emit.constant(np.int32(1), "one")), t)
        steps = [
            emit.gather(args[f"x_{k}"], index[backwards], f"x_{k}_at_t")
            for k, backwards in enumerate(scan.reverse_xs)
        ]
        inner = [
            t,
            *steps,
            *(args[f"state_{k}"] for k in range(len(scan.states))),
            *(args[f"invariant_{k}"] for k in range(len(scan.invariants))),
        ]
        states = len(scan.states)
        wanted = [self._result(at) for at in (*range(states), *(states + k for k in live))]
        values = dict(zip((Port(a) for a in body.args), inner, strict=True))
        copies = graft(step_nodes(body, wanted), function.graph, values)
        found = [values.get(p) or Port(copies[p.node], p.index) for p in wanted]
        nexts = {f"state_{k}": found[k] for k in range(states)}
        for at, k in enumerate(live):
            row = found[states + at]
            place = index[scan.reverse_ys[k]]
            nexts[f"y_{k}"] = emit.write_row(args[f"y_{k}"], row, place, self._ranks[k])
        nexts["t"] = emit.add(t, emit.constant(np.int32(1), "step"))
        for variable in variables:
            value = nexts.get(variable.name, args[variable.name])
            function.graph.add_result(f"next_{variable.name}", value)
        for key, effect in body.control_results.items():
            if effect in copies:
                function.graph.control_results[key] = copies[effect]

    def _fill_cond(self, function: Function, variables: Sequence[_Variable]) -> None:
        args = {v.name: Port(function.add_arg(v.name, dtype_of(v.first))) for v in variables}
        emit = Emitter(function.graph, "", self._node.origin or (self._node.name,))
        less = emit.node("Less", [args["t"], self._trip_count(emit, args)], {"T": DType.INT32})
        function.graph.add_result("go_on", less)

    def _trip_count(self, emit: Emitter, args: dict[str, Port]) -> Port:
        known = constant_behind(self._scan.trip_count)
        if known is None:
            return args["trip_count"]
        return emit.constant(np.int32(constant_array(known)), "trip_count")

    def _add_loop(self, variables: Sequence[_Variable], cond: Function, body: Function) -> Node:
        effects = any(is_stateful(n) for n in body.graph if not n.op.startswith("_"))
        loop = self._graph.add(
            "While" if effects else "StatelessWhile",
            [v.first for v in variables],
            {
                "T": tuple(dtype_of(v.first) for v in variables),
                "cond": FunctionRef(cond.name),
                "body": FunctionRef(body.name),
                "parallel_iterations": 1,
            },
            name=self._node.name.removesuffix("/scan"),
            controls=self._node.controls,
            device=self._node.device,
            origin=self._node.origin or (self._node.name,),
        )
        return loop


def _row(shape: Shape) -> Shape:
    return shape if not shape.dims else Shape(shape.dims[1:])
