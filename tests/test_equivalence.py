"""check_equivalence between GraphDefs and .tflite models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from hintc.equivalence import check_equivalence
from hintc.errors import EquivalenceError, HintcError
from hintc.tflite.handoff import to_tflite


def graph(function: Callable[[Any], Any], name: str = "y", shape: Any = (None, 3)) -> Any:
    with tf.Graph().as_default() as built:
        x = tf.compat.v1.placeholder(tf.float32, shape, "x")
        tf.identity(function(x), name=name)
    return built.as_graph_def()


def test_graph_against_graph() -> None:
    report = check_equivalence(graph(tf.tanh), graph(tf.tanh, "other"))
    assert report.ok
    assert report.max_error == {"y": 0.0}
    assert len(report.differences) == 4, "two batch sizes, two invokes"
    report.raise_if_failed()


def test_graph_against_tflite_and_back() -> None:
    source = graph(lambda x: tf.nn.softmax(tf.exp(x)))
    model = to_tflite(source, ["x"], ["y"])
    for pair in ((source, model), (model, source), (model, model)):
        report = check_equivalence(*pair)
        assert report.ok
        assert report.max_error["y"] < 1e-6


def test_a_difference_is_an_error_that_names_the_output() -> None:
    report = check_equivalence(graph(tf.tanh), graph(lambda x: tf.tanh(x) + 0.25))
    assert not report.ok
    assert report.max_error["y"] == pytest.approx(0.25)
    with pytest.raises(EquivalenceError, match=r"node 'y'.*up to 0\.25"):
        report.raise_if_failed()
    assert check_equivalence(graph(tf.tanh), graph(lambda x: tf.tanh(x) + 0.25), atol=0.3).ok


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (tf.math.log, True),
        (lambda x: tf.where(x < 0, 0.0, tf.math.log(tf.abs(x))), False),
        (lambda x: tf.where(x < 0, -np.inf, tf.math.log(tf.abs(x))), False),
    ],
)
def test_values_that_are_not_finite(other: Any, same: bool) -> None:
    report = check_equivalence(graph(tf.math.log), graph(other))
    assert report.ok is same
    assert report.max_error["y"] == (0.0 if same else np.inf)


def test_shapes_must_agree() -> None:
    report = check_equivalence(graph(tf.tanh), graph(lambda x: tf.tanh(x)[:, :2]))
    assert "shapes [1, 3] and [1, 2]" in report.differences[0].why
    with pytest.raises(EquivalenceError, match="shapes"):
        report.raise_if_failed()


def test_given_feeds() -> None:
    a, b = graph(tf.nn.relu), graph(tf.identity)
    assert check_equivalence(a, b, {"x": np.ones((1, 3), np.float32)}).ok
    feeds = [{"x:0": np.full((1, 3), value, np.float32)} for value in (1.0, -1.0)]
    report = check_equivalence(a, b, feeds)
    assert [difference.ok for difference in report.differences] == [True, True, False, False]


def test_seeds() -> None:
    a, b = graph(tf.nn.relu), graph(tf.identity)
    errors = [check_equivalence(a, b, seed=seed).max_error for seed in (1, 1, 2)]
    assert errors[0] == errors[1] != errors[2]


def test_outputs_are_paired_by_name_then_by_position() -> None:
    def two(first: str, second: str) -> Any:
        with tf.Graph().as_default() as built:
            x = tf.compat.v1.placeholder(tf.float32, [2], "x")
            tf.tanh(x, first)
            tf.exp(x, second)
        return built.as_graph_def()

    model = to_tflite(two("a", "b"), ["x"], ["b", "a"])
    assert check_equivalence(two("a", "b"), model).ok
    with pytest.raises(HintcError, match="candidates: a, b"):
        check_equivalence(two("a", "b"), two("a", "b"))
    assert check_equivalence(two("a", "b"), two("a", "b"), outputs=["a", "b"]).ok
    assert not check_equivalence(two("c", "d"), model, outputs=["c", "d"]).ok
    assert check_equivalence(two("c", "d"), model, outputs=["d", "c"]).ok


def test_integer_and_boolean_inputs() -> None:
    with tf.Graph().as_default() as built:
        count = tf.compat.v1.placeholder(tf.int32, [None], "count")
        flag = tf.compat.v1.placeholder(tf.bool, [None], "flag")
        tf.where(flag, count, count + 1, name="y")
    graph_def = built.as_graph_def()
    assert check_equivalence(graph_def, to_tflite(graph_def, ["count", "flag"], ["y"])).ok


def test_what_cannot_be_compared() -> None:
    with pytest.raises(HintcError, match="a str cannot be compared"):
        check_equivalence("model.tflite", graph(tf.tanh))
    with pytest.raises(HintcError, match="inputs cannot be guessed"):
        check_equivalence(tf.compat.v1.GraphDef(), graph(tf.tanh))
    with pytest.raises(HintcError, match=r"refuses"):
        check_equivalence(b"no model", graph(tf.tanh))
