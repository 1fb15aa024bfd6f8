"""BIDIRECTIONAL_SEQUENCE_RNN: two plain recurrent layers over one sequence, one backwards.

Each direction is a UNIDIRECTIONAL_SEQUENCE_RNN; its operands carry the same names behind ``fw_``
and ``bw_``. Operand order is that of TensorFlow Lite's kernel
(kernels/bidirectional_sequence_rnn.cc); what it gets wrong was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    Use,
)
from hintc.ops.sequence_rnn import UNIDIRECTIONAL_SEQUENCE_RNN
from hintc.ops.sequence_rnn import reference as one_way
from hintc.ops.spec import AttributeValue

_ONE_WAY = UNIDIRECTIONAL_SEQUENCE_RNN
_AUXILIARY_WEIGHTS = [f"{side}{AUXILIARY}_weights" for side in (FORWARD, BACKWARD)]


def _operands() -> tuple[OperandSlot, ...]:
    first, *rest = _ONE_WAY.operands
    slots = [first]
    for prefix in (FORWARD, BACKWARD):
        slots += [replace(slot, name=prefix + slot.name) for slot in rest]
    slots.append(OperandSlot(AUXILIARY, optional=True, shape=first.shape))
    shape = ("n_cell", "n_in")
    slots += [OperandSlot(name, "weight", True, shape) for name in _AUXILIARY_WEIGHTS]
    return tuple(slots)


def _reads_the_auxiliary_backwards(use: Use) -> bool:
    return AUXILIARY in use.slots and not use.slots >= frozenset(_AUXILIARY_WEIGHTS)


BIDIRECTIONAL_SEQUENCE_RNN = FusedOp(
    name="BIDIRECTIONAL_SEQUENCE_RNN",
    operands=_operands(),
    results=("fw_output", "bw_output", "fw_final_hidden_state", "bw_final_hidden_state"),
    attributes={**_ONE_WAY.attributes, "merge_outputs": AttributeSpec(bool, False)},
    lowering=BuiltinLowering(
        operator="BIDIRECTIONAL_SEQUENCE_RNN",
        options="BidirectionalSequenceRNNOptions",
        fields={
            "activation": "fusedActivationFunction",
            "time_major": "timeMajor",
            "merge_outputs": "mergeOutputs",
            "asymmetric_quantize_inputs": "asymmetricQuantizeInputs",
        },
        version=lambda hybrid: 2 if hybrid else 1,
        asymmetric_version=3,
        enums={"activation": "ActivationFunctionType"},
        states=tuple(
            StateSlot(
                f"{prefix}hidden_state",
                f"{prefix}final_hidden_state",
                backward=prefix == BACKWARD,
            )
            for prefix in (FORWARD, BACKWARD)
        ),
        outputs=lambda attributes: outputs(attributes, "hidden_state"),
        int8=frozenset(slot.name for slot in _operands() if slot.kind == "weight"),
    ),
    constraints=(
        *both_ways(_ONE_WAY),
        Constraint(
            "the kernel gives wrong values, or crashes, with int8 weights on time-major input",
            lambda use: use.quantize != "dynamic" or not use.attributes["time_major"],
            broken=Broken(
                "int8 weights, time-major",
                "outputs off by 0.9 to 130; crashes where they are merged",
                "bidirectional_sequence_rnn.cc runs its loop over time once for each step, every "
                "time from the state that the last run left",
                "the batch-major kernel between transposes; where fuse-bidirectional knows of the "
                "int8 weights, two unidirectional kernels",
            ),
        ),
        Constraint(
            "the kernel's backward direction does not read an auxiliary input without weights "
            "where batch-major",
            lambda use: (
                bool(use.attributes["time_major"]) or not _reads_the_auxiliary_backwards(use)
            ),
            broken=Broken(
                "auxiliary input without weights, batch-major",
                "the backward outputs are those of the input, not of the auxiliary input",
                "bidirectional_sequence_rnn.cc steps backward through `input`, not `bw_input`",
                "the time-major kernel between transposes, with float32 weights instead of int8",
            ),
        ),
        *auxiliary_constraints(frozenset(_AUXILIARY_WEIGHTS), frozenset()),
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
            takes (`hintc.ops.sequence_rnn.reference`), with its prefix.
        attributes: as declared; missing ones have their defaults.
        arithmetic: what its products are: exact, or those of the kernel with int8 weights.

    Returns:
        fw_output and bw_output, both in the input's order, or, with ``merge_outputs``, fw_output
        alone with the two side by side ([time, batch, 2 n_cell]); for each direction
        final_hidden_state [batch, n_cell].
    """
    return reference_both_ways(
        BIDIRECTIONAL_SEQUENCE_RNN, one_way, operands, attributes, arithmetic
    )
