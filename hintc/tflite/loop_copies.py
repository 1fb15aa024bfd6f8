"""Copies of values that a loop's body hands on to another place.

TFLite's WHILE writes the results of its body over the body's inputs, one after the other. A result
that is itself an input, of another position, is by then perhaps overwritten: of ``(f(a), a)`` for
the next ``(a, b)`` it makes f(a) twice. So such a result becomes a copy, made inside of the body.
"""

from __future__ import annotations

import copy

import numpy as np

from hintc.errors import HintcError
from hintc.tflite.flatbuffer import Model, Subgraph

_COPIED = frozenset(map(np.dtype, ("float32", "int8", "uint8", "int16", "int32", "int64", "bool")))
"""What CAST, from a type to itself, copies; it takes any shape, and is never done in place."""


def copy_moved_inputs(model: Model) -> int:
    """Let no body of a WHILE return one of its inputs at another position.

    Args:
        model: is changed.

    Returns:
        The number of copies.

    Raises:
        HintcError: such a value has a type that cannot be copied.
    """
    bodies = {
        op.builtinOptions.bodySubgraphIndex
        for _, op in model.operators()
        if model.op_name(op) == "WHILE"
    }
    return sum(_copy_moved(model.subgraphs[index]) for index in sorted(bodies))


def _copy_moved(body: Subgraph) -> int:
    inputs, outputs = body.graph.inputs, body.graph.outputs
    moved = [
        place
        for place, tensor in enumerate(outputs)
        if tensor in inputs and (place >= len(inputs) or inputs[place] != tensor)
    ]
    for place in moved:
        outputs[place] = _copied(body, outputs[place])
    return len(moved)


def _copied(body: Subgraph, tensor: int) -> int:
    name = body.tensor_name(tensor)
    if body.dtype(tensor) not in _COPIED:
        raise HintcError(
            "TFLite cannot run this loop",
            node=name,
            why="the body hands a value on unchanged to another loop variable, and TFLite cannot "
            "copy its type",
            remedy="Keep the value in the variable that it is in.",
        )
    made = copy.copy(body.tensor(tensor))
    made.name = f"{name}/handed_on".encode()
    body.graph.tensors.append(made)
    result = len(body.graph.tensors) - 1
    fields = {"inDataType": made.type, "outDataType": made.type}
    op = body.make_op("CAST", [tensor], [result], options="CastOptions", fields=fields)
    body.operators = [*body.operators, op]
    return result
