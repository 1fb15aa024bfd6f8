"""UNIDIRECTIONAL_SEQUENCE_RNN: one plain recurrent layer over a whole sequence.

Formula: J. Elman, "Finding structure in time", 1990: h' = act(W x + R h + b), y = h'.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from hintc.ops.activation import ACTIVATIONS, activate
from hintc.ops.fused_op import (
    AttributeSpec,
    AttributeValue,
    BuiltinLowering,
    Constraint,
    FusedOp,
    OperandSlot,
    StateSlot,
)

Array = npt.NDArray[np.float64]

UNIDIRECTIONAL_SEQUENCE_RNN = FusedOp(
    name="UNIDIRECTIONAL_SEQUENCE_RNN",
    operands=(
        OperandSlot("input", shape=("?", "?", "n_in")),
        OperandSlot("input_weights", "weight", shape=("n_cell", "n_in")),
        OperandSlot("recurrent_weights", "weight", shape=("n_cell", "n_cell")),
        OperandSlot("bias", "bias", shape=("n_cell",)),
        OperandSlot("hidden_state", "state", True, ("batch", "n_cell")),
    ),
    results=("output", "final_hidden_state"),
    attributes={
        "activation": AttributeSpec(str, "TANH", ACTIVATIONS),
        "time_major": AttributeSpec(bool, True),
    },
    lowering=BuiltinLowering(
        operator="UNIDIRECTIONAL_SEQUENCE_RNN",
        options="SequenceRNNOptions",
        fields={"activation": "fusedActivationFunction", "time_major": "timeMajor"},
        version=lambda hybrid: 2 if hybrid else 1,
        enums={"activation": "ActivationFunctionType"},
        states=(StateSlot("hidden_state", "input_weights", 0, "final_hidden_state"),),
        outputs=lambda attributes: {"output": ("hidden_state",)},
        int8=frozenset({"input_weights", "recurrent_weights"}),
    ),
    constraints=(
        Constraint("TFLite Micro has no such kernel", lambda use: False, targets=("tflm",)),
    ),
)


def reference(
    operands: Mapping[str, npt.ArrayLike], attributes: Mapping[str, AttributeValue]
) -> dict[str, Array]:
    """The op in numpy, computed in float64.

    Args:
        operands: by slot name. input: [time, batch, n_in], or [batch, time, n_in] when
            ``time_major`` is false; input_weights [n_cell, n_in]; recurrent_weights
            [n_cell, n_cell]; bias [n_cell]; hidden_state [batch, n_cell], zeros when absent.
        attributes: as declared; missing ones have their defaults.

    Returns:
        output ([time, batch, n_cell] or batch-major as the input) and final_hidden_state
        [batch, n_cell].
    """
    values = {name: np.asarray(value, np.float64) for name, value in operands.items()}
    attrs = UNIDIRECTIONAL_SEQUENCE_RNN.checked_attributes(attributes)
    time_major = bool(attrs["time_major"])
    x = values["input"] if time_major else values["input"].swapaxes(0, 1)
    weights, recurrent = values["input_weights"], values["recurrent_weights"]
    h = values.get("hidden_state", np.zeros((x.shape[1], weights.shape[0])))
    outputs = np.zeros((x.shape[0], x.shape[1], weights.shape[0]))
    for time in range(x.shape[0]):
        h = activate(
            str(attrs["activation"]), x[time] @ weights.T + h @ recurrent.T + values["bias"]
        )
        outputs[time] = h
    return {
        "output": outputs if time_major else outputs.swapaxes(0, 1),
        "final_hidden_state": h,
    }
