"""A sequence of length 0: no outputs, and the states that there were at the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tf_keras.src.layers.rnn import legacy_cells

import hintc
from hintc.errors import HintcError
from hintc.runtime.interpreter import Interpreter

layers, v1 = keras.layers, tf.compat.v1
DEPTH, UNITS, BATCH = 3, 4, 2
RUNTIMES = ("litert", "tensorflow")
KERNELS = ("UNIDIRECTIONAL_SEQUENCE_", "BIDIRECTIONAL_SEQUENCE_")


def sequence(width: int = DEPTH) -> Any:
    return layers.Input((None, width))


def lstm() -> Any:
    x = sequence()
    y, h, c = layers.LSTM(UNITS, return_sequences=True, return_state=True)(x)
    return keras.Model(x, [y, h, c])


def given_states() -> Any:
    x, h0, c0 = sequence(), layers.Input((UNITS,)), layers.Input((UNITS,))
    layer = layers.LSTM(UNITS, return_sequences=True, return_state=True)
    return keras.Model([x, h0, c0], layer(x, initial_state=[h0, c0]))


def last() -> Any:
    x = sequence()
    return keras.Model(x, layers.LSTM(UNITS)(x))


def rnn() -> Any:
    x = sequence()
    y, h = layers.SimpleRNN(UNITS, return_sequences=True, return_state=True)(x)
    return keras.Model(x, [y, h, layers.SimpleRNN(5)(y)])


def both_ways() -> Any:
    x = sequence()
    layer = layers.LSTM(UNITS, return_sequences=True, return_state=True)
    y, *states = layers.Bidirectional(layer)(x)
    return keras.Model(x, [y, *states])


def both_ways_last() -> Any:
    x = sequence()
    y = layers.Bidirectional(layers.SimpleRNN(UNITS))(x)
    return keras.Model(x, [y, layers.Bidirectional(layers.LSTM(UNITS), merge_mode="sum")(x)])


MODELS = (lstm, given_states, last, rnn, both_ways, both_ways_last)


def feeds(interpreter: Interpreter, steps: int) -> dict[str, Any]:
    random = np.random.default_rng(steps)
    found = {}
    for end in interpreter.inputs:
        shape = (BATCH, steps, DEPTH) if len(end.shape) == 3 else (BATCH, UNITS)
        found[end.name] = random.uniform(-1, 1, shape).astype(np.float32)
    return found


def check(made: hintc.Converted, model: Any, tolerance: float) -> None:
    """No steps at first, after some, and before some, on one instance."""
    for runtime in RUNTIMES:
        interpreter = Interpreter(made.tflite, runtime=runtime)  # type: ignore[arg-type]
        for steps in (0, 5, 0, 1, 0):
            feed = feeds(interpreter, steps)
            got = list(interpreter.run(feed).values())
            if steps:
                wanted = model(list(feed.values()) if len(feed) > 1 else next(iter(feed.values())))
                wanted = wanted if isinstance(wanted, list | tuple) else [wanted]
                for one, other in zip(got, wanted, strict=True):
                    np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)
                continue
            starts = [v for v in feed.values() if v.ndim == 2]
            for value in got:
                if value.ndim == 3:
                    assert value.shape[:2] == (BATCH, 0)
                else:
                    start = starts.pop(0) if starts else np.zeros_like(value)
                    np.testing.assert_allclose(value, start, rtol=0, atol=min(tolerance, 0.01))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("quantize", [None, "dynamic", "float16"])
def test_kernels_give_the_initial_states(model: Callable[[], Any], quantize: Any) -> None:
    keras.utils.set_random_seed(4)
    source = model()
    made = hintc.convert(source, quantize=quantize)
    assert any(operator.startswith(KERNELS) for operator in made.report.operators)
    check(made, source, 1e-5 if quantize is None else 0.05)


@pytest.mark.parametrize("model", [lstm, given_states, last])
def test_integers_give_the_initial_states(model: Callable[[], Any]) -> None:
    keras.utils.set_random_seed(4)
    source = model()
    plain = Interpreter(hintc.convert(source).tflite)

    def samples() -> Any:
        for steps in (3, 5, 1, 5):
            for _ in range(10):
                yield list(feeds(plain, steps).values())

    made = hintc.convert(source, quantize="int8", representative_dataset=samples)
    assert made.report.operators["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 1
    check(made, source, 0.05)


def test_rows_and_steps_in_the_other_order() -> None:
    """dynamic_rnn turns its outputs, and whoever takes ``y[:, -1]`` reads the state instead."""
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, None, DEPTH], "x")
        cell = legacy_cells.LSTMCell(6, num_proj=UNITS)
        y, (c, h) = v1.nn.dynamic_rnn(cell, x, dtype=tf.float32)
        ends = [tf.identity(v, n) for v, n in ((y[:, -1], "last"), (c, "c"), (h, "h"))]
        session.run(v1.global_variables_initializer())
        made = hintc.convert(session, [x], ends)
        wanted = session.run(ends, {x: np.ones((BATCH, 5, DEPTH), np.float32)})
    for runtime in RUNTIMES:
        interpreter = Interpreter(made.tflite, runtime=runtime)  # type: ignore[arg-type]
        for steps in (0, 5, 0):
            got = interpreter.run([np.ones((BATCH, steps, DEPTH), np.float32)]).values()
            for one, other in zip(got, wanted, strict=True):
                np.testing.assert_allclose(one, other if steps else 0 * other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("layer", [layers.GRU, layers.LSTM])
def test_loops_give_the_initial_state_or_fail(layer: Any) -> None:
    x = sequence()
    ends = hintc.convert(keras.Model(x, layer(UNITS)(x)), form="while")
    rows = hintc.convert(keras.Model(x, layer(UNITS, return_sequences=True)(x)), form="while")
    nothing = np.zeros((BATCH, 0, DEPTH), np.float32)
    for runtime in RUNTIMES:
        interpreter = Interpreter(ends.tflite, runtime=runtime)  # type: ignore[arg-type]
        (state,) = interpreter.run([nothing]).values()
        assert not state.any() and state.shape == (BATCH, UNITS)
        with pytest.raises(HintcError, match="DYNAMIC_UPDATE_SLICE"):
            Interpreter(rows.tflite, runtime=runtime).run([nothing])  # type: ignore[arg-type]
