"""Operators that TFLite Micro has under another name, or out of others.

* SELECT of three values of one shape is SELECT_V2, which knows no int32; of these it is
  ``b + (a - b) · condition`` (Keras 3 looks embeddings up so);
* TILE of axes of size 1 is BROADCAST_TO (`RepeatVector`).
"""

from __future__ import annotations

import numpy as np

from hintc.tflite.flatbuffer import Model, Operator, Subgraph


def spell_for_micro(model: Model) -> int:
    """Replaces such operators; returns how many.

    Args:
        model: is changed.
    """
    return sum(_spell(subgraph) for subgraph in model.subgraphs)


def _spell(subgraph: Subgraph) -> int:
    operators: list[Operator] = []
    found = 0
    for op in subgraph.operators:
        spell = _SPELLINGS.get(subgraph.model.op_name(op))
        spelled = spell(subgraph, op) if spell is not None else [op]
        found += spelled != [op]
        operators += spelled
    subgraph.operators = operators
    return found


def _select(subgraph: Subgraph, op: Operator) -> list[Operator]:
    if len({subgraph.shape(tensor) for tensor in op.inputs}) > 1:
        return [op]
    if subgraph.dtype(op.outputs[0]) == np.int32:
        return _select_integers(subgraph, op)
    return [subgraph.make_op("SELECT_V2", op.inputs, op.outputs, options="SelectV2Options")]


def _select_integers(subgraph: Subgraph, op: Operator) -> list[Operator]:
    condition, a, b = op.inputs
    shape, name = subgraph.shape(a) or (), subgraph.tensor_name(op.outputs[0])
    as_number, more, added = (
        subgraph.add_tensor(f"{name}/{part}", shape, np.int32)
        for part in ("condition", "difference", "added")
    )
    kinds = [subgraph.tensor(tensor).type for tensor in (condition, a)]
    fields = {"inDataType": kinds[0], "outDataType": kinds[1]}
    return [
        subgraph.make_op("CAST", [condition], [as_number], options="CastOptions", fields=fields),
        subgraph.make_op("SUB", [a, b], [more], options="SubOptions"),
        subgraph.make_op("MUL", [more, as_number], [added], options="MulOptions"),
        subgraph.make_op("ADD", [b, added], op.outputs, options="AddOptions"),
    ]


def _tile(subgraph: Subgraph, op: Operator) -> list[Operator]:
    source, times = op.inputs
    sizes, multiples = subgraph.shape(source), subgraph.constant(times)
    if sizes is None or -1 in sizes or multiples is None:
        return [op]
    if any(size > 1 and many > 1 for size, many in zip(sizes, multiples, strict=True)):
        return [op]
    shape = np.array(sizes, np.int32) * multiples.astype(np.int32)
    name = f"{subgraph.tensor_name(op.outputs[0])}/shape"
    inputs = [source, subgraph.add_constant(name, shape)]
    return [
        subgraph.make_op(
            "BROADCAST_TO", inputs, op.outputs, version=2, options="BroadcastToOptions"
        )
    ]


_SPELLINGS = {"SELECT": _select, "TILE": _tile}
