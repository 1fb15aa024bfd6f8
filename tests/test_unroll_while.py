"""unroll-while and resolve-lists: loops over lists that are no Scans convert all the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hintc
from hintc.pipeline import PassPipeline
from hintc.runtime.interpreter import run
from recurrences import Array, run_graph_def, traced

tf = pytest.importorskip("tensorflow")
DEPTH = 3
SPEC = tf.TensorSpec([5, None, DEPTH], tf.float32)


def list_of(length: int, **options: Any) -> Any:
    shape = [None, DEPTH]
    return tf.TensorArray(
        tf.float32, length, element_shape=shape, clear_after_read=False, **options
    )


def reads_what_it_wrote(x: Any) -> list[Any]:
    def body(t: Any, out: Any) -> Any:
        return t + 1, out.write(t + 1, tf.tanh(out.read(t) + out.read(t // 2) * x[t]))

    out = tf.while_loop(lambda t, out: t < 5, body, [0, list_of(6).write(0, x[0])])[1]
    return [out.stack(), out.read(3)]


def writes_every_second(x: Any) -> list[Any]:
    body = lambda t, out: (t + 1, out.write(2 * t, x[t]))  # noqa: E731
    out = tf.while_loop(lambda t, out: t < 3, body, [0, list_of(6)])[1]
    return [out.stack(), tf.cast(out.size(), tf.float32) * x[0]]


def grows_out_of_order(x: Any) -> list[Any]:
    body = lambda t, out: (t - 1, out.write(t + 2, x[t]))  # noqa: E731
    out = list_of(0, dynamic_size=True)
    return [tf.while_loop(lambda t, out: t >= 0, body, [2, out])[1].stack()]


def reads_a_list_of_rows(x: Any) -> list[Any]:
    rows = list_of(5).unstack(x)

    def body(t: Any, rows: Any) -> Any:
        return t + 1, rows.write(t, rows.read(t) + rows.read(4 - t))

    return [tf.while_loop(lambda t, rows: t < 5, body, [0, rows])[1].stack()]


LOOPS = {
    f.__name__: f
    for f in (
        *(reads_what_it_wrote, writes_every_second, grows_out_of_order, reads_a_list_of_rows),
    )
}


def feed(batch: int) -> Array:
    random = np.random.default_rng(batch)
    return random.standard_normal((5, batch, DEPTH)).astype(np.float32)


@pytest.mark.parametrize("name", LOOPS)
def test_it_converts(name: str) -> None:
    graph_def = traced(LOOPS[name], x=SPEC)
    names = [n.name for n in graph_def.node if n.name.startswith("y_")]
    converted = hintc.convert(graph_def, ["x"], names)
    assert "loop-unrolled" in [r.code for r in converted.report.remarks]
    assert "WHILE" not in converted.report.operators
    for batch in (1, 3):
        feeds = {"x": feed(batch)}
        expected = run_graph_def(graph_def, feeds, names)
        lowered = run_graph_def(converted.graph_def, feeds, names)
        for _ in range(2):
            found = run(converted.tflite, feeds)
            for output, value, other in zip(names, expected, lowered, strict=True):
                np.testing.assert_array_equal(other, value)
                np.testing.assert_allclose(found[output], value, rtol=0, atol=1e-6)


def test_too_many_steps_stay_a_loop() -> None:
    graph_def = traced(reads_what_it_wrote, x=SPEC)
    pipeline = PassPipeline.DEFAULT.set_options("unroll-while", max_trip=4)
    report = hintc.compile(graph_def, ["x"], ["y_0"], pipeline=pipeline).report
    assert "loop-long" in [r.code for r in report.not_fused]
    assert "StatelessWhile" in report.ops_after


def test_a_loop_without_lists_stays_a_loop() -> None:
    def build(x: Any) -> list[Any]:
        return list(
            tf.while_loop(lambda t, h: t < tf.shape(h)[0], lambda t, h: (t + 2, h * 2.0), [0, x])
        )[1:]

    report = hintc.convert(traced(build, x=SPEC), ["x"], ["y_0"]).report
    assert "loop-unrolled" not in [r.code for r in report.remarks]


def test_lists_in_straight_lines() -> None:
    def build(x: Any) -> list[Any]:
        out = list_of(4).write(2, x[0]).write(0, x[1])
        return [out.stack(), out.write(1, x[2]).stack(), out.read(2)]

    graph_def = traced(build, x=SPEC)
    names = ["y_0", "y_1", "y_2"]
    converted = hintc.convert(graph_def, ["x"], names)
    feeds = {"x": feed(2)}
    found = run(converted.tflite, feeds)
    for name, value in zip(names, run_graph_def(graph_def, feeds, names), strict=True):
        np.testing.assert_array_equal(found[name], value)
