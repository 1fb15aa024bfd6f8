"""TF1's recurrent functions, cells, options and wrappers; `make matrix` runs every combination."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tf_keras.src.layers.rnn import legacy_cells

import hintc
from model_check import check, frozen
from tf1_models import STEPS, UNITS, Case, all_cases, check_case, pairwise

v1 = tf.compat.v1


@pytest.mark.parametrize("case", pairwise(all_cases()), ids=lambda case: case.name)
def test_case(case: Case) -> None:
    outcome = check_case(case)
    assert outcome.good, outcome
    hidden = case.static and case.lengths and case.wrapper == "residual"
    if outcome.status != "noise" and not hidden:  # h is no output of a residual cell
        assert outcome.kernels == case.model().kernels, outcome


def test_pairs_are_covered() -> None:
    cases = all_cases()
    chosen = pairwise(cases)
    assert len(chosen) < len(cases) / 10
    for first, second in (("cell", "wrapper"), ("function", "control_flow"), ("lengths", "cell")):
        everything = {(getattr(c, first), getattr(c, second)) for c in cases}
        assert {(getattr(c, first), getattr(c, second)) for c in chosen} == everything


def raw_rnn(finished: Callable[[Any, Any], Any]) -> tuple[dict[str, Any], list[Any]]:
    """raw_rnn over STEPS rows; `finished` gets the time and the last output."""
    x = v1.placeholder(tf.float32, [STEPS, None, UNITS], "x")
    rows = tf.TensorArray(tf.float32, STEPS, element_shape=[None, UNITS]).unstack(x)
    cell = legacy_cells.BasicLSTMCell(UNITS)

    def step(time: Any, output: Any, state: Any, _: Any) -> Any:
        batch = tf.shape(x)[1]
        following = cell.zero_state(batch, tf.float32) if output is None else state
        ended = finished(time, output) & tf.fill([batch], True)
        row = rows.read(tf.minimum(time, STEPS - 1))
        return ended, row, following, output, None

    ys, state, _ = v1.nn.raw_rnn(cell, step)
    return {"x": x}, [ys.stack(), state.h]


def feeds(batch: int) -> dict[str, Any]:
    x = np.random.default_rng(batch).uniform(-1, 1, [STEPS, batch, UNITS])
    return {"x": x.astype(np.float32)}


@pytest.mark.xfail(
    reason="a bound that is spread over the rows by And is not followed", strict=True
)
@pytest.mark.parametrize("version", [1, 2])
def test_raw_rnn_with_a_provable_bound(version: int) -> None:
    model = frozen(lambda: raw_rnn(lambda time, output: time >= STEPS), feeds, control_flow=version)
    outcome = check(model)
    assert outcome.good, outcome


@pytest.mark.parametrize("version", [1, 2])
def test_raw_rnn_that_stops_on_data_is_one_error(version: int) -> None:
    def finished(time: Any, output: Any) -> Any:
        done = time >= STEPS
        return done if output is None else done | (tf.reduce_sum(output, 1) > 0.5)

    model = frozen(lambda: raw_rnn(finished), feeds, control_flow=version)
    with pytest.raises(hintc.HintcError):
        hintc.convert(model.source, model.inputs, model.outputs)
