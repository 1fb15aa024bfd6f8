"""Keras 2 and 3 models without hints: which are fused, and that all equal Keras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras

import hintc
from hintc.convert import Converted
from hintc.runtime.interpreter import Interpreter
from hintc.tflite.inspect import op_counts

STEPS, DEPTH, UNITS = 5, 3, 4
KERAS = {"keras 2": tf_keras, "keras 3": keras}
COUNTED = {
    "lstms": "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "rnns": "UNIDIRECTIONAL_SEQUENCE_RNN",
    "both_lstms": "BIDIRECTIONAL_SEQUENCE_LSTM",
    "both_rnns": "BIDIRECTIONAL_SEQUENCE_RNN",
    "loops": "WHILE",
}
Make = Callable[[Any], Any]


@dataclass(frozen=True)
class Case:
    """A model, and how many fused ops and loops it shall become.

    `make` gets the module ``layers`` of a Keras and gives what is called on the input.
    """

    make: Make
    lstms: int = 0
    rnns: int = 0
    both_lstms: int = 0
    both_rnns: int = 0
    loops: int = 0
    steps: int | None = STEPS

    def build(self, version: ModuleType) -> Any:
        """A functional model with a dynamic batch and no weight zero."""
        given = version.layers.Input((self.steps, DEPTH))
        model = version.Model(given, self.make(version.layers)(given))
        random = np.random.default_rng(7)
        values = [random.uniform(-0.5, 0.5, w.shape).astype(np.float32) for w in model.weights]
        for weight, value in zip(model.weights, values, strict=True):
            if "variance" in weight.name:
                value += 1.0
        model.set_weights(values)
        return model


def chain(*makes: Make) -> Make:
    """Layers one after the other."""

    def build(layers: Any) -> Any:
        made = [make(layers) for make in makes]

        def call(value: Any) -> Any:
            for layer in made:
                value = layer(value)
            return value

        return call

    return build


def lstm(**options: Any) -> Make:
    return lambda layers: layers.LSTM(UNITS, **options)


def gru(**options: Any) -> Make:
    return lambda layers: layers.GRU(UNITS, **options)


def simple_rnn(**options: Any) -> Make:
    return lambda layers: layers.SimpleRNN(UNITS, **options)


def cells(*units: int, **options: Any) -> Make:
    def build(layers: Any) -> Any:
        made = [layers.LSTMCell(n) for n in units]
        return layers.RNN(made if len(made) > 1 else made[0], **options)

    return build


def both_ways(make: Make, **options: Any) -> Make:
    return lambda layers: layers.Bidirectional(make(layers), **options)


def encoder_decoder(layers: Any) -> Any:
    encode = layers.LSTM(UNITS, return_state=True)
    decode = layers.LSTM(UNITS, return_sequences=True)
    return lambda x: decode(x, initial_state=encode(x)[1:])


SEQUENCE = {"return_sequences": True}
CASES: dict[str, Case] = {
    "lstm": Case(lstm(), lstms=1),
    "lstm sequence": Case(lstm(**SEQUENCE), lstms=1),
    "lstm no bias": Case(lstm(use_bias=False), lstms=1),
    "lstm relu": Case(lstm(activation="relu"), lstms=1),
    "lstm backwards sequence": Case(lstm(go_backwards=True, **SEQUENCE), lstms=1),
    "lstm states": Case(lstm(return_state=True), lstms=1),
    "lstm sequence and states": Case(lstm(return_state=True, **SEQUENCE), lstms=1),
    "lstm dynamic time": Case(lstm(), lstms=1, steps=None),
    "lstm dynamic time sequence": Case(lstm(**SEQUENCE), lstms=1, steps=None),
    "stacked": Case(chain(lstm(**SEQUENCE), lstm()), lstms=2),
    "both ways": Case(both_ways(lstm()), both_lstms=1),
    "both ways sequence": Case(both_ways(lstm(**SEQUENCE)), both_lstms=1),
    "both ways sum": Case(both_ways(lstm(**SEQUENCE), merge_mode="sum"), both_lstms=1),
    "both ways dynamic time": Case(both_ways(lstm()), both_lstms=1, steps=None),
    "both ways states": Case(both_ways(lstm(return_state=True, **SEQUENCE)), both_lstms=1),
    "both ways stacked": Case(chain(*2 * [both_ways(lstm(**SEQUENCE))]), both_lstms=2),
    "both ways, then one": Case(chain(both_ways(lstm(**SEQUENCE)), lstm()), both_lstms=1, lstms=1),
    "both ways rnn": Case(both_ways(simple_rnn(**SEQUENCE)), both_rnns=1),
    "both ways rnn last": Case(both_ways(simple_rnn(), merge_mode="mul"), both_rnns=1),
    "encoder decoder": Case(encoder_decoder, lstms=2),
    "cell": Case(cells(UNITS), lstms=1),
    "stacked cells": Case(cells(UNITS, 5), lstms=2),
    "convolution first": Case(
        chain(lambda k: k.Conv1D(4, 2), lambda k: k.BatchNormalization(), lstm()), lstms=1
    ),
    "rnn": Case(simple_rnn(), rnns=1),
    "rnn dynamic time": Case(simple_rnn(), rnns=1, steps=None),
    "hard sigmoid": Case(lstm(recurrent_activation="hard_sigmoid"), loops=1),
    "gru": Case(gru(), loops=1),
    "gru reset before": Case(gru(reset_after=False), loops=1),
    "gru dynamic time": Case(gru(**SEQUENCE), loops=1, steps=None),
    "gru both ways": Case(both_ways(gru(**SEQUENCE)), loops=2),
    "mask": Case(chain(lambda k: k.Masking(), lstm()), loops=1),
    "lstm then gru": Case(chain(lstm(**SEQUENCE), gru()), lstms=1, loops=1),
}


def check_equal(model: Any, converted: Converted) -> None:
    """Equal to Keras at two batch sizes, on two invokes each."""
    runner = Interpreter(converted.tflite)
    steps = model.inputs[0].shape[1] or STEPS + 1
    for batch in (1, 3):
        x = np.random.default_rng(batch).standard_normal((batch, steps, DEPTH)).astype(np.float32)
        x[0, -1] = x[-1, :2] = 0  # what a mask leaves out
        wanted = model.predict(x, verbose=0)
        wanted = wanted if isinstance(wanted, (list, tuple)) else [wanted]
        for _ in range(2):
            got = list(runner.run(dict(zip(converted.inputs, [x], strict=True))).values())
            for one, other in zip(got, wanted, strict=True):
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("version", KERAS)
@pytest.mark.parametrize("name", CASES)
def test_model(name: str, version: str) -> None:
    case = CASES[name]
    model = case.build(KERAS[version])
    converted = hintc.convert(model)
    ops = op_counts(converted.tflite)
    found = {key: ops[op] for key, op in COUNTED.items()}
    remarks = [str(remark) for remark in converted.report.remarks]
    assert found == {key: getattr(case, key) for key in COUNTED}, (ops, remarks)
    unwanted = ("CUSTOM", "Flex", "TensorList")
    assert not [op for op in ops if op.startswith(unwanted)], ops
    check_equal(model, converted)
