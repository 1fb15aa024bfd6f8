"""Calibration: the range of every float tensor of a legalised model, over sample inputs.

The model runs with all its tensors as outputs. What an LSTM keeps inside follows from what it reads
(`hintc.tflite.cell_ranges`). TensorFlow's own calibrator is asked for the bodies of loops only: of
an LSTM's cell state it sees the last step alone, and it ignores initial states that the model
computes (measured).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hintc.errors import HintcError
from hintc.runtime.kernels import AnyKernel
from hintc.runtime.stream import captured_output
from hintc.tflite.cell_ranges import LstmTrace
from hintc.tflite.flatbuffer import Array, Model, Operator, Subgraph
from hintc.tflite.kernel import Kernel, state_kernels
from hintc.tflite.prune import remove_unused_codes
from hintc.tflite.ranges import Range, Ranges, Sample, joint, range_of, runs, stored_range
from hintc.tflite.state_cut import SHAPE_OPERAND

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
    traces = [LstmTrace(kernel, persist) for kernel in cells if not kernel.no_integers]
    watched = set(_floats(main)) | {tensor for trace in traces for tensor in trace.reads}
    ranges = _any_ranges(cells)
    for number, values in enumerate(runs(model, watched, samples, kernels), 1):
        for tensor, value in values.items():
            found = range_of(value)
            if found is not None and value.dtype == np.float32:
                ranges[0, tensor] = joint(found, ranges.get((0, tensor)))
                _check_range(main, tensor, ranges[0, tensor], number - 1)
        for trace in traces:
            trace.add(values)
        progress(number, len(samples))
    for trace in traces:
        ranges |= trace.ranges(ranges)
    if len(model.subgraphs) > 1:
        ranges |= _body_ranges(model, samples)
    return ranges


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


def _body_ranges(model: Model, samples: Sequence[Sample]) -> Ranges:
    """The ranges inside of loops, by TensorFlow's calibrator.

    It resets variables before the first invoke and fails on models that write them; by then it has
    allocated everything, so that failure is passed over. What has a size that is known beforehand,
    states and what loops start from, is where it crashes: these shapes are fed at run time here.

    Raises:
        HintcError: it cannot run the model.
    """
    copied = Model.read(model.write())
    main = copied.subgraphs[0]
    count = [len(subgraph.graph.tensors) for subgraph in model.subgraphs]
    sizes = [*_feed_state_shapes(main), *_feed_loop_shapes(main)]
    # the calibrator knows the kernels of existing operators only, and does not copy these bytes
    remove_unused_codes(copied)
    data = copied.write()
    try:
        with captured_output():
            calibrator, shapes = _calibrator(data), None
            for sample in samples:
                fed = [*sample, *sizes]
                if shapes != [list(value.shape) for value in fed]:
                    shapes = [list(value.shape) for value in fed]
                    _prepare(calibrator, shapes)
                calibrator.FeedTensor(fed)
            found = Model.read(bytes(calibrator.Calibrate()))
    except (RuntimeError, ValueError) as error:
        raise HintcError(
            "the model's loops could not be calibrated",
            why=" ".join(str(error).split())[:600],
            remedy="Convert with form='unroll'; or, without data, with quantize='dynamic'.",
        ) from error
    return {
        (number, index): value
        for number, subgraph in enumerate(found.subgraphs)
        for index, tensor in enumerate(subgraph.graph.tensors[: count[number]])
        if number and (value := stored_range(tensor)) is not None
    }


def _calibrator(data: bytes) -> Any:
    from tensorflow.lite.python.optimize import (
        _pywrap_tensorflow_lite_calibration_wrapper as wrapper,
    )

    return wrapper.CalibrationWrapper(data, [], [])


def _prepare(calibrator: Any, shapes: list[list[int]]) -> None:
    try:
        calibrator.Prepare(shapes)
    except RuntimeError as error:
        if "subgraph.cc" not in str(error) or "tensor." not in str(error):
            raise


def _feed_state_shapes(subgraph: Subgraph) -> list[Array]:
    """Makes constant shapes of states further inputs; their values, in order."""
    values: list[Array] = []
    for kernel in state_kernels(subgraph):
        for variable in kernel.states.values():
            writer = subgraph.producer(variable)
            if writer is None:
                continue
            at = SHAPE_OPERAND[subgraph.model.op_name(writer)]
            if at is None:  # a copy, for which RESHAPE does as well
                at = 1
                writer.opcodeIndex = subgraph.model.opcode("RESHAPE")
                writer.builtinOptionsType, writer.builtinOptions = 0, None
                writer.inputs = [writer.inputs[0], -1]
            elif subgraph.constant(writer.inputs[at]) is None:
                continue
            writer.inputs[at] = _fed_shape(subgraph, subgraph.shape(variable) or (), values)
    return values


def _feed_loop_shapes(subgraph: Subgraph) -> list[Array]:
    """Gives what loops start from shapes that are fed; the shapes, in order."""
    values: list[Array] = []
    operators: list[Operator] = []
    for op in subgraph.operators:
        if subgraph.model.op_name(op) == "WHILE":
            for place, tensor in enumerate(op.inputs):
                shape = subgraph.shape(tensor)
                if subgraph.dtype(tensor) != np.float32 or not shape or min(shape) < 0:
                    continue
                fed = _fed_shape(subgraph, shape, values)
                op.inputs[place] = subgraph.add_tensor("shaped", shape)
                operators.append(subgraph.make_op("RESHAPE", [tensor, fed], [op.inputs[place]]))
        operators.append(op)
    subgraph.operators = operators
    return values


def _fed_shape(subgraph: Subgraph, shape: tuple[int, ...], values: list[Array]) -> int:
    """A new input for a shape, whose value is appended to `values`."""
    fed = subgraph.add_tensor("sizes", (len(shape),), np.int32)
    subgraph.graph.inputs = [*subgraph.graph.inputs, fed]
    values.append(np.array(shape, np.int32))
    return fed
