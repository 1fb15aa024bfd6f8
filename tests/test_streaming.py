"""state="persist": a stream fed in pieces gives what TensorFlow gives for all of it at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras.src.layers.rnn import legacy_cells

import hintc
from hintc.errors import HintcError
from hintc.runtime.interpreter import Interpreter
from hintc.runtime.micro import MicroInterpreter
from lstm_spellings import CHOICES, INPUTS, Cell, step_of

v1 = tf.compat.v1
DEPTH, UNITS, BATCH, ALL = 3, 4, 2, 30
LSTM, RNN = "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN"
RUNTIMES = ("litert", "tensorflow")
Build = Callable[[Any], Any]
"""x [batch, T, 3] -> y [batch, T, n]."""


class Source:
    """A model for pieces of a stream, and the same weights on all of it.

    Args:
        build: makes it.
        steps: of a piece.
        batch: rows.
    """

    def __init__(self, build: Build, steps: int, batch: int = BATCH) -> None:
        self.session = v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            self.x, self.whole = (
                v1.placeholder(tf.float32, [batch, t, DEPTH]) for t in (steps, ALL)
            )
            with v1.variable_scope("model", reuse=v1.AUTO_REUSE):
                self.y, self.all = (tf.identity(build(x)) for x in (self.x, self.whole))
            random = np.random.default_rng(7)
            for variable in v1.global_variables():
                value = random.uniform(-0.7, 0.7, variable.shape.as_list())
                self.session.run(variable.initializer, {variable.initializer.inputs[1]: value})
        self.steps = steps
        self.stream = random.uniform(-1, 1, (batch, ALL, DEPTH)).astype(np.float32)

    def convert(self, **options: Any) -> hintc.Converted:
        return hintc.convert(self.session, [self.x], [self.y], state="persist", **options)

    def pieces(self) -> Iterator[Any]:
        for at in range(0, ALL, self.steps):
            yield self.stream[:, at : at + self.steps]

    def check(self, run: Callable[[Any], Any], tolerance: float = 1e-5) -> None:
        """`run` is one instance, which is fed piece after piece."""
        got = np.concatenate([run(piece) for piece in self.pieces()], 1)
        wanted = self.session.run(self.all, {self.whole: self.stream})
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance)


def runner(tflite: bytes, runtime: str) -> Callable[[Any], Any]:
    model: Any = MicroInterpreter(tflite) if runtime == "tflm" else None
    if model is None:
        model = Interpreter(tflite, runtime=runtime)  # type: ignore[arg-type]  # a name of one
    return lambda piece: next(iter(model.run([piece]).values()))


def static(cell: Callable[[], Any]) -> Build:
    def build(x: Any) -> Any:
        rows = tf.unstack(x, axis=1)
        return tf.stack(v1.nn.static_rnn(cell(), rows, dtype=tf.float32)[0], 1)

    return build


def dynamic(cell: Callable[[], Any]) -> Build:
    return lambda x: v1.nn.dynamic_rnn(cell(), x, dtype=tf.float32)[0]


def legacy(kind: str, units: int = UNITS, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(legacy_cells, kind)(units, **options)


def stacked() -> Any:
    kinds = ("LSTMCell", "BasicRNNCell", "LSTMCell")
    return legacy_cells.MultiRNNCell([legacy(kind, UNITS + k)() for k, kind in enumerate(kinds)])


def coupled(x: Any) -> Any:
    """Coupled gates, which no cell of TensorFlow has."""
    choice = {name: values[0] for name, values in CHOICES.items()}
    step = step_of(Cell(coupled=True), choice)
    assert x.shape[2] == INPUTS
    h, c = (tf.zeros([x.shape[0], UNITS]) for _ in range(2))
    rows = []
    for row in tf.unstack(x, axis=1):
        h, c, y = step(0, row, h, c)
        rows.append(y)
    return tf.stack(rows, 1)


CELLS: dict[str, tuple[Callable[[], Any], dict[str, int]]] = {
    "LSTMCell": (legacy("LSTMCell"), {LSTM: 1}),
    "peephole, clip, projection": (
        legacy("LSTMCell", use_peepholes=True, cell_clip=0.4, num_proj=3, proj_clip=0.3),
        {LSTM: 1},
    ),
    "packed": (legacy("BasicLSTMCell", state_is_tuple=False), {LSTM: 1}),
    "relu": (legacy("BasicLSTMCell", activation=tf.nn.relu), {LSTM: 1}),
    "BasicRNNCell": (legacy("BasicRNNCell"), {RNN: 1}),
    "stacked": (stacked, {LSTM: 2, RNN: 1}),
    "hinted": (lambda: hintc.TFLiteLSTMCell(UNITS), {LSTM: 1}),
}


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("front", [static, dynamic])
@pytest.mark.parametrize("cell", CELLS)
def test_pieces_of_a_stream(cell: str, front: Callable[..., Build], steps: int) -> None:
    source = Source(front(CELLS[cell][0]), steps)
    result = source.convert()
    kernels = {k: n for k, n in result.report.operators.items() if k in (LSTM, RNN)}
    assert kernels == CELLS[cell][1]
    for runtime in RUNTIMES:
        source.check(runner(result.tflite, runtime))


@pytest.mark.parametrize("steps", [1, 5])
def test_coupled_gates(steps: int) -> None:
    source = Source(coupled, steps)
    result = source.convert()
    assert result.report.fused_ops == {LSTM: 1}
    for runtime in RUNTIMES:
        source.check(runner(result.tflite, runtime))


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("quantize", ["dynamic", "float16"])
def test_smaller_weights(steps: int, quantize: Any) -> None:
    source = Source(static(stacked), steps)
    result = source.convert(quantize=quantize)
    for runtime in RUNTIMES:
        source.check(runner(result.tflite, runtime), 2e-2 if quantize == "dynamic" else 2e-3)


def two_layers(x: Any) -> Any:
    rows = tf.unstack(x, axis=1)
    for scope, units in (("one", 8), ("two", 6)):
        with v1.variable_scope(scope, reuse=v1.AUTO_REUSE):
            cell = legacy_cells.LSTMCell(units)
            rows, _ = v1.nn.static_rnn(cell, rows, dtype=tf.float32)
    return tf.stack(rows, 1)


@pytest.mark.parametrize("steps", [1, 5])
def test_tflite_micro(steps: int) -> None:
    source = Source(two_layers, steps, batch=1)
    result = source.convert(target="tflm")
    assert result.report.operators[LSTM] == 2
    source.check(runner(result.tflite, "tflm"))


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("target", ["tflite", "tflm"])
def test_integers(steps: int, target: Any) -> None:
    """The states go on from sample to sample of the calibration, too."""
    source = Source(two_layers, steps, batch=1)
    result = source.convert(
        quantize="int8",
        target=target,
        representative_dataset=lambda: ([piece] for _ in range(4) for piece in source.pieces()),
    )
    assert result.report.operators[LSTM] == 2
    for runtime in (*RUNTIMES, "tflm"):
        source.check(runner(result.tflite, runtime), 0.03)


# -- directions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [tf_keras, keras], ids=["keras 2", "keras 3"])
@pytest.mark.parametrize("kind", ["backwards", "both"])
def test_layers_that_read_backwards_go_on_as_in_keras(version: Any, kind: str) -> None:
    layers = version.layers
    x = layers.Input(batch_shape=(BATCH, 5, DEPTH))
    backwards = kind == "backwards"
    layer = layers.LSTM(UNITS, stateful=True, go_backwards=backwards)
    model = version.Model(x, layer(x) if backwards else layers.Bidirectional(layer)(x))
    result = hintc.convert(model, state="persist")
    assert "persists-backwards" in [r.code for r in result.report.remarks]
    run = runner(result.tflite, "litert")
    for seed in range(3):
        piece = np.random.default_rng(seed).uniform(-1, 1, (BATCH, 5, DEPTH)).astype(np.float32)
        np.testing.assert_allclose(run(piece), model(piece), rtol=0, atol=1e-5)


# -- what cannot go on ---------------------------------------------------------------------------


def by_lengths(front: str) -> Build:
    def build(x: Any) -> Any:
        lengths = tf.cast(tf.reduce_sum(x, [1, 2]) > 0, tf.int32)
        cell = legacy_cells.LSTMCell(UNITS)
        if front == "dynamic":
            return v1.nn.dynamic_rnn(cell, x, lengths, dtype=tf.float32)[0]
        rows = tf.unstack(x, axis=1)
        return tf.stack(v1.nn.static_rnn(cell, rows, sequence_length=lengths, dtype=tf.float32)[0])

    return build


def squared(x: Any) -> Any:
    """A projection in the cell, or a layer behind it: nothing tells."""
    cell = legacy_cells.LSTMCell(UNITS, num_proj=UNITS)
    return v1.nn.static_rnn(cell, tf.unstack(x, axis=1), dtype=tf.float32)[0][0]


def keras_gru(x: Any) -> Any:
    return tf_keras.layers.GRU(UNITS, unroll=True)(x)


def ended_by_data(x: Any) -> Any:
    """A loop of which nobody knows how often it runs."""
    w = v1.get_variable("w", [DEPTH, DEPTH])

    def step(t: Any, h: Any) -> Any:
        return t + 1, tf.tanh(tf.gather(x, t, axis=1) + h @ w)

    start = tf.constant(0), tf.zeros([x.shape[0], DEPTH])
    steps = x.shape[1]
    return tf.while_loop(lambda t, h: (t < steps) & (tf.reduce_sum(h) < 2.0), step, start)[1]


@pytest.mark.parametrize(
    ("build", "steps", "reasons"),
    [
        (dynamic(legacy("GRUCell")), 1, ["gated recurrent unit", "state='reset'"]),
        (dynamic(legacy("GRUCell")), 5, ["gated recurrent unit", "starts anew"]),
        (static(legacy("GRUCell")), 1, ["multiplies the zeros", "starts anew"]),
        (static(legacy("GRUCell")), 5, ["gated recurrent unit", "starts anew"]),
        (keras_gru, 1, ["multiplies the zeros"]),
        (dynamic(legacy("LSTMCell", activation=tf.sigmoid)), 5, ["relu or relu6"]),
        (by_lengths("dynamic"), 5, ["sequence lengths", "beyond the length"]),
        (by_lengths("static"), 5, ["sequence lengths", "beyond the length"]),
        (by_lengths("static"), 1, ["a mask or a length decides"]),
        (squared, 1, ["a square matrix"]),
        (ended_by_data, 5, ["starts anew", "index < bound"]),
    ],
    ids=[
        *("gru loop 1", "gru loop", "gru static 1", "gru static", "gru keras 1", "activation"),
        *("lengths loop", "lengths static", "lengths static 1", "projection", "data"),
    ],
)
def test_what_starts_anew_is_an_error(build: Build, steps: int, reasons: Sequence[str]) -> None:
    source = Source(build, steps)
    with pytest.raises(HintcError, match="cannot persist") as caught:
        source.convert()
    for reason in reasons:
        assert reason in str(caught.value)


def test_what_is_no_stream_may_stay_beside_one() -> None:
    """A loop whose start is computed from the input has no state of its own."""

    def build(x: Any) -> Any:
        y, _ = v1.nn.dynamic_rnn(legacy_cells.LSTMCell(UNITS), x, dtype=tf.float32)
        w = v1.get_variable("w", [UNITS, UNITS])
        return tf.scan(lambda a, row: tf.nn.elu(a @ w + row), tf.transpose(y, [1, 0, 2]), y[:, 0])

    result = Source(build, 5).convert()
    assert result.report.operators[LSTM] == 1


def test_the_batch_must_be_fixed() -> None:
    x = keras.Input((1, DEPTH))
    model = keras.Model(x, keras.layers.LSTM(UNITS, unroll=True)(x))
    with pytest.raises(HintcError, match="batch size is dynamic"):
        hintc.convert(model, state="persist")
    assert hintc.convert(model, state="persist", target="tflm").report.operators[LSTM] == 1
