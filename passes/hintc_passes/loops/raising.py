"""From an understood loop to a Scan."""

from __future__ import annotations

import numpy as np

from hintc.graft import graft
from hintc.graphdef.emit import Emitter
from hintc.graphdef.shapes import infer_results, infer_shapes
from hintc.ir import AttributeValue, DType, Function, FunctionRef, Module, Node, Port, Scan, Shape
from hintc.ir.scan import dtype_of
from hintc_passes.loops.equal_states import merge_states
from hintc_passes.loops.last_row import LastRow
from hintc_passes.loops.refusal import Refusal
from hintc_passes.loops.trip_count import TripCount, sequences_of
from hintc_passes.loops.values import source_of, sweep
from hintc_passes.loops.while_loop import Role, Variable, WhileLoop


def raise_loop(module: Module, loop: WhileLoop) -> Node:
    """Replace the loop by a Scan of the same name.

    Raises:
        Refusal: it is no Scan; nothing was changed.
    """
    try:
        return merge_states(module, loop.graph, _Raising(module, loop).run())
    finally:
        sweep(loop.graph, loop.hoisted)


class _Raising:
    def __init__(self, module: Module, loop: WhileLoop) -> None:
        self._module, self._loop, self._graph = module, loop, loop.graph
        node = loop.node
        self._origin = node.origin or (node.name,)
        self._emit = Emitter(loop.graph, node.name, self._origin)
        rows = [v for v in loop.with_role(Role.INVARIANT) if v.items]
        self._sequences = sequences_of(loop) | {v.at: v.first for v in rows}
        used = (*loop.node.operands, *map(source_of, self._sequences.values()))
        self._shapes = infer_shapes(
            module, loop.graph, [p for p in used if dtype_of(p) is not DType.VARIANT]
        )
        self._trip = TripCount(loop, self._shapes)
        self._states = _live_states(loop)
        self._lasts = [
            LastRow.of(v, self._states, self._trip)
            for v in loop.with_role(Role.LAST_LIST)
            if v.ends
        ]
        self._writes = [v for v in loop.with_role(Role.WRITE_LIST) if v.ends]
        self._writes += [last.variable for last in self._lasts if last.state is None]
        wanted = [v.next for v in self._states] + [v.items[0].operands[2] for v in self._writes]
        # an element is read once, however many nodes take it
        given = [*loop.with_role(Role.READ_LIST), *rows]
        self._reads = {Port(item): v for v in given for item in v.items}
        self._wanted = [source_of(p) for p in wanted]
        self._nodes = self._step_nodes()
        read = {p for n in self._nodes for p in n.operands} | set(self._wanted)
        self._xs = [v for v in given if any(Port(n) in read for n in v.items)]
        self._invariants = [v for v in loop.with_role(Role.INVARIANT) if self._is_read(v.arg)]

    def run(self) -> Node:
        body = self._body()
        self._check_state_shapes(body)
        trip = self._trip.port(self._emit)
        scan = Scan(
            self._module.add_function(body).name,
            trip,
            tuple(self._sequence(v, trip) for v in self._xs),
            tuple(v.first for v in self._states),
            tuple(v.first for v in self._invariants),
            (False,) * len(self._xs),
            (False,) * len(self._writes),
        )
        return self._replace(scan)

    # -- the step ----------------------------------------------------------------------------

    def _step_nodes(self) -> list[Node]:
        """Nodes of the body that states and rows need, without reads of lists and counting."""
        found: dict[Node, None] = {}
        pending = [p for p in self._wanted if p not in self._reads]
        while pending:
            port = pending.pop()
            if port in self._reads or port.node in found:
                continue
            found[port.node] = None
            pending.extend(port.node.operands)
        return [n for n in self._loop.body if n in found and n.op != "_Arg"]

    def _is_read(self, arg: Port) -> bool:
        inside = set(self._nodes)
        return arg in self._wanted or any(use.node in inside for use in self._loop.body.uses(arg))

    def _body(self) -> Function:
        function = Function(f"{_body_name(self._loop.node)}_step")
        t = Port(function.add_arg("t", DType.INT32))
        values = {v.arg: t for v in self._loop.with_role(Role.INDEX)}
        elements: dict[int, Port] = {}
        for variable in self._xs:
            dtype = dtype_of(self._sequences[variable.at])
            elements[variable.at] = Port(function.add_arg(f"x_{len(elements)}", dtype))
        for port, variable in self._reads.items():
            if variable.at in elements:
                values[port] = elements[variable.at]
        for variables in (self._states, self._invariants):
            for variable in variables:
                arg = function.add_arg(variable.arg.node.name, dtype_of(variable.arg))
                values[variable.arg] = Port(arg)
        copies = graft(self._nodes, function.graph, values)
        for at, port in enumerate(self._wanted):
            kind = "next" if at < len(self._states) else "y"
            value = values.get(port) or Port(copies[port.node], port.index)
            function.graph.add_result(f"{kind}_{at}", value)
        return function

    def _check_state_shapes(self, body: Function) -> None:
        """A state that grows (by broadcasting, say) is no state of a Scan."""
        args = [Shape(())]
        for variable in self._xs:
            dims = self._shapes[source_of(self._sequences[variable.at])].dims
            args.append(Shape(dims[1:] if dims else None))
        args += [self._shapes[v.first] for v in (*self._states, *self._invariants)]
        nexts = infer_results(self._module, body.graph, args)
        for variable, following in zip(self._states, nexts, strict=False):
            first = self._shapes[variable.first]
            if not _is_kept(first, following):
                raise Refusal(
                    "state-changes-shape",
                    f"state {variable.at} starts as {first} and continues as {following}",
                    "Give the initial state the shape that the loop's steps give it.",
                )

    # -- outside -----------------------------------------------------------------------------

    def _sequence(self, variable: Variable, trip: Port) -> Port:
        """The tensor that the list was made from, cut to the number of steps if need be."""
        sequence = self._sequences[variable.at]
        if self._trip.covers(sequence):
            return sequence
        emit = self._emit
        begin, stride = (emit.constant(np.array([n], np.int32)) for n in (0, 1))
        return emit.node(
            "StridedSlice",
            [sequence, begin, emit.pack([trip]), stride],
            {"T": dtype_of(sequence), "Index": DType.INT32},
            f"x_{variable.at}",
        )

    def _replace(self, scan: Scan) -> Node:
        graph, loop = self._graph, self._loop
        old = loop.node
        name = old.name
        graph.rename(old, graph.unique_name(f"{name}/loop"))
        node = scan.add_to(self._module, graph, name=name, origin=self._origin)
        node.device = old.device
        if old.controls:
            graph.set_controls(node, old.controls)
        for variable in loop.variables:
            self._replace_final(variable, scan, node)
        for at, variable in enumerate(self._states):
            graph.replace_uses(Port(old, variable.at), Port(node, at))
        left = [use.node for use in graph.uses(old)]
        outputs = {v.at: Port(node, len(self._states) + k) for k, v in enumerate(self._writes)}
        for last in self._lasts:
            at = last.variable.at
            rows = outputs.pop(at) if last.state is None else Port(node, last.state)
            row = last.read(self._emit, rows)
            stacked = self._emit.expand(row, f"y_{at}/stacked")
            for end in last.variable.ends:
                last.replace_reads(graph, end, row)
                left += self._replace_stack(end, stacked)
        for variable in self._writes:
            if variable.at in outputs:
                rows = self._padded(variable, outputs[variable.at], scan.trip_count)
                for end in variable.ends:
                    left += self._replace_stack(end, rows)
        graph.replace_control_uses(old, [node])
        sweep(graph, [*left, old])
        return node

    def _replace_final(self, variable: Variable, scan: Scan, node: Node) -> None:
        old = Port(self._loop.node, variable.at)
        if variable.role is Role.INVARIANT:
            self._graph.replace_uses(old, variable.first)
        elif variable.role is Role.INDEX:
            self._graph.replace_uses(old, scan.trip_count)

    def _padded(self, variable: Variable, rows: Port, trip: Port) -> Port:
        """Rows of a list that the loop does not reach are zeros."""
        length = self._trip.longer(variable)
        if length is None:
            return rows
        emit, name = self._emit, f"y_{variable.at}"
        missing = emit.expand(emit.subtract(length, trip, f"{name}/missing"), f"{name}/rows")
        rest = emit.tail(emit.shape(rows, f"{name}/shape"), f"{name}/row_shape")
        dims = emit.concat([missing, rest], f"{name}/pad_shape")
        return emit.concat([rows, emit.fill(dims, dtype_of(rows), f"{name}/pad")], name)

    def _replace_stack(self, stack: Node, rows: Port) -> list[Node]:
        """The stacked list is the Scan's output; the nodes that made it are returned.

        A stack that nobody reads may be an output of the model, so its name is kept.
        """
        graph = self._graph
        before = [p.node for p in stack.operands]
        is_read = graph.is_used(stack)
        graph.replace_uses(Port(stack), rows)
        graph.replace_control_uses(stack, [rows.node])
        for key in [k for k, n in graph.control_results.items() if n is stack]:
            graph.control_results[key] = rows.node
        name, device = stack.name, stack.device
        graph.remove(stack)
        if not is_read:
            attributes: dict[str, AttributeValue] = {"T": dtype_of(rows)}
            graph.add("Identity", [rows], attributes, name=name, device=device, origin=(name,))
        return before


