"""RNN: one step of one plain recurrent layer (kernels/basic_rnn.cc)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy.typing as npt

from hintc.ops.arithmetic import EXACT, Array, Exact
from hintc.ops.fused_op import Constraint
from hintc.ops.sequence_rnn import UNIDIRECTIONAL_SEQUENCE_RNN
from hintc.ops.sequence_rnn import reference as of_a_sequence
from hintc.ops.single_step import reference_of_a_step, single_step
from hintc.ops.spec import AttributeValue

RNN = single_step(
    UNIDIRECTIONAL_SEQUENCE_RNN,
    "RNN",
    options="RNNOptions",
    version=lambda hybrid: 2 if hybrid else 1,
    asymmetric_version=3,
    constraints=(
        Constraint(
            "TensorFlow's quantiser does not know the kernel of a single step",
            lambda use: use.quantize != "int8",
        ),
    ),
)


def reference(
    operands: Mapping[str, npt.ArrayLike],
    attributes: Mapping[str, AttributeValue],
    arithmetic: Exact = EXACT,
) -> dict[str, Array]:
    """The op in numpy, computed in float64.

    Args:
        operands: as for `hintc.ops.sequence_rnn.reference`, but input: [batch, n_in].
        attributes: as declared; missing ones have their defaults.
        arithmetic: what its products are: exact, or those of the kernel with int8 weights.

    Returns:
        output and final_hidden_state, both [batch, n_cell] and equal.
    """
    return reference_of_a_step(of_a_sequence, operands, attributes, arithmetic)
