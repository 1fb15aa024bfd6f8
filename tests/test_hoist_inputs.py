"""hoist-inputs: products of inputs leave the loop, and the results stay the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hintc
from hintc.graphdef import lift, lower
from hintc.ir import SCAN, Module, Scan
from hintc.runtime.interpreter import run
from hintc_passes.fold_constants import FoldConstants
from hintc_passes.hoist_inputs import HoistInputs
from hintc_passes.raise_loops import RaiseLoops
from recurrences import Array, run_graph_def, traced, weights

tf = pytest.importorskip("tensorflow")
DEPTH, UNITS = 3, 4
SPEC = tf.TensorSpec([None, None, DEPTH], tf.float32)
W, R = weights(DEPTH, 2 * UNITS), weights(UNITS, 2 * UNITS, seed=1)


def gated(x: Any, h: Any) -> Any:
    """A small gated unit: no kernel computes it."""
    z = tf.nn.bias_add(x @ W, weights(2 * UNITS, seed=2)) + h @ R
    gate, new = tf.split(z, 2, 1)
    return tf.sigmoid(gate) * h + (1.0 - tf.sigmoid(gate)) * tf.tanh(new)


def model(x: Any, step: Any = gated, *, reverse: bool = False) -> list[Any]:
    h = tf.zeros([tf.shape(x)[1], UNITS])
    return [tf.scan(lambda s, row: step(row, s), x, h, reverse=reverse)]


def feed(batch: int, steps: int) -> Array:
    random = np.random.default_rng(batch)
    return random.standard_normal((steps, batch, DEPTH)).astype(np.float32)


def hoisted(graph_def: Any) -> tuple[Module, Any]:
    module = lift(graph_def)
    RaiseLoops().run(module)
    return module, HoistInputs().run(module)


def body_ops(module: Module) -> list[str]:
    (scan,) = (Scan.of(n) for n in module.graph if n.op == SCAN)
    return sorted(n.op for n in scan.body_function(module).graph if not n.op.startswith("_"))


@pytest.mark.parametrize("reverse", [False, True])
def test_the_product_and_its_bias_leave_the_loop(reverse: bool) -> None:
    graph_def = traced(lambda x: model(x, reverse=reverse), x=SPEC)
    module, report = hoisted(graph_def)
    assert report.counts == {"hoisted": 1}
    assert body_ops(module).count("MatMul") == 1
    assert "BiasAdd" not in body_ops(module)
    lowered = lower(module)
    for batch, steps in ((1, 5), (3, 2)):
        feeds = {"x": feed(batch, steps)}
        (before,), (after,) = (run_graph_def(g, feeds, ["y_0"]) for g in (graph_def, lowered))
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-6)


def test_it_converts_with_any_batch() -> None:
    graph_def = traced(model, x=SPEC)
    converted = hintc.convert(graph_def, ["x"], ["y_0"])
    assert [r.code for r in converted.report.remarks].count("inputs-hoisted") == 1
    # with reshaped rows around it, XNNPACK gave wrong numbers in one interpreter of a hundred
    assert "RESHAPE" not in converted.report.operators
    assert "BATCH_MATMUL" not in converted.report.operators
    for batch, steps in ((1, 5), (3, 7)):
        feeds = {"x": feed(batch, steps)}
        (expected,) = run_graph_def(graph_def, feeds, ["y_0"])
        for _ in range(2):
            found = run(converted.tflite, feeds)["y_0"]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def depends_on_the_state(x: Any, h: Any) -> Any:
    return tf.tanh((x * tf.sigmoid(h[:, :1])) @ weights(DEPTH, UNITS) + h)


def by_its_own_weights(x: Any, h: Any) -> Any:
    return tf.tanh(tf.matmul(x, x, transpose_a=True) @ weights(DEPTH, UNITS))[:1] + h


def no_product(x: Any, h: Any) -> Any:
    return tf.tanh(x[:, :1] + h)


@pytest.mark.parametrize("step", [depends_on_the_state, by_its_own_weights, no_product])
def test_what_stays_in_the_loop(step: Any) -> None:
    module, report = hoisted(traced(lambda x: model(x, step), x=SPEC))
    assert not report.changed
    assert [n.op for n in module.graph].count(SCAN) == 1


def test_a_fused_scan_keeps_its_inputs() -> None:
    plain = lambda x, h: tf.tanh(x @ weights(DEPTH, UNITS) + h @ weights(UNITS, UNITS, seed=1))  # noqa: E731
    converted = hintc.convert(traced(lambda x: model(x, plain), x=SPEC), ["x"], ["y_0"])
    assert converted.report.fused_ops == {"UNIDIRECTIONAL_SEQUENCE_RNN": 1}
    assert "inputs-hoisted" not in [r.code for r in converted.report.remarks]


def test_weights_that_are_computed_are_computed_once() -> None:
    def build(x: Any) -> list[Any]:
        scaled = tf.reduce_mean(x) * W
        return model(x, lambda row, h: tf.tanh((row @ scaled)[:, :UNITS] + h))

    graph_def = traced(build, x=SPEC)
    module, report = hoisted(graph_def)
    assert report.changed
    FoldConstants().run(module)
    assert "MatMul" not in body_ops(module)
    (before,), (after,) = (
        run_graph_def(g, {"x": feed(2, 4)}, ["y_0"]) for g in (graph_def, lower(module))
    )
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-6)


def test_a_bias_along_axis_one_is_none_along_the_last_of_a_sequence() -> None:
    """Axis 1 of a sequence is the batch, as long as the bias here."""

    def build(x: Any) -> list[Any]:
        out = tf.TensorArray(tf.float32, tf.shape(x)[0], element_shape=[None, UNITS, 2])

        def body(t: Any, h: Any, out: Any) -> Any:
            h = tf.tanh(h + tf.reduce_mean(x[t]))
            y = tf.nn.bias_add(h, weights(UNITS, seed=2), data_format="NCHW")
            return t + 1, h, out.write(t, y)

        first = [0, tf.zeros([tf.shape(x)[1], UNITS, 2]), out]
        return [tf.while_loop(lambda t, *_: t < tf.shape(x)[0], body, first)[2].stack()]

    graph_def = traced(build, x=SPEC)
    compiled = hintc.compile(graph_def, ["x"], ["y_0"])
    feeds = {"x": feed(UNITS, 3)}
    (before,), (after,) = (
        run_graph_def(g, feeds, ["y_0"]) for g in (graph_def, compiled.graph_def)
    )
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-6)
