"""Models of CUSTOM operators, built without TensorFlow, for the tests of custom kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hintc.flexbuffer import dump_attributes
from hintc.runtime import abi_probe
from hintc.tflite.flatbuffer import Model
from hintc.tflite.schema import is_builtin, schema


@dataclass(frozen=True)
class Op:
    """One operator: a custom code, or the name of a built-in without options.

    Args:
        code: custom code; of a built-in its name in capitals.
        operands: tensor names, None for an absent one.
        results: tensor names.
        attributes: of a CUSTOM operator; bytes are its options as they are.
    """

    code: str
    operands: Sequence[str | None]
    results: Sequence[str]
    attributes: Mapping[str, Any] | bytes = field(default_factory=dict)


Tensors = Mapping[str, npt.NDArray[Any] | tuple[npt.DTypeLike, Sequence[int]]]
"""Name -> a constant, or dtype and shape with -1 where dynamic."""


def model(
    tensors: Tensors, ops: Sequence[Op], inputs: Sequence[str], outputs: Sequence[str]
) -> Model:
    """The operators in one subgraph, in this order."""
    generated = schema()
    root, graph, empty = generated.ModelT(), generated.SubGraphT(), generated.BufferT()
    root.version, root.buffers, root.operatorCodes, root.subgraphs = 3, [empty], [], [graph]
    made = Model(root)
    (subgraph,) = made.subgraphs
    index = {
        name: subgraph.add_constant(name, given)
        if isinstance(given, np.ndarray)
        else subgraph.add_tensor(name, given[1], given[0])
        for name, given in tensors.items()
    }
    operators = []
    for op in ops:
        operands = [-1 if name is None else index[name] for name in op.operands]
        results = [index[name] for name in op.results]
        if is_builtin(op.code):
            operators.append(subgraph.make_op(op.code, operands, results))
            continue
        operator = subgraph.make_op("ADD", operands, results)
        operator.opcodeIndex = made.opcode("CUSTOM", custom=op.code)
        options = op.attributes
        data = options if isinstance(options, bytes) else dump_attributes(options)
        operator.customOptions = list(data)
        operators.append(operator)
    subgraph.operators = operators
    graph.inputs = [index[name] for name in inputs]
    graph.outputs = [index[name] for name in outputs]
    return made


def probe_model() -> bytes:
    """The model of `hintc.runtime.abi_probe`."""
    tensors: dict[str, Any] = {
        name: abi_probe.OFFSET if name == "offset" else (dtype, (-1, *shape[1:]))
        for name, (dtype, shape) in abi_probe.TENSORS.items()
    }
    add, scale, split = abi_probe.CODES
    ops = [
        Op(add, ["x", None, "offset"], ["sum"]),
        Op(scale, ["sum"], ["scaled"], {"factor": abi_probe.FACTOR}),
        Op(split, ["scaled"], ["whole", "rest"]),
    ]
    made = model(tensors, ops, ["x"], ["whole", "rest"])
    quantization = schema().QuantizationParametersT()
    scale_, zero_point = abi_probe.QUANTIZED
    quantization.scale, quantization.zeroPoint = [scale_], [zero_point]
    made.root.subgraphs[0].tensors[4].quantization = quantization
    return made.write()


if __name__ == "__main__":
    abi_probe.MODEL.write_bytes(probe_model())
