"""Cells of the kernel table on integers: the quantised model, and calls of its kernel.

Inputs and initial states are multiples of their scales, so that quantising them cannot round.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from custom_model import Floats
from hintc.ops import Target
from hintc.ops.integer_lstm import Quantized, reference
from hintc.tflite.cell_ranges import INTERMEDIATES
from hintc.tflite.flatbuffer import Model, Subgraph
from hintc.tflite.kernel import Kernel, state_kernels
from hintc.tflite.legalize import legalize_model
from hintc.tflite.quantize import IntegerModel, quantize_to_int8
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
        graph = kernel.subgraph
        self.operands = {slot: stored(graph, t) for slot, t in kernel.operands.items()}
        self.feeds: dict[str, Floats] = {}
        sizes = self.operands["recurrent_to_output_weights"].values.shape
        zeros = {"cell_state": (batch, sizes[0]), "output_state": (batch, sizes[1])}
        for slot, shape in zeros.items():
            self._set(slot, np.full(shape, self.operands[slot].zero_point))
        for slot, like in case.feeds(batch).items():
            reach = 4000 if slot == "cell_state" else 127
            value = self._set(slot, random.integers(-reach - 1, reach + 1, like.shape))
            scaled = (value.integers - value.zero_point).astype(np.float32)
            self.feeds[slot] = scaled * np.float32(value.scale)
        self.inside = {
            name: stored(graph, tensor)
            for name, tensor in zip(INTERMEDIATES, kernel.intermediates, strict=True)
            if graph.tensor(tensor).quantization.scale is not None
        }

    def expected(self, case: Case) -> dict[str, npt.NDArray[np.int64]]:
        """What the reference of sequences gives; a single step is a sequence of one."""
        operands, attributes = dict(self.operands), dict(case.attributes)
        step = operands["input"].values.ndim == 2
        if step:
            operands["input"] = replace(operands["input"], values=operands["input"].values[None])
            attributes["time_major"] = True
        found = reference(operands, self.inside, attributes)
        return {**found, "output": found["output"][0]} if step else found

    def real(self, name: str, values: npt.NDArray[np.int64]) -> Floats:
        """A result as the model gives it."""
        scale = self.operands["cell_state" if "cell" in name else "output_state"]
        return (values - scale.zero_point).astype(np.float32) * np.float32(scale.scale)

    def _set(self, slot: str, values: npt.NDArray[np.int64]) -> Quantized:
        self.operands[slot] = replace(self.operands[slot], values=values)
        return self.operands[slot]
