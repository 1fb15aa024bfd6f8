"""The last row of a Scan's output, read off the final state that it is."""

from __future__ import annotations

from hintc.graphdef.accumulator import source_of
from hintc.graphdef.emit import known_array
from hintc.graphdef.scan_step import checked_scan
from hintc.ir import Graph, Module, Node, Port


def read_final_rows_from_states(module: Module, graph: Graph, node: Node) -> None:
    """`y[-1]` is the final state where every step outputs its next state.

    An output of which nothing else is read needs no accumulator then.

    Args:
        module: has the step function.
        graph: has the Scan.
        node: the Scan.
    """
    scan = checked_scan(module, node)
    results = [r.operands[0] for r in scan.body_function(module).graph.results]
    states = len(scan.states)
    by_value = {source_of(results[j]): j for j in reversed(range(states))}
    for k, backwards in enumerate(scan.reverse_ys):
        state = by_value.get(source_of(results[states + k]))
        if state is None or backwards:
            continue
        rows, final = Port(node, states + k), Port(node, state)
        for last in _readers_of_last(graph, rows):
            _read_instead(graph, last, final)
        for turned in _batch_major(graph, rows):
            for last in _readers_of_last(graph, Port(turned), axis=1):
                _read_instead(graph, last, final)
            if not graph.is_used(turned):
                graph.remove(turned)


def _readers_of_last(graph: Graph, rows: Port, axis: int = 0) -> list[Node]:
    return [u.node for u in graph.uses(rows) if u.slot == 0 and reads_last(u.node, axis)]


def _batch_major(graph: Graph, rows: Port) -> list[Node]:
    """The Transposes that exchange time and batch, and that something reads."""
    found = []
    for use in graph.uses(rows):
        if use.node.op == "Transpose" and use.slot == 0 and graph.is_used(use.node):
            order = known_array(use.node.operands[1])
            if order is not None and order.tolist() == [1, 0, *range(2, order.size)]:
                found.append(use.node)
    return found


def _read_instead(graph: Graph, last: Node, state: Port) -> None:
    """Readers of `last` get the final state; a node that nobody reads may be an output."""
    if not graph.is_used(last):
        return
    graph.replace_uses(Port(last), state)
    if not graph.is_used(last):
        graph.remove(last)


def reads_last(node: Node, axis: int = 0) -> bool:
    """True for ``x[-1]`` along an axis of the node's operand 0, that axis removed."""
    if node.op != "StridedSlice" or node.attributes.get("shrink_axis_mask") != 1 << axis:
        return False
    if any(node.attributes.get(mask) for mask in ("ellipsis_mask", "new_axis_mask")):
        return False
    begin = known_array(node.operands[1])
    if begin is None or begin.size <= axis or int(begin.reshape(-1)[axis]) != -1:
        return False
    # bit n of a mask says that axis n is taken from its start, or to its end
    others = (1 << begin.size) - 1 & ~(1 << axis)
    begins, ends = (node.attributes.get(mask, 0) for mask in ("begin_mask", "end_mask"))
    strides = known_array(node.operands[3])
    return (
        isinstance(begins, int)
        and isinstance(ends, int)
        and not begins & 1 << axis
        and begins & others == others
        and ends & others == others
        and strides is not None
        and bool((strides == 1).all())
    )
