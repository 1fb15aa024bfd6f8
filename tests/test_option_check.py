"""Models with other options than the default ones; `make hunt ARGS='--options 4'` runs more."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import hintc
from float_shadow import float_shadow
from hintc.errors import HintcError
from hintc.runtime.interpreter import Interpreter
from hintc.tflite.flatbuffer import Model as File
from option_check import CHOICES, check_option, chosen, is_stream
from recurrent_models import recipe

layers = keras.layers
SAMPLE = (
    (123, "persist"),  # final states of a stream
    (5, "int8 ends"),  # a kernel that would stand in a loop
    (5, "int8 while"),  # a loop in a loop, which TensorFlow's calibrator crashes on
    (130, "tflm"),  # relu6, which TFLite Micro takes for tanh
    (137, "int8 unroll"),  # a product of zeros
    (103, "dynamic latency"),
    (2001, "int8 latency"),  # an EnsureShape in unrolled steps
    (321, "int8 latency"),  # rows of which one gave all their scale
)
"""What the hunt found once."""


@pytest.mark.parametrize(("seed", "name"), SAMPLE)
def test_found(seed: int, name: str) -> None:
    outcome = check_option((seed, name))
    assert outcome.status == "right", outcome


def test_choices_are_reproducible_and_reach_everything() -> None:
    texts = [chosen(seed, 4) for seed in range(200)]
    assert texts == [chosen(seed, 4) for seed in range(200)]
    assert {name for names in texts for name in names} == set(CHOICES)
    assert all(CHOICES[n].stream <= is_stream(recipe(s)) for s, ns in enumerate(texts) for n in ns)


def lstm(**options: Any) -> Any:
    keras.utils.set_random_seed(1)
    x = keras.Input((5, 3), batch_size=2, name="x")
    return keras.Model(x, layers.LSTM(4, **options)(x))


def samples(count: int = 6) -> list[list[Any]]:
    random = np.random.default_rng(0)
    return [[random.uniform(-1, 1, (2, 5, 3)).astype(np.float32)] for _ in range(count)]


@pytest.mark.parametrize("quantize", ["dynamic", "float16", "int8"])
def test_the_shadow_is_float_and_shows_wrong_wiring(quantize: Any) -> None:
    data: dict[str, Any] = {"representative_dataset": samples} if quantize == "int8" else {}
    model = lstm(return_sequences=True)
    tflite = hintc.convert(model, quantize=quantize, **data).tflite
    shadow = File.read(float_shadow(tflite))
    main = shadow.subgraphs[0]
    found = {str(main.dtype(t)) for op in main.operators for t in (*op.inputs, *op.outputs)}
    assert found <= {"float32", "int32"}
    (feed,) = samples(1)
    (right,) = Interpreter(shadow.write()).run(feed).values()
    np.testing.assert_allclose(right, model(feed[0]), atol=0.01)
    (kernel,) = [op for op in main.operators if "LSTM" in shadow.op_name(op)]
    kernel.inputs[1], kernel.inputs[2] = kernel.inputs[2], kernel.inputs[1]
    (wrong,) = Interpreter(shadow.write()).run(feed).values()
    assert np.abs(wrong - right).max() > 0.03


# -- states that persist ---------------------------------------------------------------------------


def test_a_state_that_would_start_anew_is_refused() -> None:
    x = keras.Input((5, 3), batch_size=2, name="x")
    model = keras.Model(x, layers.GRU(4)(x))
    with pytest.raises(HintcError, match=r"starts anew at every run.*gated recurrent unit"):
        hintc.convert(model, state="persist")


def test_a_state_beyond_the_length_is_refused() -> None:
    """A kernel runs all steps, and would go on from there."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [2, 5, 3], "x")
        lengths = v1.placeholder(tf.int32, [2], "lengths")
        cell = hintc.TFLiteLSTMCell(4)
        outputs, _ = hintc.dynamic_rnn(
            cell, tf.transpose(x, [1, 0, 2]), sequence_length=lengths, dtype=tf.float32
        )
        y = tf.identity(outputs, "y")
        session.run(v1.global_variables_initializer())
        assert hintc.convert(session, [x, lengths], [y]).report.fused_ops
        with pytest.raises(HintcError, match="go on from beyond the length"):
            hintc.convert(session, [x, lengths], [y], state="persist")


def test_a_stream_of_pieces_of_different_sizes_is_refused() -> None:
    """Interpreters set all states to zero when an input is resized."""
    x = keras.Input((None, 3), batch_size=2, name="x")
    model = keras.Model(x, layers.LSTM(4)(x))
    with pytest.raises(HintcError, match=r"input 'x' are dynamic.*number of steps"):
        hintc.convert(model, state="persist")
