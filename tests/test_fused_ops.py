"""Declarations, specs, constraints and numpy references of the fused ops."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from hintc.errors import HintcError
from hintc.ops import (
    BIDIRECTIONAL_SEQUENCE_LSTM,
    BIDIRECTIONAL_SEQUENCE_RNN,
    UNIDIRECTIONAL_SEQUENCE_LSTM,
    UNIDIRECTIONAL_SEQUENCE_RNN,
    AttributeSpec,
    BuiltinLowering,
    Constraint,
    CustomLowering,
    FusedOp,
    bidirectional_sequence_lstm,
    declare,
    declared,
    declared_names,
    parse_spec,
    sequence_lstm,
    sequence_rnn,
)

LSTM = UNIDIRECTIONAL_SEQUENCE_LSTM
RNN = UNIDIRECTIONAL_SEQUENCE_RNN
BOTH_LSTM, BOTH_RNN = BIDIRECTIONAL_SEQUENCE_LSTM, BIDIRECTIONAL_SEQUENCE_RNN
PLAIN = [
    "input",
    *(f"input_to_{gate}_weights" for gate in sequence_lstm.GATES),
    *(f"recurrent_to_{gate}_weights" for gate in sequence_lstm.GATES),
    *(f"{gate}_gate_bias" for gate in sequence_lstm.GATES),
]


def test_declared_names() -> None:
    kernels = {"LSTM", "RNN", "SVDF", LSTM.name, RNN.name, BOTH_LSTM.name, BOTH_RNN.name}
    assert kernels <= set(declared_names())
    assert declared(LSTM.name) is LSTM
    assert declared("nothing") is None


def test_slots_are_in_the_kernels_order() -> None:
    names = LSTM.slot_names
    assert len(names) == 24
    expected = {
        0: "input",
        1: "input_to_input_weights",
        8: "recurrent_to_output_weights",
        9: "cell_to_input_weights",
        12: "input_gate_bias",
        16: "projection_weights",
        18: "output_state",
        19: "cell_state",
        23: "output_layer_norm_coefficients",
    }
    assert {number: names[number] for number in expected} == expected
    assert RNN.slot_names == (
        "input",
        "input_weights",
        "recurrent_weights",
        "bias",
        "hidden_state",
    )


def test_a_spec_reads_back_and_is_reproducible() -> None:
    slots = [*PLAIN, None, "cell_state"]
    text = LSTM.spec(slots, ["final_cell_state", "output"], {"cell_clip": 3})
    assert text == LSTM.spec(slots, ["final_cell_state", "output"], {"cell_clip": 3.0})
    spec = LSTM.parse_spec(text)
    assert spec.slots == tuple(slots)
    assert spec.results == ("final_cell_state", "output")
    assert spec.attributes == {
        "activation": "TANH",
        "cell_clip": 3.0,
        "proj_clip": 0.0,
        "time_major": True,
        "asymmetric_quantize_inputs": False,
    }
    assert set(json.loads(text)) == {"op", "slots", "results", "attributes"}


@pytest.mark.parametrize(
    ("slots", "results", "attributes", "message"),
    [
        (["input"], ["output"], {}, "is missing"),
        ([*PLAIN, "input"], ["output"], {}, "given twice"),
        ([*PLAIN, "weights"], ["output"], {}, "no operand 'weights'"),
        (PLAIN, ["y"], {}, "no result 'y'"),
        (PLAIN, ["output", "output"], {}, "given twice"),
        (PLAIN, ["output"], {"activation": "SIGMOID"}, "one of NONE, RELU"),
        (PLAIN, ["output"], {"time_major": 1}, "must be bool"),
        (PLAIN, ["output"], {"cell_clip": True}, "must be float"),
        (PLAIN, ["output"], {"cell_clip": float("nan")}, "finite"),
        (PLAIN, ["output"], {"forget_bias": 1.0}, "no attribute 'forget_bias'"),
        (PLAIN, ["output"], {"activation": object()}, "is a object"),
    ],
)
def test_wrong_specs_are_refused(
    slots: list[str | None], results: list[str], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(HintcError, match=message):
        LSTM.spec(slots, results, attributes)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"op": 1, "slots": [], "results": []}'])
def test_text_that_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(HintcError, match="cannot be read"):
        parse_spec(text)


def without(*names: str) -> list[str | None]:
    return [slot for slot in PLAIN if not any(name in slot for name in names)]


@pytest.mark.parametrize(
    ("slots", "attributes", "target", "reason"),
    [
        (PLAIN, {}, "tflite", None),
        (PLAIN, {}, "tflm", None),
        (without("to_input", "input_gate"), {}, "tflite", None),
        (without("to_input", "input_gate"), {}, "tflm", "coupled"),
        (without("input_gate"), {}, "tflite", "neither complete nor absent"),
        ([*PLAIN, "cell_to_forget_weights"], {}, "tflite", "come together"),
        (
            [*PLAIN, "cell_to_forget_weights", "cell_to_output_weights"],
            {},
            "tflite",
            "cell_to_input_weights must be there",
        ),
        ([*PLAIN, "cell_layer_norm_coefficients"], {}, "tflite", "for all gates or for none"),
        ([*PLAIN, "projection_bias"], {}, "tflite", "needs projection_weights"),
        (PLAIN, {"proj_clip": 1.0}, "tflite", "clips a projection"),
        (PLAIN, {"activation": "NONE"}, "litert", "without an activation"),
    ],
)
def test_constraints(
    slots: list[str | None], attributes: dict[str, Any], target: Any, reason: str | None
) -> None:
    reasons = LSTM.refusals(slots, attributes, target=target)
    if reason is None:
        assert reasons == []
    else:
        assert any(reason in found for found in reasons), reasons


@pytest.mark.parametrize("name", ["LSTM", "RNN"])
def test_micro_has_no_kernel_of_this_step(name: str) -> None:
    op = declared(name)
    assert op is not None
    assert "TFLite Micro has no such kernel" in op.refusals(op.slot_names, {}, target="tflm")


def test_svdf_on_micro() -> None:
    op = declared("SVDF")
    assert op is not None
    assert not op.refusals(op.slot_names, {}, target="tflm")
    assert op.refusals(op.slot_names, {}, target="tflm", quantize="dynamic")
    unbiased = [name for name in op.slot_names if name != "bias"]
    (reason,) = op.refusals(unbiased, {}, target="tflm")
    assert "without a bias" in reason
    assert not op.refusals(unbiased, {}, target="tflm", quantize="int8")


def test_users_op() -> None:
    op = FusedOp.custom(
        "my_conv",
        attributes={"stride": AttributeSpec(int, 1), "mode": AttributeSpec(str, None, ("a", "b"))},
        constraints=(Constraint("stride is odd", lambda use: use.attributes["stride"] != 1),),
    )
    assert op.lowering == CustomLowering("my_conv")
    spec = op.parse_spec(op.spec(["x", None, "w"], ["y", "z"], {"mode": "a", "extra": [1, 2]}))
    assert spec.attributes == {"stride": 1, "mode": "a", "extra": (1, 2)}
    assert op.refusals(["x"], {"mode": "b"}) == ["stride is odd"]
    with pytest.raises(HintcError, match="'mode' is missing"):
        op.spec(["x"], ["y"])
    with pytest.raises(HintcError, match="one of a, b"):
        op.spec(["x"], ["y"], {"mode": "c"})


def test_numpy_values_become_plain_ones() -> None:
    op = FusedOp.custom("my_op")
    given = {"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": b"text"}
    attributes = op.parse_spec(op.spec([], ["y"], given)).attributes
    assert attributes == {"a": 0.5, "b": 3, "c": True, "d": "text"}
    assert isinstance(attributes["c"], bool)


def test_declare_refuses_a_clash() -> None:
    op = FusedOp.custom("declared_in_a_test")
    assert declare(op) is op
    assert declare(FusedOp.custom("declared_in_a_test")) == op
    with pytest.raises(HintcError, match="already declared"):
        declare(FusedOp.custom("declared_in_a_test", code="another"))
    with pytest.raises(HintcError, match="already declared"):
        declare(FusedOp.custom(LSTM.name))


def test_lowering_tables_name_existing_slots() -> None:
    for name in ("LSTM", "RNN", "SVDF", LSTM.name, RNN.name, BOTH_LSTM.name, BOTH_RNN.name):
        op = declared(name)
        assert op is not None
        lowering = op.lowering
        assert isinstance(lowering, BuiltinLowering)
        assert lowering.int8 <= set(op.slot_names)
        assert set(lowering.fields) == set(op.attributes)
        for state in lowering.states:
            assert op.slot(state.slot).kind == "state"
            sizes = {size for slot in op.operands if slot.kind != "state" for size in slot.shape}
            assert set(op.slot(state.slot).shape[1].split("*")) <= sizes
            assert state.result in op.results
        attributes = op.checked_attributes({})
        outputs = lowering.outputs(attributes)
        assert set(outputs) <= set(op.results)
        slots = [slot for slots in outputs.values() for slot in slots]
        assert set(slots) <= {state.slot for state in lowering.states}


def lstm_operands(random: np.random.Generator, batch: int = 2, n: int = 3) -> dict[str, Any]:
    shapes: dict[str, tuple[int, ...]] = {"input": (4, batch, 2)}
    sizes = {"n_in": 2, "n_cell": n, "n_out": n}
    for name in PLAIN[1:]:
        shapes[name] = tuple(sizes[symbol] for symbol in LSTM.slot(name).shape)
    return {name: random.standard_normal(shape) for name, shape in shapes.items()}


def test_lstm_reference_by_hand() -> None:
    ones: dict[str, Any] = {name: np.ones([1] * len(LSTM.slot(name).shape)) for name in PLAIN[1:]}
    found = sequence_lstm.reference({**ones, "input": np.zeros((1, 1, 1))}, {})
    gate = 1 / (1 + np.exp(-1.0))
    cell = gate * np.tanh(1.0)
    assert found["final_cell_state"].item() == pytest.approx(cell)
    assert found["output"].item() == pytest.approx(gate * np.tanh(cell))


def test_lstm_reference_is_consistent() -> None:
    random = np.random.default_rng(0)
    operands = lstm_operands(random)
    whole = sequence_lstm.reference(operands, {})
    first = sequence_lstm.reference({**operands, "input": operands["input"][:2]}, {})
    second = sequence_lstm.reference(
        {
            **operands,
            "input": operands["input"][2:],
            "output_state": first["final_output_state"],
            "cell_state": first["final_cell_state"],
        },
        {},
    )
    np.testing.assert_allclose(whole["output"][2:], second["output"])
    np.testing.assert_allclose(whole["final_cell_state"], second["final_cell_state"])
    major = sequence_lstm.reference(
        {**operands, "input": operands["input"].swapaxes(0, 1)}, {"time_major": False}
    )
    np.testing.assert_allclose(major["output"].swapaxes(0, 1), whole["output"])
    clipped = sequence_lstm.reference(operands, {"cell_clip": 0.05})
    assert np.abs(clipped["final_cell_state"]).max() <= 0.05


def test_rnn_reference() -> None:
    random = np.random.default_rng(0)
    x, w, r = (random.standard_normal(shape) for shape in ((2, 3, 4), (5, 4), (5, 5)))
    operands = {"input": x, "input_weights": w, "recurrent_weights": r, "bias": np.ones(5)}
    found = sequence_rnn.reference(operands, {"activation": "RELU"})
    first = np.maximum(x[0] @ w.T + 1, 0)
    np.testing.assert_allclose(found["output"][0], first)
    np.testing.assert_allclose(
        found["final_hidden_state"], np.maximum(x[1] @ w.T + first @ r.T + 1, 0)
    )


def test_slots_of_both_directions_are_in_the_kernels_order() -> None:
    names = BOTH_LSTM.slot_names
    assert len(names) == 48
    expected = {
        0: "input",
        1: "fw_input_to_input_weights",
        9: "fw_cell_to_input_weights",
        17: "fw_projection_bias",
        18: "bw_input_to_input_weights",
        34: "bw_projection_bias",
        35: "fw_output_state",
        36: "fw_cell_state",
        37: "bw_output_state",
        38: "bw_cell_state",
        39: "auxiliary_input",
        40: "fw_auxiliary_input_to_input_weights",
        47: "bw_auxiliary_input_to_output_weights",
    }
    assert {number: names[number] for number in expected} == expected
    assert BOTH_RNN.slot_names[4:9:4] == ("fw_hidden_state", "bw_hidden_state")
    assert len(BOTH_RNN.slot_names) == 12


def test_reference_of_both_directions() -> None:
    random = np.random.default_rng(0)
    forward, backward = lstm_operands(random), lstm_operands(random)
    x = forward.pop("input")
    del backward["input"]
    operands = {f"fw_{name}": value for name, value in forward.items()}
    operands |= {f"bw_{name}": value for name, value in backward.items()}
    both = bidirectional_sequence_lstm.reference({**operands, "input": x}, {})
    ahead = sequence_lstm.reference({**forward, "input": x}, {})
    back = sequence_lstm.reference({**backward, "input": x[::-1]}, {})
    np.testing.assert_array_equal(both["fw_output"], ahead["output"])
    np.testing.assert_array_equal(both["bw_output"], back["output"][::-1])
    np.testing.assert_array_equal(both["bw_final_cell_state"], back["final_cell_state"])
    attributes = {"merge_outputs": True, "time_major": False}
    merged = bidirectional_sequence_lstm.reference(
        {**operands, "input": x.swapaxes(0, 1)}, attributes
    )
    assert "bw_output" not in merged
    sides = np.concatenate([both["fw_output"], both["bw_output"]], axis=2)
    np.testing.assert_array_equal(merged["fw_output"], sides.swapaxes(0, 1))


def test_declarations_need_no_tensorflow() -> None:
    code = "import sys, hintc.ops; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
