"""The ranges of an LSTM's states over all steps, from what the layer reads.

The model runs once more and gives what each kernel reads; the states then follow from the op's
formulas in numpy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hintc.ops import AttributeValue
from hintc.ops.sequence_lstm import sequences
from hintc.runtime.interpreter import Interpreter
from hintc.tflite.calibrate import Ranges, Sample
from hintc.tflite.flatbuffer import Array, Model
from hintc.tflite.kernel import Kernel, state_kernels

_TOGETHER = 64
"""So many samples of one shape are computed at once, as one batch."""
_LEAST_CELL = 0.75
"""A cell state's scale is a power of two, of 2**15 steps each way, and with one below 2**-15 the
kernel computes nonsense; a range above a half makes it 2**-15 at least."""
_HIDDEN = 4
"""Place, among an LSTM's intermediate tensors, of what is projected, or is the output itself."""


def lstm_ranges(
    model: Model, samples: Sequence[Sample], ranges: Ranges, *, persist: bool
) -> Ranges:
    """Ranges of the states of every LSTM, and of what must have the same scale as they.

    Args:
        model: as `tensor_ranges` takes it; not changed.
        samples: at least one.
        ranges: what `tensor_ranges` found.
        persist: the states go on from one sample to the next.

    Returns:
        Entries that replace those of `ranges`: for the cell state, a symmetric one; for the output
        state, the output and, where there is no projection, what is written to it, one together.
    """
    traces = [
        _Trace(kernel, persist)
        for kernel in state_kernels(model.subgraphs[0])
        if kernel.knows_integers
    ]
    if not traces:
        return {}
    for values in _runs(model, {tensor for trace in traces for tensor in trace.reads}, samples):
        for trace in traces:
            trace.add(values)
    found: Ranges = {}
    for trace in traces:
        trace.compute()
        found |= trace.ranges(ranges)
    return found


class _Trace:
    """Follows the states of one LSTM.

    Attributes:
        reads: the tensors that it needs of each sample: its input, and initial states that are
            not zero.
    """

    def __init__(self, kernel: Kernel, persist: bool) -> None:
        self._kernel, self._persist = kernel, persist
        graph, operands = kernel.subgraph, kernel.operands
        states = kernel.states
        self._weights: dict[str, Array] = {}
        for slot, tensor in operands.items():
            value = graph.constant(tensor)
            if value is not None and slot not in states:
                self._weights[slot] = value
        self._fed = {"input": operands["input"]}
        for slot, variable in states.items():
            writer = graph.producer(variable)
            if writer is not None and graph.model.op_name(writer) != "FILL":
                self._fed[slot] = writer.inputs[0]
        self._waiting: list[dict[str, Array]] = []
        self._largest = 0.0
        self._last: dict[str, Array] = {}

    @property
    def reads(self) -> list[int]:
        return list(self._fed.values())

    def add(self, values: Mapping[int, Array]) -> None:
        """One sample: tensor -> value."""
        fed = {slot: values[tensor] for slot, tensor in self._fed.items()}
        rows = fed["input"].shape[self._batch_axis]
        for slot in fed.keys() - {"input"}:
            fed[slot] = np.broadcast_to(fed[slot], (rows, fed[slot].shape[-1]))
        full = self._persist or len(self._waiting) == _TOGETHER
        if self._waiting and (full or self._waiting[0]["input"].shape != fed["input"].shape):
            self.compute()
        self._waiting.append(fed)

    def compute(self) -> None:
        """Looks at the samples that wait."""
        if not self._waiting:
            return
        fed = {
            slot: np.concatenate(
                [sample[slot] for sample in self._waiting],
                axis=self._batch_axis if slot == "input" else 0,
            )
            for slot in self._fed
        }
        outputs, cells = sequences({**self._weights, **self._last, **fed}, self._attributes)
        self._largest = max(self._largest, float(np.abs(cells).max(initial=0.0)))
        if "cell_state" in fed:
            self._largest = max(self._largest, float(np.abs(fed["cell_state"]).max(initial=0.0)))
        if self._persist:
            self._last = {"output_state": outputs[-1], "cell_state": cells[-1]}
        self._waiting = []

    def ranges(self, known: Ranges) -> Ranges:
        """What was found; `known` has the ranges of the outputs and of given states."""
        kernel = self._kernel
        cell = max(self._largest, _LEAST_CELL)
        found = {(0, kernel.states["cell_state"]): (-cell, cell)}
        equal = [kernel.op.outputs[0], kernel.states["output_state"]]
        if "projection_weights" not in kernel.operands:
            equal.append(int(kernel.op.intermediates[_HIDDEN]))
        there = [known[0, tensor] for tensor in equal if (0, tensor) in known]
        joint = min(low for low, _ in there), max(high for _, high in there)
        return found | {(0, tensor): joint for tensor in equal}

    @property
    def _batch_axis(self) -> int:
        return 1 if self._kernel.option("time_major") else 0

    @property
    def _attributes(self) -> dict[str, AttributeValue]:
        kernel = self._kernel
        return {
            "cell_clip": float(str(kernel.option("cell_clip"))),
            "proj_clip": float(str(kernel.option("proj_clip"))),
            "time_major": bool(kernel.option("time_major")),
        }


def _runs(model: Model, tensors: set[int], samples: Sequence[Sample]) -> Iterator[dict[int, Array]]:
    """For each sample the values of these tensors."""
    copied = Model.read(model.write())
    graph = copied.subgraphs[0].graph
    copied.root.signatureDefs = None
    fed = {tensor: place for place, tensor in enumerate(graph.inputs) if tensor in tensors}
    computed = sorted(tensors - fed.keys())
    graph.outputs = computed or graph.outputs
    interpreter = Interpreter(copied.write(), delegates=False)
    for sample in samples:
        values = interpreter.run(list(sample)).values()
        found = {tensor: sample[place] for tensor, place in fed.items()}
        if computed:
            found |= dict(zip(computed, values, strict=True))
        yield found
