"""SVDF: a dense layer over a window of past inputs, factored by singular values.

Formula: P. Nakkiran, R. Alvarez, R. Prabhavalkar, C. Parada, "Compressing deep neural networks
using a rank-constrained topology", Interspeech 2015. Each of ``n_units * rank`` filters reduces the
input to a number and keeps the last ``memory`` of those; the filter's answer is their sum weighted
in time, and a unit is the sum of its ``rank`` filters. Layout of the state as in TensorFlow Lite's
kernel (kernels/internal/reference/svdf.h): filter by filter, the oldest number first.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from hintc.ops.activation import ACTIVATIONS, activate
from hintc.ops.arithmetic import EXACT, Array, Exact
from hintc.ops.fused_op import (
    NO_FLOAT16,
    AttributeSpec,
    Broken,
    BuiltinLowering,
    Constraint,
    FusedOp,
    OperandSlot,
    StateSlot,
    Use,
)
from hintc.ops.spec import AttributeValue


def _rank(use: Use) -> int:
    rank = use.attributes["rank"]
    return rank if isinstance(rank, int) else 0


SVDF = FusedOp(
    name="SVDF",
    operands=(
        OperandSlot("input", shape=("?", "n_in")),
        OperandSlot("feature_weights", "weight", shape=("n_filters", "n_in")),
        OperandSlot("time_weights", "weight", shape=("n_filters", "memory")),
        OperandSlot("bias", "bias", True, ("n_units",)),
        OperandSlot("state", "state", True, ("batch", "n_filters*memory")),
    ),
    results=("output", "final_state"),
    attributes={
        "activation": AttributeSpec(str, "NONE", ACTIVATIONS),
        "rank": AttributeSpec(int, 1),
        "asymmetric_quantize_inputs": AttributeSpec(bool, False),
    },
    lowering=BuiltinLowering(
        operator="SVDF",
        options="SVDFOptions",
        fields={
            "activation": "fusedActivationFunction",
            "rank": "rank",
            "asymmetric_quantize_inputs": "asymmetricQuantizeInputs",
        },
        version=lambda hybrid: 2 if hybrid else 1,
        asymmetric_version=4,
        enums={"activation": "ActivationFunctionType"},
        states=(StateSlot("state", "final_state"),),
        outputs=lambda attributes: {"output": ()},
        int8=frozenset({"feature_weights", "time_weights"}),
        integer=(),
    ),
    constraints=(
        Constraint("rank is not positive", lambda use: _rank(use) > 0),
        Constraint(
            "the kernel loses its int8 time weights when the batch changes (measured error 1.7)",
            lambda use: use.quantize != "dynamic" or not use.dynamic_batch,
            broken=Broken(
                "int8 weights, dynamic batch",
                "outputs off by 1.7 after the batch has changed",
                "svdf.cc dequantises the time weights at the first invoke only, into memory that "
                "moves when a state changes its size",
                "its weights stay float32; fix the batch size to have them int8",
            ),
        ),
        Constraint(
            "TFLite Micro's kernel crashes without a bias",
            # of integers one is made: hintc.tflite.integers.svdf
            lambda use: "bias" in use.slots or use.quantize == "int8",
            targets=("tflm",),
            broken=Broken(
                "on floats, no bias",
                "crashes",
                "svdf_common.cc reads and frees the bias without asking whether there is one",
                "an error; a hint can name a bias of zeros. On integers they are put in",
            ),
        ),
        Constraint(
            "TFLite Micro's kernel takes no float input with int8 weights",
            lambda use: use.quantize != "dynamic",
            targets=("tflm",),
        ),
        NO_FLOAT16,
    ),
)


def reference(
    operands: Mapping[str, npt.ArrayLike],
    attributes: Mapping[str, AttributeValue],
    arithmetic: Exact = EXACT,
) -> dict[str, Array]:
    """The op in numpy, computed in float64.

    Args:
        operands: by slot name. input [batch, n_in]; feature_weights [n_units * rank, n_in];
            time_weights [n_units * rank, memory]; bias [n_units], zeros when absent; state
            [batch, n_units * rank * memory], zeros when absent.
        attributes: as declared; missing ones have their defaults.
        arithmetic: what its products are: exact, or those of the kernel with int8 weights.

    Returns:
        output [batch, n_units] and final_state, as the state.
    """
    values = {name: np.asarray(value, np.float64) for name, value in operands.items()}
    attrs = SVDF.checked_attributes(attributes)
    x, time_weights = values["input"], arithmetic.weight(values["time_weights"])
    batch, (filters, memory) = x.shape[0], time_weights.shape
    state = values.get("state", np.zeros((batch, filters * memory)))
    newest = arithmetic.product(x, values["feature_weights"])
    window = state.reshape(batch, filters, memory)[:, :, 1:]
    window = np.concatenate([window, newest[:, :, None]], axis=2)
    answers = (window * time_weights).sum(axis=2)
    rank = attrs["rank"]
    assert isinstance(rank, int)
    units = answers.reshape(batch, filters // rank, rank).sum(axis=2) + values.get("bias", 0.0)
    return {
        "output": activate(str(attrs["activation"]), units),
        "final_state": window.reshape(batch, filters * memory),
    }
