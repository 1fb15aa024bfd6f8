"""The ranges inside of an LSTM over all steps, from what the layer reads, by the op's formulas."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hintc.ops.sequence_lstm import sequences
from hintc.tflite.flatbuffer import Array
from hintc.tflite.integers.ranges import Range, Ranges, joint, range_of
from hintc.tflite.kernel import Kernel

_TOGETHER = 64
"""So many samples of one shape are computed at once, as one batch."""
_HEADROOM = 2.0
"""The cell state has 16 bits, enough to leave one for values beyond the samples': where it
is clipped, all later steps are wrong."""
_LEAST_CELL = 0.75
"""A cell state's scale is a power of two, of 2**15 steps each way, and with one below 2**-15 the
kernel computes nonsense; a range above a half makes it 2**-15 at least."""
_MOST_CELL = 64.0 * (1 - 2.0**-15)
"""With a scale above 2**-9 the kernel leaves out the tanh: portable_tensor_utils.cc, ApplyTanh,
knows six bits before the point."""
INTERMEDIATES = ("input", "forget", "cell", "output", "hidden")
"""What an LSTM's intermediate tensors are, as `sequences` calls them: the gates, needed with layer
normalisation only, and what is projected, or is the output itself."""


def too_large(kernel: Kernel, ranges: Ranges) -> str:
    """Why the integer kernel cannot hold the cell state that was found; "" where it can."""
    found = ranges.get((0, kernel.states.get("cell_state", -1)), (0.0, 0.0))
    if max(map(abs, found)) <= _MOST_CELL:
        return ""
    largest = max(found) / _HEADROOM
    return (
        f"the integer kernel cannot hold cell states beyond 64, and the samples reach {largest:.0f}"
    )


class LstmTrace:
    """Follows the states of one LSTM.

    Args:
        kernel: an LSTM that knows integers, in a legalised float model; of sequences or of a
            single step.
        persist: the states go on from one sample to the next.

    Attributes:
        reads: the tensors that it needs of each sample: its input, and initial states that are
            not zero.
    """

    def __init__(self, kernel: Kernel, persist: bool) -> None:
        self._kernel, self._persist = kernel, persist
        # a single step is a sequence of one
        self._attributes = {"time_major": True, **kernel.attributes}
        graph, operands = kernel.subgraph, kernel.operands
        states = kernel.states
        self._weights: dict[str, Array] = {}
        for slot, tensor in operands.items():
            value = graph.constant(tensor)
            if value is not None and slot not in states:
                self._weights[slot] = value
        self._fed = {"input": operands["input"], **kernel.given_states}
        self._waiting: list[dict[str, Array]] = []
        self._largest = 0.0
        self._inside: dict[str, Range] = {}
        self._last: dict[str, Array] = {}

    @property
    def reads(self) -> list[int]:
        """The tensors that `add` needs."""
        return list(self._fed.values())

    def add(self, values: Mapping[int, Array]) -> None:
        """One sample: tensor -> value."""
        fed = {slot: values[tensor] for slot, tensor in self._fed.items()}
        if fed["input"].ndim == 2:
            fed["input"] = fed["input"][None]
        rows = fed["input"].shape[self._batch_axis]
        for slot in fed.keys() - {"input"}:
            fed[slot] = np.broadcast_to(fed[slot], (rows, fed[slot].shape[-1]))
        full = self._persist or len(self._waiting) == _TOGETHER
        if self._waiting and (full or self._waiting[0]["input"].shape != fed["input"].shape):
            self._compute()
        self._waiting.append(fed)

    def _compute(self) -> None:
        """Looks at the samples that wait."""
        fed = {
            slot: np.concatenate(
                [sample[slot] for sample in self._waiting],
                axis=self._batch_axis if slot == "input" else 0,
            )
            for slot in self._fed
        }
        outputs, cells = sequences(
            {**self._weights, **self._last, **fed}, self._attributes, watch=self._watch
        )
        self._largest = max(self._largest, float(np.abs(cells).max(initial=0.0)))
        if "cell_state" in fed:
            self._largest = max(self._largest, float(np.abs(fed["cell_state"]).max(initial=0.0)))
        if self._persist:
            self._last = {"output_state": outputs[-1], "cell_state": cells[-1]}
        self._waiting = []

    def _watch(self, name: str, value: Array) -> None:
        self._inside[name] = joint(range_of(value), self._inside.get(name))

    def ranges(self, known: Ranges) -> Ranges:
        """What was found.

        Args:
            known: has the ranges of the outputs and of given states.

        Returns:
            For the cell state a symmetric range; for the output state, the output and, where there
            is no projection, what is written to it, one together; for what is projected a
            symmetric range, for the kernel subtracts its zero point where it should add it; for
            the gates their own.
        """
        self._compute()
        kernel = self._kernel
        cell = max(self._largest * _HEADROOM, _LEAST_CELL)
        if self._largest <= _MOST_CELL:
            cell = min(cell, _MOST_CELL)
        found: Ranges = {(0, kernel.states["cell_state"]): (-cell, cell)}
        places = dict(zip(INTERMEDIATES, kernel.intermediates, strict=True))
        if "forget_layer_norm_coefficients" in kernel.operands:
            found |= {(0, t): self._inside[n] for n, t in places.items() if n in self._inside}
        equal = [kernel.op.outputs[0], kernel.states["output_state"]]
        if "projection_weights" not in kernel.operands:
            equal.append(places["hidden"])
        else:
            hidden = max(map(abs, self._inside["hidden"]))
            found[0, places["hidden"]] = (-hidden, hidden)
        given = self._fed.get("output_state", -1)
        together = joint(known.get((0, kernel.op.outputs[0])), known.get((0, given)), (0.0, 0.0))
        return found | {(0, tensor): together for tensor in equal}

    @property
    def _batch_axis(self) -> int:
        return 1 if self._attributes["time_major"] else 0
