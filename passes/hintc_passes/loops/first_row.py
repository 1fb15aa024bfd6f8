"""Loops that start after the first row: what tf.scan makes where it is given no initializer.

The first row of the inputs, read backwards the last one, is the initial state and the first output:
it is taken from the list of inputs, and written to the list of outputs, before the loop.
"""

from __future__ import annotations

from hintc.graphdef.emit import Emitter
from hintc.ir import Graph, Node, Port
from hintc_passes.analysis.values import readers, source_of
from hintc_passes.loops.linear import STEP, Linear
from hintc_passes.loops.while_loop import Variable, WhileLoop, bad_list


def read_tensors(graph: Graph, loop: Node) -> None:
    """Take the rows of a loop's lists that are read outside of it from the tensors behind them."""
    for port in loop.operands:
        made = source_of(port).node
        if made.op != "TensorListFromTensor":
            continue
        for reader, slot in readers(graph, Port(made)):
            if reader.op == "TensorListGetItem" and slot == 0:
                graph.set_operand(reader, 0, made.operands[0])
                as_gather(graph, reader)


def as_gather(graph: Graph, item: Node) -> Port:
    """The row that a TensorListGetItem, whose list is a tensor now, takes; under its name."""
    name = item.name
    graph.rename(item, graph.unique_name(f"{name}/list"))
    emit = Emitter(graph, "", item.origin or (name,))
    row = emit.gather(item.operands[0], item.operands[1], name)
    graph.set_controls(row.node, item.controls)
    graph.replace_uses(Port(item), row)
    graph.replace_control_uses(item, [row.node])
    graph.remove(item)
    return row


def follows_first(
    loop: WhileLoop, variable: Variable, before: Node, index: Linear | None, trip: Linear
) -> bool:
    """Whether the steps go on backwards from the row that was written before the loop.

    Args:
        loop: that writes the list `variable`.
        variable: the list.
        before: what writes that row.
        index: where a step writes.
        trip: number of steps.

    Raises:
        Refused: the steps do not write just the rows beside it, in order.
    """
    at, step = loop.sizes.form(before.operands[1]), Linear.of(STEP)
    if at == Linear(0) and index == Linear(1) + step:
        return False
    if at == trip and index == trip - Linear(1) - step:
        return True
    raise bad_list(variable, "a row of it is written before the loop, which does not go on there")


def join_first(emit: Emitter, before: Node, rows: Port, backwards: bool) -> Port:
    """All rows of a list: the one from before the loop, and those of the steps in order of time."""
    first = emit.expand(before.operands[2], f"{before.name}/first")
    return emit.concat([rows, first] if backwards else [first, rows], f"{before.name}/all")
