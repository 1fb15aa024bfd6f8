"""The table of fused kernels in TFLite Micro: what runs is right, everything else is refused."""

from __future__ import annotations

import numpy as np
import pytest

from hintc.errors import HintcError
from hintc.ops import SVDF, UNIDIRECTIONAL_SEQUENCE_LSTM, FusedOp
from hintc.runtime.micro import MicroInterpreter
from hintc.tflite.legalize import legalize_model
from integer_calls import IntegerCall, only_kernel, quantised
from kernel_cases import BATCH, CASES, INTEGERS, REFUSED, RIGHT, Case

TOLERANCE = 2e-6
"""Of kernels on floats."""
STEPS = {"output": 1, "final_output_state": 1, "final_cell_state": 80}
MEANS = {"output": 0.1, "final_output_state": 0.1, "final_cell_state": 3.0}
"""Of kernels on integers: steps by which a result differs from TFLite's kernel, at most and on
average. Sigmoid and tanh of int16 are tables in TFLite Micro (reference/integer_ops/logistic.h and
tanh.h) and polynomials in TFLite, and an output that rounds the other way goes into the next step.
A step of a cell state is 2**-14 or less here."""

OPS = {case.op.name: case.op for case in CASES}
RIGHT_CASES = [case for case in CASES if case.micro_outcome == RIGHT]
FLOAT_CASES = [case for case in RIGHT_CASES if case.dtype != INTEGERS]
INTEGER_CASES = [case for case in RIGHT_CASES if case.dtype == INTEGERS]
LSTM_CASES = [case for case in INTEGER_CASES if case.op is not SVDF]
SVDF_CASES = [case for case in INTEGER_CASES if case.op is SVDF]
REFUSED_CASES = [case for case in CASES if case.micro_outcome == REFUSED]


def test_every_cell_has_its_place() -> None:
    parts = (FLOAT_CASES, LSTM_CASES, SVDF_CASES, REFUSED_CASES)
    assert sum(map(len, parts)) == len(CASES)
    assert all(parts)


@pytest.mark.parametrize("case", FLOAT_CASES, ids=lambda case: case.name)
def test_right_kernel(case: Case) -> None:
    case = case.in_micro
    legalized = legalize_model(case.model(), quantize=case.quantize, target="tflm")
    assert not legalized.notes
    expected = case.expected(BATCH)
    interpreter = MicroInterpreter(legalized.tflite)
    for _ in range(2):  # a state that leaks shows in the second
        found = interpreter.run(case.feeds(BATCH))
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=0, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("case", LSTM_CASES, ids=lambda case: case.name)
def test_lstm_on_integers(case: Case) -> None:
    case = case.in_micro
    made = quantised(case, "tflm")
    assert not made.notes
    interpreter, kernel = MicroInterpreter(made.tflite), only_kernel(made)
    errors: dict[str, list[np.ndarray]] = {name: [] for name in STEPS}
    for seed in range(10):
        call = IntegerCall(case, kernel, BATCH, seed)
        found, expected = interpreter.run(call.feeds), call.expected()
        assert set(found) == set(expected) == set(errors)
        for name, value in expected.items():
            errors[name].append(np.abs(found[name] - value) / call.step(name))
    for name, differences in errors.items():
        assert np.max(differences) <= STEPS[name] + 0.01, name
        assert np.mean(differences) <= MEANS[name], name


@pytest.mark.parametrize("case", SVDF_CASES, ids=lambda case: case.name)
def test_svdf_on_integers(case: Case) -> None:
    """To the bit as in TFLite."""
    case = case.in_micro
    made = quantised(case, "tflm")
    assert not made.notes
    interpreter, kernel = MicroInterpreter(made.tflite), only_kernel(made)
    for seed in range(10):
        call = IntegerCall(case, kernel, BATCH, seed)
        found, expected = interpreter.run(call.feeds), call.expected()
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_what_it_cannot_run_is_refused(op: FusedOp) -> None:
    """Every cell breaks a rule; a model of each set of rules is refused."""
    examples: dict[tuple[str, ...], Case] = {}
    for case in (case.in_micro for case in REFUSED_CASES if case.op is op):
        reasons = tuple(rule.reason for rule in op.violated(case.use_on("tflm")))
        assert reasons, case.name
        examples.setdefault(reasons, case)
    for reasons, case in examples.items():
        with pytest.raises(
            HintcError, match=f"{op.name}: it cannot run on target 'tflm'"
        ) as caught:
            legalize_model(case.model(), quantize=case.quantize, target="tflm")
        assert reasons[0] in str(caught.value)


def test_nothing_is_refused_that_runs() -> None:
    for case in (case.in_micro for case in CASES if case.micro_outcome != REFUSED):
        assert not case.op.violated(case.use_on("tflm")), case.name


def written_for_tflite(variant: str, dtype: str) -> tuple[Case, bytes]:
    """A cell as TFLite gets it, with a batch of one size."""
    (case, *_) = (
        case.in_micro
        for case in CASES
        if case.op is UNIDIRECTIONAL_SEQUENCE_LSTM
        if case.variant.name == variant and case.dtype == dtype
    )
    return case, legalize_model(case.model(), quantize=case.quantize).tflite


def test_its_lstm_leaves_relu_out() -> None:
    case, tflite = written_for_tflite("relu", "float32")
    found = MicroInterpreter(tflite).run(case.feeds(BATCH))
    assert np.abs(found["output"] - case.expected(BATCH)["output"]).max() > 0.1
    with pytest.raises(HintcError, match="knows tanh only"):
        legalize_model(tflite, target="tflm")


def test_its_lstm_makes_nan_of_int8_weights() -> None:
    case, tflite = written_for_tflite("plain", "int8")
    assert np.isnan(MicroInterpreter(tflite).run(case.feeds(BATCH))["output"]).any()
    with pytest.raises(HintcError, match="NaN"):
        legalize_model(tflite, target="tflm")


def test_each_broken_variant_has_a_cell() -> None:
    said = {
        (op.name, rule.broken.variant)
        for op in OPS.values()
        for rule in op.constraints
        if rule.broken and rule.targets == ("tflm",)
    }
    seen = {
        (case.op.name, rule.broken.variant)
        for case in REFUSED_CASES
        for rule in case.op.violated(case.use_on("tflm"))
        if rule.broken and rule.targets == ("tflm",)
    }
    assert seen == said
    assert len(said) == 3
