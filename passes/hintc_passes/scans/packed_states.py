"""States that hold several values side by side, ``[c | h]``, become one state for each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hintc.graft import graft
from hintc.graphdef.emit import Emitter, known_array
from hintc.graphdef.shapes import argument_shapes, infer_shapes
from hintc.ir import DType, Function, Graph, Module, Node, Port, Scan, Shape, producers
from hintc.ir.scan import dtype_of
from hintc_passes.analysis.values import known_int, source_of, sweep
from hintc_passes.cells.algebra import Symbol
from hintc_passes.cells.op_rules import evaluate
from hintc_passes.cells.step import symbol
from hintc_passes.scans.step import Step, add_in_place_of


@dataclass(frozen=True)
class _Part:
    """One of the values that a state holds: its next value and its columns.

    `mask` is ``(condition, True if a row where it holds keeps its value)``, None for no mask.
    """

    port: Port
    start: int
    stop: int
    mask: tuple[Port, bool] | None = None


_Parts = list[_Part]


def split_packed_states(module: Module, graph: Graph, node: Node) -> Node | None:
    """Carry the values that a state ``[batch, columns]`` holds side by side one by one.

    A state is taken apart if its next value is a ConcatV2 along the columns (or, in rows that a
    mask does not hold back, is one) and all that a step reads of it are cuts at the same borders.
    The initial state is cut, the final one is put together again where it is read.

    Args:
        module: has the step function.
        graph: has the Scan.
        node: the Scan, without fusion.

    Returns:
        The Scan that takes its place; None if no state is packed.
    """
    step = Step.of(module, node)
    found = {k: parts for k in range(len(step.states)) if (parts := _candidate(step, k))}
    if not found:
        return None
    shapes = argument_shapes(module, graph, node)
    ports = [part.port for parts in found.values() for part in parts]
    ports += [part.mask[0] for parts in found.values() for part in parts if part.mask]
    inner = infer_shapes(module, step.graph, ports, shapes)
    first = 1 + len(step.xs)
    plan = {
        k: placed
        for k, parts in found.items()
        if (placed := _placed(parts, inner, shapes[first + k]))
        and _only_cut(step, step.states[k], placed)
    }
    return _Unpacking(module, graph, node, step, plan).run() if plan else None


def _candidate(step: Step, state: int) -> _Parts:
    """The values that the next state is put together from, without their columns; [] if one."""
    port = step.nexts[state]
    mask: tuple[Port, bool] | None = None
    if port.node.op == "Select":
        condition, yes, no = (source_of(p) for p in port.node.operands)
        if step.states[state] not in (yes, no):
            return []
        mask = condition, yes == step.states[state]
        port = no if mask[1] else yes
    pieces = _pieces(port)
    return [_Part(p, 0, 0, mask) for p in pieces] if len(pieces) > 1 else []


def _pieces(port: Port) -> list[Port]:
    """Operands of ConcatV2 along the columns, nested ones taken apart, in order."""
    found: list[Port] = []
    pending = [port]
    while pending:
        port = source_of(pending.pop())
        node = port.node
        if node.op == "ConcatV2" and known_int(node.operands[-1]) in (1, -1):
            pending.extend(reversed(node.operands[:-1]))
        else:
            found.append(port)
    return found


def _placed(parts: _Parts, shapes: Mapping[Port, Shape], state: Shape) -> _Parts:
    """The parts with their columns; [] if they are not all known, or not those of the state."""
    mask = parts[0].mask
    if mask is not None and shapes[mask[0]].rank not in (0, 1):  # it chooses columns
        return []
    if state.dims is None or len(state.dims) != 2:
        return []
    placed: _Parts = []
    at = 0
    for part in parts:
        dims = shapes[part.port].dims
        if dims is None or len(dims) != 2 or dims[1] < 1:
            return []
        placed.append(_Part(part.port, at, at + dims[1], part.mask))
        at += dims[1]
    return placed if at == state.dims[1] else []


def _only_cut(step: Step, state: Port, parts: _Parts) -> bool:
    """True if whatever reads the state reads whole parts of it, and not all of them."""
    borders = {0, *(part.stop for part in parts)}
    pending = [state]
    while pending:
        port = pending.pop()
        for use in step.graph.uses(port):
            if use.node.op == "Identity":
                pending.append(Port(use.node))
            elif use.node.op == "Select" and step.nexts[step.states.index(state)] == Port(use.node):
                continue
            else:
                cuts = _cuts(use.node, port, parts[-1].stop)
                if not cuts or any({a, b} - borders for a, b in cuts):
                    return False
    return True


def _cuts(node: Node, value: Port, width: int) -> list[tuple[int, int]]:
    """For each result of a node the columns of `value` that it is; [] if it is no cut of it."""
    constants = [None if p == value else known_array(p) for p in node.operands]
    if sum(c is None for c in constants) != 1 or value not in node.operands:
        return []
    whole = symbol("state", 0, width)
    results = evaluate(node, [whole if c is None else c for c in constants])
    found: list[tuple[int, int]] = []
    for result in results or ():
        atom = result[0].atom if isinstance(result, tuple) and len(result) == 1 else None
        if not isinstance(atom, Symbol):
            return []
        found.append((atom.start, atom.stop))
    return found


class _Unpacking:
    """Replaces one Scan."""

    def __init__(
        self, module: Module, graph: Graph, node: Node, step: Step, plan: Mapping[int, _Parts]
    ) -> None:
        self._module, self._graph, self._node, self._step = module, graph, node, step
        self._plan, self._scan = plan, Scan.of(node)

    def run(self) -> Node:
        graph, node, scan = self._graph, self._node, self._scan
        name = node.name
        body = self._module.add_function(self._body())
        graph.rename(node, graph.unique_name(f"{name}/states"))
        emit = Emitter(graph, name, node.origin or (name,))
        states: list[Port] = []
        for k, first in enumerate(scan.states):
            parts = self._plan.get(k)
            states += [_columns(emit, first, p) for p in parts] if parts else [first]
        new = add_in_place_of(
            self._module, node, replace(scan, body=body.name, states=tuple(states)), name
        )
        self._connect(emit, new)
        graph.replace_control_uses(node, [new])
        graph.remove(node)
        return new

    def _connect(self, emit: Emitter, new: Node) -> None:
        at = 0
        for k in range(len(self._scan.states)):
            old, parts = Port(self._node, k), self._plan.get(k)
            if parts is None:
                self._graph.replace_uses(old, Port(new, at))
            elif self._graph.uses(old):
                finals = [(Port(new, at + n), part) for n, part in enumerate(parts)]
                whole = _join(emit, [port for port, _ in finals])
                self._graph.replace_uses(old, whole)
                _forward(emit, whole, finals)
                sweep(self._graph, [whole.node])
            at += len(parts) if parts else 1
        for k in range(len(self._step.ys)):
            old = Port(self._node, len(self._scan.states) + k)
            self._graph.replace_uses(old, Port(new, at + k))

    def _body(self) -> Function:
        """The step with one argument and one result for each part."""
        step, scan = self._step, self._scan
        function = Function(f"{scan.body}_unpacked")
        emit = Emitter(function.graph, "", ())
        args = self._add_args(function)
        values = {port: found[0] for port, found in args.items() if len(found) == 1}
        for k in self._plan:
            values[step.states[k]] = _join(emit, args[step.states[k]])
        wanted = [port for k, port in enumerate(step.nexts) if k not in self._plan]
        for part in itertools.chain(*self._plan.values()):
            wanted += [part.port, *(part.mask[:1] if part.mask else ())]
        wanted += step.ys
        needed = producers(wanted)
        nodes = [n for n in step.graph if n in needed and not n.op.startswith("_")]
        copies = graft(nodes, function.graph, values)
        values.update({p: Port(copies[p.node], p.index) for p in wanted if p not in values})
        self._add_results(function, emit, values, args)
        for k, parts in self._plan.items():
            whole = values[step.states[k]]
            _forward(emit, whole, list(zip(args[step.states[k]], parts, strict=True)))
            sweep(function.graph, [whole.node])
        return function

    def _add_args(self, function: Function) -> dict[Port, list[Port]]:
        """For each argument of the step those that take its place."""
        step = self._step
        counts = {step.states[k]: len(parts) for k, parts in self._plan.items()}
        found: dict[Port, list[Port]] = {}
        for old in (step.t, *step.xs, *step.states, *step.invariants):
            names = [f"{old.node.name}_{n}" for n in range(counts.get(old, 0))] or [old.node.name]
            found[old] = [Port(function.add_arg(name, dtype_of(old))) for name in names]
        return found

    def _add_results(
        self,
        function: Function,
        emit: Emitter,
        values: Mapping[Port, Port],
        args: Mapping[Port, Sequence[Port]],
    ) -> None:
        graph = function.graph
        for k, port in enumerate(self._step.nexts):
            if k not in self._plan:
                graph.add_result(graph.unique_name(f"next_{k}"), values[port])
                continue
            olds = args[self._step.states[k]]
            for n, (part, old) in enumerate(zip(self._plan[k], olds, strict=True)):
                value = values[part.port]
                if part.mask is not None:
                    condition, keeps = values[part.mask[0]], part.mask[1]
                    branches = [old, value] if keeps else [value, old]
                    value = emit.node("Select", [condition, *branches], {"T": dtype_of(old)})
                graph.add_result(graph.unique_name(f"next_{k}_{n}"), value)
        for k, port in enumerate(self._step.ys):
            graph.add_result(graph.unique_name(f"y_{k}"), values[port])


def _columns(emit: Emitter, value: Port, part: _Part) -> Port:
    bounds = [
        emit.constant(np.array(pair, np.int32), name)
        for name, pair in (("begin", [0, part.start]), ("size", [-1, part.stop - part.start]))
    ]
    return emit.node(
        "Slice", [value, *bounds], {"T": dtype_of(value), "Index": DType.INT32}, "part"
    )


def _join(emit: Emitter, values: Sequence[Port]) -> Port:
    return emit.concat(values, "packed", axis=1)


def _forward(emit: Emitter, whole: Port, parts: Sequence[tuple[Port, _Part]]) -> None:
    """Make cuts of a value that is put together from parts read the parts themselves."""
    pending = [(whole, list(parts))]
    while pending:
        port, within = pending.pop()
        low, high = within[0][1].start, within[-1][1].stop
        for use in emit.graph.uses(port):
            if use.node.op == "Identity":
                pending.append((Port(use.node), within))
                continue
            for index, (a, b) in enumerate(_cuts(use.node, port, high - low)):
                inside = [p for p in within if low + a <= p[1].start and p[1].stop <= low + b]
                if sum(p[1].stop - p[1].start for p in inside) != b - a or a == b:
                    continue
                alone = len(inside) == 1
                value = inside[0][0] if alone else _join(emit, [p for p, _ in inside])
                emit.graph.replace_uses(Port(use.node, index), value)
                if not alone:
                    pending.append((value, inside))
            sweep(emit.graph, [use.node])
