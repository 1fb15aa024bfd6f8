"""int8 inputs and outputs of a quantised model, instead of QUANTIZE and DEQUANTIZE at its ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hintc.tflite.flatbuffer import Operator, Subgraph
from hintc.tflite.schema import schema

Range = tuple[float, float] | None
_LEAST, _STEPS = -128, 255
"""int8: the least value, and the steps from it to the greatest."""


def make_ends_integer(
    subgraph: Subgraph, inputs: Sequence[Range], outputs: Sequence[Range]
) -> None:
    """Makes the float inputs and outputs of a quantised model int8; others stay.

    An end that is quantised right inside takes that tensor's scale. One that is float inside, as
    its layer is kept so, is converted there, in the scale that its range gives.

    Args:
        subgraph: the model's main one; is changed.
        inputs: least and greatest value of each input, None where there is none.
        outputs: the same of each output.
    """
    graph = subgraph.graph
    before: list[Operator] = []
    behind: list[Operator] = []
    for place, tensor in enumerate(graph.inputs):
        if subgraph.dtype(tensor) == np.float32:
            graph.inputs[place], made = _integer_input(subgraph, tensor, inputs[place])
            before += made
    for place, tensor in enumerate(graph.outputs):
        if subgraph.dtype(tensor) == np.float32:
            graph.outputs[place], made = _integer_output(subgraph, tensor, outputs[place])
            behind += made
    subgraph.operators = [*before, *subgraph.operators, *behind]
    read = subgraph.read_tensors()
    converting = ("QUANTIZE", "DEQUANTIZE")
    subgraph.operators = [
        op
        for op in subgraph.operators
        if subgraph.model.op_name(op) not in converting or op.outputs[0] in read
    ]


def _integer_input(subgraph: Subgraph, tensor: int, ends: Range) -> tuple[int, list[Operator]]:
    """The int8 tensor that takes the input's place, and what its float readers need."""
    readers = [op for op in subgraph.operators if tensor in op.inputs]
    for op in readers:
        found = op.outputs[0]
        if subgraph.model.op_name(op) == "QUANTIZE" and subgraph.dtype(found) == np.int8:
            subgraph.operators = [other for other in subgraph.operators if other is not op]
            if len(readers) == 1 and tensor not in subgraph.graph.outputs:
                return found, []
            break
    else:
        found = _int8_tensor(subgraph, tensor, ends)
    options = "DequantizeOptions"
    return found, [subgraph.make_op("DEQUANTIZE", [found], [tensor], version=2, options=options)]


def _integer_output(subgraph: Subgraph, tensor: int, ends: Range) -> tuple[int, list[Operator]]:
    """The int8 tensor that takes the output's place, and what makes it."""
    op = subgraph.producer(tensor)
    if op is not None and subgraph.model.op_name(op) == "DEQUANTIZE":
        source = int(op.inputs[0])
        if subgraph.dtype(source) == np.int8:
            return source, []
    made = _int8_tensor(subgraph, tensor, ends)
    return made, [subgraph.make_op("QUANTIZE", [tensor], [made], options="QuantizeOptions")]


def _int8_tensor(subgraph: Subgraph, tensor: int, ends: Range) -> int:
    """A new int8 tensor like the float one, with a scale that covers its range."""
    made = subgraph.add_tensor(
        f"{subgraph.tensor_name(tensor)}_int8", subgraph.shape(tensor) or (), np.int8
    )
    subgraph.tensor(made).quantization = _scale(ends or (0.0, 0.0))
    return made


def _scale(ends: tuple[float, float]) -> Any:
    """Scale and zero point: 0 is represented exactly."""
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    scale = (high - low) / _STEPS or 1.0
    parameters = schema().QuantizationParametersT()
    parameters.scale = [scale]
    parameters.zeroPoint = [round(_LEAST - low / scale)]
    return parameters
