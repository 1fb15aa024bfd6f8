"""How long a recurrence takes on a CPU, in each form: a sum of a few terms with measured prices.

The terms of a form are counted in its operations, products, elements and copies (`terms`); the
price of each, in nanoseconds, is in ``form_costs.json``, for each `Precision`.
``benchmarks/fit_forms.py`` fits it to what ``benchmarks/bench_forms.py`` measured. Only ratios mean
something: another CPU is faster or slower in all of it.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hintc.graphdef.emit import known_array
from hintc.graphdef.scan_lowering import known_trip_count
from hintc.graphdef.shapes import argument_shapes, infer_shapes
from hintc.ir import Graph, Module, Node, Port, Scan, Shape

FormName = Literal["fused", "unroll", "while"]
Precision = Literal["float32", "int8 weights", "integers"]
"""Of a model; with int8 weights its products are int8 and what is between them is float32."""
PRECISIONS: tuple[Precision, ...] = ("float32", "int8 weights", "integers")

ASSUMED_STEPS = 32
"""Where the number of steps is known at run time only."""
CACHE = 9 << 20
"""Bytes of weights that stay at hand; each copy of a step has its own packed weights. With 9 MB a
form that the fitted estimates choose takes at most 1.17 times what the fastest measured one does,
with 4 or 12 MB up to 1.5 or 1.3."""
MOST_STEPS = 10
"""In one iteration of a loop."""
_SMALL = 1024
"""Weights with fewer elements stay float32 in loops: the converter's own limit."""


@dataclass(frozen=True)
class Work:
    """What a Scan computes, as far as its time depends on it.

    Attributes:
        steps: their number, or `ASSUMED_STEPS`.
        batch: rows, or 1 where that is known at run time only.
        operations: in one step, without constants.
        elements: of all results of one step, for one row.
        weights: elements of the matrices that a step multiplies with.
        inputs: elements of those that only the inputs meet, before the loop.
        outputs: elements of the sequences that are given, for one step and one row.
        recurrences: how many there are in the model; they share the cache.
    """

    steps: int
    batch: int
    operations: int
    elements: int
    weights: int
    inputs: int
    outputs: int
    recurrences: int = 1

    def weight_bytes(self, precision: Precision) -> int:
        """Of one element of its matrices in loops and steps."""
        stays_float = precision == "int8 weights" and self.weights < _SMALL
        return 4 if precision == "float32" or stays_float else 1


def terms(work: Work, form: FormName, precision: Precision, tile: int = 1) -> dict[str, float]:
    """What a form has to do, by the name of its price.

    Args:
        work: of the Scan.
        form: of it.
        precision: of the model.
        tile: with "while": steps of one iteration.
    """
    steps, batch = work.steps, work.batch
    if form == "fused":
        products = steps * (work.weights + work.inputs)
        return {
            "kernel step": steps,
            "kernel product": products,
            "kernel product of a further row": products * (batch - 1),
        }
    copies = steps if form == "unroll" else tile
    size = work.weights * work.weight_bytes(precision)
    cache = CACHE / work.recurrences
    found = {
        "operation": steps * work.operations,
        "element": steps * work.elements * batch,
        "product": steps * work.weights,
        "product of a further row": steps * work.weights * (batch - 1),
        "input product": steps * work.inputs * batch,
        "byte out of cache": steps * size * max(0.0, 1 - cache / max(1, copies * size)),
    }
    if form == "while":
        iterations = math.ceil(steps / tile)
        found["iteration"] = iterations
        found["byte carried"] = iterations * steps * batch * work.outputs * 4
    return found


