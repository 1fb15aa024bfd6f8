"""Full integer quantisation of a legalised model: ranges, TensorFlow's quantiser, states.

Legalised in float, the model is calibrated; then it is cut at its states, quantised, and joined
again; see `hintc.tflite.integers.calibrate` and `hintc.tflite.integers.state_cut`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hintc.errors import HintcError
from hintc.ops import Target
from hintc.runtime.kernels import AnyKernel
from hintc.runtime.stream import captured_output
from hintc.tflite.dequantize import recompute_constants
from hintc.tflite.flatbuffer import Model, Operator, Subgraph
from hintc.tflite.integers.calibrate import Progress, tensor_ranges, with_intermediates
from hintc.tflite.integers.cell_ranges import too_large
from hintc.tflite.integers.ends import make_ends_integer
from hintc.tflite.integers.fine_products import coarsen_fine_products
from hintc.tflite.integers.keep_float import float_tensors, held_tensors
from hintc.tflite.integers.kernel_inputs import separate_inputs
from hintc.tflite.integers.moved_floats import move_floats
from hintc.tflite.integers.moved_values import moved_ranges, requantise_moved_values
from hintc.tflite.integers.ranges import Ranges, Sample, set_ranges
from hintc.tflite.integers.silent_ranges import silent_ranges
from hintc.tflite.integers.state_cut import cut_states, join_states
from hintc.tflite.integers.svdf import (
    cut_tails,
    keep_relu,
    no_integer_form,
    split_tanh,
    take_integer_form,
)
from hintc.tflite.kernel import Kernel, state_kernels
from hintc.tflite.legalize import Note
from hintc.tflite.loop_copies import copy_moved_inputs
from hintc.tflite.micro_operators import TAKES
from hintc.tflite.prune import remove_unused_producers, remove_unused_storage
from hintc.tflite.runtime_version import raise_runtime_version
from hintc.tflite.state import StateMode
from hintc.tflite.weights import WeightStore

IoDtype = Literal["float32", "int8"]

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
    made_by: Mapping[str, str] | None = None,
    held: frozenset[str] = frozenset(),
    io_dtype: IoDtype = "float32",
    target: Target = "tflite",
    state: StateMode = "reset",
    progress: Progress = lambda done, total: None,
    kernels: Mapping[str, AnyKernel] | None = None,
) -> IntegerModel:
    """A legalised float model with int8 weights and activations.

    Args:
        tflite: legalised; float32.
        samples: values of the inputs, in order, that the ranges come from; at least one.
        keep_float: layers or nodes that stay float32.
        made_by: output -> the node that gives it, which `keep_float` may mean.
        held: nodes that stay float32 if the model still has them.
        io_dtype: of the model's float inputs and outputs.
        target: what shall run it; for ``"tflm"`` kernels in float keep their float32 weights, and
            operators stay so whose kernels there know no int8.
        state: as the model was legalised.
        progress: called after each sample.
        kernels: for its custom operators, which stay in float.

    Raises:
        HintcError: a custom operator without a kernel; states in the body of a loop; or something
            else that cannot be calibrated or quantised.
    """
    model = Model.read(tflite)
    _check_operators(model, kernels or {})
    ends = _Ends.of(model)
    model.root.signatureDefs = None
    model = with_intermediates(model.write())
    kept = [*float_tensors(model, keep_float, made_by), *held_tensors(model, held)]
    main = model.subgraphs[0]
    before_tanh = split_tanh(main, kept)
    ranges = tensor_ranges(
        model, samples, persist=state == "persist", progress=progress, kernels=kernels
    )
    ranges |= moved_ranges(model, ranges)
    ranges |= silent_ranges(model, ranges)
    cut_tails(ranges, before_tanh)
    notes: list[Note] = []
    hybrid: list[str] = []
    for kernel, reason in _float_kernels(main, ranges):
        if kernel.name not in kept:
            weights = kernel.violated("dynamic", target)
            notes.append(Note(kernel.layer, _in_float(reason, weights)))
            (kept if weights else hybrid).append(kernel.name)
    for name, reason in _float_operators(model, target):
        notes.append(Note(name, f"stays in float arithmetic: {reason}"))
        kept.append(name)
    take_integer_form(main, [*hybrid, *kept], ranges)
    separate_inputs(main, [*hybrid, *kept], ranges)
    set_ranges(model, ranges)
    graph = main.graph
    end_ranges = [[ranges.get((0, t)) for t in ends] for ends in (graph.inputs, graph.outputs)]
    cut = cut_states(main)
    remove_unused_storage(model)
    quantised = Model.read(_quantised(model.write(), [*hybrid, *kept]))
    main = quantised.subgraphs[0]
    _check_states(main)
    move_floats(quantised)
    _repair_scales(main)
    keep_relu(main)
    requantise_moved_values(quantised, target)
    coarsen_fine_products(quantised)
    join_states(main, cut)
    _read_floats(main)
    _shrink_weights(main, hybrid)
    if io_dtype == "int8":
        make_ends_integer(main, *end_ranges)
    ends.restore(quantised)
    if cut.is_dynamic:
        recompute_constants(main)
    copy_moved_inputs(quantised)
    remove_unused_storage(quantised)
    raise_runtime_version(quantised)
    return IntegerModel(quantised.write(), tuple(notes))


def _float_kernels(subgraph: Subgraph, ranges: Ranges) -> Iterator[tuple[Kernel, str]]:
    """The kernels with states that do not run on integers, and why."""
    for kernel in state_kernels(subgraph):
        reason = kernel.no_integers or too_large(kernel, ranges) or no_integer_form(kernel)
        if reason:
            yield kernel, reason


def _in_float(reason: str, weights: str) -> str:
    """What is said of a kernel in float; `weights`: why they are not int8."""
    if weights:
        return f"stays in float arithmetic and keeps its float32 weights: {reason}; {weights}"
    return f"stays in float arithmetic, with int8 weights: {reason}"


def _float_operators(model: Model, target: Target) -> Iterator[tuple[str, str]]:
    """Name and reason of operators that are better not quantised."""
    for subgraph, op in model.operators():
        name, result = model.op_name(op), subgraph.tensor_name(op.outputs[0]) if op.outputs else ""
        constant = any(subgraph.constant(tensor) is not None for tensor in op.inputs)
        if name in _FLOAT_OPERATORS and not (name == "BATCH_MATMUL" and constant):
            yield result, _FLOAT_OPERATORS[name]
        elif target == "tflm" and _is_float_only_there(subgraph, op):
            yield result, f"TFLite Micro has no right int8 kernel of {name}"


def _is_float_only_there(subgraph: Subgraph, op: Operator) -> bool:
    """Does the operator work on floats, and its kernel in TFLite Micro not on int8?"""
    takes = TAKES.get(subgraph.model.op_name(op))
    if takes is None or "int8" in takes.firsts:
        return False
    return subgraph.dtype(op.inputs[takes.first]) == np.float32


def _check_operators(model: Model, kernels: Mapping[str, AnyKernel]) -> None:
    for number, subgraph in enumerate(model.subgraphs):
        for op in subgraph.operators:
            code = model.custom_code(op)
            if code is not None and code not in kernels:
                raise HintcError(
                    f"a model with the custom operator '{code}' cannot be quantised to integers",
                    node=subgraph.tensor_name(op.outputs[0]) if op.outputs else None,
                    why="calibrating runs the model, and there is no kernel for it",
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


def _check_states(subgraph: Subgraph) -> None:
    """Refuses integer kernels that the quantiser has not known: they would write beyond states."""
    for kernel in state_kernels(subgraph):
        kinds = {slot: subgraph.dtype(tensor) for slot, tensor in kernel.states.items()}
        wide = kinds.get("cell_state", kinds.get("state"))
        if subgraph.dtype(kernel.operands["input"]) == np.int8 and wide != np.int16:
            raise kernel.error(
                "TensorFlow's quantiser has made it an operator that its kernel cannot run",
                why=f"its state is {wide}, not int16",
                remedy=f"Keep the layer in float with keep_float. {_DYNAMIC}",
            )


def _repair_scales(subgraph: Subgraph) -> None:
    """Gives integer LSTMs the scales that their kernel looks for.

    The kernel writes its output in the output state's scale, so both must be the same. The
    quantiser may give the output another one, for a CONCATENATION behind it, and leaves the state
    and what is written to it as they were.

    With layer normalisation the kernel reads a scale for the input gate even where gates are
    coupled and there is none, and where it finds none leaves all its parameters unset.
    """
    for kernel in state_kernels(subgraph):
        is_lstm = "output_state" in kernel.states
        if not is_lstm or subgraph.dtype(kernel.operands["input"]) != np.int8:
            continue
        state = subgraph.tensor(kernel.states["output_state"])
        output = subgraph.tensor(kernel.op.outputs[0])
        state.quantization = output.quantization
        if "projection_weights" not in kernel.operands:
            hidden = subgraph.tensor(kernel.intermediates[4])
            hidden.quantization = output.quantization
        if "forget_layer_norm_coefficients" in kernel.operands:
            entered, forget = (subgraph.tensor(tensor) for tensor in kernel.intermediates[:2])
            if "input_gate_bias" not in kernel.operands:
                entered.type, entered.quantization = forget.type, forget.quantization


def _read_floats(subgraph: Subgraph) -> None:
    """Kernels in float read floats where there are any, not the same through int8 and back."""
    for kernel in state_kernels(subgraph):
        if subgraph.dtype(kernel.operands["input"]) != np.float32:
            continue
        for place, read in enumerate(kernel.op.inputs):
            stored = _only_operand(subgraph, read, "DEQUANTIZE")
            source = _only_operand(subgraph, stored, "QUANTIZE")
            if source >= 0 and subgraph.dtype(source) == np.float32:
                kernel.op.inputs[place] = source
                remove_unused_producers(subgraph, [read])


def _only_operand(subgraph: Subgraph, tensor: int, name: str) -> int:
    """What the operator called `name` makes the tensor of; -1 where no such one makes it."""
    op = subgraph.producer(tensor) if tensor >= 0 else None
    return int(op.inputs[0]) if op is not None and subgraph.model.op_name(op) == name else -1


def _shrink_weights(subgraph: Subgraph, names: Sequence[str]) -> None:
    """int8 weights for the kernels of these names, which compute in float."""
    store = WeightStore(subgraph)
    for kernel in state_kernels(subgraph):
        if subgraph.dtype(kernel.operands["input"]) != np.float32:
            continue
        kernel.op.intermediates = []
        if kernel.name not in names:
            continue
        operands = kernel.operands
        if store.to_int8(kernel.lowering, operands) is None:
            kernel.op.inputs = [operands.get(slot, -1) for slot in kernel.fused.slot_names]
            version = kernel.lowering.version(True)
            kernel.op.opcodeIndex = subgraph.model.opcode(kernel.lowering.operator, version)
