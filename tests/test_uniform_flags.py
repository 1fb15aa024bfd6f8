"""Loops that end by flags: which are the same for all rows, and what follows from that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import hintc
from model_check import Model, check, frozen

v1 = tf.compat.v1
STEPS, UNITS = 6, 4
Flags = Callable[[Any, Any], Any]
"""The index of a step and the number of rows -> which rows have ended before that step."""


def loop(flags: Flags, goes_on: Callable[[Any, Any], Any], first: Any = None) -> Model:
    """An RNN that keeps its state, and gives zeros, in rows that have ended."""

    def build() -> tuple[dict[str, Any], list[Any]]:
        x = v1.placeholder(tf.float32, [STEPS, None, UNITS], "x")
        weights = np.random.default_rng(0).uniform(-0.5, 0.5, [2 * UNITS, UNITS])
        rows = tf.TensorArray(tf.float32, STEPS, element_shape=[None, UNITS]).unstack(x)
        outputs = tf.TensorArray(tf.float32, STEPS, element_shape=[None, UNITS])
        batch = tf.shape(x)[1]

        def body(t: Any, ended: Any, h: Any, ys: Any) -> Any:
            joined = tf.concat([rows.read(t), h], 1)
            new = tf.tanh(joined @ tf.constant(weights, tf.float32))
            ys = ys.write(t, v1.where(ended, tf.zeros_like(new), new))
            return t + 1, ended | flags(t + 1, batch), v1.where(ended, h, new), ys

        start = flags(tf.constant(0), batch) if first is None else first(batch)
        _, _, h, ys = tf.while_loop(
            lambda t, ended, h, ys: goes_on(t, ended),
            body,
            [tf.constant(0), start, tf.zeros([batch, UNITS]), outputs],
        )
        return {"x": x}, [ys.stack(), h]

    def feeds(batch: int) -> dict[str, Any]:
        x = np.random.default_rng(batch).uniform(-1, 1, [STEPS, batch, UNITS])
        return {"x": x.astype(np.float32)}

    return frozen(build, feeds)


def from_step(n: int) -> Flags:
    return lambda t, batch: (t >= n) & tf.fill([batch], True)


def not_all(_: Any, ended: Any) -> Any:
    return ~tf.reduce_all(ended)


FUSED: dict[str, tuple[Any, ...]] = {
    "flags alone": (from_step(STEPS), not_all),
    "flags first": (from_step(3), lambda t, ended: (t < STEPS) & not_all(t, ended)),
    "bound first": (from_step(5), lambda t, ended: (t < 4) & not_all(t, ended)),
    "mirrored": (lambda t, batch: tf.fill([batch], (5 - t) <= 1), not_all),
    "one step at least": (from_step(0), not_all, lambda batch: tf.fill([batch], False)),
}


@pytest.mark.parametrize("case", FUSED)
def test_is_fused(case: str) -> None:
    outcome = check(loop(*FUSED[case]))
    assert outcome.status == "fused", outcome


def test_flags_that_do_not_end_the_loop_pick_values() -> None:
    outcome = check(loop(from_step(3), lambda t, ended: t < STEPS))
    assert outcome.status == "refused", outcome


NOT_PROVED: dict[str, tuple[Any, ...]] = {
    "rows differ": (
        lambda t, batch: (t >= 2) & (tf.range(batch) > 0) | (t >= STEPS),
        not_all,
    ),
    "one row is enough": (from_step(STEPS), lambda t, ended: ~tf.reduce_any(ended)),
    "rows differ at first": (from_step(4), not_all, lambda batch: tf.range(batch) < 1),
    "in one step only": (lambda t, batch: tf.fill([batch], tf.equal(t, STEPS)), not_all),
}


@pytest.mark.parametrize("case", NOT_PROVED)
def test_what_is_not_proved_is_an_error(case: str) -> None:
    model = loop(*NOT_PROVED[case])
    with pytest.raises(hintc.HintcError, match="stays a loop"):
        hintc.convert(model.source, model.inputs, model.outputs)
