"""What TFLite Micro can run, and how much memory it takes for it.

`hintc.tflite.micro_operators` has the operators and dtypes, `hintc.ops` the variants of kernels
with states.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hintc.errors import HintcError
from hintc.near import some
from hintc.ops import Quantize
from hintc.tflite.flatbuffer import Model, Operator, Subgraph
from hintc.tflite.kernel import Kernel, state_kernels
from hintc.tflite.micro_operators import MOVES, OPERATORS, TAKES, UNSCALED
from hintc.tflite.plain_integers import has_scale

_WEIGHED = frozenset(
    (
        *("BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"),
        "TRANSPOSE_CONV",
    )
)
"""Operators with weights and no states."""
_STATIC = "Give every input a fixed size beside the batch, and compute no sizes from values."
_WIDE = (np.dtype(np.float16), np.dtype(np.float64))

# Bytes that TFLite Micro takes on a machine with pointers of 64 bits (measured, x86-64).
_ALIGNMENT = 16
_PER_TENSOR = 24
_PER_OPERATOR = 64
_PER_INPUT_OR_OUTPUT = 64
_PER_KERNEL = 64
_PER_LSTM = 720
_PER_CHANNEL = 8
_INTERPRETER = 800


def check_micro(model: Model, *, to_integers: bool = False) -> None:
    """Refuses a model that TFLite Micro cannot run.

    Args:
        model: as it shall run there.
        to_integers: it is in float, and about to be quantised.

    Raises:
        HintcError: operators that have no kernel there; sizes that are not known before it runs;
            float16 or float64 values; float arithmetic with int8 weights; a dtype that a kernel
            does not take, or a variant that it does not compute.
    """
    _check_operators(model)
    for subgraph in model.subgraphs:
        _check_sizes(subgraph)
        _check_dtypes(subgraph)
        for op in subgraph.operators:
            _check_weights(subgraph, op)
            _check_kernel(subgraph, op)
        for kernel in state_kernels(subgraph):
            _check_variant(kernel, "int8" if to_integers else None)


def estimated_arena(model: Model) -> int:
    """About how many bytes of memory the model takes in TFLite Micro.

    Values that live at the same time get places beside each other, the largest first (as
    micro/memory_planner/greedy_memory_planner.cc does); variables and what the interpreter notes
    down are added. The bodies of a loop take turns in one place.
    """
    main = model.subgraphs[0].graph
    total = _INTERPRETER + _PER_INPUT_OR_OUTPUT * (len(main.inputs) + len(main.outputs))
    planned = [_planned(subgraph) for subgraph in model.subgraphs]
    total += planned[0] + max(planned[1:], default=0)
    return total + sum(_persistent(subgraph) for subgraph in model.subgraphs)


def _check_operators(model: Model) -> None:
    missing: dict[str, str] = {}
    for subgraph, op in model.operators():
        name = model.op_name(op)
        if name not in OPERATORS and name not in missing:
            outputs = [index for index in op.outputs if index >= 0]
            missing[name] = subgraph.tensor_name(outputs[0]) if outputs else subgraph.name
    if missing:
        raise HintcError(
            f"TFLite Micro has no kernel for {some(missing)}",
            node=next(iter(missing.values())),
            why="target is 'tflm'",
            remedy="Replace it, or convert for target='tflite'.",
        )


def _check_sizes(subgraph: Subgraph) -> None:
    for index in _used(subgraph):
        shape = subgraph.shape(index)
        if shape is None or -1 in shape:
            raise HintcError(
                "TFLite Micro needs every size before the model runs",
                node=subgraph.tensor_name(index),
                why=f"its shape is {'unknown' if shape is None else list(shape)}",
                remedy=_STATIC,
            )


def _check_dtypes(subgraph: Subgraph) -> None:
    for index in _used(subgraph):
        dtype = subgraph.dtype(index)
        if dtype is None or dtype in _WIDE:
            raise HintcError(
                f"TFLite Micro has no values of type {dtype or 'string'}",
                node=subgraph.tensor_name(index),
                why="target is 'tflm'",
                remedy="quantize='int8' makes a model small for it; float32 runs too.",
            )


def _check_weights(subgraph: Subgraph, op: Operator) -> None:
    name = subgraph.model.op_name(op)
    if name not in _WEIGHED or subgraph.dtype(op.inputs[TAKES[name].first]) != np.float32:
        return
    weights = [i for i in op.inputs if i >= 0 and subgraph.dtype(i) == np.int8]
    if weights:
        raise HintcError(
            "TFLite Micro cannot compute in float with int8 weights",
            node=subgraph.tensor_name(op.outputs[0]),
            remedy="Convert with quantize='int8', or without quantize.",
        )


def _check_kernel(subgraph: Subgraph, op: Operator) -> None:
    """Refuses dtypes that the operator's kernel does not take."""
    name = subgraph.model.op_name(op)
    takes = TAKES.get(name)
    if takes is None or op.inputs[takes.first] < 0:
        return
    first, second = _dtype(subgraph, op, takes.first), _dtype(subgraph, op, takes.second)
    seconds = takes.firsts.get(first, frozenset())
    if first in UNSCALED and name not in MOVES and not has_scale(subgraph, op.inputs[takes.first]):
        said = f"{first} without a scale"
    elif seconds and (second in seconds or "" in seconds):
        return
    elif seconds:
        said = f"{first} {takes.word} {second}"
    else:
        said = first
    raise HintcError(
        f"TFLite Micro's {name} takes no {said}",
        node=subgraph.tensor_name(op.outputs[0]),
        why=f"it takes {takes}",
        remedy="Cast to what it takes, or convert for target='tflite'.",
    )


