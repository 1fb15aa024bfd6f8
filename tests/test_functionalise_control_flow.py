"""functionalise-control-flow: v1 loops, conditions and arrays compute the same as functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import hintc
from hintc.call_graph import CONTROL_FLOW_V1
from hintc.graphdef import lift, lower
from hintc.ir import SCAN, Module
from hintc.pipeline import PassPipeline
from hintc.remark import PassReport
from hintc_passes.functionalise_control_flow import FunctionaliseControlFlow
from pass_cases import run
from recurrences import Array, run_graph_def, run_tflite
from tensorflow_graphs import control_flow
from work import calls_made

tf = pytest.importorskip("tensorflow")
v1 = tf.compat.v1
DEPTH, UNITS, STEPS = 3, 4, 5
Results = Mapping[str, Any]
X = (None, DEPTH)
SEQUENCE = (STEPS, None, DEPTH)


def frozen(build: Callable[..., Results], **inputs: Any) -> tuple[Any, list[str]]:
    """The GraphDef in control flow v1, frozen with seeded weights, and its outputs.

    Args:
        build: takes the inputs by name, gives the outputs by name.
        inputs: shapes of float inputs, or (shape, dtype).
    """
    with control_flow(v2=False), tf.Graph().as_default() as graph:
        tensors = {}
        for name, spec in inputs.items():
            shape, dtype = spec if isinstance(spec[-1], tf.DType) else (spec, tf.float32)
            tensors[name] = v1.placeholder(dtype, shape, name)
        results = build(**tensors)
        for name, tensor in results.items():
            tf.identity(tensor, name=name)
        random = np.random.default_rng(7)
        with v1.Session() as session:
            for variable in v1.global_variables():
                value = random.uniform(-0.5, 0.5, variable.shape.as_list())
                session.run(variable.initializer, {variable.initializer.inputs[1]: value})
            names = list(results)
            return v1.graph_util.convert_variables_to_constants(
                session, graph.as_graph_def(), names
            ), names


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def functional(graph_def: Any) -> tuple[Module, PassReport]:
    module = lift(graph_def)
    report = PassPipeline((FunctionaliseControlFlow(),)).run(module)
    return module, report.runs[0].report


def check_functional(
    graph_def: Any, names: Sequence[str], *feeds: Mapping[str, Array]
) -> tuple[Module, PassReport]:
    """Nothing of control flow v1 is left, and TensorFlow computes the same."""
    module, report = functional(graph_def)
    assert not report.remarks
    left = {n.op for graph in module.graphs() for n in graph}
    assert not left & CONTROL_FLOW_V1
    assert not [op for op in left if op.startswith("TensorArray")]
    check_equal(graph_def, lower(module), names, *feeds)
    return module, report


def check_equal(before: Any, after: Any, names: Sequence[str], *feeds: Mapping[str, Array]) -> None:
    for case in feeds:
        expected = run_graph_def(before, case, names)
        found = run_graph_def(after, case, names)
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_allclose(other, one, rtol=0, atol=1e-6)


def check_converted(graph_def: Any, names: Sequence[str], *feeds: Mapping[str, Array]) -> Any:
    """The .tflite is right for each case, twice."""
    result = hintc.convert(graph_def, list(feeds[0]), names)
    for case in (*feeds, *feeds):
        expected = run_graph_def(graph_def, case, names)
        for one, other in zip(expected, run_tflite(result.tflite, case), strict=True):
            np.testing.assert_allclose(other, one, rtol=0, atol=1e-5)
    return result.report


# -- loops and conditions by hand ----------------------------------------------------------------


def array_loop(x: Any) -> Results:
    rows = tf.TensorArray(tf.float32, STEPS).unstack(x)
    out = tf.TensorArray(tf.float32, STEPS, element_shape=[None, DEPTH])
    _, h, out, _ = v1.while_loop(
        lambda t, h, out, unused: t < STEPS,
        lambda t, h, out, unused: (t + 1, tf.tanh(h + rows.read(t)), out.write(t, h), unused * 2.0),
        [0, tf.zeros([tf.shape(x)[1], DEPTH]), out, 1.0],
    )
    return {"y": out.stack(), "h": h}


def growing_array(x: Any) -> Results:
    out = tf.TensorArray(tf.float32, 0, dynamic_size=True, element_shape=[None, DEPTH])
    _, out, total = v1.while_loop(
        lambda t, out, total: tf.reduce_sum(total) < 10.0,
        lambda t, out, total: (t + 1, out.write(t, x * total), total + 1.5),
        [0, out, tf.constant(1.0)],
    )
    return {"y": out.stack(), "n": out.size()}


def nested_loops(x: Any) -> Results:
    def inner(j: Any, b: Any) -> Any:
        return j + 1, tf.cond(j > 1, lambda: b * 2.0, lambda: b + x)

    def body(i: Any, a: Any) -> Any:
        return i + 1, v1.while_loop(lambda j, b: j < i, inner, [0, a])[1]

    return {"y": v1.while_loop(lambda i, a: i < 4, body, [0, x])[1]}


def loop_in_condition(x: Any) -> Results:
    def loop() -> Any:
        return v1.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a + x), [0, x])[1]

    return {"y": tf.cond(tf.reduce_sum(x) > 0, loop, lambda: x)}


def conditions(x: Any) -> Results:
    positive = tf.reduce_sum(x) > 0
    y = tf.cond(positive, lambda: x * 2.0, lambda: tf.constant(1.0) + x)
    z = tf.cond(positive, lambda: tf.constant(3.0), lambda: tf.constant(1.0))
    deep = lambda: tf.cond(y[0, 0] > 0, lambda: y + 1.0, lambda: y - 1.0)  # noqa: E731
    a, b = tf.cond(positive, lambda: (y * z, deep()), lambda: (y, z + y))
    return {"y": y, "z": z, "a": a, "b": b}


def growing_state(x: Any) -> Results:
    free = [tf.TensorShape([]), tf.TensorShape([None, DEPTH])]
    loop = v1.while_loop(
        lambda i, a: i < 3, lambda i, a: (i + 1, tf.concat([a, x], 0)), [0, x], free
    )
    return {"y": loop[1]}


def which_branch(x: Any) -> Results:
    positive = tf.reduce_sum(x) > 0
    no, yes = tf.raw_ops.Switch(data=x, pred=positive)
    value, index = tf.raw_ops.Merge(inputs=[yes * 2.0, no - 1.0])
    return {"y": value, "index": index}


ROWS = [{"x": floats(2, DEPTH) + by} for by in (2, -2)] + [{"x": floats(3, DEPTH)}]
SEQUENCES = [{"x": floats(STEPS, batch, DEPTH)} for batch in (1, 3)]
BY_HAND: dict[str, tuple[Callable[..., Results], Any, list[dict[str, Array]], int]] = {
    "array loop": (array_loop, SEQUENCE, SEQUENCES, 1),
    "growing array": (growing_array, X, ROWS, 1),
    "nested loops": (nested_loops, X, ROWS, 3),
    "loop in condition": (loop_in_condition, X, ROWS, 2),
    "conditions": (conditions, X, ROWS, 4),
    "growing state": (growing_state, X, ROWS, 1),
    "which branch": (which_branch, X, ROWS, 1),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_the_same_values(case: str) -> None:
    build, shape, feeds, built = BY_HAND[case]
    graph_def, names = frozen(build, x=shape)
    _, report = check_functional(graph_def, names, *feeds)
    assert report.counts["functionalised"] == built


@pytest.mark.parametrize("case", ["array loop", "nested loops", "conditions", "growing state"])
def test_converts(case: str) -> None:
    build, shape, feeds, _ = BY_HAND[case]
    check_converted(*frozen(build, x=shape), *feeds)


def test_a_loop_that_counts_becomes_a_scan() -> None:
    graph_def, _ = frozen(array_loop, x=SEQUENCE)
    module = lift(graph_def)
    PassPipeline.parse("functionalise-control-flow,raise-loops").run(module)
    assert [n.name for n in module.graph if n.op == SCAN] == ["while"]
    assert not [n for n in module.graph if n.op.startswith("TensorList")]
