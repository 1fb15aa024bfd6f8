"""Annotates Scans with the fused op whose maths their body is: what the fuse passes share."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from hintc.call_graph import needed_graphs
from hintc.graphdef.emit import Emitter
from hintc.graphdef.shapes import UNKNOWN, infer_shapes
from hintc.ir import (
    ARG,
    SCAN,
    AttributeValue,
    DType,
    Fusion,
    Graph,
    Module,
    Node,
    Port,
    Scan,
    Shape,
    Tensor,
)
from hintc.ir.scan import dtype_of
from hintc.remark import PassReport
from hintc_passes.analysis.dimensions import dimension
from hintc_passes.cells.algebra import Affine, Matrix, Opaque
from hintc_passes.cells.constants import constant_value
from hintc_passes.cells.difference import Difference, varying_weight
from hintc_passes.cells.proof import check_step
from hintc_passes.cells.recognised import Groups, Kernel
from hintc_passes.cells.rows import width_of
from hintc_passes.cells.step import Step, UnknownWidthError, symbol
from hintc_passes.cells.step_values import Result


def fuse_scans(module: Module, kernel: Kernel) -> PassReport:
    """Match every Scan that carries as many states as the kernel and has no fusion; annotate."""
    report = PassReport()
    for graph in needed_graphs(module):
        scans = [(node, Scan.of(node)) for node in graph.of_ops((SCAN,))]
        if not any(_is_candidate(scan, kernel) for _, scan in scans):
            continue
        shapes = _static_shapes(module, graph, [scan for _, scan in scans])
        widths = _static_widths([scan for _, scan in scans], shapes)
        for node, _ in scans:
            scan = Scan.of(node)  # an earlier one may have turned round what this one reads
            try:
                values = normal_form(module, scan, shapes, widths)
                widths.update(_result_widths(node, values))
                if _is_candidate(scan, kernel):
                    _complete(module, graph, scan, shapes)
                    sentence = _fuse(module, node, scan, values, shapes, widths, kernel)
                    report.fused("cell", node.name, sentence)
                    report.count("fused")
            except Difference as difference:
                if _is_candidate(scan, kernel):
                    _refuse(report, node, scan, difference)
    return report


def _is_candidate(scan: Scan, kernel: Kernel) -> bool:
    return scan.fusion is None and len(scan.states) == kernel.states


def _static_shapes(module: Module, graph: Graph, scans: Sequence[Scan]) -> dict[Port, Shape]:
    ports = [port for scan in scans for port in (*scan.xs, *scan.states)]
    return dict(infer_shapes(module, graph, ports))


def _complete(module: Module, graph: Graph, scan: Scan, shapes: dict[Port, Shape]) -> None:
    """Ask once more for what one Scan reads, where the question about all had no answer."""
    ports = (*scan.xs, *scan.states)
    missing = [port for port in ports if shapes.get(port, UNKNOWN).dims is None]
    shapes.update(infer_shapes(module, graph, missing))


def _static_widths(scans: Sequence[Scan], shapes: Mapping[Port, Shape]) -> dict[Port, int]:
    """Columns of sequences ``[T, batch, n]`` and states ``[batch, n]``, where n is static."""
    ranks = {port: 3 for scan in scans for port in scan.xs}
    ranks.update({port: 2 for scan in scans for port in scan.states})
    return {
        port: shape.dims[-1]
        for port, shape in shapes.items()
        if shape.dims is not None and shape.rank == ranks[port]
    }


def _result_widths(node: Node, values: Sequence[Result]) -> dict[Port, int]:
    """Columns of a Scan's results: what the next layer reads."""
    return {
        Port(node, index): width_of(value)
        for index, value in enumerate(values)
        if isinstance(value, tuple) and not any(isinstance(block.atom, Opaque) for block in value)
    }


def _refuse(report: PassReport, node: Node, scan: Scan, difference: Difference) -> None:
    if difference.invariant is not None:
        difference = varying_weight(scan.invariants[difference.invariant])
    hinted = f"hinted as {scan.hint}, but " if scan.hint else ""
    reason = f"{hinted}{difference.reason}."
    report.refused(difference.code, node.name, reason, difference.remedy)


