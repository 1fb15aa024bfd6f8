"""Loops whose body hands a value on to another variable: TFLite's WHILE alone gets them wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hintc
from hintc.runtime.interpreter import Interpreter
from hintc.runtime.session import run
from recurrences import weights

tf = pytest.importorskip("tensorflow")
STEPS, DEPTH, UNITS = 5, 3, 4
KERNEL, RECURRENT = weights(DEPTH, UNITS), weights(UNITS, UNITS, seed=1)


def delayed(x: Any) -> list[Any]:
    """``h`` reads what it was two steps ago."""

    def body(t: Any, h: Any, before: Any, earlier: Any) -> Any:
        return t + 1, tf.tanh(x[:, t] @ KERNEL + earlier @ RECURRENT), h, before

    first = [tf.zeros([tf.shape(x)[0], UNITS]) + float(k) for k in range(3)]
    return list(tf.while_loop(lambda t, *_: t < STEPS, body, [0, *first])[1:])


def turning(dtype: Any) -> Any:
    """A loop that is no Scan: three values take turns until the data say stop."""

    def build(x: Any) -> list[Any]:
        def body(t: Any, a: Any, b: Any, c: Any) -> Any:
            return t + tf.reduce_sum(x[:, 0]) ** 2 + 0.5, b, c, a

        first = [tf.cast(tf.constant([k, k, 1]), dtype) for k in (0, 1, 2)]
        return list(tf.while_loop(lambda t, *_: t < 4.0, body, [0.0, *first])[1:])

    return build


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("build", [delayed, turning(tf.int32), turning(tf.bool)])
def test_values_that_move_are_copied(build: Any, batch: int | None) -> None:
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [batch, STEPS, DEPTH], "x")
        outputs = [tf.identity(y, f"y_{k}").op.name for k, y in enumerate(build(x))]
    converted = hintc.convert(graph.as_graph_def(), ["x"], outputs)
    assert converted.report.operators["WHILE"] == 1
    interpreter = Interpreter(converted.tflite)
    for rows in (1, 3) if batch is None else (batch,):
        feeds = {"x": 0.1 * weights(rows, STEPS, DEPTH, seed=rows)}
        wanted = run(graph.as_graph_def(), feeds, outputs)
        for _ in range(2):
            found = interpreter.run(feeds)
            assert list(found) == outputs
            for name in outputs:
                np.testing.assert_allclose(found[name], wanted[name], atol=1e-6)
