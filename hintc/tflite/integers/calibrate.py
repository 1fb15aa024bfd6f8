"""Calibration: the range of every float tensor of a legalised model, over sample inputs.

The model runs with all its tensors as outputs, and so do the bodies of its loops (`body_ranges`).
What an LSTM keeps inside follows from what it reads (`cell_ranges`). TensorFlow's own calibrator is
not asked: of an LSTM's cell state it sees the last step alone, it ignores initial states that the
model computes, and it crashes on states and loops of fixed sizes (measured).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hintc.errors import HintcError
from hintc.runtime.kernels import AnyKernel
from hintc.tflite.flatbuffer import Model, Subgraph
from hintc.tflite.integers.body_ranges import BodyRanges, control_operands
from hintc.tflite.integers.cell_ranges import LstmTrace
from hintc.tflite.integers.ranges import Range, Ranges, Sample, joint, range_of, runs
from hintc.tflite.kernel import Kernel, state_kernels

Progress = Callable[[int, int], None]
"""Told how many samples of how many are done."""


def with_intermediates(tflite: bytes) -> Model:
    """The model with tensors for what integer LSTM kernels hold between their matrices."""
    from tensorflow.lite.python.optimize import calibrator

    return Model.read(bytes(calibrator.add_intermediate_tensors(tflite)))


def tensor_ranges(
    model: Model,
    samples: Sequence[Sample],
    *,
    persist: bool,
    progress: Progress,
    kernels: Mapping[str, AnyKernel] | None = None,
) -> Ranges:
    """The ranges of all float tensors.

    Args:
        model: legalised, with the tensors of `with_intermediates`; it is not changed.
        samples: at least one.
        persist: states go on from one sample to the next.
        progress: called after each sample.
        kernels: for its custom operators.

    Raises:
        HintcError: the model does not run, or gives values that are not finite.
    """
    main = model.subgraphs[0]
    cells = list(state_kernels(main))
    lstms = [kernel for kernel in cells if "cell_state" in kernel.states]
    traces = [LstmTrace(kernel, persist) for kernel in lstms if not kernel.no_integers]
    watched = set(_floats(main)) | {tensor for trace in traces for tensor in trace.reads}
    watched |= control_operands(main)
    bodies = BodyRanges(model, kernels)
    ranges = _any_ranges(cells)
    for number, values in enumerate(runs(model, watched, samples, kernels), 1):
        for tensor, value in values.items():
            found = range_of(value)
            if found is not None and value.dtype == np.float32:
                ranges[0, tensor] = joint(found, ranges.get((0, tensor)))
                _check_range(main, tensor, ranges[0, tensor], number - 1)
        for trace in traces:
            trace.add(values)
        bodies.add(values)
        progress(number, len(samples))
    for trace in traces:
        ranges |= trace.ranges(ranges)
    return ranges | bodies.found


def _any_ranges(kernels: Sequence[Kernel]) -> Ranges:
    """Ranges inside of kernels, where nothing else is known: the quantiser may crash without."""
    inside = [tensor for kernel in kernels for tensor in kernel.intermediates]
    return {(0, tensor): (-1.0, 1.0) for tensor in inside}


def _floats(subgraph: Subgraph) -> list[int]:
    """The float tensors that are fed or computed; states are left out."""
    made = [tensor for op in subgraph.operators for tensor in op.outputs]
    return [
        tensor
        for tensor in [*subgraph.graph.inputs, *made]
        if subgraph.dtype(tensor) == np.float32 and not subgraph.tensor(tensor).isVariable
    ]


def _check_range(subgraph: Subgraph, tensor: int, found: Range, sample: int) -> None:
    """Refuses what no scale in float32 spans; interpreters crash on an infinite one."""
    low, high = found
    if not np.isfinite(found).all():
        what = "the model gives values that are not finite"
    elif high - low > float(np.finfo(np.float32).max):
        what = f"values from {low:.3g} to {high:.3g} are too far apart for int8"
    else:
        return
    raise HintcError(
        what,
        node=subgraph.tensor_name(tensor),
        why=f"on sample {sample} of representative_dataset",
        remedy="Leave such samples out, or keep the layer in float with keep_float.",
    )
