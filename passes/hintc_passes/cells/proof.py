"""The numeric backstop: one step of the Scan's body in TensorFlow against the op's reference.

Recognition is a proof on the normal form; this catches a mistake in the proof itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hintc.call_graph import callees
from hintc.graphdef.lower import lower
from hintc.graphdef.spelling import GraphSpelling
from hintc.ir import AttributeValue, DType, FunctionRef, Module, Port, Scan, Shape, Tensor
from hintc.ir.scan import dtype_of
from hintc.runtime.session import Session
from hintc_passes.cells.algebra import Matrix
from hintc_passes.cells.constants import constant_value
from hintc_passes.cells.difference import Difference, varying_weight
from hintc_passes.cells.recognised import Kernel, Recognised

_BATCH = 3
_TOLERANCE = 1e-4
"""Absolute, on states of order 1: float32 sums of a few thousand terms in another order."""


def check_step(
    module: Module,
    scan: Scan,
    widths: Mapping[Port, int],
    kernel: Kernel,
    cell: Recognised,
) -> None:
    """Compare one step on seeded random input of batch 3.

    Raises:
        Difference: a next state or output is off by more than 1e-4.
    """
    random = np.random.default_rng(0)
    feeds = {
        port_name: random.standard_normal((_BATCH, width)).astype(np.float32)
        for port_name, width in _arguments(scan, widths)
    }
    got = _run_body(module, scan, feeds)
    inputs = [np.sum([feeds[f"x{at}"] for at in group], axis=0) for group in cell.x]
    operands: dict[str, Matrix] = {
        **cell.weights,
        kernel.op.slot_names[0]: np.concatenate(inputs, 1)[None],
    }
    operands.update({slot: feeds[f"state{at}"] for slot, at in cell.states.items()})
    wanted = kernel.reference(operands, cell.attributes)
    results = [wanted[name] for name in cell.final]
    results += [wanted["output"][0] for _ in scan.reverse_ys]
    for index, (ours, theirs) in enumerate(zip(results, got, strict=True)):
        error = float(np.max(np.abs(ours - theirs), initial=0.0))
        if not error <= _TOLERANCE * max(1.0, float(np.max(np.abs(theirs), initial=0.0))):
            raise Difference(
                "numbers-differ",
                f"result {index} of a step differs from {kernel.op.name} by {error:.2g}",
                "Please report this.",
            )


def _arguments(scan: Scan, widths: Mapping[Port, int]) -> list[tuple[str, int]]:
    named = [(f"x{i}", p) for i, p in enumerate(scan.xs)]
    named += [(f"state{i}", p) for i, p in enumerate(scan.states)]
    return [(name, widths.get(port, 1)) for name, port in named]


def _run_body(module: Module, scan: Scan, feeds: Mapping[str, Matrix]) -> list[Matrix]:
    body = scan.body_function(module)
    part = Module()
    pending = [body.name]
    while pending:
        name = pending.pop()
        if name not in part.functions:
            part.functions[name] = module.function(name)
            pending.extend(callees(module, module.function(name).graph))
    graph = part.graph
    operands = [_const(part, "t", Tensor.of(0, DType.INT32))]
    operands += [_placeholder(part, name) for name in feeds]
    for index, port in enumerate(scan.invariants):
        value = constant_value(port)
        if value is None:
            raise varying_weight(port)
        operands.append(_const(part, f"invariant{index}", Tensor.of(value, dtype_of(port))))
    call = graph.add(
        "PartitionedCall",
        operands,
        {
            "f": FunctionRef(body.name),
            "Tin": tuple(dtype_of(p) for p in operands),
            "Tout": tuple(dtype_of(r.operands[0]) for r in body.graph.results),
        },
        name="step",
    )
    spelling = GraphSpelling()
    fetches = [spelling.spell(Port(call, i)) for i in range(len(body.graph.results))]
    with Session(lower(part)) as session:
        results = session.run(feeds, fetches)
    return [np.asarray(results[name], np.float32) for name in fetches]


def _const(part: Module, name: str, value: Tensor) -> Port:
    return Port(part.graph.add("Const", (), {"dtype": value.dtype, "value": value}, name=name))


def _placeholder(part: Module, name: str) -> Port:
    attributes: dict[str, AttributeValue] = {"dtype": DType.FLOAT, "shape": Shape((-1, -1))}
    return Port(part.graph.add("Placeholder", (), attributes, name=name))
