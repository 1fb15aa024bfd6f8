"""Bidirectional kernels against the numpy references, and the variants that must not be emitted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from custom_model import Floats, custom_model
from hintc.errors import HintcError
from hintc.ops import (
    BIDIRECTIONAL_SEQUENCE_LSTM,
    BIDIRECTIONAL_SEQUENCE_RNN,
    BuiltinLowering,
    FusedOp,
    bidirectional_sequence_lstm,
    bidirectional_sequence_rnn,
)
from hintc.runtime.interpreter import Interpreter
from hintc.tflite.inspect import op_counts
from hintc.tflite.legalize import legalize

LSTM, RNN = BIDIRECTIONAL_SEQUENCE_LSTM, BIDIRECTIONAL_SEQUENCE_RNN
REFERENCES: dict[str, Any] = {
    LSTM.name: bidirectional_sequence_lstm.reference,
    RNN.name: bidirectional_sequence_rnn.reference,
}
TOLERANCES = {None: 1e-5, "float16": 1e-2, "dynamic": 5e-2}
PLAIN: dict[str, Any] = {"time_major": True, "merge_outputs": False}
OPTIONAL = {
    "coupled": ("input_to_input", "recurrent_to_input", "input_gate_bias", "cell_to_input"),
    "peephole": ("cell_to_",),
    "projection": ("projection_weights",),
    "projection bias": ("projection_bias",),
}


class Use:
    """Random operands of one call: 4 steps of a batch of 3."""

    steps, batch = 4, 3

    def __init__(
        self,
        op: FusedOp,
        attributes: dict[str, Any],
        extras: frozenset[str] = frozenset(),
        states: str = "absent",
        seed: int = 0,
        n_cell: int = 6,
    ) -> None:
        self.op, self.attributes = op, attributes
        random = np.random.default_rng(seed)
        n_out = 4 if "projection" in extras else n_cell
        sizes = {"n_in": 3, "n_cell": n_cell, "n_out": n_out, "batch": self.batch}
        self.axis = 1 if attributes["time_major"] else 0
        major = (self.steps, self.batch) if self.axis else (self.batch, self.steps)
        self.operands: dict[str, Floats] = {}
        for slot in op.operands:
            if self._is_absent(slot.name[3:], extras) or "auxiliary" in slot.name:
                continue
            if slot.kind == "state" and states == "absent":
                continue
            shape = [sizes[s] for s in slot.shape if s != "?"]
            if slot.name == "input":
                shape = [*major, 3]
            value = random.standard_normal(shape) * (1.0 if slot.name == "input" else 0.3)
            self.operands[slot.name] = value.astype(np.float32)
        given = {s.name for s in op.operands if s.kind == "state" and states == "fed"}
        self.fed = {"input"} | given

    @staticmethod
    def _is_absent(slot: str, extras: frozenset[str]) -> bool:
        if "coupled" in extras and slot.startswith(OPTIONAL["coupled"]):
            return True
        optional = ("peephole", "projection", "projection bias")
        return any(slot.startswith(OPTIONAL[k]) for k in optional if k not in extras)

    def expected(self, batch: int) -> dict[str, Any]:
        found: dict[str, Any] = REFERENCES[self.op.name](
            {**self.operands, **self.feeds(batch)}, self.attributes
        )
        return found

    def feeds(self, batch: int) -> dict[str, Floats]:
        axes = {"input": self.axis}
        return {
            name: self.operands[name].take(range(batch), axes.get(name, 0)) for name in self.fed
        }

    def model(self, dynamic: bool = True) -> bytes:
        shapes = {name: value.shape for name, value in self.expected(self.batch).items()}
        axes = dict.fromkeys([*self.fed, *shapes], 0)
        axes |= {"input": self.axis, "fw_output": self.axis, "bw_output": self.axis}
        return custom_model(
            self.op, self.operands, self.fed, shapes, self.attributes, axes if dynamic else {}
        )

    def check(self, tflite: bytes, runtime: Any, tolerance: float, batches: Any) -> None:
        instance = Interpreter(tflite, runtime=runtime)
        for batch in batches:
            expected = self.expected(batch)
            found = instance.run(self.feeds(batch))
            assert set(found) == set(expected)
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=name)


@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    op=st.sampled_from([LSTM, LSTM, RNN]),
    attributes=st.fixed_dictionaries(
        {
            "time_major": st.booleans(),
            "merge_outputs": st.booleans(),
            "activation": st.sampled_from(["TANH", "RELU", "RELU6"]),
        }
    ),
    clip=st.sampled_from([0.0, 0.25]),
    extras=st.frozensets(st.sampled_from(sorted(OPTIONAL))),
    states=st.sampled_from(["absent", "fed"]),
    quantize=st.sampled_from([None, None, "dynamic", "float16"]),
    runtime=st.sampled_from(["litert", "tensorflow"]),
    n_cell=st.integers(1, 9),
)
def test_random_calls(
    op: FusedOp,
    attributes: dict[str, Any],
    clip: float,
    extras: frozenset[str],
    states: str,
    quantize: Any,
    runtime: Any,
    n_cell: int,
) -> None:
    if "projection" not in extras:
        extras -= {"projection bias"}
    if op is LSTM:
        attributes = {**attributes, "cell_clip": clip}
        attributes["proj_clip"] = clip if "projection" in extras else 0.0
    use = Use(op, attributes, extras if op is LSTM else frozenset(), states, n_cell, n_cell)
    tflite = legalize(use.model(), quantize=quantize)
    assert op_counts(tflite)[op.name] == 1
    use.check(tflite, runtime, TOLERANCES[quantize], (3, 1, 3, 3))


@pytest.mark.parametrize("op", [LSTM, RNN], ids=lambda op: op.name)
@pytest.mark.parametrize("runtime", ["litert", "tensorflow"])
def test_a_persistent_state_goes_on(op: FusedOp, runtime: Any) -> None:
    use = Use(op, PLAIN)
    instance = Interpreter(legalize(use.model(dynamic=False), state="persist"), runtime=runtime)
    states: dict[str, Any] = {}
    assert isinstance(op.lowering, BuiltinLowering)
    for _ in range(3):
        expected = REFERENCES[op.name]({**use.operands, **states}, PLAIN)
        found = instance.run({"input": use.operands["input"]})
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5, err_msg=name)
        states = {state.slot: expected[state.result] for state in op.lowering.states}


@pytest.mark.parametrize("op", [LSTM, RNN], ids=lambda op: op.name)
def test_directions_of_different_sizes_are_refused(op: FusedOp) -> None:
    use = Use(op, PLAIN)
    narrow = Use(op, PLAIN, n_cell=5)
    use.operands |= {k: v for k, v in narrow.operands.items() if k.startswith("bw_")}
    shapes = {"fw_output": (4, 3, 6), "bw_output": (4, 3, 5)}
    model = custom_model(op, use.operands, use.fed, shapes, PLAIN, {})
    with pytest.raises(HintcError, match="has shape"):
        legalize(model)


@pytest.mark.parametrize(
    ("attributes", "missing", "extra", "options", "reason"),
    [
        ({}, "fw_input_to_input_weights", "", {}, "differ in their operands"),
        ({"activation": "NONE"}, "", "", {}, "without an activation"),
        ({}, "", "fw_auxiliary_input_to_input_weights", {}, "all gates or for none"),
        ({"merge_outputs": True, "time_major": False}, "", "", {}, "merged"),
        ({}, "", "", {"target": "tflm"}, "TFLite Micro has no such kernel"),
    ],
)
def test_what_the_kernel_gets_wrong_is_refused(
    attributes: dict[str, Any], missing: str, extra: str, options: Any, reason: str
) -> None:
    slots = [name for name in Use(LSTM, PLAIN).operands if name != missing]
    slots += [extra] if extra else []
    assert any(reason in r for r in LSTM.refusals(slots, {**PLAIN, **attributes}, **options))
    assert LSTM.refusals(list(Use(LSTM, PLAIN).operands), PLAIN) == []


def test_rnn_with_int8_weights_is_refused_where_the_kernel_is_wrong() -> None:
    slots = list(Use(RNN, PLAIN).operands)
    assert RNN.refusals(slots, PLAIN, quantize="dynamic")
    assert not RNN.refusals(slots, PLAIN, quantize="float16")
    assert not RNN.refusals(slots, {**PLAIN, "time_major": False}, quantize="dynamic")


def test_a_result_that_merging_leaves_out_is_refused() -> None:
    use = Use(LSTM, {**PLAIN, "merge_outputs": True})
    model = custom_model(LSTM, use.operands, use.fed, {"bw_output": (4, 3, 6)}, use.attributes, {})
    with pytest.raises(HintcError, match="no result 'bw_output'"):
        legalize(model)
