"""The declared fused ops: the built-in kernels and, after `declare`, users' own."""

from __future__ import annotations

from hintc.errors import HintcError
from hintc.ops.bidirectional_sequence_lstm import BIDIRECTIONAL_SEQUENCE_LSTM
from hintc.ops.bidirectional_sequence_rnn import BIDIRECTIONAL_SEQUENCE_RNN
from hintc.ops.convolution import (
    CONV_2D,
    DEPTHWISE_CONV_2D,
    FULLY_CONNECTED,
    FUSED_CONV_2D,
    FUSED_DEPTHWISE_CONV_2D,
    FUSED_MAT_MUL,
)
from hintc.ops.fused_op import (
    TARGETS,
    AttributeSpec,
    Broken,
    BuiltinLowering,
    Constraint,
    CustomLowering,
    FusedOp,
    OperandSlot,
    Quantize,
    StateSlot,
    Target,
    Use,
)
from hintc.ops.lstm import LSTM
from hintc.ops.rnn import RNN
from hintc.ops.sequence_lstm import UNIDIRECTIONAL_SEQUENCE_LSTM
from hintc.ops.sequence_rnn import UNIDIRECTIONAL_SEQUENCE_RNN
from hintc.ops.spec import PREFIX, AttributeValue, Spec, parse_spec
from hintc.ops.svdf import SVDF

__all__ = [
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "BIDIRECTIONAL_SEQUENCE_RNN",
    "LSTM",
    "PREFIX",
    "RNN",
    "SVDF",
    "TARGETS",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "UNIDIRECTIONAL_SEQUENCE_RNN",
    "AttributeSpec",
    "AttributeValue",
    "Broken",
    "BuiltinLowering",
    "Constraint",
    "CustomLowering",
    "FusedOp",
    "OperandSlot",
    "Quantize",
    "Spec",
    "StateSlot",
    "Target",
    "Use",
    "declare",
    "declared",
    "declared_names",
    "parse_spec",
]

_DECLARED: dict[str, FusedOp] = {
    op.name: op
    for op in (
        BIDIRECTIONAL_SEQUENCE_LSTM,
        BIDIRECTIONAL_SEQUENCE_RNN,
        CONV_2D,
        DEPTHWISE_CONV_2D,
        FULLY_CONNECTED,
        FUSED_CONV_2D,
        FUSED_DEPTHWISE_CONV_2D,
        FUSED_MAT_MUL,
        LSTM,
        RNN,
        SVDF,
        UNIDIRECTIONAL_SEQUENCE_LSTM,
        UNIDIRECTIONAL_SEQUENCE_RNN,
    )
}


def declared(name: str) -> FusedOp | None:
    """The declaration called `name`, if there is one."""
    return _DECLARED.get(name)


def declared_names() -> tuple[str, ...]:
    """Names of all declared ops, sorted."""
    return tuple(sorted(_DECLARED))


def declare(op: FusedOp) -> FusedOp:
    """Adds `op` to the declared ones and returns it; the same declaration again is no clash.

    Raises:
        HintcError: another op has this name already.
    """
    known = _DECLARED.setdefault(op.name, op)
    if known != op:
        raise HintcError(
            f"a fused op '{op.name}' is already declared", remedy="Give yours another name."
        )
    return op
