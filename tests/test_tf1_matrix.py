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


Finished = Callable[[Any, Any, Any], Any]


def raw_rnn(finished: Finished) -> tuple[dict[str, Any], list[Any]]:
    """raw_rnn over STEPS rows; `finished` gets the time, the batch size and the last output."""
    x = v1.placeholder(tf.float32, [STEPS, None, UNITS], "x")
    rows = tf.TensorArray(
        tf.float32, STEPS, clear_after_read=False, element_shape=[None, UNITS]
    ).unstack(x)
    cell = legacy_cells.BasicLSTMCell(UNITS)

    def step(time: Any, output: Any, state: Any, _: Any) -> Any:
        batch = tf.shape(x)[1]
        following = cell.zero_state(batch, tf.float32) if output is None else state
        row = rows.read(tf.minimum(time, STEPS - 1))
        return finished(time, batch, output), row, following, output, None

    ys, state, _ = v1.nn.raw_rnn(cell, step)
    return {"x": x}, [ys.stack(), state.h, state.c]


def feeds(batch: int) -> dict[str, Any]:
    x = np.random.default_rng(batch).uniform(-1, 1, [STEPS, batch, UNITS])
    return {"x": x.astype(np.float32)}


BOUNDS: dict[str, Finished] = {
    "and": lambda time, batch, _: (time >= STEPS) & tf.fill([batch], True),
    "filled bound": lambda time, batch, _: time >= tf.fill([batch], tf.constant(3)),
    "filled flag": lambda time, batch, _: tf.fill([batch], time > 2),
    "tiled": lambda time, batch, _: tf.tile([~(time < STEPS)], [batch]),
    "the first of two": lambda time, batch, _: (time >= 4) | tf.fill([batch], time >= 2),
    "the last of two": lambda time, batch, _: time >= tf.maximum(tf.fill([batch], 2), STEPS),
}


@pytest.mark.parametrize(
    ("bound", "version"), [(b, 2 - k % 2) for k, b in enumerate(BOUNDS)] + [("and", 1)]
)
def test_raw_rnn_with_a_bound_for_all_rows(bound: str, version: int) -> None:
    outcome = check(frozen(lambda: raw_rnn(BOUNDS[bound]), feeds, control_flow=version))
    assert outcome.status == "fused", outcome


@pytest.mark.parametrize("version", [1, 2])
def test_raw_rnn_that_stops_on_data_is_one_error(version: int) -> None:
    def finished(time: Any, batch: Any, output: Any) -> Any:
        done = (time >= STEPS) & tf.fill([batch], True)
        return done if output is None else done | (tf.reduce_sum(output, 1) > 0.5)

    model = frozen(lambda: raw_rnn(finished), feeds, control_flow=version)
    with pytest.raises(hintc.HintcError):
        hintc.convert(model.source, model.inputs, model.outputs)
