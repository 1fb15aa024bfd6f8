"""The zeros ``[T, …]`` that a loop writes one of its outputs into."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hintc.graft import graft
from hintc.graphdef.emit import Emitter, known_array
from hintc.ir import Graph, Module, Node, Port, Scan, Shape, producers
from hintc.ir.scan import dtype_of

_SAME_SHAPE = frozenset(
    (
        *("Identity", "StopGradient", "Tanh", "Sigmoid", "Relu", "Relu6", "Elu", "Selu"),
        *("Softplus", "Softsign", "Neg", "Exp", "Log", "Sqrt", "Square", "Abs", "Cast"),
        *("Floor", "Round", "Sign", "Softmax", "LogSoftmax", "BiasAdd"),
    )
)
"""Ops whose result has the shape of operand 0."""
_SAME_AS_SECOND = frozenset(("Select",))
"""Ops whose result has the shape of operand 1."""


def source_of(port: Port) -> Port:
    """The value behind Identity nodes."""
    while port.node.op == "Identity":
        port = port.node.operands[0]
    return port


def accumulator(emit: Emitter, module: Module, scan: Scan, at: int, row: Shape) -> Port:
    """Zeros for result `at` of the body: ``[trip_count, *shape of the result]``.

    Dimensions that are not static are read at run time off a value of the same shape: an operand
    of the Scan if the step shows one, else the result of the step on zeros.
    """
    body = scan.body_function(module).graph
    value = body.results[at].operands[0]
    name = f"y_{at - len(scan.states)}"
    dtype = dtype_of(value)
    trip = known_array(scan.trip_count)
    if row.dims is not None and row.is_static and trip is not None:
        dims = emit.constant(np.array([int(trip), *row.dims], np.int32), f"{name}/shape")
        return emit.fill(dims, dtype, f"{name}/zeros")
    time = scan.trip_count if trip is None else emit.constant(np.int32(trip), f"{name}/T")
    if row.dims is None:
        tail = _run_time_shape(emit, module, scan, value, name)
        dims = emit.concat([emit.expand(time, f"{name}/time"), tail], f"{name}/shape")
    else:
        rest = None if row.is_static else _run_time_shape(emit, module, scan, value, name)
        parts = [time]
        for axis, dim in enumerate(row.dims):
            if dim >= 0 or rest is None:
                parts.append(emit.constant(np.int32(dim), f"{name}/dim_{axis}"))
            else:
                parts.append(emit.element(rest, axis, f"{name}/dim_{axis}"))
        dims = emit.pack(parts, f"{name}/shape")
    return emit.fill(dims, dtype, f"{name}/zeros")


def _run_time_shape(emit: Emitter, module: Module, scan: Scan, value: Port, name: str) -> Port:
    """The shape of a body's value, read off an operand of the Scan if the step shows one."""
    body = scan.body_function(module).graph
    xs, states = len(scan.xs), len(scan.states)
    position = {Port(arg): at for at, arg in enumerate(body.args)}
    by_value = _of_states(body, states)
    peeled = source_of(value)
    while peeled not in by_value and peeled not in position:
        if peeled.node.op in _SAME_SHAPE:
            peeled = source_of(peeled.node.operands[0])
        elif peeled.node.op in _SAME_AS_SECOND:
            peeled = source_of(peeled.node.operands[1])
        elif known := [by_value[v] for row in _packed(peeled) if (v := source_of(row)) in by_value]:
            return _shape_of_rows(emit, scan.states[known[0]], _packed(peeled), name)
        else:
            return _shape_of_trial_step(emit, module, scan, value, name)
    if peeled in by_value:
        return emit.shape(scan.states[by_value[peeled]], f"{name}/like")
    at = position[peeled] - 1
    if at < 0:
        return emit.constant(np.zeros((0,), np.int32), f"{name}/like")
    if at < xs:
        return emit.tail(emit.shape(scan.xs[at], f"{name}/x_shape"), f"{name}/like")
    operand = (*scan.states, *scan.invariants)[at - xs]
    return emit.shape(operand, f"{name}/like")


def _of_states(body: Graph, states: int) -> dict[Port, int]:
    """Values that have the shape of a state, with its position: it becomes them."""
    found: dict[Port, int] = {}
    for at in range(states):
        following = source_of(body.results[at].operands[0])
        found[following] = at
        if _takes_one_row(following.node):  # one of several steps' states
            found |= {source_of(row): at for row in _packed(following.node.operands[0])}
    return found


def _takes_one_row(node: Node) -> bool:
    """True for ``rows[index]`` along the first axis, the index visibly a scalar."""
    if node.op != "GatherV2" or node.attributes.get("batch_dims"):
        return False
    _, index, axis = node.operands
    shape = known_array(index.node.operands[1]) if index.node.op == "Reshape" else None
    at = known_array(axis)
    return shape is not None and shape.size == 0 and at is not None and int(at) == 0


def _packed(port: Port) -> tuple[Port, ...]:
    """The rows of a value that is packed along its first axis, those in any order; else none."""
    rows = source_of(port)
    is_packed = rows.node.op == "Pack" and rows.node.attributes.get("axis", 0) == 0
    return rows.node.operands if is_packed else ()


def _shape_of_rows(emit: Emitter, like: Port, rows: Sequence[Port], name: str) -> Port:
    count = emit.constant(np.array([len(rows)], np.int32), f"{name}/rows")
    return emit.concat([count, emit.shape(like, f"{name}/row_like")], f"{name}/like")


def _shape_of_trial_step(emit: Emitter, module: Module, scan: Scan, value: Port, name: str) -> Port:
    """The shape of `value` in a step run on zeros in place of the sequences (T may be 0)."""
    body = scan.body_function(module).graph
    zeros = [
        emit.fill(
            emit.tail(emit.shape(x, f"{name}/trial/x_shape"), f"{name}/trial/row_shape"),
            dtype_of(x),
            f"{name}/trial/x",
        )
        for x in scan.xs
    ]
    first = emit.constant(np.int32(0), f"{name}/trial/t")
    given = (first, *zeros, *scan.states, *scan.invariants)
    values = dict(zip((Port(arg) for arg in body.args), given, strict=True))
    needed = producers([value])
    nodes = [n for n in body.topological() if n in needed and Port(n) not in values]
    copies = graft(nodes, emit.graph, values, prefix=f"{name}/trial")
    found = values.get(value) or Port(copies[value.node], value.index)
    return emit.shape(found, f"{name}/like")
