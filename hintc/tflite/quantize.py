"""Full integer quantisation of a legalised model: ranges, TensorFlow's quantiser, states.

Legalised in float, the model is calibrated; then it is cut at its states, quantised, and joined
again; see `hintc.tflite.calibrate` and `hintc.tflite.state_cut`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hintc.errors import HintcError
from hintc.runtime.kernels import AnyKernel
from hintc.runtime.stream import captured_output
from hintc.tflite.calibrate import Progress, tensor_ranges, with_intermediates
from hintc.tflite.dequantize import recompute_constants
from hintc.tflite.flatbuffer import Model, Subgraph
from hintc.tflite.integer_ends import make_ends_integer
from hintc.tflite.keep_float import float_tensors
from hintc.tflite.kernel import state_kernels
from hintc.tflite.legalize import Note
from hintc.tflite.loop_copies import copy_moved_inputs
from hintc.tflite.moved_values import requantise_moved_values
from hintc.tflite.prune import remove_unused_storage
from hintc.tflite.ranges import Sample, set_ranges
from hintc.tflite.state import StateMode
from hintc.tflite.state_cut import cut_states, join_states
from hintc.tflite.weights import WeightStore

IoDtype = Literal["float32", "int8"]

_NO_INTEGERS = "stays in float arithmetic, with int8 weights: it has no integer kernel"
_FLOAT_OPERATORS = {
    "BATCH_MATMUL": "with delegates, tf.lite multiplies two int8 results wrongly after a resize",
    "REVERSE_SEQUENCE": "tf.lite has no int8 kernel of it",
}
_DYNAMIC = "Without integers: quantize='dynamic' makes the weights int8."


@dataclass(frozen=True)
class IntegerModel:
    """What `quantize_to_int8` gives.

    Args:
        tflite: the model's bytes.
        notes: what did not become an integer operator though it could not be left out.
    """

    tflite: bytes
    notes: tuple[Note, ...] = ()


def quantize_to_int8(
    tflite: bytes,
    samples: Sequence[Sample],
    *,
    keep_float: Sequence[str] = (),
    io_dtype: IoDtype = "float32",
    state: StateMode = "reset",
    progress: Progress = lambda done, total: None,
    kernels: Mapping[str, AnyKernel] | None = None,
) -> IntegerModel:
    """A legalised float model with int8 weights and activations.

    Args:
        tflite: legalised; float32.
        samples: values of the inputs, in order, that the ranges come from; at least one.
        keep_float: layers or nodes that stay float32.
        io_dtype: of the model's float inputs and outputs.
        state: as the model was legalised.
        progress: called after each sample.
        kernels: for its custom operators, which stay in float.

    Raises:
        HintcError: a custom operator without a kernel, or in a loop; states in the body of a loop;
            or something else that cannot be calibrated or quantised.
    """
    model = Model.read(tflite)
    _check_operators(model, kernels or {})
    ends = _Ends.of(model)
    model.root.signatureDefs = None
    model = with_intermediates(model.write())
    kept = float_tensors(model, keep_float)
    ranges = tensor_ranges(
        model, samples, persist=state == "persist", progress=progress, kernels=kernels
    )
    set_ranges(model, ranges)
    main = model.subgraphs[0]
    floats = [k for k in state_kernels(main) if not k.knows_integers and k.name not in kept]
    notes = [Note(kernel.layer, _NO_INTEGERS) for kernel in floats]
    hybrid = [kernel.name for kernel in floats]
    for name, reason in _float_operators(model):
        notes.append(Note(name, f"stays in float arithmetic: {reason}"))
        kept.append(name)
    graph = main.graph
    end_ranges = [[ranges.get((0, t)) for t in ends] for ends in (graph.inputs, graph.outputs)]
    cut = cut_states(main)
    remove_unused_storage(model)
    quantised = Model.read(_quantised(model.write(), [*hybrid, *kept]))
    main = quantised.subgraphs[0]
    _repair_scales(main)
    requantise_moved_values(quantised)
    join_states(main, cut)
    _shrink_weights(main, hybrid)
    if io_dtype == "int8":
        make_ends_integer(main, *end_ranges)
    ends.restore(quantised)
    if cut.is_dynamic:
        recompute_constants(main)
    copy_moved_inputs(quantised)
    remove_unused_storage(quantised)
    return IntegerModel(quantised.write(), tuple(notes))


def _float_operators(model: Model) -> Iterator[tuple[str, str]]:
    """Name and reason of operators that are better not quantised."""
    for subgraph, op in model.operators():
        name = model.op_name(op)
        constant = any(subgraph.constant(tensor) is not None for tensor in op.inputs)
        if name in _FLOAT_OPERATORS and not (name == "BATCH_MATMUL" and constant):
            yield subgraph.tensor_name(op.outputs[0]), _FLOAT_OPERATORS[name]


def _check_operators(model: Model, kernels: Mapping[str, AnyKernel]) -> None:
    for number, subgraph in enumerate(model.subgraphs):
        for op in subgraph.operators:
            code = model.custom_code(op)
            # TensorFlow's calibrator, which loops need, has no kernel of it
            if code is not None and (code not in kernels or len(model.subgraphs) > 1):
                raise HintcError(
                    f"a model with the custom operator '{code}' cannot be quantised to integers",
                    node=subgraph.tensor_name(op.outputs[0]) if op.outputs else None,
                    why="calibrating runs the model, and there is no kernel for it"
                    if code not in kernels
                    else "it has loops too, for which TensorFlow's calibrator runs it",
                    remedy="Give its kernel with kernels={...}, a function will do; or: "
                    "quantize='dynamic' or 'float16' needs no data and leaves the custom "
                    "operator alone.",
                )
        if number:
            for kernel in state_kernels(subgraph):
                raise kernel.error(
                    "it cannot be quantised to integers here",
                    why=f"it stands in the body '{subgraph.name}' of a loop or a condition",
                    remedy="Convert with form='while' or form='unroll', or with "
                    "quantize='dynamic'.",
                )


@dataclass(frozen=True)
class _Ends:
    """Names of a model's inputs and outputs, and its signature, which the quantiser loses."""

    names: tuple[list[Any], list[Any]]
    signatures: tuple[tuple[Any, list[int], list[int]], ...]

    @classmethod
    def of(cls, model: Model) -> _Ends:
        graph = model.subgraphs[0].graph
        found = []
        for signature in model.root.signatureDefs or []:
            if signature.subgraphIndex == 0:
                places = [
                    [ends.index(entry.tensorIndex) for entry in entries or []]
                    for entries, ends in (
                        (signature.inputs, graph.inputs),
                        (signature.outputs, graph.outputs),
                    )
                ]
                found.append((copy.deepcopy(signature), places[0], places[1]))
        inputs, outputs = (
            [graph.tensors[tensor].name for tensor in ends]
            for ends in (graph.inputs, graph.outputs)
        )
        return cls((inputs, outputs), tuple(found))

    def restore(self, model: Model) -> None:
        graph = model.subgraphs[0].graph
        named: set[int] = set()
        for names, ends in zip(self.names, (graph.inputs, graph.outputs), strict=True):
            for name, tensor in zip(names, ends, strict=True):
                if tensor not in named:
                    graph.tensors[tensor].name = name
                    named.add(tensor)
        model.root.signatureDefs = []
        for signature, inputs, outputs in self.signatures:
            for entries, places, ends in (
                (signature.inputs, inputs, graph.inputs),
                (signature.outputs, outputs, graph.outputs),
            ):
                for entry, place in zip(entries or [], places, strict=True):
                    entry.tensorIndex = ends[place]
            model.root.signatureDefs.append(signature)


