"""UNIDIRECTIONAL_SEQUENCE_RNN: one plain recurrent layer over a whole sequence.

Formula: J. Elman, "Finding structure in time", 1990: h' = act(W x + R h + b), y = h'.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from hintc.ops.activation import ACTIVATIONS, activate
from hintc.ops.arithmetic import EXACT, Array, Exact
from hintc.ops.fused_op import (
    AttributeSpec,
    BuiltinLowering,
    Constraint,
    FusedOp,
    OperandSlot,
    StateSlot,
)
from hintc.ops.spec import AttributeValue

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
        "asymmetric_quantize_inputs": AttributeSpec(bool, False),
    },
    lowering=BuiltinLowering(
        operator="UNIDIRECTIONAL_SEQUENCE_RNN",
        options="SequenceRNNOptions",
        fields={
            "activation": "fusedActivationFunction",
            "time_major": "timeMajor",
            "asymmetric_quantize_inputs": "asymmetricQuantizeInputs",
        },
        version=lambda hybrid: 2 if hybrid else 1,
        asymmetric_version=3,
        enums={"activation": "ActivationFunctionType"},
        states=(StateSlot("hidden_state", "final_hidden_state"),),
        outputs=lambda attributes: {"output": ("hidden_state",)},
        int8=frozenset({"input_weights", "recurrent_weights"}),
    ),
    constraints=(
        Constraint("TFLite Micro has no such kernel", lambda use: False, targets=("tflm",)),
    ),
)


def reference(
    operands: Mapping[str, npt.ArrayLike],
    attributes: Mapping[str, AttributeValue],
    arithmetic: Exact = EXACT,
) -> dict[str, Array]:
    """The op in numpy, computed in float64.

    Args:
        operands: by slot name. input: [time, batch, n_in], or [batch, time, n_in] when
            ``time_major`` is false; input_weights [n_cell, n_in]; recurrent_weights
            [n_cell, n_cell]; bias [n_cell]; hidden_state [batch, n_cell], zeros when absent. One
            direction of the bidirectional op also has auxiliary_input and its weights.
        attributes: as declared; missing ones have their defaults.
        arithmetic: what its products are: exact, or those of the kernel with int8 weights.

    Returns:
        output ([time, batch, n_cell] or batch-major as the input) and final_hidden_state
        [batch, n_cell].
    """
    values = {name: np.asarray(value, np.float64) for name, value in operands.items()}
    attrs = UNIDIRECTIONAL_SEQUENCE_RNN.checked_attributes(attributes)
    major = 0 if attrs["time_major"] else 1
    sources = {
        name: np.moveaxis(values[name], major, 0)
        for name in ("input", "auxiliary_input")
        if f"{name}_weights" in values
    }
    steps, batch = sources["input"].shape[:2]
    n_cell = values["input_weights"].shape[0]
    h = values.get("hidden_state", np.zeros((batch, n_cell)))
    outputs = np.zeros((steps, batch, n_cell))
    for time in range(steps):
        z = arithmetic.product(h, values["recurrent_weights"]) + values["bias"]
        for name, source in sources.items():
            z = z + arithmetic.product(source[time], values[f"{name}_weights"])
        h = outputs[time] = activate(str(attrs["activation"]), z)
    return {"output": np.moveaxis(outputs, 0, major), "final_hidden_state": h}
