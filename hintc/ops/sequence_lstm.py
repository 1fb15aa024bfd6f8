"""UNIDIRECTIONAL_SEQUENCE_LSTM: one LSTM layer over a whole sequence.

Formulas: H. Sak, A. Senior, F. Beaufays, "Long short-term memory recurrent neural network
architectures for large scale acoustic modeling", Interspeech 2014 (peepholes, projection);
K. Greff et al., "LSTM: a search space odyssey", 2017 (coupled gates: i = 1 - f);
J. Ba, J. Kiros, G. Hinton, "Layer normalization", 2016. Operand order and the place of clips and
normalisation are those of TensorFlow Lite's kernel (kernels/lstm_eval.cc), measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hintc.ops.activation import ACTIVATIONS, activate, sigmoid
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

GATES = ("input", "forget", "cell", "output")
"""The order of gates in every group of operands: i, f, c, o."""
LAYER_NORM_EPSILON = 1e-8
"""Added to the variance; the kernel's constant."""

_INPUT_GATE = frozenset(
    {
        "input_to_input_weights",
        "recurrent_to_input_weights",
        "input_gate_bias",
    }
)
_INPUT_PEEPHOLE = "cell_to_input_weights"
_PEEPHOLE = frozenset({"cell_to_forget_weights", "cell_to_output_weights"})
_INPUT_NORM = "input_layer_norm_coefficients"
_NORM = frozenset(f"{gate}_layer_norm_coefficients" for gate in GATES[1:])
_VARIANTS = _PEEPHOLE | _NORM | {_INPUT_PEEPHOLE, _INPUT_NORM, "projection_weights"}


def _operands() -> tuple[OperandSlot, ...]:
    n_in, n_cell, n_out = "n_in", "n_cell", "n_out"
    slots = [OperandSlot("input", shape=("?", "?", "n_in"))]
    for gate in GATES:
        slots.append(
            OperandSlot(f"input_to_{gate}_weights", "weight", gate == "input", (n_cell, n_in))
        )
    for gate in GATES:
        slots.append(
            OperandSlot(f"recurrent_to_{gate}_weights", "weight", gate == "input", (n_cell, n_out))
        )
    for gate in ("input", "forget", "output"):
        slots.append(OperandSlot(f"cell_to_{gate}_weights", "weight", True, (n_cell,)))
    for gate in GATES:
        slots.append(OperandSlot(f"{gate}_gate_bias", "bias", gate == "input", (n_cell,)))
    slots.append(OperandSlot("projection_weights", "weight", True, (n_out, n_cell)))
    slots.append(OperandSlot("projection_bias", "bias", True, (n_out,)))
    slots.append(OperandSlot("output_state", "state", True, ("batch", n_out)))
    slots.append(OperandSlot("cell_state", "state", True, ("batch", n_cell)))
    for gate in GATES:
        slots.append(OperandSlot(f"{gate}_layer_norm_coefficients", "bias", True, (n_cell,)))
    return tuple(slots)


def _all_or_none(use: Use, names: frozenset[str]) -> bool:
    return len(use.slots & names) in (0, len(names))


def _with_input_gate(use: Use, name: str, group: frozenset[str]) -> bool:
    """`name` is there exactly when its group and the input gate are."""
    return (name in use.slots) == (group <= use.slots and use.slots >= _INPUT_GATE)


def _number(use: Use, name: str) -> float:
    value = use.attributes[name]
    return float(value) if isinstance(value, int | float) else 0.0