def _fuse(
    module: Module,
    node: Node,
    scan: Scan,
    values: Sequence[Result],
    shapes: Mapping[Port, Shape],
    widths: dict[Port, int],
    kernel: Kernel,
) -> str:
    """Annotate one Scan; returns the sentence for the remark.

    Raises:
        Difference: the step is not the kernel's cell.
    """
    _require_float(scan)
    split = len(scan.states)
    cell = kernel.match(values[:split], values[split:])
    sequence, *_ = kernel.op.slot_names
    refusals = kernel.op.refusals([sequence, *cell.weights, *cell.states], cell.attributes)
    if refusals:
        raise Difference("kernel-limit", "; ".join(refusals))
    batch = _one_batch(scan, shapes)
    check_step(module, scan, widths, kernel, cell, batch)
    scan = _read_forward(module, node, scan, widths)
    operands = {sequence: _input(node, scan, cell.x)}
    for slot, array in cell.weights.items():
        operands[slot] = _constant(node, slot, array)
    operands.update({slot: scan.states[at] for slot, at in cell.states.items()})
    _read_first_output(node, scan)
    results = (*cell.final, *(None if k else "output" for k in range(len(scan.reverse_ys))))
    fusion = Fusion(kernel.op.name, operands, results, cell.attributes)
    scan.with_fusion(fusion).write_to(module, node)
    return f"{cell.description}: {kernel.op.name}."


def _input(node: Node, scan: Scan, groups: Groups) -> Port:
    """What the kernel reads: sequences with equal weights added, others side by side."""
    emit = Emitter(node.graph, f"{node.name}/input", (node.name,))
    parts = [functools.reduce(emit.add, [scan.xs[at] for at in group]) for group in groups]
    return emit.concat(parts, axis=2) if len(parts) > 1 else parts[0]


def _read_first_output(node: Node, scan: Scan) -> None:
    """Who reads a further output, which is h like the first, reads the first; all run forward."""
    first = len(scan.states)
    for at in range(first + 1, first + len(scan.reverse_ys)):
        node.graph.replace_uses(Port(node, at), Port(node, first))


def _require_float(scan: Scan) -> None:
    if any(dtype_of(port) is DType.BOOL for port in scan.xs):
        raise Difference(
            "masked",
            "a mask says in each step whether the state changes, and the kernel always changes it",
            "Leave the mask out (no Masking layer, mask_zero=False) where all sequences are full.",
        )
    for port in (*scan.xs, *scan.states):
        if dtype_of(port) is not DType.FLOAT:
            raise Difference(
                "not-float32",
                f"it computes in {dtype_of(port).name.lower()}, the kernel in float32",
                "Export the model in float32.",
            )


def _one_batch(scan: Scan, shapes: Mapping[Port, Shape]) -> int:
    """The static batch of sequences and states, -1 if it is not static.

    Raises:
        Difference: a batch of 1 may be broadcast against another, which no kernel does.
    """
    found: dict[int, Port] = {}
    for axis, ports in ((1, scan.xs), (0, scan.states)):
        for port in ports:
            dims = shapes[port].dims
            size = dimension(port, axis) if dims is None or dims[axis] < 0 else dims[axis]
            found.setdefault(size if isinstance(size, int) else -1, port)
    if 1 in found and len(found) > 1 and any(_is_one(shapes[x], 1) for x in scan.xs):
        (other,) = [port for size, port in found.items() if size != 1][:1]
        raise Difference(
            "batch-broadcast",
            f"a sequence has a batch of 1, and '{other}' perhaps another",
            "Give the initial states, or the input, the batch size of the other.",
        )
    return next(iter(found)) if len(found) == 1 else -1


def _is_one(shape: Shape, axis: int) -> bool:
    return shape.dims is not None and shape.dims[axis] == 1


