"""BIDIRECTIONAL_SEQUENCE_LSTM: two LSTM layers over one sequence, one from its end to its start.

Each direction is a UNIDIRECTIONAL_SEQUENCE_LSTM without layer normalisation; its operands carry
the same names behind ``fw_`` and ``bw_``. Operand order is that of TensorFlow Lite's kernel
(kernels/bidirectional_sequence_lstm.cc); what it gets wrong was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy.typing as npt

from hintc.ops.arithmetic import EXACT, Array, Exact
from hintc.ops.directions import (
    AUXILIARY,
    BACKWARD,
    FORWARD,
    NEVER,
    auxiliary_constraints,
    both_ways,
    outputs,
    reference_both_ways,
)
from hintc.ops.fused_op import (
    AttributeSpec,
    Broken,
    BuiltinLowering,
    Constraint,
    FusedOp,
    OperandSlot,
    StateSlot,
)
from hintc.ops.sequence_lstm import GATES, UNIDIRECTIONAL_SEQUENCE_LSTM
from hintc.ops.sequence_lstm import reference as one_way
from hintc.ops.spec import AttributeValue

_ONE_WAY = UNIDIRECTIONAL_SEQUENCE_LSTM
_STATES = ("output_state", "cell_state")


def _operands() -> tuple[OperandSlot, ...]:
    layer_norm = {f"{gate}_layer_norm_coefficients" for gate in GATES}
    first, *rest = (slot for slot in _ONE_WAY.operands if slot.name not in layer_norm)
    slots = [first]
    for prefix in (FORWARD, BACKWARD):
        slots += [replace(s, name=prefix + s.name) for s in rest if s.name not in _STATES]
    for prefix in (FORWARD, BACKWARD):
        slots += [replace(s, name=prefix + s.name) for s in rest if s.name in _STATES]
    # The kernel of TensorFlow 2.21 reads steps of the input's width from the auxiliary input.
    slots.append(OperandSlot(AUXILIARY, optional=True, shape=first.shape))
    shape = ("n_cell", "n_in")
    slots += [OperandSlot(name, "weight", True, shape) for name in _auxiliary_weights(GATES)]
    return tuple(slots)


def _auxiliary_weights(gates: Sequence[str]) -> list[str]:
    sides = (FORWARD, BACKWARD)
    return [f"{side}{AUXILIARY}_to_{gate}_weights" for side in sides for gate in gates]


def _states() -> tuple[StateSlot, ...]:
    assert isinstance(_ONE_WAY.lowering, BuiltinLowering)
    return tuple(
        replace(
            state,
            slot=prefix + state.slot,
            result=prefix + state.result,
            backward=prefix == BACKWARD,
        )
        for prefix in (FORWARD, BACKWARD)
        for state in _ONE_WAY.lowering.states
    )


BIDIRECTIONAL_SEQUENCE_LSTM = FusedOp(
    name="BIDIRECTIONAL_SEQUENCE_LSTM",
    operands=_operands(),
    results=(
        "fw_output",
        "bw_output",
        "fw_final_output_state",
        "fw_final_cell_state",
        "bw_final_output_state",
        "bw_final_cell_state",
    ),
    attributes={**_ONE_WAY.attributes, "merge_outputs": AttributeSpec(bool, False)},
    lowering=BuiltinLowering(
        operator="BIDIRECTIONAL_SEQUENCE_LSTM",
        options="BidirectionalSequenceLSTMOptions",
        fields={
            "activation": "fusedActivationFunction",
            "cell_clip": "cellClip",
            "proj_clip": "projClip",
            "time_major": "timeMajor",
            "merge_outputs": "mergeOutputs",
            "asymmetric_quantize_inputs": "asymmetricQuantizeInputs",
        },
        # 2 is the first that knows time_major, and it reads int8 weights too
        version=lambda hybrid: 2,
        asymmetric_version=3,
        enums={"activation": "ActivationFunctionType"},
        states=_states(),
        outputs=lambda attributes: outputs(attributes, "output_state"),
        int8=frozenset(slot.name for slot in _operands() if slot.kind == "weight"),
    ),
    constraints=(
        *both_ways(_ONE_WAY),
        Constraint(
            "the kernel mixes up the batch where batch-major outputs are merged (measured error "
            "0.1 to 1.3)",
            lambda use: bool(use.attributes["time_major"]) or not use.attributes["merge_outputs"],
            broken=Broken(
                "batch-major, merged outputs",
                "with more than one row outputs off by 0.1 to 1, and memory beyond the state "
                "written: crashes",
                "lstm_eval.cc finds a row's output state by the width of the merged output, not of "
                "the state",
                "the time-major kernel between transposes",
            ),
        ),
        *auxiliary_constraints(
            frozenset(_auxiliary_weights(GATES)), frozenset(_auxiliary_weights(GATES[:1]))
        ),
        *NEVER,
    ),
)


def reference(
    operands: Mapping[str, npt.ArrayLike],
    attributes: Mapping[str, AttributeValue],
    arithmetic: Exact = EXACT,
) -> dict[str, Array]:
    """The op in numpy, computed in float64.

    Args:
        operands: by slot name: ``input``, and for each direction what the unidirectional op
            takes (`hintc.ops.sequence_lstm.reference`), with its prefix.
        attributes: as declared; missing ones have their defaults.
        arithmetic: what its products are: exact, or those of the kernel with int8 weights.

    Returns:
        fw_output and bw_output, both in the input's order, or, with ``merge_outputs``, fw_output
        alone with the two side by side ([time, batch, 2 n_out]); for each direction
        final_output_state [batch, n_out] and final_cell_state [batch, n_cell].
    """
    return reference_both_ways(
        BIDIRECTIONAL_SEQUENCE_LSTM, one_way, operands, attributes, arithmetic
    )
