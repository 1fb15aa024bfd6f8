"""What TFLite Micro can run, and how much memory it takes for it.

The operators are those that its own interpreter has registered: the ones that the Python package
tflite-micro 0.dev20261023182759 finds, asked one by one (tests/test_micro.py asks again). On a
device one registers the operators that one needs, from the same kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hintc.errors import HintcError
from hintc.near import some
from hintc.tflite.flatbuffer import Model, Operator, Subgraph

OPERATORS = frozenset(
    (
        *("ABS", "ADD", "ADD_N", "ARG_MAX", "ARG_MIN", "ASSIGN_VARIABLE", "AVERAGE_POOL_2D"),
        *("BATCH_MATMUL", "BATCH_TO_SPACE_ND", "BROADCAST_ARGS", "BROADCAST_TO", "CALL_ONCE"),
        *("CAST", "CEIL", "CONCATENATION", "CONV_2D", "COS", "CUMSUM", "DEPTHWISE_CONV_2D"),
        *("DEPTH_TO_SPACE", "DEQUANTIZE", "DIV", "DYNAMIC_UPDATE_SLICE", "ELU"),
        *("EMBEDDING_LOOKUP", "EQUAL", "EXP", "EXPAND_DIMS", "FILL", "FLOOR", "FLOOR_DIV"),
        *("FLOOR_MOD", "FULLY_CONNECTED", "GATHER", "GATHER_ND", "GREATER", "GREATER_EQUAL"),
        *("HARD_SWISH", "IF", "L2_NORMALIZATION", "L2_POOL_2D", "LEAKY_RELU", "LESS"),
        *("LESS_EQUAL", "LOG", "LOGICAL_AND", "LOGICAL_NOT", "LOGICAL_OR", "LOGISTIC"),
        *("LOG_SOFTMAX", "MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MIRROR_PAD", "MUL", "NEG"),
        *("NOT_EQUAL", "PACK", "PAD", "PADV2", "PRELU", "QUANTIZE", "READ_VARIABLE"),
        *("REDUCE_ALL", "REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6", "RESHAPE"),
        *("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2", "ROUND", "RSQRT"),
        *("SELECT_V2", "SHAPE", "SIN", "SLICE", "SOFTMAX", "SPACE_TO_BATCH_ND"),
        *("SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQRT", "SQUARE", "SQUARED_DIFFERENCE"),
        *("SQUEEZE", "STRIDED_SLICE", "SUB", "SUM", "SVDF", "TANH", "TRANSPOSE"),
        *("TRANSPOSE_CONV", "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNPACK", "VAR_HANDLE", "WHILE"),
        "ZEROS_LIKE",
    )
)
"""Operators with a kernel in TFLite Micro."""

_WEIGHED = frozenset(
    (
        *("BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "SVDF"),
        *("TRANSPOSE_CONV", "UNIDIRECTIONAL_SEQUENCE_LSTM"),
    )
)
"""Operators with weights: input 0 is what they weigh."""
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


def check_micro(model: Model) -> None:
    """Refuses a model that TFLite Micro cannot run.

    Raises:
        HintcError: operators that have no kernel there; sizes that are not known before it runs;
            float16 or float64 values; float arithmetic with int8 weights, which gives NaN.
    """
    _check_operators(model)
    for subgraph in model.subgraphs:
        _check_sizes(subgraph)
        _check_dtypes(subgraph)
        for op in subgraph.operators:
            _check_weights(subgraph, op)


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
    if subgraph.model.op_name(op) not in _WEIGHED:
        return
    if subgraph.dtype(op.inputs[0]) != np.float32:
        return
    weights = [i for i in op.inputs[1:] if i >= 0 and subgraph.dtype(i) == np.int8]
    if weights:
        raise HintcError(
            "TFLite Micro cannot compute in float with int8 weights",
            node=subgraph.tensor_name(op.outputs[0]),
            why="its LSTM gives NaN without an error, its other kernels refuse",
            remedy="Convert with quantize='int8', or without quantize.",
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