def normal_form(
    module: Module, scan: Scan, shapes: Mapping[Port, Shape], widths: Mapping[Port, int]
) -> list[Result]:
    """Normal forms of what a Scan's step gives: next states, then outputs.

    Args:
        module: has the step function.
        scan: the Scan; what it reads need not be sequences yet.
        shapes: of what it reads, for the refusal.
        widths: columns of its sequences and states, where they are known.

    Raises:
        Difference: a result depends on an argument of which no width is known.
    """
    invariants = [constant_value(port) for port in scan.invariants]
    arguments: list[Result | None] = [
        (Affine.of(Opaque("the time index", "t", 0, 0, 1)),),
        *(_symbol("x", i, widths.get(port)) for i, port in enumerate(scan.xs)),
        *(_symbol("state", i, widths.get(port)) for i, port in enumerate(scan.states)),
        *(
            symbol("invariant", i, 1) if value is None else value
            for i, value in enumerate(invariants)
        ),
    ]
    body = scan.body_function(module).graph
    try:
        return Step(module, arguments).run(body)
    except UnknownWidthError as unknown:
        at = body.args.index(body[str(unknown)]) - 1  # the first is the index of the step
        raise _no_vector(scan, body, at, shapes) from None


def _no_vector(scan: Scan, body: Graph, at: int, shapes: Mapping[Port, Shape]) -> Difference:
    """Why a step on the sequence or state at a position cannot be written down."""
    convolution = next((n for n in body if "Conv" in n.op), None)
    if convolution is not None:
        return Difference(
            "convolution",
            f"each step computes a convolution, {convolution.op} '{convolution.name}', and "
            "recurrent kernels multiply with matrices only",
            "Keep the loop that it becomes; TFLite has no kernel for it.",
        )
    port = (*scan.xs, *scan.states)[at]
    rank = 3 if at < len(scan.xs) else 2
    found = shapes.get(port, Shape(None))
    what = "sequence" if at < len(scan.xs) else "initial state"
    if found.rank is not None and found.rank != rank:
        return Difference(
            "not-a-vector",
            f"the {what} '{port}' has the shape {found}; a kernel reads and carries one vector "
            "for each row of the batch",
        )
    return Difference(
        "unknown-width",
        f"the number of features of the {what} '{port}' is not known",
        ""
        if port.node.op == ARG and port.node.graph.args
        else "Give the model's inputs a static last dimension.",
    )


def _symbol(kind: str, index: int, width: int | None) -> Result | None:
    return symbol(kind, index, width) if width is not None and width > 0 else None


def _read_forward(module: Module, node: Node, scan: Scan, widths: dict[Port, int]) -> Scan:
    """The same recurrence with its reversals outside of it: kernels only run forward.

    What is read instead of a reversed output has its columns in `widths`.
    """
    if not any((*scan.reverse_xs, *scan.reverse_ys)):
        return scan
    xs = tuple(
        _reversed(node, x) if backwards else x
        for x, backwards in zip(scan.xs, scan.reverse_xs, strict=True)
    )
    for at, backwards in enumerate(scan.reverse_ys):
        y = Port(node, len(scan.states) + at)
        readers = node.graph.uses(y) if backwards else []
        if readers:
            flipped = _reversed(node, y)
            if y in widths:
                widths[flipped] = widths[y]
            for use in readers:
                node.graph.set_operand(use.node, use.slot, flipped)
    forward = replace(
        scan,
        xs=xs,
        reverse_xs=(False,) * len(xs),
        reverse_ys=(False,) * len(scan.reverse_ys),
    )
    forward.write_to(module, node)
    return forward


def _reversed(node: Node, sequence: Port) -> Port:
    axis = node.graph.add(
        "Const",
        (),
        {"dtype": DType.INT32, "value": Tensor.of([0], DType.INT32)},
        name=f"{node.name}/reverse/axis",
        origin=(node.name,),
    )
    return Port(
        node.graph.add(
            "ReverseV2",
            [sequence, axis],
            {"T": dtype_of(sequence), "Tidx": DType.INT32},
            name=f"{node.name}/reverse",
            origin=(node.name,),
        )
    )


def _constant(node: Node, slot: str, array: Matrix) -> Port:
    tensor = Tensor.of(np.ascontiguousarray(array, np.float32))
    attributes: dict[str, AttributeValue] = {"dtype": DType.FLOAT, "value": tensor}
    name = f"{node.name}/{slot}"
    return Port(node.graph.add("Const", (), attributes, name=name, origin=(node.name,)))
