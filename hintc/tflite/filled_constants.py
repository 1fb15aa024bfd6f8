"""Large constants of one repeated element that a loop starts from: FILL makes them at run time.

The converter folds the zeros that a loop writes its outputs into; they would be stored in the file.
"""

from __future__ import annotations

import numpy as np

from hintc.tflite.flatbuffer import Model, Operator, Subgraph

STORED = 1024
"""Bytes from which a constant is worth an operator."""
_FILLED = frozenset(map(np.dtype, ("float32", "int32", "int64", "bool")))
"""Element types of FILL that a loop is likely to carry."""


def fill_constants(model: Model) -> int:
    """Let FILL make what only WHILE operators read, is large, and has equal elements.

    Args:
        model: is changed; the constants' own storage is left to `remove_unused_storage`.

    Returns:
        The number of such constants.
    """
    return sum(_fill(subgraph) for subgraph in model.subgraphs)


def _fill(subgraph: Subgraph) -> int:
    read: dict[int, set[str]] = {output: {"output"} for output in subgraph.graph.outputs}
    for op in subgraph.operators:
        name = subgraph.model.op_name(op)
        for tensor in op.inputs:
            read.setdefault(tensor, set()).add(name)
    loops = [tensor for tensor, names in read.items() if names == {"WHILE"}]
    made = [op for tensor in loops for op in _filling(subgraph, tensor)]
    if made:
        subgraph.operators = [*made, *subgraph.operators]
    return len(made)


def _filling(subgraph: Subgraph, tensor: int) -> list[Operator]:
    if subgraph.dtype(tensor) not in _FILLED:
        return []
    value = subgraph.constant(tensor)
    if value is None or value.nbytes < STORED or (value != value.flat[0]).any():
        return []
    name = subgraph.tensor_name(tensor)
    dims = subgraph.add_constant(f"{name}/dims", np.array(value.shape, np.int32))
    element = subgraph.add_constant(f"{name}/element", np.array(value.flat[0]))
    subgraph.tensor(tensor).buffer = 0
    return [subgraph.make_op("FILL", [dims, element], [tensor], options="FillOptions")]
