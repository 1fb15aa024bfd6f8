"""remove-shortcuts: what static_rnn skips for time's sake is computed; other conditions stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hintc
from hintc.graphdef import lift, lower
from hintc.ir import Module
from hintc.pipeline import PassPipeline
from hinted_graphs import control_flow
from recurrences import Array, run_graph_def
from tf1_models import CELLS, STEPS, Case

LENGTHS = [[5, 3, 0], [2, 1, -4], [9, 7, 5], []]
PIPELINE = "functionalise-control-flow,inline-functions,remove-shortcuts"


def shortened(graph_def: Any) -> Module:
    module = lift(graph_def)
    PassPipeline.parse(PIPELINE).run(module)
    return module


def ifs(module: Module) -> int:
    return sum(node.op in ("If", "StatelessIf") for node in module.graph)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("cell", ["LSTM all", "Multi mixed"])
def test_static_rnn_with_lengths(cell: str, version: int) -> None:
    model = Case("static_rnn", cell, "none", version, lengths=True, time_major=True).model()
    module = shortened(model.source)
    assert not ifs(module)
    assert not any("If" in n.op for f in module.functions.values() for n in f.graph)
    lowered = lower(module)
    for lengths in LENGTHS:
        x = np.random.default_rng(0).uniform(-1, 1, (STEPS, len(lengths), CELLS[cell].inputs))
        feeds = {"x": x.astype(np.float32), "lengths": np.array(lengths, np.int32)}
        assert model.outputs is not None
        compare(model.source, lowered, feeds, list(model.outputs))


def compare(one: Any, other: Any, feeds: dict[str, Array], names: list[str]) -> None:
    found = [run_graph_def(graph_def, feeds, names) for graph_def in (one, other)]
    for before, after in zip(*found, strict=True):
        np.testing.assert_allclose(before, after, rtol=0, atol=1e-6)


Branches = tuple[Any, Callable[[], Any], Callable[[], Any]]


def skip_ended(x: Any, lengths: Any) -> Branches:
    import tensorflow as tf

    all_ended, old = tf.reduce_max(lengths) <= 2, -x
    return all_ended, lambda: old, lambda: tf.compat.v1.where(lengths <= 2, old, x * 3.0)


def skip_running(x: Any, lengths: Any) -> Branches:
    import tensorflow as tf

    ended = tf.reduce_min(lengths) < 4
    return ended, lambda: tf.compat.v1.where(lengths <= 3, -x, x), lambda: x


def too_early(x: Any, lengths: Any) -> Branches:
    """Rows of three elements are taken to be at their end, but not by the Select."""
    import tensorflow as tf

    _, then, other = skip_ended(x, lengths)
    return tf.reduce_max(lengths) <= 3, then, other


def any_instead_of_all(x: Any, lengths: Any) -> Branches:
    import tensorflow as tf

    _, then, other = skip_ended(x, lengths)
    return tf.reduce_min(lengths) <= 2, then, other


def other_lengths(x: Any, lengths: Any) -> Branches:
    import tensorflow as tf

    _, then, other = skip_ended(x, lengths)
    return tf.reduce_max(lengths - 1) <= 2, then, other


def other_value(x: Any, lengths: Any) -> Branches:
    pred, _, other = skip_ended(x, lengths)
    return pred, lambda: x, other


def with_effect(x: Any, lengths: Any) -> Branches:
    import tensorflow as tf

    pred, then, other = skip_ended(x, lengths)

    def prints() -> Any:
        with tf.control_dependencies([tf.print("all rows go on")]):
            return tf.identity(other())

    return pred, then, prints


def that_may_fail(x: Any, lengths: Any) -> Branches:
    import tensorflow as tf

    pred, then, _ = skip_ended(x, lengths)
    old, row = then(), tf.reduce_max(lengths) - 3
    return pred, then, lambda: tf.compat.v1.where(lengths <= 2, old, x * tf.gather(x, row))


def graph_def_of(branches: Callable[[Any, Any], Branches]) -> Any:
    import tensorflow as tf

    v1 = tf.compat.v1
    with control_flow(2), tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 2], "x")
        lengths = v1.placeholder(tf.int32, [None], "lengths")
        tf.identity(tf.cond(*branches(tf.sin(x), lengths)), "y")
        return graph.as_graph_def()


@pytest.mark.parametrize("branches", [skip_ended, skip_running])
def test_a_shortcut_goes(branches: Callable[[Any, Any], Branches]) -> None:
    graph_def = graph_def_of(branches)
    module = shortened(graph_def)
    assert not ifs(module)
    lowered = lower(module)
    for lengths in [[1, 2], [2, 3], [3, 4], [4, 5], [5, 0]]:
        x = np.random.default_rng(0).uniform(-1, 1, (2, 2)).astype(np.float32)
        feeds = {"x": x, "lengths": np.array(lengths, np.int32)}
        compare(graph_def, lowered, feeds, ["y"])


@pytest.mark.parametrize(
    "branches",
    [too_early, any_instead_of_all, other_lengths, other_value, with_effect, that_may_fail],
)
def test_other_conditions_stay(branches: Callable[[Any, Any], Branches]) -> None:
    assert ifs(shortened(graph_def_of(branches))) == 1


def trained(branches: Callable[[Any, Any], Branches]) -> Any:
    """As `graph_def_of`, with what the gradient adds."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with control_flow(2), tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 2], "x")
        lengths = v1.placeholder(tf.int32, [None], "lengths")
        y = tf.cond(*branches(tf.sin(x), lengths))
        tf.gradients(y * y, x)
        names = [tf.identity(y, "y").op.name]
        return v1.graph_util.extract_sub_graph(graph.as_graph_def(), names)


