"""From an understood loop to a Scan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hintc.graft import graft
from hintc.graphdef.emit import Emitter
from hintc.graphdef.shapes import infer_results
from hintc.ir import (
    AttributeValue,
    DType,
    Function,
    FunctionRef,
    Graph,
    Module,
    Node,
    Port,
    Scan,
    Shape,
)
from hintc.ir.scan import dtype_of
from hintc_passes.analysis.values import known_scalar, readers, source_of, sweep
from hintc_passes.loops.ended import understand
from hintc_passes.loops.filled_lists import make_filled_lists
from hintc_passes.loops.first_row import as_gather, follows_first, join_first, read_tensors
from hintc_passes.loops.last_row import LastRow
from hintc_passes.loops.linear import ARITHMETIC, STEP, Linear
from hintc_passes.loops.rows import Rows, is_reversed, rows_read
from hintc_passes.loops.trip_count import TripCount, sequences_of
from hintc_passes.loops.while_loop import Role, Variable, WhileLoop, bad_list
from hintc_passes.scans.equal_states import merge_states
from hintc_passes.scans.state_shapes import check_kept


def raise_loop(module: Module, graph: Graph, node: Node) -> Node:
    """Replace the loop by a Scan of the same name.

    Raises:
        Refused: it is no Scan; nothing was changed but how lists are made.
    """
    make_filled_lists(module, graph, node)
    read_tensors(graph, node)
    loop = WhileLoop.of(module, graph, node)
    try:
        limits = understand(module, loop)
        return merge_states(module, graph, _Raising(module, loop, limits).run())
    finally:
        sweep(graph, loop.hoisted)


class _Raising:
    def __init__(self, module: Module, loop: WhileLoop, limits: Sequence[Linear]) -> None:
        self._module, self._loop, self._graph = module, loop, loop.graph
        node = loop.node
        self._origin = node.origin or (node.name,)
        self._emit = Emitter(loop.graph, node.name, self._origin)
        self._trip = TripCount(loop, limits)
        self._states = _live_states(loop)
        self._lasts = [
            LastRow.of(v, self._states, self._trip)
            for v in loop.with_role(Role.LAST_LIST)
            if v.ends
        ]
        self._writes = [v for v in loop.with_role(Role.WRITE_LIST) if v.ends]
        self._reverse_ys = [self._is_written_backwards(v) for v in self._writes]
        self._lengths = {v.at: self._trip.longer(v) for v in self._writes}
        self._writes += [last.variable for last in self._lasts if last.state is None]
        self._reverse_ys += [False] * (len(self._writes) - len(self._reverse_ys))
        wanted = [v.next for v in self._states] + [v.items[0].operands[2] for v in self._writes]
        self._reads = rows_read(loop, self._trip)
        self._wanted = [source_of(p) for p in wanted]
        self._indices: set[Port] = set()
        """What the body computes that is the index of the step."""
        self._nodes = self._step_nodes()
        self._xs = list(dict.fromkeys(self._reads[p] for p in self._rows_needed()))
        inside = set(self._nodes)
        self._lists = [v for v in loop.with_role(Role.READ_LIST) if inside.intersection(v.items)]
        self._ended = loop.with_role(Role.ENDED)
        self._invariants = [
            v for v in loop.with_role(Role.INVARIANT) if self._is_read(v.arg) or self._is_lengths(v)
        ]
        self._counters = [v for v in loop.with_role(Role.COUNTER) if self._is_read(v.arg)]
        self._sources = sequences_of(loop)

    def _is_written_backwards(self, variable: Variable) -> bool:
        index = self._loop.form(variable.items[0].operands[1])
        if variable.before is not None:
            return follows_first(self._loop, variable, variable.before, index, self._trip.form)
        reverse = is_reversed(index, self._trip.form)
        if reverse is None:
            raise bad_list(variable, "it is not written at the index of the step")
        return reverse

    def run(self) -> Node:
        body = self._body()
        self._check_state_shapes(body)
        trip = self._trip.port(self._emit)
        scan = Scan(
            self._module.add_function(body).name,
            trip,
            tuple(self._sequence(rows, trip) for rows in self._xs),
            tuple(v.first for v in self._states),
            tuple(self._unchanging()),
            tuple(rows.reverse for rows in self._xs),
            tuple(self._reverse_ys),
        )
        return self._replace(scan)

    # -- the step ----------------------------------------------------------------------------

    def _step_nodes(self) -> list[Node]:
        """Nodes of the body that states and outputs need, without reads of rows and counting."""
        found: dict[Node, None] = {}
        pending = [p for p in self._wanted if p not in self._reads]
        while pending:
            port = pending.pop()
            if port in self._reads or port.node in found:
                continue
            if self._is_index(port):
                self._indices.add(port)
                continue
            found[port.node] = None
            is_pick = port.node.op == "TensorListGetItem"
            pending.extend(port.node.operands[1:2] if is_pick else port.node.operands)
        return [n for n in self._loop.body if n in found and n.op != "_Arg"]

    def _is_index(self, port: Port) -> bool:
        is_computed = port.node.op in ARITHMETIC and dtype_of(port) is DType.INT32
        return is_computed and self._loop.is_step(port)

    def _rows_needed(self) -> Iterator[Port]:
        """The rows that a step reads, in the order of the body's nodes."""
        read = {p for n in self._nodes for p in n.operands} | set(self._wanted)
        return (Port(n) for n in self._loop.body if Port(n) in read and Port(n) in self._reads)

    def _is_lengths(self, variable: Variable) -> bool:
        return any(v.of is variable and self._is_read(v.arg) for v in self._ended)

    def _is_read(self, arg: Port) -> bool:
        inside = set(self._nodes)
        return arg in self._wanted or any(use.node in inside for use in self._loop.body.uses(arg))

    def _unchanging(self) -> list[Port]:
        """Operands of the Scan that every step reads unchanged."""
        found = [v.first for v in self._invariants]
        found += [self._sources[v.at] for v in self._lists]
        return found + [v.first for v in self._counters if known_scalar(v.first) is None]

    def _body(self) -> Function:
        function = Function(f"{_body_name(self._loop.node)}_step")
        t = Port(function.add_arg("t", DType.INT32))
        args = {
            rows: Port(function.add_arg(f"x_{k}", dtype_of(rows.source)))
            for k, rows in enumerate(self._xs)
        }
        values = {port: args[rows] for port, rows in self._reads.items() if rows in args}
        values |= dict.fromkeys(self._indices, t)
        for variables in (self._states, self._invariants):
            for variable in variables:
                arg = function.add_arg(variable.arg.node.name, dtype_of(variable.arg))
                values[variable.arg] = Port(arg)
        picks = self._add_lists(function, values)
        self._add_counters(function, t, values)
        flags = self._add_flags(function, t, values)
        copies = graft(self._nodes, function.graph, values)
        for item in picks:
            values[Port(item)] = as_gather(function.graph, copies[item])
        for at, port in enumerate(self._wanted):
            kind = "next" if at < len(self._states) else "y"
            value = values.get(port) or Port(copies[port.node], port.index)
            function.graph.add_result(f"{kind}_{at}", value)
        if flags is not None:
            _take_unended(function.graph, flags)
            unread = [v for v in self._invariants if not function.graph.uses(values[v.arg])]
            function.drop_args([values[v.arg].node for v in unread])
            self._invariants = [v for v in self._invariants if v not in unread]
        return function

    def _add_lists(self, function: Function, values: dict[Port, Port]) -> list[Node]:
        """Arguments for lists of which a step reads other rows than its own; the nodes that do."""
        picks = []
        for variable in self._lists:
            dtype = dtype_of(self._sources[variable.at])
            whole = Port(function.add_arg(variable.arg.node.name, dtype))
            for item in variable.items:
                if Port(item) not in self._reads:
                    values |= dict.fromkeys((item.operands[0], item.operands[2]), whole)
                    picks.append(item)
        return [item for item in picks if item in set(self._nodes)]

    def _add_counters(self, function: Function, t: Port, values: dict[Port, Port]) -> None:
        """What each counter is in terms of the index of the step."""
        emit = Emitter(function.graph, "", ())
        for variable in self._counters:
            stride, value = variable.counts.factor(STEP), t
            name, first = variable.arg.node.name, known_scalar(variable.first)
            if stride != 1:
                factor = emit.constant(np.int32(stride), f"{name}/stride")
                value = emit.binary("Mul", value, factor, f"{name}/offset")
            if first is None:
                value = emit.add(value, Port(function.add_arg(name, DType.INT32)), f"{name}/value")
            elif first:
                value = emit.add(value, emit.constant(np.int32(first), f"{name}/first"), name)
            values[variable.arg] = value

    def _add_flags(self, function: Function, t: Port, values: dict[Port, Port]) -> Port | None:
        """Flags in terms of the step; the stand-in for those that are false in each step."""
        emit = Emitter(function.graph, "", ())
        unended: Port | None = None
        for variable in self._ended:
            if not self._is_read(variable.arg):
                continue
            if variable.of is None:
                unended = unended or emit.constant(np.array(False), "ended")
                values[variable.arg] = unended
            else:
                lengths = values[variable.of.arg]
                values[variable.arg] = emit.binary(
                    "GreaterEqual", t, lengths, variable.arg.node.name
                )
        return unended

    def _check_state_shapes(self, body: Function) -> None:
        """A state that grows (by broadcasting, say) is no state of a Scan."""
        shapes = self._loop.shapes
        args = [Shape(())]
        for rows in self._xs:
            dims = shapes[rows.source].dims
            args.append(
                Shape(None if dims is None else (*dims[: rows.axis], *dims[rows.axis + 1 :]))
            )
        args += [shapes[p] for p in (*(v.first for v in self._states), *self._unchanging())]
        nexts = infer_results(self._module, body.graph, args)
        for variable, following in zip(self._states, nexts, strict=False):
            check_kept(variable.at, shapes[variable.first], following)

    # -- outside -----------------------------------------------------------------------------

    def _sequence(self, rows: Rows, trip: Port) -> Port:
        """The tensor that is read row by row, time first, cut to the steps if need be."""
        sequence, emit = rows.source, self._emit
        name = f"x_{self._xs.index(rows)}"
        covered = self._trip.covers(sequence, rows.axis) and not rows.skip
        if rows.axis:
            rank = self._loop.shapes[sequence].rank
            assert rank is not None
            order = [rows.axis, *(axis for axis in range(rank) if axis != rows.axis)]
            perm = emit.constant(np.array(order, np.int32), f"{name}/perm")
            types: dict[str, AttributeValue] = {"T": dtype_of(sequence), "Tperm": DType.INT32}
            sequence = emit.node("Transpose", [sequence, perm], types, f"{name}/time_major")
        if covered:
            return sequence
        begin, stride = (emit.constant(np.array([n], np.int32)) for n in (rows.skip, 1))
        attributes: dict[str, AttributeValue] = {"T": dtype_of(sequence), "Index": DType.INT32}
        if rows.skip:
            attributes["end_mask"] = 1  # to the end, which is not after `trip` rows then
        bounds = [begin, emit.pack([trip]), stride]
        return emit.node("StridedSlice", [sequence, *bounds], attributes, name)

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
                if variable.before is not None:
                    backwards = self._reverse_ys[self._writes.index(variable)]
                    rows = join_first(self._emit, variable.before, rows, backwards)
                for end in variable.ends:
                    left += self._replace_end(end, rows)
        graph.replace_control_uses(old, [node])
        sweep(graph, left)
        before = [*(p.node for p in old.operands), *old.controls]
        if old in graph and not graph.is_used(old):  # stateful by name only
            graph.remove(old)
        sweep(graph, before)
        return node

    def _replace_final(self, variable: Variable, scan: Scan, node: Node) -> None:
        old = Port(self._loop.node, variable.at)
        is_list = variable.role is Role.READ_LIST and readers(self._graph, old)
        if variable.role is Role.INVARIANT or is_list:
            self._graph.replace_uses(old, variable.first)
        elif variable.role is Role.COUNTER and self._graph.uses(old):
            self._graph.replace_uses(old, self._final_count(variable, scan.trip_count))
        elif variable.role is Role.ENDED and variable.of is not None and self._graph.uses(old):
            ended = self._emit.binary("GreaterEqual", scan.trip_count, variable.of.first, "ended")
            self._graph.replace_uses(old, ended)

    def _final_count(self, variable: Variable, trip: Port) -> Port:
        emit, name = self._emit, f"count_{variable.at}"
        stride = variable.counts.factor(STEP)
        if stride != 1:
            trip = emit.binary("Mul", trip, emit.constant(np.int32(stride)), f"{name}/offset")
        if known_scalar(variable.first) == 0:
            return trip
        return emit.add(trip, variable.first, name)

    def _padded(self, variable: Variable, rows: Port, trip: Port) -> Port:
        """Rows of a list that the loop does not reach are zeros."""
        length = self._lengths.get(variable.at)
        if length is None:
            return rows
        emit, name = self._emit, f"y_{variable.at}"
        missing = emit.expand(emit.subtract(length, trip, f"{name}/missing"), f"{name}/rows")
        rest = emit.tail(emit.shape(rows, f"{name}/shape"), f"{name}/row_shape")
        dims = emit.concat([missing, rest], f"{name}/pad_shape")
        return emit.concat([rows, emit.fill(dims, dtype_of(rows), f"{name}/pad")], name)

    def _replace_end(self, end: Node, rows: Port) -> list[Node]:
        """What reads the written list after the loop reads the Scan's output."""
        if end.op == "TensorListStack":
            return self._replace_stack(end, rows)
        emit, name = self._emit, end.name
        if end.op == "TensorListLength":
            value = emit.element(emit.shape(rows, f"{name}/shape"), 0, name)
        else:
            value = emit.gather(rows, end.operands[1], name)
        return self._replace_stack(end, value)

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


def _take_unended(graph: Graph, flags: Port) -> None:
    """Let what picks values by flags that are false in each step be the value it picks then."""
    picks = [use.node for use in graph.uses(flags)]
    for pick in picks:
        graph.replace_uses(Port(pick), pick.operands[2])
    sweep(graph, picks)


def _live_states(loop: WhileLoop) -> list[Variable]:
    """The states that a result of the loop depends on; tf.scan carries its outputs for nothing."""
    states = {v.arg: v for v in loop.with_role(Role.STATE)}
    live = {v.arg for v in states.values() if loop.graph.uses(Port(loop.node, v.at))}
    pending = [states[arg].next for arg in live]
    for role in (Role.WRITE_LIST, Role.LAST_LIST):
        pending += [v.items[0].operands[2] for v in loop.with_role(role)]
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