_CONSTRAINTS = (
    Constraint(
        "the input gate is neither complete nor absent (coupled gates have no input gate)",
        lambda use: _all_or_none(use, _INPUT_GATE),
    ),
    Constraint(
        "the peephole weights of the forget and the output gate come together",
        lambda use: _all_or_none(use, _PEEPHOLE),
    ),
    Constraint(
        "cell_to_input_weights must be there exactly when the other peepholes and the input "
        "gate are",
        lambda use: _with_input_gate(use, _INPUT_PEEPHOLE, _PEEPHOLE),
    ),
    Constraint(
        "layer-norm coefficients come for all gates or for none",
        lambda use: _all_or_none(use, _NORM) and _with_input_gate(use, _INPUT_NORM, _NORM),
    ),
    Constraint(
        "projection_bias needs projection_weights",
        lambda use: "projection_bias" not in use.slots or "projection_weights" in use.slots,
    ),
    Constraint(
        "the kernel clips a projection only where there is one (proj_clip without "
        "projection_weights)",
        lambda use: _number(use, "proj_clip") == 0 or "projection_weights" in use.slots,
    ),
    Constraint("cell_clip is negative", lambda use: _number(use, "cell_clip") >= 0),
    Constraint("proj_clip is negative", lambda use: _number(use, "proj_clip") >= 0),
    Constraint(
        "the kernel gives wrong values without an activation (measured error 0.6)",
        lambda use: use.attributes["activation"] != "NONE",
        broken=Broken(
            "no activation",
            "outputs off by 0.6 to 1.6",
            "ApplyActivationToVector copies nothing for NONE: h is made of the cell gate, not of "
            "the cell state",
            "a loop, or an unrolled graph",
        ),
    ),
    Constraint(
        "TFLite Micro's kernel has neither peepholes, projection, layer normalisation nor "
        "coupled gates",
        lambda use: not use.slots & _VARIANTS and use.slots >= _INPUT_GATE,
        targets=("tflm",),
    ),
    Constraint(
        "TFLite Micro's kernel gives NaN, without an error, on float input with int8 weights",
        lambda use: use.quantize != "dynamic",
        targets=("tflm",),
        broken=Broken(
            "int8 weights",
            "NaN",
            "unidirectional_sequence_lstm.cc looks at the type of the input alone, and reads the "
            "weights as floats",
            'an error; `quantize="int8"` makes the input int8 too',
        ),
    ),
    Constraint(
        "TFLite Micro's kernel knows tanh only",
        lambda use: use.attributes["activation"] not in ("RELU", "RELU6"),
        targets=("tflm",),
        broken=Broken(
            "relu, relu6",
            "outputs off by 0.5 to 0.7",
            "lstm_eval.h (CalculateLstmGate) knows sigmoid and tanh, and leaves the cell gate as "
            "it is otherwise; UpdateLstmHidden takes tanh of the cell state always",
            "a loop, or an unrolled graph",
        ),
    ),
    NO_FLOAT16,
)

_IN_FLOAT = "the kernel in float arithmetic, with int8 weights"
_INTEGER = (
    Constraint(
        "the integer kernel computes tanh for every activation",
        lambda use: use.attributes["activation"] == "TANH",
        broken=Broken(
            "integers, relu or relu6",
            "tanh instead",
            "lstm_eval.cc applies tanh in its integer steps and does not look at the activation",
            _IN_FLOAT,
        ),
    ),
    Constraint(
        "the integer kernel clips a projection around the wrong value",
        lambda use: _number(use, "proj_clip") == 0,
        broken=Broken(
            "integers, clipped projection",
            "the limits are off by the zero point of the output",
            "lstm_eval.cc clips the output's integers to plus and minus one number, without "
            "their zero point",
            _IN_FLOAT,
        ),
    ),
    Constraint(
        "the integer kernel mixes up the peephole weights of its cells if it has a projection",
        lambda use: not use.slots >= _PEEPHOLE | {"projection_weights"},
        broken=Broken(
            "integers, peepholes, projection",
            "outputs off by a third; memory beyond the weights read",
            "lstm_eval.cc takes the number of outputs for that of cells where it multiplies with "
            "the peephole weights",
            _IN_FLOAT,
        ),
    ),
)
"""What the integer kernel gets wrong: see `hintc.ops.integer_lstm`."""

UNIDIRECTIONAL_SEQUENCE_LSTM = FusedOp(
    name="UNIDIRECTIONAL_SEQUENCE_LSTM",
    operands=_operands(),
    results=("output", "final_output_state", "final_cell_state"),
    attributes={
        "activation": AttributeSpec(str, "TANH", ACTIVATIONS),
        "cell_clip": AttributeSpec(float, 0.0),
        "proj_clip": AttributeSpec(float, 0.0),
        "time_major": AttributeSpec(bool, True),
        "asymmetric_quantize_inputs": AttributeSpec(bool, False),
    },
    lowering=BuiltinLowering(
        operator="UNIDIRECTIONAL_SEQUENCE_LSTM",
        options="UnidirectionalSequenceLSTMOptions",
        fields={
            "activation": "fusedActivationFunction",
            "cell_clip": "cellClip",
            "proj_clip": "projClip",
            "time_major": "timeMajor",
            "asymmetric_quantize_inputs": "asymmetricQuantizeInputs",
        },
        version=lambda hybrid: 2 if hybrid else 1,
        asymmetric_version=3,
        enums={"activation": "ActivationFunctionType"},
        states=(
            StateSlot("output_state", "final_output_state"),
            StateSlot("cell_state", "final_cell_state"),
        ),
        outputs=lambda attributes: {"output": ("output_state",)},
        int8=frozenset(slot.name for slot in _operands() if slot.kind == "weight"),
        integer=_INTEGER,
    ),
    constraints=_CONSTRAINTS,
)


