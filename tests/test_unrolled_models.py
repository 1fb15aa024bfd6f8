"""Static RNNs, layers with ``unroll=True`` and Python loops, without any hint: fused and right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import hintc
from hintc.remark import PassReport
from hintc.runtime.interpreter import Interpreter
from hintc_passes.reroll_chains import RerollChains
from recurrences import Array
from work import calls_made

STEPS, DEPTH, UNITS = 5, 3, 4
Build = Callable[[Any], Sequence[Any]]
"""x [?, 5, 3] -> what the model gives."""


def variable(name: str, *shape: int) -> Any:
    import tensorflow as tf

    return tf.compat.v1.get_variable(name, shape)


def cell(kind: str = "LSTMCell", units: int = UNITS, **options: Any) -> Any:
    from tf_keras.src.layers.rnn import legacy_cells

    return getattr(legacy_cells, kind)(units, **options)


def stacked_cells(*kinds: str) -> Any:
    from tf_keras.src.layers.rnn import legacy_cells

    return legacy_cells.MultiRNNCell([cell(kind, UNITS + k) for k, kind in enumerate(kinds)])


def static_rnn(of: Any, rows: Sequence[Any], **options: Any) -> Any:
    import tensorflow as tf

    return tf.compat.v1.nn.static_rnn(of, rows, dtype=tf.float32, **options)


def rows_of(x: Any) -> Any:
    import tensorflow as tf

    return tf.unstack(x, axis=1)


def session_of(build: Build, steps: int = STEPS) -> tuple[Any, Any, list[Any]]:
    """A session with seeded weights, the input, the outputs."""
    import tensorflow as tf

    v1, random = tf.compat.v1, np.random.default_rng(3)
    with tf.Graph().as_default() as graph:
        session = v1.Session(graph=graph)
        x = v1.placeholder(tf.float32, [None, steps, DEPTH], "x")
        outputs = [tf.identity(y, f"y_{k}") for k, y in enumerate(build(x))]
        for v in v1.global_variables():
            value = random.uniform(-0.5, 0.5, v.shape.as_list())
            session.run(v.initializer, {v.initializer.inputs[1]: value})
    return session, x, outputs


def compare(result: hintc.Converted, reference: Callable[[Array], Sequence[Array]]) -> None:
    """Two batch sizes, each twice."""
    model, random = Interpreter(result.tflite), np.random.default_rng(0)
    for batch in (1, 3, 3):
        x = random.standard_normal((batch, STEPS, DEPTH)).astype(np.float32)
        found = list(model.run({model.inputs[0].name: x}).values())
        for got, want in zip(found, reference(x), strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def fused(result: hintc.Converted) -> list[str]:
    """The kernels, in order."""
    remarks = (r for r in result.report.fused if r.code == "form-fused")
    return [r.reason.rpartition("_")[2] for r in remarks]


def converted(build: Build) -> hintc.Converted:
    session, x, outputs = session_of(build)
    with session:
        result = hintc.convert(session, inputs=[x], outputs=outputs)
        compare(result, lambda value: session.run(outputs, {x: value}))
    return result


def packed(x: Any) -> Sequence[Any]:
    import tensorflow as tf

    y, (c, h) = static_rnn(cell(use_peepholes=True, cell_clip=0.5), rows_of(x))
    return tf.stack(y, 1), c, h


def each_read(x: Any) -> Sequence[Any]:
    y, _ = static_rnn(cell("BasicLSTMCell"), rows_of(x))
    return tuple(y)


def last_of_projected(x: Any) -> Sequence[Any]:
    y, _ = static_rnn(cell(num_proj=2), rows_of(x))
    return (y[-1],)


def three_cells(x: Any) -> Sequence[Any]:
    import tensorflow as tf

    y, _ = static_rnn(stacked_cells("LSTMCell", "BasicRNNCell", "BasicLSTMCell"), rows_of(x))
    return (tf.reshape(tf.concat(y, 1), [-1, UNITS + 2]),)


def split_rows(x: Any) -> Sequence[Any]:
    import tensorflow as tf

    rows = [tf.squeeze(part, [1]) for part in tf.split(x, STEPS, 1)]
    return (tf.stack(static_rnn(cell(), rows)[0]),)


def sliced_rows(x: Any) -> Sequence[Any]:
    import tensorflow as tf

    return (tf.stack(static_rnn(cell(), [x[:, t] for t in range(1, STEPS)])[0]),)


def two_bidirectional(x: Any) -> Sequence[Any]:
    import tensorflow as tf

    v1, y = tf.compat.v1, rows_of(x)
    for k in range(2):
        with v1.variable_scope(f"layer_{k}"):
            y, _, back = v1.nn.static_bidirectional_rnn(
                cell(), cell("BasicRNNCell"), y, dtype=tf.float32
            )
    return tf.stack(y, 1), back


def encoder_and_decoder(x: Any) -> Sequence[Any]:
    import tensorflow as tf

    rows, v1 = rows_of(x), tf.compat.v1
    _, state = static_rnn(cell(), rows)
    with v1.variable_scope("decoder"):
        y, _ = v1.nn.static_rnn(cell(), rows[::-1], initial_state=state)
    logits = [tf.nn.relu(tf.matmul(row, variable("w", UNITS, 2))) for row in y[:1]]
    return tf.stack(y), logits[0]


def by_hand(x: Any) -> Sequence[Any]:
    """Backwards, packed in the order of time, two outputs read beside."""
    import tensorflow as tf

    w, r = variable("w", DEPTH, UNITS), variable("r", UNITS, UNITS)
    h, y = tf.zeros([tf.shape(x)[0], UNITS]), []
    for t in reversed(range(STEPS)):
        h = tf.tanh(tf.matmul(x[:, t], w) + tf.matmul(h, r))
        y.append(h)
    return tf.stack(y[::-1], 1), y[0], y[2]


def lstm_and_gru(x: Any) -> Sequence[Any]:
    import tensorflow as tf

    return (tf.stack(static_rnn(stacked_cells("LSTMCell", "GRUCell"), rows_of(x))[0]),)


@pytest.mark.parametrize(
    ("build", "kernels"),
    [
        (packed, "LSTM"),
        (each_read, "LSTM"),
        (last_of_projected, "LSTM"),
        (three_cells, "LSTM RNN LSTM"),
        (split_rows, "LSTM"),
        (sliced_rows, "LSTM"),
        (two_bidirectional, "LSTM RNN LSTM RNN"),
        (encoder_and_decoder, "LSTM LSTM"),
        (by_hand, "RNN"),
        (lstm_and_gru, "LSTM"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_fused(build: Build, kernels: str) -> None:
    assert sorted(fused(converted(build))) == sorted(kernels.split())


def simple_step(x: Any, h: Any, t: int) -> Any:
    import tensorflow as tf

    v1 = tf.compat.v1
    with v1.variable_scope("", reuse=v1.AUTO_REUSE):
        w, r = variable("w", DEPTH, UNITS), variable("r", UNITS, UNITS)
    return tf.matmul(x[:, t], w) + tf.matmul(h, r)


def loop(step: Callable[[Any, list[Any], int], Any], first: Callable[[Any], Any]) -> Build:
    """A Python loop; `step` gets x, all states so far and the index."""

    def build(x: Any) -> Sequence[Any]:
        import tensorflow as tf

        states = [first(x)]
        for t in range(STEPS):
            states.append(step(x, states, t))
        return (tf.stack(states[1:]),)

    return build


def zeros(x: Any) -> Any:
    import tensorflow as tf

    return tf.zeros([tf.shape(x)[0], UNITS])


def one_row(x: Any) -> Any:
    import tensorflow as tf

    return tf.zeros([1, UNITS])


def other_activation(x: Any, states: list[Any], t: int) -> Any:
    import tensorflow as tf

    return (tf.sigmoid if t == 3 else tf.tanh)(simple_step(x, states[-1], t))


def other_weights(x: Any, states: list[Any], t: int) -> Any:
    import tensorflow as tf

    return tf.tanh(simple_step(x, states[-1], t) + x[:, t] @ variable(f"w_{t}", DEPTH, UNITS))


def two_back(x: Any, states: list[Any], t: int) -> Any:
    import tensorflow as tf

    return tf.tanh(simple_step(x, states[max(0, len(states) - 2)], t))


def plain(x: Any, states: list[Any], t: int) -> Any:
    import tensorflow as tf

    return tf.tanh(simple_step(x, states[-1], t))


@pytest.mark.parametrize(
    ("step", "first", "code", "says"),
    [
        (other_activation, zeros, "chain-differs", "Sigmoid"),
        (other_weights, zeros, "chain-", ""),
        (two_back, zeros, "", ""),
        (plain, one_row, "state-changes-shape", "<1x4>"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_no_chain_stays_and_is_right(
    step: Callable[[Any, list[Any], int], Any], first: Callable[[Any], Any], code: str, says: str
) -> None:
    result = converted(loop(step, first))
    assert not fused(result)
    remarks = [r for r in result.report.remarks if r.pass_name == "reroll-chains"]
    assert [r.code[: len(code)] for r in remarks] == ([code] if code else [])
    assert all(says in r.reason.replace(" ", "") for r in remarks)


def said(build: Build) -> list[tuple[str, str]]:
    """Codes and nodes of what is not fused."""
    session, x, outputs = session_of(build)
    with session:
        report = hintc.compile(session, inputs=[x], outputs=outputs).report
    return [(r.code, r.reason) for r in report.not_fused]


def test_a_static_gru_is_re_rolled_and_called_one() -> None:
    result = converted(lambda x: static_rnn(cell("GRUCell"), rows_of(x))[0])
    assert [r.code for r in result.report.not_fused] == ["gru"]


def lengths_by_conditions(x: Any) -> Sequence[Any]:
    import tensorflow as tf

    lengths = tf.fill(tf.shape(x)[:1], 3)
    return list(static_rnn(cell(), rows_of(x), sequence_length=lengths)[0])


def attention(x: Any) -> Sequence[Any]:
    """Each row reads all before it: no recurrence, but what is computed depends on all of them."""
    import tensorflow as tf

    w = variable("w", DEPTH, DEPTH)
    rows = rows_of(x)
    return [tf.add_n([tf.tanh(a @ w) * b for b in rows[: k + 1]]) for k, a in enumerate(rows)]


def dense_layers(x: Any) -> Sequence[Any]:
    import tensorflow as tf

    w = variable("w", DEPTH, DEPTH)
    for row in rows_of(x):
        for _ in range(5):
            row = tf.tanh(row @ w)
    return [row]


def dense_on_each(x: Any) -> Sequence[Any]:
    import tensorflow as tf

    w = variable("w", DEPTH, DEPTH)
    each = [tf.tanh(row @ w) for row in rows_of(x)]
    return [tf.add_n(each) @ w, tf.concat(each, 1) @ variable("v", STEPS * DEPTH, 2)]


def test_steps_under_the_conditions_of_lengths_are_fused() -> None:
    assert fused(converted(lengths_by_conditions)) == ["LSTM"]


@pytest.mark.parametrize("build", [dense_layers, dense_on_each, attention])
def test_repeated_layers_are_no_recurrence(build: Build) -> None:
    assert not said(build)


def test_two_states_that_differ_only_at_first_stay_two() -> None:
    def build(x: Any) -> Sequence[Any]:
        import tensorflow as tf

        h, g = zeros(x), zeros(x) + 1.0
        for t in range(STEPS):
            h = g = tf.tanh(simple_step(x, h, t) + g)
        return (h,)

    assert not fused(converted(build))


@pytest.mark.parametrize("library", ["keras", "tf_keras"])
@pytest.mark.parametrize(
    ("name", "options", "kernels"),
    [
        ("LSTM", {"return_sequences": True, "return_state": True}, "LSTM"),
        ("LSTM", {"go_backwards": True, "use_bias": False}, "LSTM"),
        ("SimpleRNN", {"return_sequences": True, "go_backwards": True}, "RNN"),
        ("GRU", {}, ""),
    ],
)
def test_keras_layers(library: str, name: str, options: dict[str, Any], kernels: str) -> None:
    import importlib

    keras = importlib.import_module(library)
    x = keras.Input((STEPS, DEPTH))
    layer = getattr(keras.layers, name)(UNITS, unroll=True, **options)
    model = keras.Model(x, layer(x))
    result = hintc.convert(model)
    assert fused(result) == kernels.split()

    def reference(value: Array) -> Sequence[Array]:
        found = model.predict(value, verbose=0)
        return found if isinstance(found, list | tuple) else [found]

    compare(result, reference)
    notes = [r.code for r in result.report.remarks if r.code.startswith("form-")]
    assert notes == (["form-fused"] if kernels else ["form-unroll"])


def test_a_constant_initial_state() -> None:
    """With a fixed batch the zeros are a constant; their product must not be folded."""
    import tf_keras

    x = tf_keras.Input(batch_shape=(2, STEPS, DEPTH))
    model = tf_keras.Model(x, tf_keras.layers.LSTM(UNITS, unroll=True)(x))
    assert fused(hintc.convert(model)) == ["LSTM"]


def frozen(steps: int) -> Any:
    import tensorflow as tf

    def build(x: Any) -> Sequence[Any]:
        return (tf.stack(static_rnn(cell(), rows_of(x))[0]),)

    session, _, _ = session_of(build, steps)
    with session:
        return tf.compat.v1.graph_util.convert_variables_to_constants(
            session, session.graph.as_graph_def(), ["y_0"]
        )


def test_a_graph_that_does_not_name_its_outputs_keeps_their_names() -> None:
    module = hintc.lift(frozen(4))
    report = RerollChains().run(module)
    assert report.counts == {"re-rolled": 1}
    assert "y_0" in module.graph
    assert not any(node.op == "Tanh" for node in module.graph)


def test_cost_grows_linearly() -> None:
    def work(steps: int) -> int:
        module = hintc.lift(frozen(steps))
        reports: list[PassReport] = []
        made = calls_made(lambda: reports.append(RerollChains().run(module)))
        assert reports[0].counts == {"re-rolled": 1}
        return made

    work(4)  # definitions are looked up on first use
    assert work(200) < 4 * work(50) * 1.1
