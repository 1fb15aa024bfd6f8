"""Cells of the kernel table on integers: the quantised model, and calls of its kernel.

Inputs and initial states are multiples of their scales, so that quantising them cannot round.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from custom_model import Floats
from hintc.ops import SVDF, Target, integer_lstm, integer_svdf
from hintc.ops.fixed_point import Integers, saturated
from hintc.ops.quantized import Quantized
from hintc.tflite.flatbuffer import Model, Subgraph
from hintc.tflite.integers.cell_ranges import INTERMEDIATES
from hintc.tflite.integers.quantize import IntegerModel, quantize_to_int8
from hintc.tflite.kernel import Kernel, state_kernels
from hintc.tflite.legalize import legalize_model
from kernel_cases import BATCH, Case


def quantised(case: Case, target: Target = "tflite") -> IntegerModel:
    """The model of a case, its ranges from the case's feeds and some like them."""
    legalized = legalize_model(case.model(), quantize="int8", target=target)
    assert not legalized.notes
    main = Model.read(legalized.tflite).subgraphs[0]
    names = [main.tensor_name(tensor) for tensor in main.graph.inputs]
    random = np.random.default_rng(0)
    feeds = case.feeds(BATCH)
    samples = [[feeds[name] for name in names]]
    for _ in range(3):
        signs = {name: random.choice([-1, 1], feeds[name].shape) for name in names}
        samples.append([(feeds[name] * signs[name]).astype(np.float32) for name in names])
    return quantize_to_int8(legalized.tflite, samples, target=target)


def only_kernel(made: IntegerModel) -> Kernel:
    """The kernel of the model."""
    (kernel,) = state_kernels(Model.read(made.tflite).subgraphs[0])
    return kernel


def stored(graph: Subgraph, tensor: int) -> Quantized:
    """A tensor's scale and, if it is a constant, its integers."""
    value = graph.constant(tensor)
    parameters = graph.tensor(tensor).quantization
    return Quantized(
        np.zeros(0, np.int8) if value is None else value,
        float(parameters.scale[0]),
        int(parameters.zeroPoint[0]),
    )


class IntegerCall:
    """What an integer kernel reads in one invoke, as integers and as the model's float inputs."""

    def __init__(self, case: Case, kernel: Kernel, batch: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.case, self.kernel, self.graph = case, kernel, kernel.subgraph
        self.operands = {slot: stored(self.graph, t) for slot, t in kernel.operands.items()}
        self.feeds: dict[str, Floats] = {}
        for slot, tensor in kernel.states.items():
            shape = (batch, self.graph.tensor(tensor).shape[1])
            self._set(slot, np.full(shape, self.operands[slot].zero_point))
        for slot, like in case.feeds(batch).items():
            is_wide = self.graph.dtype(kernel.operands[slot]) == np.int16
            reach = 4000 if is_wide else 127
            value = self._set(slot, random.integers(-reach - 1, reach + 1, like.shape))
            scaled = (value.integers - value.zero_point).astype(np.float32)
            self.feeds[slot] = scaled * np.float32(value.scale)

    def expected(self) -> dict[str, Floats]:
        """What the model gives."""
        return self._of_svdf() if self.case.op is SVDF else self._of_lstm()

    def step(self, name: str) -> float:
        """Of a result of an LSTM: what its integers count."""
        return self._scale(name).scale

    def _scale(self, name: str) -> Quantized:
        return self.operands["cell_state" if "cell" in name else "output_state"]

    def _of_lstm(self) -> dict[str, Floats]:
        """By the reference of sequences; a single step is a sequence of one."""
        inside = {
            name: stored(self.graph, tensor)
            for name, tensor in zip(INTERMEDIATES, self.kernel.intermediates, strict=True)
            if self.graph.tensor(tensor).quantization.scale is not None
        }
        operands, attributes = dict(self.operands), dict(self.case.attributes)
        step = operands["input"].values.ndim == 2
        if step:
            operands["input"] = replace(operands["input"], values=operands["input"].values[None])
            attributes["time_major"] = True
        found = integer_lstm.reference(operands, inside, attributes)
        found = {**found, "output": found["output"][0]} if step else found
        return {name: real(self._scale(name), values) for name, values in found.items()}

    def _of_svdf(self) -> dict[str, Floats]:
        """By the reference, and what stands behind the kernel: an ADD, and a TANH."""
        (tensor,) = self.kernel.op.outputs
        scale = stored(self.graph, tensor)
        # what the kernel shall cut off its limits do; another activation it refuses, or ignores
        kernel = self.kernel.attributes["activation"], scale.zero_point
        assert kernel == ("RELU", -128)
        found = integer_svdf.reference(self.operands, scale, self.case.attributes)
        output = found["output"]
        readers = {op.inputs[0]: op for op in self.graph.operators}
        names = []
        while (op := readers.get(tensor)) and self.graph.model.op_name(op) in ("ADD", "TANH"):
            names.append(self.graph.model.op_name(op))
            (tensor,) = op.outputs
            if names[-1] == "TANH":
                output = saturated(np.rint(np.tanh(real(scale, output)) * 128).astype(int), 8)
            scale = stored(self.graph, tensor)  # the ADD moves the zero point alone
        activation = self.case.attributes.get("activation", "NONE")
        assert names == {"NONE": ["ADD"], "TANH": ["ADD", "TANH"]}.get(activation, [])
        return {
            "output": real(scale, output),
            "final_state": real(self.operands["state"], found["final_state"]),
        }

    def _set(self, slot: str, values: npt.NDArray[np.int64]) -> Quantized:
        self.operands[slot] = replace(self.operands[slot], values=values)
        return self.operands[slot]


def real(scale: Quantized, values: Integers) -> Floats:
    """Integers as DEQUANTIZE gives them."""
    return (values - scale.zero_point).astype(np.float32) * np.float32(scale.scale)
