"""LSTM: one step of one LSTM layer, the kernel's full form.

The operands are those of UNIDIRECTIONAL_SEQUENCE_LSTM, in the same order, with the input of a
single step. Both states are the kernel's variables (kernels/lstm.cc). The kernel's basic form, with
one matrix for all gates and the states as plain inputs and outputs, is not declared.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy.typing as npt

from hintc.ops.arithmetic import EXACT, Array, Exact
from hintc.ops.sequence_lstm import UNIDIRECTIONAL_SEQUENCE_LSTM
from hintc.ops.sequence_lstm import reference as of_a_sequence
from hintc.ops.single_step import reference_of_a_step, single_step
from hintc.ops.spec import AttributeValue

LSTM = single_step(
    UNIDIRECTIONAL_SEQUENCE_LSTM,
    "LSTM",
    options="LSTMOptions",
    version=lambda hybrid: 3 if hybrid else 1,
    asymmetric_version=4,
)


def reference(
    operands: Mapping[str, npt.ArrayLike],
    attributes: Mapping[str, AttributeValue],
    arithmetic: Exact = EXACT,
) -> dict[str, Array]:
    """The op in numpy, computed in float64.

    Args:
        operands: as for `hintc.ops.sequence_lstm.reference`, but input: [batch, n_in].
        attributes: as declared; missing ones have their defaults.
        arithmetic: what its products are: exact, or those of the kernel with int8 weights.

    Returns:
        output and final_output_state, both [batch, n_out] and equal, and final_cell_state
        [batch, n_cell].
    """
    return reference_of_a_step(of_a_sequence, operands, attributes, arithmetic)