def _live_states(loop: WhileLoop) -> list[Variable]:
    """The states that a result of the loop depends on; tf.scan carries its outputs for nothing."""
    states = {v.arg: v for v in loop.with_role(Role.STATE)}
    pending = [v.next for v in states.values() if loop.graph.uses(Port(loop.node, v.at))]
    for role in (Role.WRITE_LIST, Role.LAST_LIST):
        pending += [v.items[0].operands[2] for v in loop.with_role(role)]
    live = {v.arg for v in states.values() if loop.graph.uses(Port(loop.node, v.at))}
    seen: set[Node] = set()
    while pending:
        port = pending.pop()
        if port in states and port not in live:
            live.add(port)
            pending.append(states[port].next)
        if port.node not in seen:
            seen.add(port.node)
            pending.extend(port.node.operands)
    return [v for arg, v in states.items() if arg in live]


def _body_name(node: Node) -> str:
    ref = node.attributes["body"]
    assert isinstance(ref, FunctionRef)
    return ref.name


def _is_kept(first: Shape, following: Shape) -> bool:
    """True unless a step provably, or by broadcasting possibly, changes the shape."""
    if first.dims is None or following.dims is None:
        return True
    if len(first.dims) != len(following.dims):
        return False
    return all(
        a in (b, -1) or (b == -1 and a != 1)
        for a, b in zip(first.dims, following.dims, strict=True)
    )
