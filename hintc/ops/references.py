"""The numpy reference of each built-in kernel, by the op's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy.typing as npt

from hintc.ops import (
    bidirectional_sequence_lstm,
    bidirectional_sequence_rnn,
    lstm,
    rnn,
    sequence_lstm,
    sequence_rnn,
    svdf,
)
from hintc.ops.arithmetic import EXACT, Array, Exact
from hintc.ops.spec import AttributeValue


class Reference(Protocol):
    """The formula of an op."""

    def __call__(
        self,
        operands: Mapping[str, npt.ArrayLike],
        attributes: Mapping[str, AttributeValue],
        arithmetic: Exact = EXACT,
    ) -> dict[str, Array]:
        """Operands by slot and attributes by name to results by name, in float64."""
        ...


REFERENCES: Mapping[str, Reference] = {
    "BIDIRECTIONAL_SEQUENCE_LSTM": bidirectional_sequence_lstm.reference,
    "BIDIRECTIONAL_SEQUENCE_RNN": bidirectional_sequence_rnn.reference,
    "LSTM": lstm.reference,
    "RNN": rnn.reference,
    "SVDF": svdf.reference,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": sequence_lstm.reference,
    "UNIDIRECTIONAL_SEQUENCE_RNN": sequence_rnn.reference,
}
