"""A batch that is always 1: what Keras 3 leaves out of it, and what broadcasts over other rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hintc
from hintc.runtime.interpreter import Interpreter
from hintc.runtime.session import run
from recurrences import weights

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
STEPS, DEPTH, UNITS = 5, 3, 4


@pytest.mark.parametrize(
    ("layer", "units", "kernels"),
    [("LSTM", UNITS, 1), ("SimpleRNN", UNITS, 1), ("SimpleRNN", 1, 1), ("GRU", UNITS, 0)],
)
def test_keras_squeezes_a_batch_of_one(layer: str, units: int, kernels: int) -> None:
    inputs = keras.layers.Input((STEPS, DEPTH), batch_size=1)
    made = getattr(keras.layers, layer)(units, return_sequences=True, bias_initializer="normal")
    model = keras.Model(inputs, made(inputs))
    converted = hintc.convert(model)
    found = sum(n for op, n in converted.report.operators.items() if "SEQUENCE_" in op)
    assert found == kernels
    interpreter = Interpreter(converted.tflite)
    for seed in (0, 1):
        x = weights(1, STEPS, DEPTH, seed=seed)
        (y,) = interpreter.run({interpreter.inputs[0].name: x}).values()
        np.testing.assert_allclose(y, model(x), atol=1e-5)


def test_rows_of_the_state_share_one_sequence() -> None:
    """``x W`` of one row is added to ``h R`` of all rows; a kernel has as many rows as x."""
    kernel, recurrent = weights(DEPTH, UNITS), weights(UNITS, UNITS, seed=1)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [1, STEPS, DEPTH], "x")
        h: Any = tf.compat.v1.placeholder(tf.float32, [None, UNITS], "h")
        for row in tf.unstack(x, axis=1):
            h = tf.tanh(row @ kernel + h @ recurrent)
        tf.identity(h, "y")
    converted = hintc.convert(graph.as_graph_def(), ["x", "h"], ["y"])
    assert "batch-broadcast" in {r.code for r in converted.report.not_fused}
    interpreter = Interpreter(converted.tflite)
    for batch in (1, 3):
        feeds = {"x": weights(1, STEPS, DEPTH, seed=2), "h": weights(batch, UNITS, seed=3)}
        wanted = run(graph.as_graph_def(), feeds, ["y"])["y"]
        for _ in range(2):
            np.testing.assert_allclose(interpreter.run(feeds)["y"], wanted, atol=1e-5)