@functools.cache
def prices(precision: Precision) -> Mapping[str, float]:
    """Nanoseconds by term, from ``form_costs.json``."""
    text = Path(__file__).with_name("form_costs.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, float]] = json.loads(text)["prices"]
    return found[precision]


def nanoseconds(work: Work, form: FormName, precision: Precision, tile: int = 1) -> float:
    """The estimated time of one run on one thread; see `terms`."""
    price = prices(precision)
    found = terms(work, form, precision, tile).items()
    return sum(price[name] * amount for name, amount in found)


def tiles(steps: int | None) -> list[int]:
    """Steps of one iteration that are worth a look: divisors, so that nothing is padded.

    Where there is none between 4 and `MOST_STEPS`, 4 and 8 are among them, and the last tile is
    padded; likewise if the number of steps is not known.
    """
    if steps is None:
        return [1, 4, 8]
    found = [k for k in range(1, min(steps, MOST_STEPS) + 1) if steps % k == 0]
    return found if found[-1] >= 4 or steps < 4 else sorted({*found, 4, 8})


def work_of(module: Module, node: Node) -> tuple[Work, bool]:
    """The work of a Scan, and whether its batch size is known.

    A recognised one is counted as its packed spelling, any other as its step is written.
    """
    scan = Scan.of(node)
    body = scan.body_function(module).graph
    shapes = argument_shapes(module, node.graph, node)
    xs, states = shapes[1 : 1 + len(scan.xs)], shapes[1 + len(scan.xs) :][: len(scan.states)]
    batches = [s.dims[0] for s in (*xs, *states) if s.dims]
    batch = max(batches, default=-1)
    steps = known_trip_count(scan)
    outputs = [
        result.operands[0]
        for k, result in enumerate(body.results)
        if k >= len(scan.states) and node.graph.uses(Port(node, k))
    ]
    packed = _packed(scan)
    computed = [] if packed else _computed(body, 1 + len(xs) + len(states))
    found = infer_shapes(module, body, [*outputs, *computed], shapes)
    operations, elements, weights, inputs = packed or _counted(module, node, computed, found)
    given = sum(_row(found[port].dims) for port in outputs)
    work = Work(
        ASSUMED_STEPS if steps is None else steps,
        max(1, batch),
        operations,
        elements,
        weights,
        inputs,
        given,
    )
    return work, batch > 0


def _packed(scan: Scan) -> tuple[int, int, int, int] | None:
    """Operations, elements, weights and input weights of `scans.packed_cell`'s spelling."""
    if scan.fusion is None:
        return None
    sizes = {
        slot: array.shape
        for slot, port in scan.fusion.operands.items()
        if slot.endswith("weights") and (array := known_array(port)) is not None
    }
    matrices = {slot: shape for slot, shape in sizes.items() if len(shape) == 2}
    if not matrices:
        return None
    gates = [shape for slot, shape in matrices.items() if slot.startswith("recurrent")]
    inputs = sum(math.prod(s) for slot, s in matrices.items() if slot.startswith("input"))
    weights = sum(math.prod(s) for slot, s in matrices.items() if not slot.startswith("input"))
    cells = gates[0][0]
    if len(gates) == 1:  # product, sum, activation
        return 3, 3 * cells, weights, inputs
    # product, sum, split, one activation for each gate; then 5 on the cell state
    return 8 + len(gates), (3 * len(gates) + 5) * cells, weights, inputs


def _computed(body: Graph, given: int) -> list[Port]:
    """What the nodes of a step compute anew in each step; the first `given` arguments vary."""
    varying = set(body.args[:given])
    found = []
    for node in body.topological():
        if any(p.node in varying for p in node.operands) and not node.op.startswith("_"):
            varying.add(node)
            if node.op != "Identity":
                found.append(Port(node))
    return found


def _counted(
    module: Module, node: Node, computed: Sequence[Port], shapes: Mapping[Port, Shape]
) -> tuple[int, int, int, int]:
    """The same for a step as it stands; what is left of the inputs has been hoisted."""
    scan = Scan.of(node)
    body = scan.body_function(module).graph
    args = dict(zip(body.args[1 + len(scan.xs) + len(scan.states) :], scan.invariants, strict=True))
    elements = weights = 0
    for port in computed:
        elements += _row(shapes[port].dims)
        if port.node.op == "MatMul":
            matrix = port.node.operands[1]
            matrix = args.get(matrix.node, matrix)
            array = known_array(matrix)
            weights += 0 if array is None else array.size
    return len(computed), elements, weights, 0


def _row(dims: tuple[int, ...] | None) -> int:
    """Elements for one row of the batch, unknown sizes taken for 1."""
    return math.prod(max(1, d) for d in (dims or ())[1:])
