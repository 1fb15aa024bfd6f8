"""The table of fused kernels on integers: bit by bit what the reference says, on both runtimes."""

from __future__ import annotations

import numpy as np
import pytest

from hintc.errors import HintcError
from hintc.ops import SVDF, BuiltinLowering
from hintc.ops.fixed_point import Multiplier, sigmoid, tanh
from hintc.runtime.interpreter import Interpreter, RuntimeName
from hintc.tflite.legalize import legalize_model
from integer_calls import IntegerCall, only_kernel, quantised
from kernel_cases import BATCH, CASES, FLOAT, HYBRID, INTEGERS, REFUSED, RIGHT, Case

RUNTIMES: tuple[RuntimeName, ...] = ("litert", "tensorflow")
TOLERANCE = 2e-6
"""Of kernels on floats."""
NEAR = 0.03
"""Mean error of integers against real numbers, of values of order 1."""

INTEGER_CASES = [case for case in CASES if case.dtype == INTEGERS]
LSTM_TYPES = {
    **dict.fromkeys(("input", "input_to_cell_weights", "output_state"), "int8"),
    "cell_state": "int16",
}
SVDF_TYPES = {
    **dict.fromkeys(("input", "feature_weights"), "int8"),
    **dict.fromkeys(("time_weights", "state"), "int16"),
    "bias": "int32",
}
RIGHT_CASES = [case for case in INTEGER_CASES if case.outcome == RIGHT]
IN_FLOAT_CASES = [case for case in INTEGER_CASES if case.outcome in (HYBRID, FLOAT)]
REFUSED_CASES = [case for case in INTEGER_CASES if case.outcome == REFUSED]


@pytest.mark.parametrize("case", RIGHT_CASES, ids=lambda case: case.name)
def test_right_kernel(case: Case) -> None:
    made = quantised(case)
    assert not made.notes
    kernel = only_kernel(made)
    kinds = {slot: str(kernel.subgraph.dtype(t)) for slot, t in kernel.operands.items()}
    assert kinds.items() >= (SVDF_TYPES if case.op is SVDF else LSTM_TYPES).items()
    calls = [IntegerCall(case, kernel, batch, seed) for seed, batch in enumerate(case.batches)]
    expected = [call.expected() for call in calls]
    for runtime in RUNTIMES:
        interpreter = Interpreter(made.tflite, runtime=runtime)
        for call, values in zip(calls, expected, strict=True):
            found = interpreter.run(call.feeds)
            assert set(found) == set(values)
            for name, value in values.items():
                np.testing.assert_array_equal(found[name], value, err_msg=name)
    # so that what the reference shares with the kernel is not what the kernel gets wrong
    feeds = {name: value * np.float32(0.5) for name, value in calls[0].feeds.items()}
    wanted = case.reference({**case.operands, **feeds})
    found = Interpreter(made.tflite).run(feeds)
    errors = [np.abs(found[name] - wanted[name]).mean() for name in wanted]
    assert max(errors) < NEAR


@pytest.mark.parametrize("case", IN_FLOAT_CASES, ids=lambda case: case.name)
def test_kernel_stays_in_float(case: Case) -> None:
    made = quantised(case)
    (note,) = made.notes
    assert note.text.startswith("stays in float arithmetic")
    kernel = only_kernel(made)
    kinds = {
        str(kernel.subgraph.dtype(tensor))
        for slot, tensor in kernel.operands.items()
        if case.op.slot(slot).kind == "weight"
    }
    assert kinds == {"int8" if case.outcome == HYBRID else "float32"}
    assert kernel.subgraph.dtype(kernel.operands["input"]) == np.float32
    # what other operators take from the result is in integers
    tolerances = {name: 2 * np.abs(v).max() / 255 for name, v in case.expected(BATCH).items()}
    tolerances[case.op.results[0]] = TOLERANCE
    for runtime in RUNTIMES:
        interpreter = Interpreter(made.tflite, runtime=runtime)
        for batch in case.batches:
            found, wanted = interpreter.run(case.feeds(batch)), case.expected(batch)
            assert set(found) == set(wanted)
            for name, tolerance in tolerances.items():
                assert np.abs(found[name] - wanted[name]).max() <= tolerance, name


@pytest.mark.parametrize("case", REFUSED_CASES, ids=lambda case: case.name)
def test_kernel_is_refused(case: Case) -> None:
    with pytest.raises(HintcError, match=f"{case.op.name}: it cannot run") as caught:
        legalize_model(case.model(), quantize="int8")
    assert any(text in str(caught.value) for text in ("quantiser", "without an activation"))


def test_the_declarations_say_what_is_no_integer_kernel() -> None:
    """The kernel is on integers exactly where a declaration allows it; each rule has a cell."""
    said, seen = set(), set()
    for case in INTEGER_CASES:
        assert isinstance(case.op.lowering, BuiltinLowering)
        rules = case.op.lowering.integer
        violated = [c for c in (*case.op.constraints, *rules) if not c.holds(case.use)]
        violated = [c for c in violated if "tflite" in c.targets]
        assert bool(violated) == (case.outcome != RIGHT), case.name
        seen |= {(case.op.name, c.reason) for c in violated}
        said |= {(case.op.name, c.reason) for c in rules}
    assert said <= seen


EVERY_INT16 = np.arange(-32768, 32768, dtype=np.int64)


def test_sigmoid_of_every_value() -> None:
    found = sigmoid(EVERY_INT16) / 2**15
    wanted = 1 / (1 + np.exp(-EVERY_INT16 / 2**12))
    assert np.abs(found - wanted).max() < 2e-4
    assert found[32768] == 0.5


@pytest.mark.parametrize("integer_bits", range(7))
def test_tanh_of_every_value(integer_bits: int) -> None:
    found = tanh(EVERY_INT16, integer_bits) / 2**15
    wanted = np.tanh(EVERY_INT16 / 2 ** (15 - integer_bits))
    assert np.abs(found - wanted).max() < 4e-4
    np.testing.assert_array_equal(found[1:], -found[1:][::-1])


def test_multipliers() -> None:
    values = np.array([-70000, -3, -1, 0, 1, 2, 5, 12345, 2**20], np.int64)
    for factor in (0.75, 1.0, 1.5, 0.0003, 37.2, 2.0**-31):
        found = Multiplier.of(factor).times(values)
        np.testing.assert_allclose(found, values * factor, rtol=1e-6, atol=0.51)
    np.testing.assert_array_equal(Multiplier.of(0.5).times(values[:7]), [-35000, -1, 0, 0, 1, 1, 3])
    for value in (1, 2, 3, 1000, 2**20 + 1, 2**31 - 1):
        root = Multiplier.inverse_root(value)
        assert root.mantissa * 2.0 ** (root.exponent - 31) == pytest.approx(value**-0.5, rel=2e-6)
