"""The step function of a chain: one node for each lane of nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hintc.graft import COLOCATION, graft
from hintc.ir import DType, Function, Node, Port
from hintc.ir.scan import dtype_of
from hintc_passes.chains.lanes import Chain, Kind, Lane


def step_function(
    name: str,
    chain: Chain,
    xs: Sequence[Lane],
    states: Sequence[Lane],
    ys: Sequence[Lane],
    invariants: Sequence[Port],
    inside: Sequence[Node],
    same: Mapping[Port, Port],
) -> Function:
    """``(t, *xs, *states, *invariants) -> (*next states, *ys)``.

    Lanes are told apart as a whole: two that are one value in most steps, of states that only
    start differently, say, stay two.

    Args:
        name: of the function.
        chain: proved to be equal steps.
        xs: lanes that become elements of sequences.
        states: carried lanes.
        ys: lanes that are returned.
        invariants: values of the chain's graph that become arguments.
        inside: nodes to be copied that compute other fixed values from `invariants`, in order.
        same: equal values.
    """
    function = Function(name)
    t = Port(function.add_arg("t", DType.INT32))
    values: dict[Lane, Port] = {}
    for kind, lanes in (("x", xs), ("state", states)):
        for k, lane in enumerate(lanes):
            values[lane] = Port(function.add_arg(f"{kind}_{k}", dtype_of(a_value(lane))))
    fixed = {p: Port(function.add_arg(p.node.name, dtype_of(p))) for p in invariants}
    for port, twin in same.items():  # nodes inside read equal values under other names
        if twin in fixed:
            fixed[port] = fixed[twin]
    copies = graft(inside, function.graph, fixed)
    for lane in chain.of_kind(Kind.FIXED):
        port = a_value(lane)
        values[lane] = fixed.get(port) or Port(copies[port.node], port.index)
    values |= dict.fromkeys(chain.of_kind(Kind.INDEX), t)
    results = [*(chain.following[s] for s in states), *ys]
    _compute(function, chain, results, values)
    for at, lane in enumerate(results):
        kind, k = ("next", at) if at < len(states) else ("y", at - len(states))
        function.graph.add_result(f"{kind}_{k}", values[lane])
    return function


def a_value(lane: Lane) -> Port:
    """The value of the first step."""
    port = lane[0]
    assert port is not None
    return port


def nodes_of(lane: Lane) -> tuple[Node | None, ...]:
    """The nodes that compute a lane."""
    return tuple(None if port is None else port.node for port in lane)


def _compute(
    function: Function, chain: Chain, results: Sequence[Lane], values: dict[Lane, Port]
) -> None:
    made: dict[tuple[Node | None, ...], Node] = {}
    for lane in _in_order(chain, results, values):
        key, port = nodes_of(lane), a_value(lane)
        node = made.get(key)
        if node is None:
            attributes = port.node.attributes.copy()
            if COLOCATION in attributes:
                del attributes[COLOCATION]
            graph = function.graph
            node = made[key] = graph.append(
                graph.unique_name(port.node.name), port.node.op, attributes
            )
            node.device, node.result_names = port.node.device, port.node.result_names
            node.source = port.node.source
            node.origin = port.node.origin or (port.node.name,)
            graph.set_operands(node, [values[p] for p in chain.operands[lane]])
        values[lane] = Port(node, port.index)


def _in_order(chain: Chain, results: Sequence[Lane], values: Mapping[Lane, Port]) -> Iterator[Lane]:
    """The lanes to compute, operands first."""
    todo = [(lane, False) for lane in reversed(results)]
    while todo:
        lane, is_ready = todo.pop()
        if lane in values:
            continue
        if is_ready:
            yield lane
        else:
            todo.append((lane, True))
            todo.extend((p, False) for p in reversed(chain.operands[lane]))
