"""A cell that is called once → a Scan of one step, if its maths is a kernel's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hintc.graft import COLOCATION, graft
from hintc.graphdef.emit import Emitter, constant_array
from hintc.ir import DType, Function, Module, Node, Port, Scan, Shape
from hintc.ir.scan import dtype_of
from hintc_passes.analysis.values import is_small, readers, source_of, sweep
from hintc_passes.cells.difference import Difference
from hintc_passes.cells.fuse import normal_form
from hintc_passes.cells.step_values import Result
from hintc_passes.steps.finding import PRODUCTS, FoundStep, is_state_of_zeros

Match = Callable[[Sequence[Result], Sequence[Result]], object]
"""Raises `Difference` where the next states and outputs are not those of a kernel's cell."""


@dataclass(frozen=True)
class Ends:
    """Which of a step's values are its states.

    Attributes:
        hidden: the hidden state that it starts with.
        new_hidden: the one that it leaves, projected if it is.
        width: their number of columns.
        nodes: the projection and its clip.
    """

    hidden: Port
    new_hidden: Port
    width: int
    nodes: tuple[Node, ...] = ()

    def results(self, step: FoundStep) -> list[Port]:
        """The new states, in the order of the states."""
        return [self.new_hidden, *([] if step.new_cell is None else [step.new_cell])]


def ends_of(step: FoundStep, shapes: Mapping[Port, Shape]) -> Ends | None:
    """Which source is the hidden state: zeros, else the last that is as wide as what it becomes.

    Either choice is right for one step, as inputs and hidden state are both but multiplied.

    Args:
        step: found.
        shapes: of its values.
    """
    widths = {port: width_of(shapes.get(port)) for port in step.values}
    width = widths[step.end]
    if width is None or None in widths.values():
        return None
    zeros = [p for p in step.sources if is_state_of_zeros(p)]
    fitting = zeros if len(zeros) == 1 else [p for p in step.sources if widths[p] == width]
    if fitting and widths[fitting[-1]] == width:
        return Ends(fitting[-1], step.end, width)
    for hidden in reversed(fitting or list(step.sources)):
        projected = _projection(step, widths[hidden])
        if projected:
            return Ends(hidden, Port(projected[-1]), widths[hidden] or 0, projected)
    return None


def width_of(shape: Shape | None) -> int | None:
    """Columns of a value ``[batch, n]``, None if that is not its shape or n is not known."""
    dims = None if shape is None else shape.dims
    return dims[1] if dims is not None and len(dims) == 2 and dims[1] > 0 else None


def _projection(step: FoundStep, columns: int | None) -> tuple[Node, ...]:
    """The product with a matrix of so many columns, and the clip of what it gives."""
    graph = step.end.node.graph
    products = [n for n, slot in readers(graph, step.end) if n.op == "MatMul" and slot == 0]
    found = [n for n in products if _columns(n) == columns]
    if len(found) != 1:
        return ()
    reading = readers(graph, Port(found[0]))
    if len(reading) == 1 and reading[0][0].op == "ClipByValue":
        found.append(reading[0][0])
    elif len(reading) == 1 and reading[0][0].op in ("Minimum", "Maximum"):
        second = readers(graph, Port(reading[0][0]))
        if len(second) == 1 and {second[0][0].op, reading[0][0].op} == {"Minimum", "Maximum"}:
            found += [reading[0][0], second[0][0]]
    return tuple(found)


def _columns(product: Node) -> int | None:
    weight = source_of(product.operands[1]).node
    if weight.op != "Const" or product.attributes.get("transpose_a"):
        return None
    rows, columns = constant_array(weight).shape
    return int(rows if product.attributes.get("transpose_b") else columns)


def doubt_about(step: FoundStep, ends: Ends) -> str:
    """Why the new states may not be what the next step starts with; "" if they surely are."""
    graph = step.end.node.graph
    if sum(map(is_state_of_zeros, step.sources)) > 1:
        return "it multiplies more than one value of zeros, and nothing tells which is its state"
    reading = [node for port in ends.results(step) for node, _ in readers(graph, port)]
    if any(node.op in ("Select", "SelectV2") for node in reading):
        return "a mask or a length decides whether the state takes its new value"
    if step.cell is not None and not ends.nodes and any(_projects(n, ends) for n in reading):
        return "a square matrix multiplies its output: a projection in the cell or a layer after it"
    return ""


def _projects(product: Node, ends: Ends) -> bool:
    """True for ``h P`` with a square matrix, and without a bias, as in cells with a projection."""
    if product.op != "MatMul" or _columns(product) != ends.width:
        return False
    added = [n.op in ("Add", "AddV2", "BiasAdd") for n, _ in readers(product.graph, Port(product))]
    return not any(added)


