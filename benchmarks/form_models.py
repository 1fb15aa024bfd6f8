"""The recurrent models whose forms are measured, and every way to make a .tflite of them."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hintc_passes.scans.form_cost import Precision

Kind = Literal["one layer", "two layers", "bidirectional", "GRU"]
KINDS: tuple[Kind, ...] = ("one layer", "two layers", "bidirectional", "GRU")
GRID = (
    (16, 8, 12, 1),
    (64, 28, 28, 1),
    (64, 28, 28, 8),
    (128, 64, 100, 1),
    (128, 64, 100, 4),
    (256, 128, 50, 1),
    (256, 128, 50, 8),
    (512, 256, 20, 1),
    (32, 3, 400, 1),
    (200, 40, 75, 2),
)
"""(units, inputs, steps, batch)."""
QUANTIZE: Mapping[Precision, str | None] = {
    "float32": None,
    "int8 weights": "dynamic",
    "integers": "int8",
}
MOST_UNROLLED = 128


@dataclass(frozen=True)
class Case:
    """One model and precision of the grid; outputs are whole sequences."""

    kind: Kind
    units: int
    inputs: int
    steps: int
    batch: int
    precision: Precision

    @property
    def point(self) -> tuple[int, int, int, int]:
        """Of the grid."""
        return self.units, self.inputs, self.steps, self.batch

    @property
    def is_measured(self) -> bool:
        """False for what `bench_forms` leaves out: integers of more than one recurrence."""
        return self.precision != "integers" or self.kind in ("one layer", "GRU")

    def feed(self) -> Any:
        """Seeded input, [batch, steps, inputs]."""
        shape = (self.batch, self.steps, self.inputs)
        return np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    def samples(self) -> Iterator[list[Any]]:
        """Seeded inputs that the ranges of integers come from."""
        random = np.random.default_rng(1)
        for _ in range(10):
            shape = (self.batch, self.steps, self.inputs)
            yield [random.standard_normal(shape).astype(np.float32)]

    def model(self, keras: Any) -> Any:
        """The model in Keras 3 or tf_keras."""
        keras.utils.set_random_seed(0)
        layers = keras.layers
        x = keras.Input((self.steps, self.inputs), batch_size=self.batch)
        lstm: Callable[[], Any] = lambda: layers.LSTM(self.units, return_sequences=True)  # noqa: E731
        if self.kind == "GRU":
            y = layers.GRU(self.units, return_sequences=True)(x)
        elif self.kind == "bidirectional":
            y = layers.Bidirectional(lstm())(x)
        else:
            y = lstm()(x)
            if self.kind == "two layers":
                y = lstm()(y)
        return keras.Model(x, y)

    def forms(self) -> dict[str, dict[str, Any]]:
        """hintc's options by the name of what they make."""
        found: dict[str, dict[str, Any]] = {
            "latency": {"optimize_for": "latency"},
            "size": {},
            "while": {"form": "while", "optimize_for": "latency"},
        }
        if self.steps <= MOST_UNROLLED:
            found["unroll"] = {"form": "unroll"}
        return found


@dataclass(frozen=True)
class Made:
    """A .tflite model, the CPU seconds that it took, and what hintc said about the forms."""

    tflite: bytes
    seconds: float
    forms: str = ""


def by_hintc(case: Case, model: Any, **options: Any) -> Made:
    """Through hintc with these options."""
    import hintc

    options["quantize"] = QUANTIZE[case.precision]
    if case.precision == "integers":
        options["representative_dataset"] = case.samples
    start = time.process_time()
    result = hintc.convert(model, **options)
    seconds = time.process_time() - start
    codes = [r for r in result.report.remarks if r.code.startswith("form-")]
    return Made(result.tflite, seconds, ", ".join(_form_in(r) for r in codes))


def _form_in(remark: Any) -> str:
    form = str(remark.code).removeprefix("form-")
    words = remark.reason.split(", ")
    by = next((w.split()[0] for w in words if "steps in each iteration" in w), "")
    return f"{form} by {by}" if by else form


def by_stock(case: Case, model: Any) -> Made:
    """Through TensorFlow's converter as it is: a While over TensorLists."""
    import tensorflow as tf

    start = time.process_time()
    return _converted(case, tf.lite.TFLiteConverter.from_keras_model(model), start)


def by_tf_keras(case: Case) -> Made:
    """TensorFlow's converter on a tf_keras model, whose LSTMs it fuses."""
    import tensorflow as tf
    import tf_keras

    model = case.model(tf_keras)
    start = time.process_time()
    return _converted(case, tf.lite.TFLiteConverter.from_keras_model(model), start)


def _converted(case: Case, converter: Any, start: float) -> Made:
    import tensorflow as tf

    if case.precision == "int8 weights":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with contextlib.redirect_stdout(io.StringIO()):  # Keras says what it has exported
        tflite = bytes(converter.convert())
    return Made(tflite, time.process_time() - start)
