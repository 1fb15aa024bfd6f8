"""A further operator between an operator and its result."""

from __future__ import annotations

import copy

from hintc.tflite.flatbuffer import Operator, Subgraph


def written_through(
    subgraph: Subgraph, op: Operator, place: int, name: str, between: str, options: str | None
) -> Operator:
    """Lets an operator write a new tensor, of which another one makes what it wrote before.

    Args:
        subgraph: gets the tensor, like the result but without a scale.
        op: is changed.
        place: of the result among its outputs.
        name: of the tensor, behind that of the result.
        between: the other operator; its first operand is the new tensor.
        options: its options table.

    Returns:
        The other operator, which is to stand behind `op`.
    """
    result = int(op.outputs[place])
    made = copy.copy(subgraph.tensor(result))
    made.name = f"{subgraph.tensor_name(result)}/{name}".encode()
    made.quantization = None
    subgraph.graph.tensors.append(made)
    op.outputs[place] = len(subgraph.graph.tensors) - 1
    return subgraph.make_op(between, [op.outputs[place]], [result], options=options)