def _quantised(tflite: bytes, float_nodes: Iterable[str]) -> bytes:
    """TensorFlow's quantiser.

    Raises:
        HintcError: it fails.
    """
    from tensorflow.lite.python.convert import mlir_quantize

    try:
        with captured_output() as captured:
            return bytes(mlir_quantize(tflite, denylisted_nodes=set(float_nodes) or None))
    except Exception as error:  # several families, without a common one
        said = " ".join(f"{error} {captured.text}".split())
        raise HintcError(
            "TensorFlow's quantiser cannot quantise the model",
            why=said[-600:] or None,
            remedy=f"Keep the layer in float with keep_float. {_DYNAMIC}",
        ) from error


def _repair_scales(subgraph: Subgraph) -> None:
    """The kernel writes its output in the output state's scale: both must be the same.

    The quantiser may give the output another one, for a CONCATENATION behind it, and leaves the
    state and what is written to it as they were.
    """
    for kernel in state_kernels(subgraph):
        state = subgraph.tensor(kernel.states["output_state"]) if kernel.knows_integers else None
        if state is None or subgraph.dtype(kernel.states["output_state"]) != np.int8:
            continue
        output = subgraph.tensor(kernel.op.outputs[0])
        state.quantization = output.quantization
        if "projection_weights" not in kernel.operands:
            hidden = subgraph.tensor(kernel.intermediates[4])
            hidden.quantization = output.quantization


def _shrink_weights(subgraph: Subgraph, names: Sequence[str]) -> None:
    """int8 weights for the kernels of these names, which compute in float."""
    store = WeightStore(subgraph)
    for kernel in state_kernels(subgraph):
        if subgraph.dtype(kernel.operands["input"]) != np.float32:
            continue
        kernel.op.intermediates = []
        if not names or not kernel.name.startswith(tuple(names)):
            continue
        operands = kernel.operands
        if store.to_int8(kernel.lowering, operands) is None:
            kernel.op.inputs = [operands.get(slot, -1) for slot in kernel.fused.slot_names]
            version = kernel.lowering.version(True)
            kernel.op.opcodeIndex = subgraph.model.opcode(kernel.lowering.operator, version)