def _dtype(subgraph: Subgraph, op: Operator, place: int) -> str:
    """Of an operand or, with place -1, of the first result; "" if it is absent."""
    tensors = op.outputs if place < 0 else op.inputs
    at = max(place, 0)
    return str(subgraph.dtype(tensors[at])) if at < len(tensors) and tensors[at] >= 0 else ""


def _check_variant(kernel: Kernel, quantize: Quantize | None) -> None:
    """Refuses a use of a kernel with states that it does not compute, or wrongly."""
    if len(kernel.op.inputs) != len(kernel.fused.operands) or kernel.op.builtinOptions is None:
        raise kernel.error("it lacks operands or options that TFLite Micro's kernel demands")
    dtypes = [kernel.subgraph.dtype(tensor) for tensor in kernel.op.inputs[:3] if tensor >= 0]
    if np.int8 in dtypes:
        quantize = "int8" if dtypes[0] == np.int8 else "dynamic"
    reasons = kernel.violated(quantize, "tflm")
    if reasons:
        raise kernel.error(
            "it cannot run on target 'tflm'",
            why=reasons,
            remedy="Let hintc convert the source, or convert for target='tflite'.",
        )


def _used(subgraph: Subgraph) -> list[int]:
    """Tensors that some operator reads or writes, inputs and outputs."""
    used = dict.fromkeys((*subgraph.graph.inputs, *subgraph.graph.outputs))
    for op in subgraph.operators:
        used.update(dict.fromkeys((*op.inputs, *op.outputs)))
    return [int(index) for index in used if index >= 0]


# -- memory ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Life:
    """A value's size in bytes, and the first and last operator that need it."""

    size: int
    first: int
    last: int


def _planned(subgraph: Subgraph) -> int:
    """Bytes of the values that are computed, placed so that those alive together do not overlap."""
    placed: list[tuple[int, _Life]] = []
    for life in sorted(_lives(subgraph), key=lambda life: (-life.size, life.first)):
        beside = [
            (at, other.size)
            for at, other in placed
            if other.first <= life.last and life.first <= other.last
        ]
        place = 0
        for at, size in sorted(beside):
            if at - place >= life.size:
                break
            place = max(place, at + size)
        placed.append((place, life))
    return max((place + life.size for place, life in placed), default=0)


def _lives(subgraph: Subgraph) -> Iterator[_Life]:
    first: dict[int, int] = {int(index): 0 for index in subgraph.graph.inputs}
    last: dict[int, int] = dict(first)
    for at, op in enumerate(subgraph.operators):
        for index in op.outputs:
            first.setdefault(index, at)
            last[index] = at
        last.update((index, at) for index in op.inputs if index in first)
        for size in _scratch(subgraph, op):
            yield _Life(_aligned(size), at, at)
    last.update((int(index), len(subgraph.operators)) for index in subgraph.graph.outputs)
    for index, begin in first.items():
        if index >= 0 and not subgraph.tensor(index).isVariable:
            yield _Life(_bytes(subgraph, index), begin, last.get(index, begin))


def _scratch(subgraph: Subgraph, op: Operator) -> list[int]:
    """Bytes of a kernel's buffers: an LSTM has one for each gate (lstm_shared.h)."""
    if subgraph.model.op_name(op) != "UNIDIRECTIONAL_SEQUENCE_LSTM":
        return []
    state = _bytes(subgraph, op.inputs[19])
    return [state] * 4


def _persistent(subgraph: Subgraph) -> int:
    count = len(subgraph.graph.tensors)
    total = _PER_TENSOR * count
    for index in range(count):
        if subgraph.tensor(index).isVariable:
            total += _bytes(subgraph, index)
    for op in subgraph.operators:
        is_lstm = subgraph.model.op_name(op) == "UNIDIRECTIONAL_SEQUENCE_LSTM"
        total += _PER_OPERATOR + (_PER_LSTM if is_lstm else _PER_KERNEL)
        total += sum(_PER_CHANNEL * _channels(subgraph, index) for index in op.inputs if index >= 0)
    return total


def _channels(subgraph: Subgraph, index: int) -> int:
    quantization = subgraph.tensor(index).quantization
    scales = quantization.scale if quantization is not None else None
    return len(scales) if scales is not None and len(scales) > 1 else 0


def _bytes(subgraph: Subgraph, index: int) -> int:
    shape, dtype = subgraph.shape(index), subgraph.dtype(index)
    assert shape is not None and dtype is not None
    return _aligned(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
