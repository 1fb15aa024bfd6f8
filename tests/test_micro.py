"""target="tflm": what TFLite Micro runs, in its own interpreter; what it cannot is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import hintc
from hintc.convert import check
from hintc.errors import HintcError
from hintc.runtime.interpreter import Interpreter
from hintc.runtime.micro import MicroInterpreter
from hintc.tflite.flatbuffer import Model
from hintc.tflite.micro import estimated_arena
from micro_recipes import one_operator

STEPS, DEPTH = 9, 5
LAYERS = keras.layers


def sequential(*layers: Any, **options: Any) -> Any:
    return keras.Sequential([keras.Input((STEPS, DEPTH), **options), *layers])


def seq2seq() -> Any:
    inputs = keras.Input((STEPS, DEPTH))
    rows, h, c = LAYERS.LSTM(8, return_sequences=True, return_state=True)(inputs)
    last = LAYERS.LSTM(8, go_backwards=True)(rows, initial_state=[h, c])
    return keras.Model(inputs, LAYERS.Dense(2)(last))


MODELS: dict[str, tuple[Callable[[], Any], dict[str, int]]] = {
    "stacked": (
        lambda: sequential(
            LAYERS.LSTM(16, return_sequences=True), LAYERS.LSTM(8), LAYERS.Dense(3, "softmax")
        ),
        {"UNIDIRECTIONAL_SEQUENCE_LSTM": 2},
    ),
    "bidirectional": (
        lambda: sequential(LAYERS.Bidirectional(LAYERS.LSTM(8, return_sequences=True))),
        {"UNIDIRECTIONAL_SEQUENCE_LSTM": 2, "REVERSE_V2": 2},
    ),
    "seq2seq": (seq2seq, {"UNIDIRECTIONAL_SEQUENCE_LSTM": 2}),
    "conv": (
        lambda: sequential(
            LAYERS.Conv1D(8, 3, activation="relu"),
            LAYERS.BatchNormalization(),
            LAYERS.LSTM(8, return_sequences=True),
            LAYERS.LayerNormalization(),
        ),
        {"UNIDIRECTIONAL_SEQUENCE_LSTM": 1},
    ),
    "gru": (lambda: sequential(LAYERS.GRU(8), LAYERS.Dense(3)), {"WHILE": 1}),
    "rnn": (lambda: sequential(LAYERS.SimpleRNN(8)), {"WHILE": 1}),
    "exponential": (lambda: sequential(LAYERS.Dense(64, "exponential")), {"EXP": 1}),
    "relu": (lambda: sequential(LAYERS.LSTM(8, activation="relu")), {"WHILE": 1}),
}


@pytest.mark.parametrize("name", MODELS)
def test_runs_in_tflite_micro(name: str) -> None:
    build, operators = MODELS[name]
    keras.utils.set_random_seed(1)
    model = build()
    converted = hintc.convert(model, target="tflm", check=True)
    found = converted.report.operators
    assert {op: found.get(op) for op in operators} == operators
    assert not {"SHAPE", "PACK"} & set(found), "sizes are computed"
    feed = np.random.default_rng(0).standard_normal((1, STEPS, DEPTH)).astype("f4")
    interpreter = MicroInterpreter(converted.tflite)
    for _ in range(2):  # a state that leaks shows in the second
        (result,) = interpreter.run([feed]).values()
        np.testing.assert_allclose(result, model(feed).numpy(), atol=2e-6)
    used = converted.report.sizes["arena"]
    assert used == interpreter.arena_bytes()
    assert 0.9 * used < estimated_arena(Model.read(converted.tflite)) < 1.15 * used


@pytest.mark.parametrize("name", ["stacked", "bidirectional", "seq2seq", "gru", "exponential"])
def test_integers_run_in_tflite_micro_as_in_tflite(name: str) -> None:
    build, operators = MODELS[name]
    keras.utils.set_random_seed(1)
    model = build()
    random = np.random.default_rng(0)
    samples = [[random.standard_normal((1, STEPS, DEPTH)).astype("f4")] for _ in range(20)]
    converted = hintc.convert(
        model, target="tflm", quantize="int8", representative_dataset=lambda: samples
    )
    found = converted.report.operators
    assert {op: found.get(op) for op in operators} == operators
    stay = [remark.reason for remark in converted.report.remarks if remark.code == "stays-float"]
    assert ["no right int8 kernel of EXP" in reason for reason in stay] == [True] * ("EXP" in found)
    runtimes: list[MicroInterpreter | Interpreter] = [
        MicroInterpreter(converted.tflite),
        Interpreter(converted.tflite, runtime="litert"),
        Interpreter(converted.tflite, runtime="tensorflow"),
    ]
    feed = samples[-1]
    expected = model(feed[0]).numpy()
    span = float(np.ptp(model(np.concatenate([x for (x,) in samples])).numpy()))
    results = []
    for runtime in runtimes:
        first, second = (next(iter(runtime.run(feed).values())) for _ in range(2))
        np.testing.assert_array_equal(first, second)  # no state leaks into the second
        results.append(first)
        assert np.abs(first - expected).mean() < 0.05 * span
    for other in results[1:]:
        np.testing.assert_allclose(results[0], other, atol=span / 64)


@pytest.mark.parametrize("activation", ["relu", "relu6"])
@pytest.mark.parametrize("quantize", [None, "int8"])
def test_activations_that_its_kernel_takes_for_tanh(activation: str, quantize: Any) -> None:
    """They become a loop; there its int8 RELU6 copies, so both of its ends have one scale."""
    keras.utils.set_random_seed(1)
    model = sequential(LAYERS.LSTM(8, activation=activation))
    random = np.random.default_rng(0)
    samples = [[random.uniform(-2, 2, (1, STEPS, DEPTH)).astype("f4")] for _ in range(10)]
    data: dict[str, Any] = {"representative_dataset": lambda: samples} if quantize else {}
    converted = hintc.convert(model, target="tflm", quantize=quantize, **data)
    assert "knows tanh only" in " ".join(r.reason for r in converted.report.not_fused)
    (found,) = MicroInterpreter(converted.tflite).run(samples[0]).values()
    np.testing.assert_allclose(found, model(samples[0][0]), atol=0.05 if quantize else 2e-6)


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_words_and_repeated_vectors(quantize: Any) -> None:
    """Keras 3 looks words up by a SELECT of integers, and repeats by TILE; it has neither."""
    keras.utils.set_random_seed(1)
    words = keras.Input((4,), name="words", dtype="int32")
    last = LAYERS.LSTM(6)(LAYERS.Embedding(9, 5)(words))
    y = LAYERS.LSTM(4, return_sequences=True)(LAYERS.RepeatVector(3)(last))
    model = keras.Model(words, y)
    random = np.random.default_rng(0)
    samples = [[random.integers(-9, 9, (1, 4)).astype(np.int32)] for _ in range(10)]
    data: dict[str, Any] = {"representative_dataset": lambda: samples} if quantize else {}
    converted = hintc.convert(model, target="tflm", quantize=quantize, **data)
    assert not {"SELECT", "TILE"} & set(converted.report.operators)
    interpreter = MicroInterpreter(converted.tflite)
    for feed in samples:
        (found,) = interpreter.run(feed).values()
        np.testing.assert_allclose(found, model(feed[0]), atol=0.02 if quantize else 2e-6)


def test_a_result_that_is_two_outputs() -> None:
    inputs = keras.Input((STEPS, DEPTH))
    y = LAYERS.LSTM(8)(inputs)
    converted = hintc.convert(keras.Model(inputs, [y, y]), target="tflm")
    feed = [np.ones((1, STEPS, DEPTH), np.float32)]
    in_micro = MicroInterpreter(converted.tflite).run(feed)
    in_litert = Interpreter(converted.tflite).run(feed)
    assert list(in_micro) == list(in_litert) and len(in_micro) == 2
    for name, value in in_micro.items():
        np.testing.assert_allclose(value, in_litert[name], atol=1e-6)


def test_a_free_batch_becomes_1_and_a_fixed_one_stays() -> None:
    free = hintc.convert(sequential(LAYERS.LSTM(4)), target="tflm")
    assert MicroInterpreter(free.tflite).inputs[0].shape == (1, STEPS, DEPTH)
    assert [r.code for r in free.report.remarks].count("batch-fixed") == 1
    fixed = hintc.convert(sequential(LAYERS.LSTM(4), batch_size=2), target="tflm", check=True)
    assert MicroInterpreter(fixed.tflite).inputs[0].shape == (2, STEPS, DEPTH)
    assert "batch-fixed" not in [r.code for r in fixed.report.remarks]


def dynamic_time() -> Any:
    return keras.Sequential([keras.Input((None, DEPTH)), LAYERS.LSTM(4)])


def tiles() -> Any:
    return tf.function(
        lambda x: tf.tile(x, [1, 2]), input_signature=[tf.TensorSpec([1, 4], tf.float32)]
    )


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (dynamic_time, {}, r"needs every size before the model runs.*fixed size"),
        (tiles, {}, "has no kernel for 'TILE'.*target='tflite'"),
        (lambda: sequential(LAYERS.LSTM(4)), {"quantize": "dynamic"}, "NaN"),
        (lambda: sequential(LAYERS.LSTM(4)), {"quantize": "float16"}, "float16.*Take 'int8'"),
    ],
)
def test_what_it_cannot_run_is_refused(
    build: Callable[[], Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(HintcError, match=message):
        hintc.convert(build(), target="tflm", **options)


def test_int8_weights_made_elsewhere_are_refused() -> None:
    model = sequential(LAYERS.Flatten(), LAYERS.Dense(64), batch_size=1)
    hybrid = hintc.convert(model, quantize="dynamic").tflite
    with pytest.raises(HintcError, match=r"in float with int8 weights.*quantize='int8'"):
        hintc.legalize(hybrid, target="tflm")


def test_without_the_package_the_arena_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "micro_installed", lambda: False)
    report = hintc.convert(sequential(LAYERS.LSTM(4)), target="tflm").report
    assert "is not installed" in next(r.reason for r in report.remarks if r.code == "target")
    assert report.sizes["arena"] > 1000


def test_the_interpreter_says_what_is_wrong() -> None:
    with pytest.raises(HintcError, match=r"TFLite Micro cannot run the model.*TILE"):
        MicroInterpreter(one_operator("TILE"))
    converted = hintc.convert(sequential(LAYERS.LSTM(4)), target="tflm")
    with pytest.raises(HintcError, match=r"is fed with shape \[3, 9, 5\]"):
        MicroInterpreter(converted.tflite).run([np.zeros((3, STEPS, DEPTH), "f4")])
