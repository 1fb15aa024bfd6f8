"""quantize="int8": ranges of unusual values, and of what loops compute inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import hintc
from hintc.runtime.interpreter import Interpreter, RuntimeName
from hintc.tflite.inspect import op_counts

RUNTIMES: tuple[RuntimeName, ...] = ("litert", "tensorflow")
layers = keras.layers


def int8(model: Any, samples: list[list[Any]], **options: Any) -> Any:
    return hintc.convert(model, quantize="int8", representative_dataset=lambda: samples, **options)


def quantised_like(model: Any, values: Callable[[int], Any], atol: float) -> Any:
    """The model in integers, from these samples, is right in both runtimes."""
    given = [[values(seed)] for seed in range(10)]
    made = int8(model, given)
    for runtime in RUNTIMES:
        for delegates in (True, False):
            interpreter = Interpreter(made.tflite, runtime=runtime, delegates=delegates)
            (got,) = interpreter.run(given[0]).values()
            np.testing.assert_allclose(got, model(given[0][0]), atol=atol)
    return made


def test_values_that_are_zero_in_all_samples() -> None:
    """XNNPACK refuses a model with the scales that TensorFlow's quantiser gives them."""
    keras.utils.set_random_seed(1)
    x = keras.Input((4, 3))
    model = keras.Model(x, layers.LSTM(4, unroll=True)(layers.Masking()(x)))

    def short(seed: int) -> Any:
        value = np.random.default_rng(seed).uniform(-1, 1, (2, 4, 3)).astype(np.float32)
        return value * np.array([1, 1, 0, 0], np.float32)[None, :, None]

    quantised_like(model, short, atol=0.02)


def test_a_product_of_what_is_small_beside_others() -> None:
    """XNNPACK refuses a model with an output scale so much finer than its input's."""
    x = keras.Input((2,))
    dense = layers.Dense(4)
    model = keras.Model(x, dense(x))
    weights = np.array([[0, 0, 0, 0], [0.5, -0.5, 0.3, 0.2]], np.float32)
    dense.set_weights([weights, np.zeros(4, np.float32)])

    def uneven(seed: int) -> Any:
        random = np.random.default_rng(seed)
        return (random.uniform(-1, 1, (2, 2)) * [1, 1e-6]).astype(np.float32)

    quantised_like(model, uneven, atol=1e-6)


@pytest.mark.parametrize("form", ["auto", "while"])
def test_a_loop_in_a_loop(form: Any) -> None:
    """Kernels in a loop are not quantised; TensorFlow's calibrator crashes on a loop in one."""
    weights = np.random.default_rng(0).uniform(-0.5, 0.5, (6, 3)).astype(np.float32)

    def step(h: Any, row: Any) -> Any:
        return tf.tanh(tf.matmul(tf.concat([row, h], 1), weights))

    def twice(x: Any) -> Any:
        def once(k: Any, rows: Any) -> Any:
            return k + 1, tf.scan(step, rows, tf.zeros([2, 3]))

        return tf.while_loop(lambda k, rows: k < 2, once, [0, x])[1]

    model = tf.function(twice, input_signature=[tf.TensorSpec([5, 2, 3], name="x")])

    def values(seed: int) -> Any:
        return np.random.default_rng(seed).uniform(-1, 1, (5, 2, 3)).astype(np.float32)

    given = [[values(seed)] for seed in range(10)]
    made = int8(model, given, form=form)
    codes = [r.code for r in made.report.not_fused]
    assert ("form-fused-integers" in codes) == (form == "auto")
    assert op_counts(made.tflite)["WHILE"] == 2
    for runtime in RUNTIMES:
        (got,) = Interpreter(made.tflite, runtime=runtime).run(given[0]).values()
        np.testing.assert_allclose(got, model(given[0][0]), atol=0.03)


def test_a_custom_operator_in_a_loop() -> None:
    """It stays in float, and runs for the calibration."""
    weights = np.random.default_rng(0).uniform(-0.5, 0.5, (4, 4)).astype(np.float32)

    def step(h: Any, row: Any) -> Any:
        hint = hintc.OpHint("Wave")
        wave = hint.add_input(tf.matmul(h, weights) + row)
        return 0.5 * h + hint.add_output(tf.sin(wave) * wave)

    model = tf.function(
        lambda x: tf.scan(step, x, tf.zeros([2, 4])),
        input_signature=[tf.TensorSpec([5, 2, 4], name="x")],
    )
    random = np.random.default_rng(1)
    given = [[random.uniform(-1, 1, (5, 2, 4)).astype(np.float32)] for _ in range(10)]
    kernels: Any = {"Wave": lambda x: np.sin(x) * x}
    made = int8(model, given, kernels=kernels)
    assert made.report.operators["CUSTOM:Wave"] == made.report.operators["WHILE"] == 1
    for runtime in RUNTIMES:
        runner = Interpreter(made.tflite, runtime=runtime, kernels=kernels)
        (got,) = runner.run(given[0]).values()
        np.testing.assert_allclose(got, model(given[0][0]), atol=0.05)
