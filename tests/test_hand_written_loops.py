"""Loops as people write them: any way to count, to read a row and to write one becomes a Scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tf_keras.src.layers.rnn.legacy_cells import RNNCell

import hintc
from hintc.graphdef import lift, lower
from hintc.ir import SCAN, Scan
from hintc.runtime.interpreter import run
from hintc_passes.raise_loops import RaiseLoops
from recurrences import Array, run_graph_def, traced, weights

tf = pytest.importorskip("tensorflow")
DEPTH, UNITS = 3, 4
SPEC = tf.TensorSpec([None, None, DEPTH], tf.float32)


def lstm(x: Any, h: Any, c: Any) -> tuple[Any, Any]:
    z = tf.concat([x, h], 1) @ weights(DEPTH + UNITS, 4 * UNITS) + weights(4 * UNITS, seed=1)
    i, f, g, o = tf.split(z, 4, 1)
    c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
    return tf.sigmoid(o) * tf.tanh(c), c


def zeros(batch: Any) -> Any:
    return tf.zeros([batch, UNITS])


def array(length: Any, **options: Any) -> Any:
    return tf.TensorArray(tf.float32, length, element_shape=[None, UNITS], **options)


def loop(
    condition: Callable[[Any], Any],
    read: Callable[[Any], Any],
    following: Callable[[Any], Any],
    start: Any,
    out: Any,
    batch: Any,
    write_at: Callable[[Any], Any] = lambda t: t,
) -> Any:
    """The while_loop [counter, h, c, out] of these parts."""

    def body(t: Any, h: Any, c: Any, out: Any) -> Any:
        h, c = lstm(read(t), h, c)
        return following(t), h, c, out.write(write_at(t), h)

    first = [tf.constant(start) if isinstance(start, int) else start, zeros(batch), zeros(batch)]
    return tf.while_loop(lambda t, *_: condition(t), body, [*first, out])


def batch_major(x: Any) -> list[Any]:
    steps = tf.shape(x)[1]
    done = loop(
        lambda t: t < steps, lambda t: x[:, t], lambda t: t + 1, 0, array(steps), tf.shape(x)[0]
    )
    return [tf.transpose(done[3].stack(), [1, 0, 2]), done[1]]


def gathered_from_the_end(x: Any) -> list[Any]:
    steps = tf.shape(x)[0]
    done = loop(
        lambda t: t < steps,
        lambda t: tf.gather(x, steps - 1 - t),
        lambda t: 1 + t,
        0,
        array(steps),
        tf.shape(x)[1],
    )
    return [done[3].stack(), done[1]]


def counted_down(x: Any) -> list[Any]:
    steps = tf.shape(x)[0]
    done = loop(
        lambda t: t >= 0, lambda t: x[t], lambda t: t - 1, steps - 1, array(steps), tf.shape(x)[1]
    )
    return [done[3].stack(), done[1], tf.cast(done[0], tf.float32)]


def counted_from_one(x: Any) -> list[Any]:
    steps = tf.shape(x)[0]
    done = loop(
        lambda t: t <= steps,
        lambda t: x[t - 1],
        lambda t: t + 1,
        1,
        array(steps),
        tf.shape(x)[1],
        lambda t: t - 1,
    )
    return [done[3].stack(), done[1]]


def grown(x: Any) -> list[Any]:
    steps = tf.shape(x)[0]
    done = loop(
        lambda t: t < steps,
        lambda t: x[t],
        lambda t: t + 1,
        0,
        array(0, dynamic_size=True),
        tf.shape(x)[1],
    )
    return [done[3].stack(), done[3].read(1), done[1]]


def forward_scan(x: Any) -> list[Any]:
    state = [zeros(tf.shape(x)[1])] * 2
    h, c = tf.scan(lambda s, row: list(lstm(row, *s)), x, state)
    return [h, c]


def backward_scan(x: Any) -> list[Any]:
    state = [zeros(tf.shape(x)[1])] * 2
    return [tf.scan(lambda s, row: list(lstm(row, *s)), x, state, reverse=True)[0]]


def scan_from_the_first_row(x: Any) -> list[Any]:
    """An RNN whose state starts as the first row."""
    return [_scanned(x, reverse=False)]


def scan_from_the_last_row(x: Any) -> list[Any]:
    return [_scanned(x, reverse=True)]


def _scanned(x: Any, reverse: bool) -> Any:
    w = weights(2 * DEPTH, DEPTH)
    step = lambda h, row: tf.tanh(tf.concat([row, h], 1) @ w)  # noqa: E731
    return tf.scan(step, x, reverse=reverse)


def scan_of_two_from_the_first_rows(x: Any) -> list[Any]:
    """tf.scan without an initializer: the rows of the inputs are states, too."""
    w = weights(2 * DEPTH, DEPTH)

    def step(state: Any, row: Any) -> Any:
        a = tf.tanh(tf.concat([row[0], state[0]], 1) @ w)
        return a, state[1] * 0.5 + row[1] * a

    return list(tf.scan(step, (x, x * 2.0)))


def autograph(x: Any) -> list[Any]:
    def unrolled(x: Any) -> Any:
        h = c = tf.zeros([tf.shape(x)[0], UNITS])
        out = tf.TensorArray(tf.float32, size=0, dynamic_size=True)
        for t in tf.range(tf.shape(x)[1]):
            h, c = lstm(x[:, t], h, c)
            out = out.write(t, h)
        return tf.transpose(out.stack(), [1, 0, 2]), h

    return list(tf.function(unrolled)(x))


FUSED = {
    f.__name__: f
    for f in (
        *(batch_major, gathered_from_the_end, counted_down, counted_from_one, grown),
        *(forward_scan, backward_scan, autograph, scan_from_the_first_row, scan_from_the_last_row),
    )
}


def every_second_row(x: Any) -> list[Any]:
    def body(t: Any, h: Any, c: Any) -> Any:
        h, c = lstm(x[t], h, c)
        return t + 2, h, c

    batch = tf.shape(x)[1]
    return list(tf.while_loop(lambda t, *_: t < 5, body, [0, zeros(batch), zeros(batch)]))[1:]


def two_rows_at_once(x: Any) -> list[Any]:
    steps = tf.shape(x)[0]
    rows = array(steps).unstack(tf.concat([x, x[..., :1]], -1))

    def body(t: Any, h: Any) -> Any:
        before = rows.read(tf.maximum(t - 1, 0))
        return t + 1, tf.tanh(h + rows.read(t) * before)

    return [tf.while_loop(lambda t, h: t < steps, body, [0, zeros(tf.shape(x)[1])])[1]]


def counter_in_the_maths(x: Any) -> list[Any]:
    first = tf.shape(x)[0]

    def body(t: Any, h: Any) -> Any:
        return t - 1, tf.tanh(h + tf.cast(t, tf.float32) * 0.01 + x[0, :, :1])

    return list(tf.while_loop(lambda t, h: t > 1, body, [first, zeros(tf.shape(x)[1])]))[1:]


LOOPS = {
    f.__name__: f
    for f in (
        *(every_second_row, two_rows_at_once, counter_in_the_maths),
        scan_of_two_from_the_first_rows,
    )
}


def raw_rnn(x: Any, lengths: Any) -> list[Any]:
    """What tf.compat.v1.nn.raw_rnn builds: it stops where all rows have ended."""
    batch = tf.shape(x)[1]
    rows = tf.TensorArray(tf.float32, tf.shape(x)[0]).unstack(x)

    class Cell(RNNCell):  # type: ignore[misc]
        state_size = (UNITS, UNITS)
        output_size = UNITS

        def __call__(self, row: Any, state: Any, scope: Any = None) -> Any:
            h, c = lstm(row, *state)
            return h, (h, c)

    def step(t: Any, out: Any, state: Any, _: Any) -> Any:
        ended = t >= lengths
        following = tf.cond(
            tf.reduce_all(ended), lambda: tf.zeros([batch, DEPTH]), lambda: rows.read(t)
        )
        return ended, following, (zeros(batch),) * 2 if state is None else state, out, None

    out, (h, _), _ = tf.compat.v1.nn.raw_rnn(Cell(), step)
    return [out.stack(), h]


def test_raw_rnn_stops_at_the_longest_row() -> None:
    lengths = tf.TensorSpec([None], tf.int32)
    graph_def = traced(raw_rnn, x=SPEC, lengths=lengths)
    converted = hintc.convert(graph_def, ["x", "lengths"], ["y_0", "y_1"])
    assert converted.report.fused_ops == {"UNIDIRECTIONAL_SEQUENCE_LSTM": 1}
    for rows in ([5, 3, 0], [2, 1], [1]):
        feeds = {"x": feed(len(rows), 6), "lengths": np.array(rows, np.int32)}
        expected = run_graph_def(graph_def, feeds, ["y_0", "y_1"])
        for _ in range(2):
            found = run(converted.tflite, feeds)
            for name, value in zip(("y_0", "y_1"), expected, strict=True):
                np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5)


def test_a_stop_that_the_data_decide_is_one_clear_error() -> None:
    def build(x: Any) -> list[Any]:
        out = tf.TensorArray(tf.float32, tf.shape(x)[0])
        stops = lambda t, h, out: tf.reduce_sum(h) < 10.0  # noqa: E731
        step = lambda t, h, out: (t + 1, h + x[t], out.write(t, h))  # noqa: E731
        return [tf.while_loop(stops, step, [0, x[0], out])[2].stack()]

    with pytest.raises(hintc.HintcError) as caught:
        hintc.convert(traced(build, x=SPEC), ["x"], ["y_0"])
    text = str(caught.value)
    assert "while" in text
    assert "the loop goes on while a Less holds that is not index < bound" in text
    assert "count" in text


def outputs_of(graph_def: Any) -> list[str]:
    return [node.name for node in graph_def.node if node.name.startswith("y_")]


def feed(batch: int, steps: int) -> Array:
    random = np.random.default_rng(batch)
    return random.standard_normal((steps, batch, DEPTH)).astype(np.float32)


@pytest.mark.parametrize("name", [*FUSED, *LOOPS])
def test_it_becomes_a_scan_that_computes_the_same(name: str) -> None:
    graph_def = traced({**FUSED, **LOOPS}[name], x=SPEC)
    names = outputs_of(graph_def)
    tidy = "inline-functions,fold-constants"
    module = hintc.compile(graph_def, ["x"], names, pipeline=tidy).module
    report = RaiseLoops().run(module)
    assert report.counts == {"raised": 1}, report.remarks
    scans = [Scan.of(node) for node in module.graph if node.op == SCAN]
    assert len(scans) == 1
    for batch, steps in ((1, 5), (3, 6)):
        feeds = {"x": feed(batch, steps)}
        before = run_graph_def(graph_def, feeds, names)
        after = run_graph_def(lower(module), feeds, names)
        for one, other in zip(before, after, strict=True):
            np.testing.assert_allclose(other, one, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [*FUSED, *LOOPS])
def test_it_converts(name: str) -> None:
    graph_def = traced({**FUSED, **LOOPS}[name], x=SPEC)
    converted = hintc.convert(graph_def, ["x"], outputs_of(graph_def))
    fused = {"UNIDIRECTIONAL_SEQUENCE_LSTM": 1} if name in FUSED else {}
    if name == "forward_scan":  # which gives every c as well
        fused = {}
    if name.startswith("scan_"):
        fused = {"UNIDIRECTIONAL_SEQUENCE_RNN": 1}
    assert converted.report.fused_ops == fused, converted.report
    # without an initializer, one row is no step
    no_step = [(2, 1)] if name in ("scan_from_the_first_row", "scan_from_the_last_row") else []
    for batch, steps in ((1, 5), (3, 6), *no_step):
        x = feed(batch, steps)
        expected = run_graph_def(graph_def, {"x": x}, converted.outputs)
        for _ in range(2):
            found = run(converted.tflite, {"x": x})
            for output, value in zip(converted.outputs, expected, strict=True):
                np.testing.assert_allclose(found[output], value, rtol=0, atol=1e-5)


def test_a_loop_of_no_steps_is_an_error() -> None:
    """Of `docs/pipeline.md`: TFLite writes nothing into a tensor of no rows."""
    graph_def = traced(scan_of_two_from_the_first_rows, x=SPEC)
    converted = hintc.convert(graph_def, ["x"], outputs_of(graph_def))
    with pytest.raises(hintc.HintcError, match="DYNAMIC_UPDATE_SLICE"):
        run(converted.tflite, {"x": feed(2, 1)})


def after_another(x: Any, *, backwards: tuple[bool, bool]) -> list[Any]:
    """Two LSTMs in loops of a fixed length; the second reads what the first has written."""
    rows, last = x, None
    for number, is_backward in enumerate(backwards):
        kernel = weights((DEPTH, UNITS)[number] + UNITS, 4 * UNITS, seed=number)

        def cell(row: Any, h: Any, c: Any, kernel: Any = kernel) -> tuple[Any, Any]:
            i, f, g, o = tf.split(tf.concat([row, h], 1) @ kernel, 4, 1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            return tf.sigmoid(o) * tf.tanh(c), c

        def body(t: Any, h: Any, c: Any, out: Any, rows: Any = rows, cell: Any = cell) -> Any:
            h, c = cell(rows[t], h, c)
            return t - 1 if is_backward else t + 1, h, c, out.write(t, h)  # noqa: B023

        first = [zeros(tf.shape(x)[1]), zeros(tf.shape(x)[1]), array(5)]
        start, goes_on = (4, lambda t, *_: t >= 0) if is_backward else (0, lambda t, *_: t < 5)
        _, last, _, out = tf.while_loop(goes_on, body, [tf.constant(start), *first])
        rows = out.stack()
    return [rows, last]


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_a_loop_over_what_a_backward_loop_wrote(first: bool, second: bool) -> None:
    spec = tf.TensorSpec([5, None, DEPTH], tf.float32)
    graph_def = traced(lambda x: after_another(x, backwards=(first, second)), x=spec)
    converted = hintc.convert(graph_def, ["x"], ["y_0", "y_1"])
    assert sum(converted.report.fused_ops.values()) == 2
    for batch in (1, 3):
        feeds = {"x": feed(batch, 5)}
        expected = run_graph_def(graph_def, feeds, ["y_0", "y_1"])
        for _ in range(2):
            found = run(converted.tflite, feeds)
            for name, value in zip(("y_0", "y_1"), expected, strict=True):
                np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5)


def test_where_the_rows_come_from() -> None:
    module = lift(traced(gathered_from_the_end, x=SPEC))
    assert RaiseLoops().run(module).changed
    (scan,) = (Scan.of(node) for node in module.graph if node.op == SCAN)
    assert scan.reverse_xs == (True,)
    assert scan.xs[0].node.name == "x"
