"""Calibration: the range of every float tensor of a legalised model, over sample inputs.

TensorFlow's calibrator runs the model, the bodies of its loops included, and keeps the least and
the greatest value of each tensor. Two things it does not do:

* It resets variables before the first invoke and fails on models that write them. By then it has
  allocated everything, and such models start each invoke from their own initial states; so that
  failure is passed over. A state of a fixed size would be laid out in the arena, where the
  calibrator then finds no memory: its shape is fed at run time here, which puts it on the heap.
* It crashes on a loop whose values have a fixed size (TensorFlow 2.21): there the shapes of the
  inputs are fed too.
* It looks at an LSTM's cell state behind the last step only. `hintc.tflite.cell_ranges` computes
  the other steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hintc.errors import HintcError
from hintc.runtime.stream import captured_output
from hintc.tflite.flatbuffer import Array, Model, Subgraph
from hintc.tflite.kernel import state_kernels
from hintc.tflite.prune import remove_unused_codes
from hintc.tflite.schema import schema
from hintc.tflite.state_cut import SHAPE_OPERAND

Sample = Sequence[Array]
"""One value for each input, in the model's order."""
Ranges = dict[tuple[int, int], tuple[float, float]]
"""(subgraph, tensor) -> least and greatest value."""
Progress = Callable[[int, int], None]
"""Told how many samples of how many are done."""


def with_intermediates(tflite: bytes) -> Model:
    """The model with tensors for what integer LSTM kernels hold between their matrices."""
    from tensorflow.lite.python.optimize import calibrator

    return Model.read(bytes(calibrator.add_intermediate_tensors(tflite)))


def tensor_ranges(model: Model, samples: Sequence[Sample], progress: Progress) -> Ranges:
    """The ranges of all float tensors.

    Args:
        model: legalised, with the tensors of `with_intermediates`; it is not changed.
        samples: at least one.
        progress: called after each sample.

    Raises:
        HintcError: the calibrator cannot run the model.
    """
    copied = Model.read(model.write())
    main = copied.subgraphs[0]
    sizes = [*_feed_state_shapes(main), *_feed_input_shapes(main)]
    count = [len(subgraph.graph.tensors) for subgraph in model.subgraphs]
    # the calibrator knows the kernels of existing operators only, and does not copy these bytes
    remove_unused_codes(copied)
    data = copied.write()
    try:
        with captured_output():
            calibrator = _calibrator(data)
        shapes = None
        for number, sample in enumerate(samples, 1):
            fed = [*sample, *sizes]
            if shapes != [list(value.shape) for value in fed]:
                shapes = [list(value.shape) for value in fed]
                _prepare(calibrator, shapes)
            calibrator.FeedTensor(fed)
            progress(number, len(samples))
        found = Model.read(bytes(calibrator.Calibrate()))
    except (RuntimeError, ValueError) as error:
        raise HintcError(
            "the model could not be calibrated",
            why=" ".join(str(error).split())[:600],
            remedy="Without data: quantize='dynamic' makes the weights int8.",
        ) from error
    return {
        (number, index): value
        for number, subgraph in enumerate(found.subgraphs)
        for index, tensor in enumerate(subgraph.graph.tensors[: count[number]])
        if (value := _range(tensor)) is not None
    }


def set_ranges(model: Model, ranges: Ranges) -> None:
    """Writes ranges into the model's tensors, where the quantiser looks for them."""
    for (number, index), (low, high) in ranges.items():
        tensor = model.subgraphs[number].tensor(index)
        if tensor.quantization is None:
            tensor.quantization = schema().QuantizationParametersT()
        tensor.quantization.min, tensor.quantization.max = [low], [high]


def _calibrator(data: bytes) -> Any:
    from tensorflow.lite.python.optimize import (
        _pywrap_tensorflow_lite_calibration_wrapper as wrapper,
    )

    return wrapper.CalibrationWrapper(data, [], [])


def _prepare(calibrator: Any, shapes: list[list[int]]) -> None:
    try:
        with captured_output():
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
            shape = subgraph.shape(variable) or ()
            if at is None:  # a copy, for which RESHAPE does as well
                at = 1
                writer.opcodeIndex = subgraph.model.opcode("RESHAPE")
                writer.builtinOptionsType, writer.builtinOptions = 0, None
                writer.inputs = [writer.inputs[0], -1]
            elif subgraph.constant(writer.inputs[at]) is None:
                continue
            fed = subgraph.add_tensor(f"{kernel.name}/sizes", (len(shape),), np.int32)
            writer.inputs[at] = fed
            subgraph.graph.inputs = [*subgraph.graph.inputs, fed]
            values.append(np.array(shape, np.int32))
    return values


def _feed_input_shapes(subgraph: Subgraph) -> list[Array]:
    """Lets what is computed from an input have a size known at run time only, if there are loops.

    Each float input of a fixed size is read through a RESHAPE whose shape is a further input.

    Returns:
        The values of those, in order.
    """
    model, graph = subgraph.model, subgraph.graph
    values: list[Array] = []
    if not any(model.op_name(op) == "WHILE" for op in subgraph.operators):
        return values
    for tensor in list(graph.inputs):
        shape = subgraph.shape(tensor)
        if subgraph.dtype(tensor) != np.float32 or shape is None or min(shape, default=-1) < 0:
            continue
        sizes = subgraph.add_tensor(
            f"{subgraph.tensor_name(tensor)}/sizes", (len(shape),), np.int32
        )
        freed = subgraph.add_tensor(f"{subgraph.tensor_name(tensor)}/freed", shape)
        for op in subgraph.operators:
            op.inputs = [freed if read == tensor else read for read in op.inputs]
        reshape = subgraph.make_op("RESHAPE", [tensor, sizes], [freed])
        subgraph.operators = [reshape, *subgraph.operators]
        graph.inputs = [*graph.inputs, sizes]
        values.append(np.array(shape, np.int32))
    return values


def _range(tensor: Any) -> tuple[float, float] | None:
    quantization = tensor.quantization
    if quantization is None or quantization.min is None or not len(quantization.min):
        return None
    return float(quantization.min[0]), float(quantization.max[0])
