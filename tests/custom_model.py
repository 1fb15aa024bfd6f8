"""Models of one fused call, built without TensorFlow, for the tests of legalisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from flatbuffers import flexbuffers

from hintc.ops import PREFIX, FusedOp
from hintc.tflite.flatbuffer import Model
from hintc.tflite.schema import schema

Floats = npt.NDArray[np.float32]


def custom_model(
    op: FusedOp,
    operands: Mapping[str, Floats],
    fed: set[str],
    results: Mapping[str, tuple[int, ...]],
    attributes: Mapping[str, Any],
    batch_axes: Mapping[str, int],
) -> bytes:
    """A model of one ``hintc.`` operator; operands are constants but for those in `fed`."""
    generated = schema()
    root, graph, empty = generated.ModelT(), generated.SubGraphT(), generated.BufferT()
    root.version, root.buffers, root.operatorCodes, root.subgraphs = 3, [empty], [], [graph]
    model = Model(root)
    subgraph = model.subgraphs[0]

    def dynamic(name: str, shape: tuple[int, ...]) -> list[int]:
        return [-1 if axis == batch_axes.get(name) else n for axis, n in enumerate(shape)]

    inputs = []
    for name, value in operands.items():
        if name in fed:
            inputs.append(subgraph.add_tensor(name, dynamic(name, value.shape)))
            graph.inputs.append(inputs[-1])
        else:
            inputs.append(subgraph.add_constant(name, value))
    outputs = [subgraph.add_tensor(n, dynamic(n, shape)) for n, shape in results.items()]
    call = subgraph.make_op("ADD", inputs, outputs)
    call.opcodeIndex = model.opcode("CUSTOM", custom=PREFIX + op.name)
    spec = op.spec(list(operands), list(results), attributes)
    call.customOptions = list(flexbuffers.Dumps({"tfl_fusable_op": True, "spec": spec}))
    subgraph.operators, graph.outputs = [call], outputs
    return model.write()
