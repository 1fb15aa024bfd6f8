"""raise-steps: cells that are called once are recurrences of one step, or stay with a reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tf_keras.src.layers.rnn import legacy_cells

import hintc
from hintc.errors import HintcError
from hintc.runtime.interpreter import Interpreter, RuntimeName
from hintc_passes import DEFAULT_PIPELINE
from lstm_spellings import CELLS, CHOICES, INPUTS, Cell, step_of
from work import calls_made

v1 = tf.compat.v1
DEPTH, UNITS = 3, 4
RUNTIMES: tuple[RuntimeName, ...] = ("litert", "tensorflow")
LSTM, RNN = "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN"
BEFORE = DEFAULT_PIPELINE.partition("fuse-lstm")[0].rstrip(",")
Build = Callable[[Any], Sequence[Any]]
"""x [?, 1, 3] -> what the model gives."""


def converted(build: Build, batch: int | None = None, **options: Any) -> Any:
    """The converted model, and its source as a function of the input."""
    random = np.random.default_rng(3)
    with tf.Graph().as_default() as graph:
        session = v1.Session(graph=graph)
        x = v1.placeholder(tf.float32, [batch, 1, DEPTH], "x")
        outputs = [tf.identity(y, f"y_{k}") for k, y in enumerate(build(x))]
        for variable in v1.global_variables():
            value = random.uniform(-0.8, 0.8, variable.shape.as_list())
            session.run(variable.initializer, {variable.initializer.inputs[1]: value})
    result = hintc.convert(session, [x], outputs, **options)
    return result, lambda value: session.run(outputs, {x: value})


def check(result: hintc.Converted, source: Callable[[Any], Sequence[Any]]) -> None:
    """Two batch sizes on one instance, each twice, in both runtimes."""
    random = np.random.default_rng(0)
    for runtime in RUNTIMES:
        model = Interpreter(result.tflite, runtime=runtime)
        for batch in (1, 3, 3):
            x = random.uniform(-1, 1, (batch, 1, DEPTH)).astype(np.float32)
            for got, want in zip(model.run([x]).values(), source(x), strict=True):
                np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def static(cell: Callable[[], Any], **options: Any) -> Build:
    def build(x: Any) -> Sequence[Any]:
        rows = tf.unstack(x, axis=1)
        y, states = v1.nn.static_rnn(cell(), rows, dtype=tf.float32, **options)
        return [y[0], *tf.nest.flatten(states)]

    return build


def legacy(kind: str, units: int = UNITS, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(legacy_cells, kind)(units, **options)


def stacked() -> Any:
    kinds = ("LSTMCell", "BasicRNNCell", "BasicLSTMCell")
    return legacy_cells.MultiRNNCell([legacy(kind, UNITS + k)() for k, kind in enumerate(kinds)])


def by_hand(x: Any) -> Sequence[Any]:
    """A cell called without any function around it, on what a layer before gives."""
    before = tf.nn.relu(tf.matmul(x[:, 0], v1.get_variable("dense", [DEPTH, 5])))
    cell = legacy_cells.LSTMCell(UNITS)
    y, (c, h) = cell(before, cell.zero_state(tf.shape(x)[0], tf.float32))
    return tf.matmul(y, v1.get_variable("head", [UNITS, 2])), c, h


def block(x: Any) -> Sequence[Any]:
    zeros = tf.zeros([tf.shape(x)[0], UNITS])
    *_, c, _, _, h = tf.raw_ops.LSTMBlockCell(
        x=x[:, 0],
        cs_prev=zeros,
        h_prev=zeros,
        w=v1.get_variable("w", [DEPTH + UNITS, 4 * UNITS]),
        b=v1.get_variable("b", [4 * UNITS]),
        wci=tf.zeros([UNITS]),
        wcf=tf.zeros([UNITS]),
        wco=tf.zeros([UNITS]),
        forget_bias=1.0,
        cell_clip=-1.0,
        use_peephole=False,
    )[1:]
    return h, c


def keras_layer(version: Any, layer: str, **options: Any) -> Build:
    def build(x: Any) -> Sequence[Any]:
        return [getattr(version.layers, layer)(UNITS, unroll=True, **options)(x)]

    return build


FRONTS: dict[str, tuple[Build, dict[str, int]]] = {
    "LSTMCell": (static(legacy("LSTMCell")), {LSTM: 1}),
    "all of LSTMCell": (
        static(
            legacy("LSTMCell", use_peepholes=True, cell_clip=0.5, num_proj=2, proj_clip=0.3),
        ),
        {LSTM: 1},
    ),
    "packed": (static(legacy("LSTMCell", state_is_tuple=False)), {LSTM: 1}),
    "BasicLSTMCell": (static(legacy("BasicLSTMCell")), {LSTM: 1}),
    "BasicRNNCell": (static(legacy("BasicRNNCell")), {RNN: 1}),
    "MultiRNNCell": (static(stacked), {LSTM: 2, RNN: 1}),
    "hinted LSTM": (static(lambda: hintc.TFLiteLSTMCell(UNITS)), {LSTM: 1}),
    "hinted RNN": (static(lambda: hintc.TfLiteRNNCell(UNITS)), {RNN: 1}),
    "by hand": (by_hand, {LSTM: 1}),
    "LSTMBlockCell": (block, {LSTM: 1}),
    "keras 2 LSTM": (keras_layer(tf_keras, "LSTM"), {LSTM: 1}),
    "keras 2 sequence": (keras_layer(tf_keras, "LSTM", return_sequences=True), {LSTM: 1}),
    "keras 2 SimpleRNN": (keras_layer(tf_keras, "SimpleRNN"), {RNN: 1}),
}


@pytest.mark.parametrize("front", FRONTS)
def test_a_cell_called_once_is_a_kernel(front: str) -> None:
    build, kernels = FRONTS[front]
    result, source = converted(build)
    assert {k: n for k, n in result.report.operators.items() if k in (LSTM, RNN)} == kernels
    assert not result.report.not_fused
    check(result, source)


@pytest.mark.parametrize("version", [tf_keras, keras], ids=["keras 2", "keras 3"])
@pytest.mark.parametrize("layer", ["LSTM", "SimpleRNN"])
def test_keras_layers_of_one_step(version: Any, layer: str) -> None:
    layers = version.layers
    x = layers.Input((1, DEPTH))
    y = getattr(layers, layer)(UNITS, unroll=True, return_sequences=True)(x)
    model = version.Model(x, getattr(layers, layer)(5, unroll=True)(y))
    result = hintc.convert(model)
    assert result.report.operators[LSTM if layer == "LSTM" else RNN] == 2
    check(result, lambda value: [np.asarray(model(value))])


# -- whatever the spelling -----------------------------------------------------------------------

SPELLINGS = {**CHOICES, "product": tuple(p for p in CHOICES["product"] if p != "halves")}
choices = st.fixed_dictionaries({name: st.sampled_from(v) for name, v in SPELLINGS.items()})
cells = st.builds(
    Cell,
    coupled=st.booleans(),
    peephole=st.booleans(),
    projected=st.booleans(),
    biased=st.booleans(),
    cell_clip=st.sampled_from((0.0, 0.25)),
    activation=st.sampled_from(("tanh", "tanh", "relu", "relu6")),
    forget_bias=st.sampled_from((0.0, 1.0, -0.3)),
)


def spelled(cell: Cell, choice: Any, given_states: bool = False) -> tuple[Any, list[str]]:
    """A graph that calls a step once: x [?, 3] -> next h and c."""
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, INPUTS], "x")
        widths = (CELLS, cell.outputs) if choice["cell_first"] else (cell.outputs, CELLS)
        states = [tf.zeros([tf.shape(x)[0], width]) for width in widths]
        inputs = ["x"]
        if given_states:
            states = [v1.placeholder(tf.float32, [None, w], f"s{k}") for k, w in enumerate(widths)]
            inputs += ["s0", "s1"]
        for k, value in enumerate(step_of(cell, choice)(0, x, *states)[:2]):
            tf.identity(value, f"out{k}")
    return graph.as_graph_def(), inputs


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(cells, choices)
def test_every_spelling_is_one_step(cell: Cell, choice: dict[str, Any]) -> None:
    if cell.projected and cell.cell_clip:
        cell = replace(cell, proj_clip=0.2)
    graph_def, inputs = spelled(cell, choice)
    x = np.random.default_rng(1).uniform(-1, 1, (2, INPUTS)).astype(np.float32)
    compiled = hintc.compile(graph_def, inputs, ["out0", "out1"], check=[{"x": x}])
    assert compiled.report.fused_ops == {LSTM: 1}, compiled.report


# -- what is none --------------------------------------------------------------------------------


def test_given_states_stay_plain_operators() -> None:
    plain = {name: values[0] for name, values in CHOICES.items()}
    graph_def, inputs = spelled(Cell(), plain, given_states=True)
    compiled = hintc.compile(graph_def, inputs, ["out0", "out1"])
    assert not compiled.report.fused_ops
    (note,) = [r for r in compiled.report.remarks if r.code == "given-states"]
    assert "faster" in note.reason
    with pytest.raises(HintcError, match="no use here"):  # the caller hands the states on
        hintc.convert(graph_def, inputs, ["out0", "out1"], state="persist")


def wrong_gate(x: Any) -> Sequence[Any]:
    """Ends like an LSTM, but a gate is a relu."""
    zeros = tf.zeros([tf.shape(x)[0], UNITS])
    z = tf.concat([x[:, 0], zeros], 1) @ v1.get_variable("w", [DEPTH + UNITS, 4 * UNITS])
    i, f, g, o = tf.split(z, 4, 1)
    c = tf.nn.relu(f) * zeros + tf.sigmoid(i) * tf.tanh(g)
    return [tf.sigmoid(o) * tf.tanh(c)]


def gated(x: Any) -> Sequence[Any]:
    """No recurrence: gated layers of a feed-forward network."""
    dense = [x[:, 0] @ v1.get_variable(f"w{k}", [DEPTH, UNITS]) for k in range(4)]
    mixed = tf.sigmoid(dense[0]) * tf.tanh(dense[1]) + tf.sigmoid(dense[2]) * tf.tanh(dense[3])
    return [tf.sigmoid(dense[0]) * tf.tanh(mixed)]


def shared(x: Any) -> Sequence[Any]:
    """One cell on two inputs: not a step by itself."""
    cell = legacy_cells.BasicLSTMCell(UNITS)
    zeros = [tf.zeros([tf.shape(x)[0], UNITS])] * 2
    return [cell(x[:, 0] * k, zeros)[0] for k in (1.0, 2.0)]


def reads_its_state(x: Any) -> Sequence[Any]:
    """The output gate multiplies the new cell state with a matrix, as an input."""
    zeros = tf.zeros([tf.shape(x)[0], UNITS])
    z = tf.concat([x[:, 0], zeros], 1) @ v1.get_variable("w", [DEPTH + UNITS, 4 * UNITS])
    i, f, g, o = tf.split(z, 4, 1)
    c = tf.sigmoid(f) * zeros + tf.sigmoid(i) * tf.tanh(g)
    return [tf.sigmoid(o + c @ v1.get_variable("p", [UNITS, UNITS])) * tf.tanh(c)]


@pytest.mark.parametrize(
    ("build", "codes"),
    [
        (wrong_gate, ["gate-activation"]),
        (gated, []),
        (shared, []),
        (reads_its_state, []),
        (static(legacy("GRUCell")), []),
        (static(legacy("LSTMCell", activation=tf.sigmoid)), []),
    ],
    ids=["gate", "no recurrence", "shared", "its state", "gru", "activation"],
)
def test_what_is_no_kernels_step_stays(build: Build, codes: list[str]) -> None:
    result, source = converted(build)
    assert not result.report.fused_ops
    assert [r.code for r in result.report.not_fused] == codes
    check(result, source)


def test_a_hinted_cell_that_is_none_says_so() -> None:
    def build(x: Any) -> Sequence[Any]:
        return static(lambda: hintc.TFLiteLSTMCell(UNITS, activation=tf.sigmoid))(x)[:1]

    result, source = converted(build)
    assert [r.code for r in result.report.not_fused] == ["cell-not-fused"]
    check(result, source)


def test_a_step_of_a_fixed_batch_from_zeros_needs_no_recurrent_weights() -> None:
    build, _ = FRONTS["keras 2 LSTM"]
    result, source = converted(build, batch=2)
    fused, _ = converted(build, batch=2, form="fused")
    assert LSTM not in result.report.operators and fused.report.operators[LSTM] == 1
    assert len(result.tflite) < len(fused.tflite)
    hinted, _ = converted(FRONTS["hinted LSTM"][0], batch=2)
    assert hinted.report.operators[LSTM] == 1
    x = np.ones((2, 1, DEPTH), np.float32)
    for made in (result, fused):
        (got,) = Interpreter(made.tflite).run([x]).values()
        np.testing.assert_allclose(got, source(x)[0], rtol=0, atol=1e-5)


def test_the_work_grows_linearly() -> None:
    """With steps, each proved, and with element-wise operations between two products."""

    def graph_of(steps: int, tail: int) -> Any:
        with tf.Graph().as_default() as graph:
            x = v1.placeholder(tf.float32, [2, DEPTH], "x")
            y, random = x, np.random.default_rng(0)
            for _ in range(steps):
                zeros = tf.zeros([2, DEPTH])
                w = random.uniform(-1, 1, (2 * DEPTH, 4 * DEPTH)).astype(np.float32)
                i, f, g, o = tf.split(tf.concat([y, zeros], 1) @ w, 4, 1)
                c = tf.sigmoid(f) * zeros + tf.sigmoid(i) * tf.tanh(g)
                y = tf.sigmoid(o) * tf.tanh(c)
            for _ in range(tail):
                y = y * tf.tanh(y * zeros + y * y)
            tf.identity(y, "y")
        return graph.as_graph_def()

    def work(steps: int, tail: int) -> int:
        graph_def = graph_of(steps, tail)
        passes = f"{BEFORE},choose-form{{form=fused}}"
        return calls_made(lambda: hintc.compile(graph_def, ["x"], ["y"], pipeline=passes))

    work(2, 2)
    assert work(40, 1) < 4.6 * work(10, 1)
    assert work(1, 800) < 4.6 * work(1, 200)
