"""Whether a hinted step computes what the kernel of its name does: numbers against numbers.

A hint says which kernel its author means, not that the body is the kernel's maths. The body runs in
TensorFlow on seeded random operands, weights included, and inputs and states of three magnitudes:
small ones see the formula, large ones see clips and bounded activations. That is enough for one
step; over a sequence it could miss a clip, so hints of whole sequences are left to fuse-lstm and
fuse-rnn. Formulas: `hintc.ops.references`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hintc.call_graph import callees
from hintc.errors import HintcError
from hintc.graphdef.lower import lower
from hintc.graphdef.shapes import infer_shapes
from hintc.hints.protocol import HintRecord
from hintc.ir import AttributeValue, FunctionRef, Module, Node, Port, Shape
from hintc.ir.scan import dtype_of
from hintc.ops import LSTM, RNN, SVDF, FusedOp
from hintc.ops.references import REFERENCES
from hintc.runtime.session import Session
from hintc_passes.hinting.refusal import NotFusedError

Array = npt.NDArray[np.float32]

_STEPS = (LSTM, RNN, SVDF)
_ROWS = 3
"""Stands for a dynamic batch."""
_MAGNITUDES = (0.5, 5.0, 500.0)
_TOLERANCE = 1e-4
"""On values of order 1: float32 sums in another order."""


def check_kernel(
    module: Module,
    node: Node,
    record: HintRecord,
    op: FusedOp,
    slots: Sequence[str],
    results: Sequence[str],
) -> None:
    """Compare the function that `node` calls with the reference of `op`.

    Args:
        module: has the function.
        node: the call; its operands are those of `slots`.
        record: the call's hint.
        op: the kernel; one that has a reference.
        slots: of the call's operands, in order.
        results: of the call, in order.

    Raises:
        NotFusedError: they differ, or the operands do not fit the kernel.
    """
    if op not in _STEPS:
        raise _refusal(record, "a hint of a whole sequence is not checked against the kernel")
    try:
        op.spec(slots, results, record.attributes)
        shapes = _shapes(module, node, op, slots)
        with Session(_calling(module, node)) as session:
            for magnitude in _MAGNITUDES:
                _compare(session, record, op, shapes, results, magnitude)
    except (HintcError, ValueError) as error:
        raise _refusal(record, f"its operands do not fit the kernel: {error}") from error


def _refusal(record: HintRecord, why: str) -> NotFusedError:
    return NotFusedError(
        "hint-not-the-kernel",
        f"The hint '{record.function}', call {record.uuid}, has the name of a kernel of TensorFlow "
        f"Lite, but {why}.",
        "Give your own function another name, or hint exactly what the kernel computes.",
    )


def _shapes(
    module: Module, node: Node, op: FusedOp, slots: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """A shape for each slot, 3 for a dynamic batch.

    Raises:
        HintcError: another size is not static, or sizes that must be equal are not.
    """
    found = infer_shapes(module, node.graph, node.operands)
    known: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for slot, port in zip(map(op.slot, slots), node.operands, strict=True):
        dims = found[port].dims
        if dims is None or len(dims) != len(slot.shape):
            raise HintcError(f"'{slot.name}' has the shape {dims}", why=f"expected {slot.shape}")
        sizes = []
        for symbol, size in zip(slot.shape, dims, strict=True):
            size = _ROWS if size < 0 and symbol in ("?", "batch") else size
            if size < 0 or (symbol != "?" and known.setdefault(symbol, size) != size):
                raise HintcError(f"'{slot.name}' has the shape {dims}", why=f"{symbol} is not it")
            sizes.append(size)
        shapes[slot.name] = tuple(sizes)
    return shapes


def _calling(module: Module, node: Node) -> Any:
    """A GraphDef of the call alone: placeholders ``operand<k>``, results ``result:<k>``."""
    ref = node.attributes["f"]
    assert isinstance(ref, FunctionRef)
    part, pending = Module(), [ref.name]
    while pending:
        name = pending.pop()
        if name not in part.functions:
            part.functions[name] = module.function(name)
            pending.extend(callees(module, module.function(name).graph))
    operands = []
    for index, port in enumerate(node.operands):
        attributes: dict[str, AttributeValue] = {"dtype": dtype_of(port), "shape": Shape(None)}
        operands.append(Port(part.graph.add("Placeholder", (), attributes, name=f"operand{index}")))
    part.graph.add(node.op, operands, node.attributes.copy(), name="result")
    return lower(part)


def _compare(
    session: Session,
    record: HintRecord,
    op: FusedOp,
    shapes: Mapping[str, tuple[int, ...]],
    results: Sequence[str],
    magnitude: float,
) -> None:
    random = np.random.default_rng(0)
    operands: dict[str, Array] = {}
    for name, shape in shapes.items():
        is_scaled = op.slot(name).kind in ("input", "state")
        scale = magnitude if is_scaled else shape[-1] ** -0.5
        operands[name] = (random.standard_normal(shape) * scale).astype(np.float32)
    feeds = {f"operand{index}": value for index, value in enumerate(operands.values())}
    fetches = [f"result:{index}" for index in range(len(results))]
    found = session.run(feeds, fetches)
    wanted = REFERENCES[op.name](operands, op.checked_attributes(record.attributes))
    for name, fetch in zip(results, fetches, strict=True):
        ours, theirs = wanted[name], found[fetch]
        if ours.shape != theirs.shape:
            raise _refusal(record, f"'{name}' has the shape {theirs.shape}, not {ours.shape}")
        error = float(np.max(np.abs(ours - theirs), initial=0.0))
        largest = float(np.max(np.abs(ours), initial=0.0))
        if not error <= _TOLERANCE * max(1.0, magnitude / 50, largest):
            raise _refusal(record, f"its '{name}' differs from the kernel's by {error:.2g}")
