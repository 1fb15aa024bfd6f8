"""What quantisation costs: the quantised model against its float source on given feeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hintc.report import OutputError, QuantizationCost
from hintc.runtime.interpreter import Interpreter
from hintc.runtime.kernels import AnyKernel
from hintc.runtime.session import Session
from hintc.source import SourceModel
from hintc.tflite.flatbuffer import Model
from hintc.tflite.state import StateMode

Array = npt.NDArray[Any]
Feed = Mapping[str, Array]

_SUMS_TO_ONE = 1e-3


def quantization_cost(
    source: SourceModel,
    tflite: bytes,
    feeds: Sequence[Feed],
    *,
    measured_on: str,
    state: StateMode,
    kernels: Mapping[str, AnyKernel] | None,
) -> QuantizationCost:
    """Runs both on every feed.

    Args:
        source: the float model.
        tflite: the quantised one.
        feeds: values by tensor name, ``:0`` left out.
        measured_on: what the feeds are, in a word or two.
        state: of the quantised model; if it persists, every feed gets a new instance, as the
            source always starts from its initial state.
        kernels: for its custom operators.

    Raises:
        HintcError: a model does not run.
    """
    runner = Interpreter(tflite, kernels=kernels)
    scales = Scales(tflite)
    pairs: dict[str, list[tuple[Array, Array]]] = {name: [] for name in source.outputs}
    with Session(source.graph_def) as session:
        for feed in feeds:
            expected = session.run(feed, list(source.outputs))
            if state == "persist":
                runner = Interpreter(tflite, kernels=kernels)
            inputs = [feed[name] for name in source.inputs]
            found = scales.real(list(runner.run(scales.stored(inputs)).values()))
            for name, value in zip(source.outputs, found, strict=True):
                pairs[name].append((np.asarray(expected[name]), value))
    errors = [
        replace(_error(pairs[name]), step=step)
        for name, step in zip(source.outputs, scales.steps(), strict=True)
    ]
    names = [source.output_keys.get(name, name) for name in source.outputs]
    return QuantizationCost(measured_on, len(feeds), dict(zip(names, errors, strict=True)))


class Scales:
    """Converts between real values and those of a model's int8 inputs and outputs."""

    def __init__(self, tflite: bytes) -> None:
        self._main = main = Model.read(tflite).subgraphs[0]
        self._inputs = [main.tensor(tensor) for tensor in main.graph.inputs]
        self._outputs = [main.tensor(tensor) for tensor in main.graph.outputs]
        self._int8 = [main.dtype(tensor) == np.int8 for tensor in main.graph.inputs]

    def stored(self, values: Sequence[Array]) -> list[Array]:
        """Real inputs as the model takes them."""
        found = []
        for value, tensor, is_int8 in zip(values, self._inputs, self._int8, strict=True):
            if is_int8 and value.dtype.kind == "f":
                scale, zero = tensor.quantization.scale[0], tensor.quantization.zeroPoint[0]
                value = np.clip(np.rint(value / scale) + zero, -128, 127).astype(np.int8)
            found.append(value)
        return found

    def steps(self) -> list[float]:
        """The scale of each output, or of the int8 values that a float one is made of; else 0."""
        return [self._step(tensor) for tensor in self._main.graph.outputs]

    def _step(self, output: int) -> float:
        writer = self._main.producer(output)
        if writer is not None and self._main.model.op_name(writer) == "DEQUANTIZE":
            output = int(writer.inputs[0])
        is_int8 = self._main.dtype(output) == np.int8
        return float(self._main.tensor(output).quantization.scale[0]) if is_int8 else 0.0

    def real(self, values: Sequence[Array]) -> list[Array]:
        """Outputs as real values."""
        found = []
        for value, tensor in zip(values, self._outputs, strict=True):
            if value.dtype == np.int8 and tensor.quantization is not None:
                scale, zero = tensor.quantization.scale[0], tensor.quantization.zeroPoint[0]
                value = (value.astype(np.float32) - np.float32(zero)) * np.float32(scale)
            found.append(value)
        return found


def _error(pairs: Sequence[tuple[Array, Array]]) -> OutputError:
    largest = total = 0.0
    low, high, count = np.inf, -np.inf, 0
    same = rows = 0
    are_classes = True
    for expected, found in pairs:
        a, b = expected.astype(np.float64), found.astype(np.float64)
        difference = np.abs(a - b)
        largest = max(largest, float(difference.max(initial=0.0)))
        total, count = total + float(difference.sum()), count + difference.size
        low, high = min(low, float(a.min(initial=np.inf))), max(high, float(a.max(initial=-np.inf)))
        are_classes = are_classes and _are_classes(a)
        if are_classes:
            same += int((a.argmax(-1) == b.argmax(-1)).sum())
            rows += a.size // a.shape[-1]
    agreement = same / rows if are_classes and rows else None
    return OutputError(largest, total / max(count, 1), max(high - low, 0.0), agreement)


def _are_classes(values: Array) -> bool:
    """Whether the last axis holds the probabilities of classes."""
    if values.ndim < 2 or values.shape[-1] < 2 or values.min(initial=0.0) < 0:
        return False
    return bool(np.abs(values.sum(-1) - 1).max(initial=0.0) < _SUMS_TO_ONE)
