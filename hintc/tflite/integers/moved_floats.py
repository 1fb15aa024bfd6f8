"""Operators that take floats apart do so in float.

The quantiser is told which operators stay in float by name, but one of several results has none of
its own to it: a SPLIT or UNPACK in a layer that stays in float would take every value through int8,
between a QUANTIZE and DEQUANTIZEs. These go.
"""

from __future__ import annotations

import numpy as np

from hintc.tflite.flatbuffer import Model, Operator, Subgraph

_PARTS = {"UNPACK": 0, "SPLIT_V": 0, "SPLIT": 1}
"""Operators of several results -> which operand has the values."""
_BACK = "DEQUANTIZE"
_Readers = dict[int, list[Operator]]


def move_floats(model: Model) -> None:
    """Lets each such operator read and give floats where only floats are before and behind it.

    Args:
        model: quantised; is changed.
    """
    for subgraph in model.subgraphs:
        _move_floats(subgraph)


def _move_floats(subgraph: Subgraph) -> None:
    readers = _readers(subgraph)
    chosen = _between_floats(subgraph, readers)
    gone: list[Operator] = []
    for op, place in chosen.values():
        before = subgraph.producer(op.inputs[place])
        if before is not None and id(before) not in chosen:
            op.inputs[place] = before.inputs[0]
            gone.append(before)
        for result in op.outputs:
            tensor = subgraph.tensor(result)
            tensor.type, tensor.quantization = subgraph.tensor(op.inputs[place]).type, None
            for back in readers.get(result, ()):
                if id(back) not in chosen:
                    _bypass(back, readers)
                    gone.append(back)
    _remove_unread(subgraph, gone)


def _between_floats(subgraph: Subgraph, readers: _Readers) -> dict[int, tuple[Operator, int]]:
    """Those with a QUANTIZE of floats before and DEQUANTIZEs behind, or others of them."""
    found = {
        id(op): (op, place)
        for op in subgraph.operators
        if (place := _PARTS.get(subgraph.model.op_name(op))) is not None
        and subgraph.dtype(op.inputs[place]) == np.int8
    }
    outputs = {int(index) for index in subgraph.graph.outputs}
    wrong: list[int] | None = None
    while wrong is None or wrong:
        wrong = []
        for key, (op, place) in found.items():
            before = subgraph.producer(op.inputs[place])
            behind = [reader for result in op.outputs for reader in readers.get(result, ())]
            ends = {result for reader in behind for result in reader.outputs} | {*op.outputs}
            if (
                ends & outputs
                or not (id(before) in found or _stores_floats(subgraph, before))
                or not all(id(r) in found or _is(subgraph, r, _BACK) for r in behind)
            ):
                wrong.append(key)
        for key in wrong:
            del found[key]
    return found


def _bypass(op: Operator, readers: _Readers) -> None:
    """What reads the operator's result reads its operand."""
    (result,) = op.outputs
    for reader in readers.get(result, ()):
        reader.inputs = [op.inputs[0] if index == result else index for index in reader.inputs]


def _readers(subgraph: Subgraph) -> _Readers:
    found: _Readers = {}
    for op in subgraph.operators:
        for index in dict.fromkeys(op.inputs):
            found.setdefault(index, []).append(op)
    return found


def _is(subgraph: Subgraph, op: Operator, name: str) -> bool:
    return subgraph.model.op_name(op) == name


def _stores_floats(subgraph: Subgraph, op: Operator | None) -> bool:
    """True for a QUANTIZE of float32, to int8."""
    return (
        op is not None
        and _is(subgraph, op, "QUANTIZE")
        and (subgraph.dtype(op.inputs[0]) == np.float32)
    )


def _remove_unread(subgraph: Subgraph, gone: list[Operator]) -> None:
    """Removes those of these operators whose results nothing reads any more."""
    if not gone:
        return
    read, about = subgraph.read_tensors(), {id(op) for op in gone}
    subgraph.operators = [
        op
        for op in subgraph.operators
        if id(op) not in about or any(result in read for result in op.outputs)
    ]
