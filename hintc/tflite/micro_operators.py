"""The operators of TFLite Micro, and the dtypes that its kernels take.

Source: the interpreter of the Python package tflite-micro 0.dev20261023182759, which has the
kernels of tensorflow/lite/micro/kernels registered (on a device one registers those that one
needs), asked with a model of one operator for each operator and dtype. A dtype is in the table if
the model runs and gives what LiteRT gives, or, where LiteRT has no such kernel, what the operator
means. tests/test_micro_operators.py asks again; the models are those of tests/micro_recipes.py.

Not in the table, though the interpreter runs them, are

* GREATER of int16, which finds nothing greater: comparisons.cc computes scales for int8 alone;
* SPACE_TO_BATCH_ND of int8, which pads with the integer 0, not with the zero point:
  space_to_batch_nd.cc never sets the output's offset;
* ADD_N, CUMSUM and ZEROS_LIKE of int8, which lose the zero point. LiteRT has no such kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

RESULT = -1
"""The place of the first result, where places of operands are their numbers."""


@dataclass(frozen=True)
class Takes:
    """The dtypes that one kernel takes.

    Args:
        firsts: dtypes of what it works on, each with those of a second tensor: an index, or what
            it makes; "" where it has no such tensor, or takes but int32 by the schema.
        first: place of the operand that it works on.
        second: place of the second tensor.
    """

    firsts: Mapping[str, frozenset[str]]
    first: int = 0
    second: int = 1

    @property
    def word(self) -> str:
        """Between the two dtypes."""
        return "to" if self.second == RESULT else "with"

    def __str__(self) -> str:
        return ", ".join(
            first if "" in those else f"{first} {self.word} {' or '.join(sorted(those))}"
            for first, those in self.firsts.items()
        )


_REST = "int32 int64 bool uint8"
_ALL = f"float32 int8 int16 {_REST}"
_ROWS = (
    ("BROADCAST_ARGS", "int32 int64"),
    ("LOGICAL_AND LOGICAL_NOT LOGICAL_OR REDUCE_ALL", "bool"),
    ("ADD_N CEIL COS CUMSUM EXP FLOOR FLOOR_DIV FLOOR_MOD L2_POOL_2D LOG NEG ROUND SIN", "float32"),
    ("SPACE_TO_BATCH_ND SQRT SQUARE", "float32"),
    (
        "BATCH_TO_SPACE_ND DEPTH_TO_SPACE ELU HARD_SWISH L2_NORMALIZATION LOG_SOFTMAX",
        "float32 int8",
    ),
    ("REDUCE_MAX REDUCE_MIN RESIZE_BILINEAR SPACE_TO_DEPTH", "float32 int8"),
    ("ABS AVERAGE_POOL_2D BATCH_MATMUL CONV_2D DEPTHWISE_CONV_2D", "float32 int8 int16"),
    ("FULLY_CONNECTED LEAKY_RELU LOGISTIC MAX_POOL_2D MEAN PRELU RELU RELU6", "float32 int8 int16"),
    ("RESIZE_NEAREST_NEIGHBOR RSQRT SOFTMAX SUM TANH TRANSPOSE", "float32 int8 int16"),
    ("ADD MUL SPLIT_V SQUARED_DIFFERENCE SUB UNPACK", "float32 int8 int16 int32"),
    ("STRIDED_SLICE", "float32 int8 int16 int32 bool"),
    ("MAXIMUM MINIMUM PACK", "float32 int8 int16 int32 int64"),
    ("CONCATENATION", "float32 int8 int16 int32 int64 bool"),
    ("RESHAPE REVERSE_V2 SQUEEZE", _ALL),
    ("DIV", "float32 int8 int32"),
    ("GREATER GREATER_EQUAL LESS LESS_EQUAL", "float32 int8 int32 int64"),
    ("EQUAL NOT_EQUAL", "float32 int8 int32 int64 bool"),
    ("ZEROS_LIKE", "float32 int32 int64"),
)
"""Operators, and the dtypes of their first operand."""
_ELSEWHERE = {
    "EMBEDDING_LOOKUP": (1, "float32 int8"),
    "SELECT_V2": (1, "float32 int8 int16"),
    "SPLIT": (1, "float32 int8 int16 int32"),
    "TRANSPOSE_CONV": (2, "float32 int8 int16"),
}
"""Operators that work on another operand than the first: its place and dtypes."""
_PAIRS = (
    ("GATHER GATHER_ND", "float32 int8", "int32"),
    ("EXPAND_DIMS", "float32 int8 int16", "int32"),
    ("PAD PADV2", "float32 int8 int16 int32", "int32"),
    ("MIRROR_PAD", "float32 int8", "int32 int64"),
    ("SLICE", "float32 int8 int16 int32 bool", "int32 int64"),
    ("BROADCAST_TO", _ALL, "int32 int64"),
)
"""Operators, dtypes of their first operand and of their second one, which is an index."""
_MAKES = (
    ("ARG_MAX ARG_MIN", "float32 int8", "int32"),
    ("SHAPE", _ALL, "int32"),
    ("CAST", "float32 int8 int16 int32 bool", "float32 int8 int16 int32 bool"),
    ("DEQUANTIZE", "int8 int16 uint8", "float32"),
    ("QUANTIZE", "float32 int8 int16 int32", "int8 int16"),
    ("QUANTIZE", "int8", "uint8"),
    ("QUANTIZE", "uint8", "int8"),
)
"""Operators, dtypes of their operand, and those of what they make of it."""


def _product(firsts: str, seconds: str = "") -> dict[str, frozenset[str]]:
    return dict.fromkeys(firsts.split(), frozenset(seconds.split() or [""]))


def _table() -> Iterator[tuple[str, Takes]]:
    for names, dtypes in _ROWS:
        yield from ((name, Takes(_product(dtypes))) for name in names.split())
    for name, (place, dtypes) in _ELSEWHERE.items():
        yield name, Takes(_product(dtypes), place)
    for names, firsts, seconds in _PAIRS:
        yield from ((name, Takes(_product(firsts, seconds))) for name in names.split())
    yield "FILL", Takes(_product("float32 int8 int32", "int32 int64"), 1, 0)
    moved = _product("float32 int8 int16 int32", "int32 int64")
    yield "DYNAMIC_UPDATE_SLICE", Takes(moved, 0, 2)
    made: dict[str, dict[str, frozenset[str]]] = {}
    for names, firsts, seconds in _MAKES:
        for name in names.split():
            known = made.setdefault(name, {})
            for first, those in _product(firsts, seconds).items():
                known[first] = known.get(first, frozenset()) | those
    yield from ((name, Takes(found, 0, RESULT)) for name, found in made.items())


TAKES: Mapping[str, Takes] = dict(_table())
"""Operator -> the dtypes that its kernel takes."""
UNSCALED = ("int8", "int16", "uint8")
"""Dtypes that stand for real numbers by a scale. Without one they are integers."""
MOVES = frozenset(
    (
        *("ARG_MAX", "ARG_MIN", "BATCH_TO_SPACE_ND", "BROADCAST_TO", "CAST", "CONCATENATION"),
        *("DEPTH_TO_SPACE", "DYNAMIC_UPDATE_SLICE", "EMBEDDING_LOOKUP", "EXPAND_DIMS", "FILL"),
        *("GATHER", "GATHER_ND", "MAXIMUM", "MINIMUM", "MIRROR_PAD", "PACK", "PAD", "PADV2"),
        *("REDUCE_MAX", "REDUCE_MIN", "RESHAPE", "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2"),
        *("SELECT_V2", "SHAPE", "SLICE", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQUEEZE"),
        *("STRIDED_SLICE", "TRANSPOSE", "UNPACK"),
    )
)
"""Operators that move or choose values: integers of `UNSCALED` need no scale there. The kernels of
all others compute with a scale of 0 then."""

_VALUES = "of a variable: whatever the operators around it take"
_BODIES = "of its bodies: whatever their operators take"
_FUSED = "a fused kernel: docs/kernels.md has its table"
UNKNOWN: Mapping[str, str] = {
    "ASSIGN_VARIABLE": _VALUES,
    "CALL_ONCE": _BODIES,
    "IF": _BODIES,
    "READ_VARIABLE": _VALUES,
    "SVDF": _FUSED,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _FUSED,
    "VAR_HANDLE": _VALUES,
    "WHILE": _BODIES,
}
"""Operators whose dtypes are not judged here -> where they come from."""

OPERATORS = frozenset(TAKES) | frozenset(UNKNOWN)
"""Operators with a kernel in TFLite Micro."""
