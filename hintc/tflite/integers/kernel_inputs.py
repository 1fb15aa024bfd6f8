"""Inputs of their own for integer kernels, without which the quantiser does not know the kernels.

Where a kernel's input is also an operand of a CONCATENATION or another operator of one scale, the
quantiser drops the input's range before it looks at the kernel, finds none, and quantises the
kernel as any operator: states and time weights int8, of which the kernel reads and writes twice the
bytes (transforms/prepare_quantize_helper.h, ConvertOpStatsToQDQs; measured: heap corruption). An
operator in between that moves its values is known to have the range of what it reads. One that
changes nothing is folded away by the quantiser in the end.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from hintc.tflite.flatbuffer import Operator, Subgraph
from hintc.tflite.integers.ranges import Ranges
from hintc.tflite.kernel import state_kernels


def separate_inputs(subgraph: Subgraph, in_float: Collection[str], ranges: Ranges) -> None:
    """Puts a TRANSPOSE that leaves all axes where they are before each kernel with states.

    Args:
        subgraph: in float; is changed.
        in_float: names of kernels that stay so and need none.
        ranges: of its tensors; those of the new ones are put in.
    """
    kernels = {id(k.op) for k in state_kernels(subgraph) if k.name not in in_float}
    operators: list[Operator] = []
    for op in subgraph.operators:
        if id(op) in kernels:
            operators.append(_separated(subgraph, op, ranges))
        operators.append(op)
    subgraph.operators = operators


def _separated(subgraph: Subgraph, kernel: Operator, ranges: Ranges) -> Operator:
    source = kernel.inputs[0]
    name, shape = subgraph.tensor_name(source), subgraph.shape(source) or ()
    kernel.inputs[0] = subgraph.add_tensor(f"{name}/separate", shape)
    if (0, source) in ranges:
        ranges[0, kernel.inputs[0]] = ranges[0, source]
    order = subgraph.add_constant(f"{name}/order", np.arange(len(shape), dtype=np.int32))
    read = [source, order]
    return subgraph.make_op("TRANSPOSE", read, [kernel.inputs[0]], options="TransposeOptions")