def reference(
    operands: Mapping[str, npt.ArrayLike],
    attributes: Mapping[str, AttributeValue],
    arithmetic: Exact = EXACT,
) -> dict[str, Array]:
    """The op in numpy, computed in float64.

    Args:
        operands: by slot name. input: [time, batch, n_in], or [batch, time, n_in] when
            ``time_major`` is false; matrices [n_cell, n_in] and [n_cell, n_out]; vectors
            [n_cell]; projection [n_out, n_cell]; states [batch, n_out] and [batch, n_cell],
            zeros when absent. One direction of the bidirectional op also has auxiliary_input and
            its weights.
        attributes: as declared; missing ones have their defaults.
        arithmetic: what its products are: exact, or those of the kernel with int8 weights.

    Returns:
        output ([time, batch, n_out] or batch-major as the input), final_output_state
        [batch, n_out], final_cell_state [batch, n_cell].
    """
    outputs, cells = sequences(operands, attributes, arithmetic)
    time_major = UNIDIRECTIONAL_SEQUENCE_LSTM.checked_attributes(attributes)["time_major"]
    return {
        "output": outputs if time_major else outputs.swapaxes(0, 1),
        "final_output_state": outputs[-1],
        "final_cell_state": cells[-1],
    }


Watch = Callable[[str, Array], None]
"""Told a value inside of a step: ``"hidden"``, what is projected, or a gate by name, before
its normalisation; [batch, n_cell]."""


def sequences(
    operands: Mapping[str, npt.ArrayLike],
    attributes: Mapping[str, AttributeValue],
    arithmetic: Exact = EXACT,
    watch: Watch = lambda name, value: None,
) -> tuple[Array, Array]:
    """Output and cell state after each step; the cell states the op itself keeps inside.

    Args:
        operands: see `reference`.
        attributes: see `reference`.
        arithmetic: see `reference`.
        watch: told values inside of each step.

    Returns:
        [time, batch, n_out] and [time, batch, n_cell].
    """
    values = {name: np.asarray(value, np.float64) for name, value in operands.items()}
    attrs = UNIDIRECTIONAL_SEQUENCE_LSTM.checked_attributes(attributes)
    cell = _Cell(values, attrs, arithmetic, watch)
    sources = {
        name: values[name] if attrs["time_major"] else values[name].swapaxes(0, 1)
        for name in ("input", "auxiliary_input")
        if name in values
    }
    steps, batch = sources["input"].shape[:2]
    n_cell, n_out = values["recurrent_to_output_weights"].shape
    h = values.get("output_state", np.zeros((batch, n_out)))
    c = values.get("cell_state", np.zeros((batch, n_cell)))
    outputs, cells = np.zeros((steps, batch, n_out)), np.zeros((steps, batch, n_cell))
    for time in range(steps):
        h, c = cell.step({name: source[time] for name, source in sources.items()}, h, c)
        outputs[time], cells[time] = h, c
    return outputs, cells


@dataclass(frozen=True)
class _Cell:
    """One step of the layer."""

    values: Mapping[str, Array]
    attributes: Mapping[str, AttributeValue]
    arithmetic: Exact
    watch: Watch

    def step(self, sources: Mapping[str, Array], h: Array, c: Array) -> tuple[Array, Array]:
        """The next h and c; `sources` are the step's inputs, [batch, n] each."""
        activation = str(self.attributes["activation"])
        forget = sigmoid(self.gate("forget", sources, h, c))
        coupled = "input_to_input_weights" not in self.values
        write = 1 - forget if coupled else sigmoid(self.gate("input", sources, h, c))
        c = forget * c + write * activate(activation, self.gate("cell", sources, h, c))
        c = _clip(c, self.attributes["cell_clip"])
        # The output gate's peephole looks at the new cell state, the other two at the old one.
        h = sigmoid(self.gate("output", sources, h, c)) * activate(activation, c)
        self.watch("hidden", h)
        if "projection_weights" in self.values:
            h = self.arithmetic.product(h, self.values["projection_weights"])
            h = h + self.values.get("projection_bias", 0.0)
            h = _clip(h, self.attributes["proj_clip"])
        return h, c

    def gate(self, gate: str, sources: Mapping[str, Array], h: Array, c: Array) -> Array:
        """One gate before its activation."""
        values = self.values
        z = self.arithmetic.product(h, values[f"recurrent_to_{gate}_weights"])
        for name, source in sources.items():
            weights = values.get(f"{name}_to_{gate}_weights")
            z = z if weights is None else z + self.arithmetic.product(source, weights)
        peephole = values.get(f"cell_to_{gate}_weights")
        if peephole is not None:
            z = z + c * self.arithmetic.weight(peephole)
        self.watch(gate, z)
        scale = values.get(f"{gate}_layer_norm_coefficients")
        if scale is not None:
            centred = z - z.mean(-1, keepdims=True)
            variance = (centred**2).mean(-1, keepdims=True)
            z = centred / np.sqrt(variance + LAYER_NORM_EPSILON) * scale
        return np.asarray(z + values[f"{gate}_gate_bias"])


def _clip(value: Array, limit: AttributeValue) -> Array:
    bound = float(limit) if isinstance(limit, int | float) else 0.0
    return np.clip(value, -bound, bound) if bound > 0 else value