def square_or_root(x: Any, lengths: Any) -> Branches:
    import tensorflow as tf

    return tf.reduce_sum(lengths) < 4, lambda: tf.sin(x * x), lambda: tf.sqrt(tf.abs(x) + 1.0)


@pytest.mark.parametrize(("branches", "left"), [(skip_running, 0), (square_or_root, 1)])
def test_results_for_the_gradient_go(branches: Callable[[Any, Any], Branches], left: int) -> None:
    graph_def = trained(branches)
    (condition,) = (n for n in graph_def.node if "If" in n.op)
    assert len(condition.attr["Tout"].list.type) > 1
    passes = PassPipeline.parse(PIPELINE + ",eliminate-dead-code")
    compiled = hintc.compile(graph_def, ["x", "lengths"], ["y"], pipeline=passes)
    assert ifs(compiled.module) == left
    assert not any("Optional" in n.op for graph in compiled.module.graphs() for n in graph)
    for lengths in [[1, 2], [4, 5]]:
        x = np.random.default_rng(0).uniform(-1, 1, (2, 2)).astype(np.float32)
        feeds = {"x": x, "lengths": np.array(lengths, np.int32)}
        compare(graph_def, compiled.graph_def, feeds, ["y"])


def loop_variables(graph_def: Any, pipeline: str) -> list[int]:
    """How many variables each loop of the compiled graph has; it computes what the source does."""
    compiled = hintc.compile(graph_def, ["x"], ["y"], pipeline=pipeline)
    for batch in (1, 3):
        x = np.random.default_rng(0).uniform(0.1, 1, (batch, 2)).astype(np.float32)
        compare(graph_def, compiled.graph_def, {"x": x}, ["y"])
    loops = (n for graph in compiled.module.graphs() for n in graph if "While" in n.op)
    return [len(loop.operands) for loop in loops]


def test_variables_that_the_gradient_added_to_loops_go() -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    with control_flow(2), tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 2], "x")

        def halved(z: Any) -> Any:
            return tf.while_loop(lambda a: tf.reduce_sum(a) > 1, lambda a: (a / 2,), [z])[0]

        step = lambda i, z: (i + 1, tf.sin(z * halved(z)))  # noqa: E731
        _, y = tf.while_loop(lambda i, _: i < 3, step, [0, x], maximum_iterations=9)
        tf.gradients(y * y, x)
        names = [tf.identity(y, "y").op.name]
        graph_def = v1.graph_util.extract_sub_graph(graph.as_graph_def(), names)
    (outer,) = (n for n in graph_def.node if "While" in n.op)
    assert len(outer.input) > 6
    # counter, limit and step of the outer loop, and its state; the inner loop's state
    assert sorted(loop_variables(graph_def, f"{PIPELINE},eliminate-dead-code")) == [1, 4]


def test_variables_that_something_needs_stay() -> None:
    """One that the condition reads, one that another reads, one that an assertion reads."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with control_flow(2), tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 2], "x")

        def step(limit: Any, factor: Any, sure: Any, unread: Any, z: Any) -> Any:
            with tf.control_dependencies([v1.debugging.Assert(sure < 9, [sure])]):
                return limit - 1, factor + 1, sure + 1, unread * z, z * factor

        one = tf.constant(1)
        start = [one + 3, tf.reduce_sum(x), one, x, x]
        results = v1.while_loop(lambda limit, *_: limit > 0, step, start, back_prop=False)
        tf.identity(results[-1], "y")
        tf.identity(results[-2], "nobody_asks_for_it")
    passes = "eliminate-dead-code,remove-shortcuts"
    assert loop_variables(graph.as_graph_def(), passes) == [4]