def proved_step(
    module: Module, step: FoundStep, ends: Ends, shapes: Mapping[Port, Shape], match: Match
) -> Scan:
    """The Scan of one step that a cell is; its inputs are not sequences yet.

    Args:
        module: has the cell in its main graph; gets the step function.
        step: the cell.
        ends: its states.
        shapes: of its sources and its cell state.
        match: of the kernel.

    Raises:
        Difference: the step is not the kernel's cell; nothing was changed.
    """
    inputs = [p for p in step.sources if p != ends.hidden]
    states = [ends.hidden] + ([step.cell] if step.cell is not None else [])
    function, weights = _step_function(step, ends, inputs)
    scan = Scan(
        module.add_function(function).name,
        ends.hidden,  # stands for the number of steps until that is there
        tuple(inputs),
        tuple(states),
        tuple(weights),
        (False,) * len(inputs),
        (),
        unrolled=True,
    )
    widths = {p: width_of(shapes.get(p)) or 0 for p in (*inputs, *states)}
    try:
        match(normal_form(module, scan, shapes, widths), ())
    except Difference:
        del module.functions[function.name]
        raise
    return scan


def put_step(module: Module, proved: Scan, step: FoundStep, ends: Ends) -> Node:
    """Put the Scan in the place of the cell; what reads the new states reads its results."""
    graph, last = step.end.node.graph, ends.new_hidden.node
    nodes = [*step.nodes, *ends.nodes]
    origin = tuple(dict.fromkeys(o for n in nodes for o in n.origin or (n.name,)))
    name = graph.unique_name(f"{last.name}/recurrence")
    emit = Emitter(graph, name, origin)
    scan = replace(
        proved,
        trip_count=emit.constant(np.int32(1), "trip_count"),
        xs=tuple(_sequence(emit, x) for x in proved.xs),
    ).add_to(module, graph, name=name, origin=origin)
    scan.device = last.device
    results = ends.results(step)
    for at, result in enumerate(results):
        graph.replace_uses(result, Port(scan, at))
    sweep(graph, [result.node for result in results])
    return scan


def _sequence(emit: Emitter, x: Port) -> Port:
    """``[1, *shape of x]``: what `x` was taken from, or x with an axis in front."""
    before = x.node
    if before.op == "Unpack" and (before.attributes.get("num"), _axis(before)) == (1, 0):
        return before.operands[0]
    return emit.expand(x, "sequence")


def _axis(node: Node) -> object:
    return node.attributes.get("axis", 0)


def _step_function(
    step: FoundStep, ends: Ends, inputs: Sequence[Port]
) -> tuple[Function, list[Port]]:
    """``(t, *inputs, h[, c], *weights) -> (h[, c])``, and what the weights are outside."""
    function = Function("one_step")
    function.add_arg("t", DType.INT32)
    factors = {p: Port(function.add_arg(f"x_{k}", dtype_of(p))) for k, p in enumerate(inputs)}
    factors[ends.hidden] = Port(function.add_arg("h", dtype_of(ends.hidden)))
    values: dict[Port, Port] = {}
    if step.cell is not None:
        values[step.cell] = Port(function.add_arg("c", dtype_of(step.cell)))
    nodes = [*step.nodes, *ends.nodes]
    weights = _add_constants(function, nodes, values)
    for node in nodes:
        # the two states may be the same zeros: products read one, what is element-wise the other
        is_product = node.op in PRODUCTS or node in step.joins
        known = values | factors if is_product else values
        copy = _copied(function, node, [known[source_of(p)] for p in node.operands])
        for index in {p.index for p in _ports_of(node)}:
            values[Port(node, index)] = Port(copy, index)
    function.graph.add_result("next_h", values[ends.new_hidden])
    if step.new_cell is not None:
        function.graph.add_result("next_c", values[step.new_cell])
    return function, weights


def _add_constants(
    function: Function, nodes: Sequence[Node], values: dict[Port, Port]
) -> list[Port]:
    """Constants that the nodes read: weights as arguments, small ones copied; the weights."""
    read = dict.fromkeys(source_of(p) for node in nodes for p in node.operands)
    constants = [p for p in read if p.node.op == "Const" and p not in values]
    weights = [p for p in constants if not is_small(p.node)]
    for port in weights:
        values[port] = Port(function.add_arg(port.node.name, dtype_of(port)))
    small = [p.node for p in constants if is_small(p.node)]
    for node, copy in graft(small, function.graph, {}).items():
        function.graph.set_controls(copy, [])
        values[Port(node)] = Port(copy)
    return weights


def _copied(function: Function, node: Node, operands: Sequence[Port]) -> Node:
    attributes, graph = node.attributes.copy(), function.graph
    if COLOCATION in attributes:
        del attributes[COLOCATION]
    copy = graph.append(graph.unique_name(node.name), node.op, attributes)
    copy.device, copy.result_names, copy.source = node.device, node.result_names, node.source
    copy.origin = node.origin or (node.name,)
    graph.set_operands(copy, operands)
    return copy


def _ports_of(node: Node) -> Iterable[Port]:
    """The results of a node that something reads."""
    return [Port(node), *(u.node.operands[u.slot] for u in node.graph.uses(node))]
