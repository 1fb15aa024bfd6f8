"""Assignments to variables: gone where the outputs cannot tell, refused where they can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import small_models
from hintc.errors import HintcError
from hintc.source import SourceModel, read_source

v1 = tf.compat.v1
X = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
SHOWN = "the outputs depend on an assignment to the variable 'count'"


def output_of(source: SourceModel) -> Any:
    (got,) = small_models.run(source.graph_def, {source.inputs[0]: X}, source.outputs)
    return got


def assigns_anywhere(graph_def: Any) -> bool:
    bodies = [graph_def.node, *(f.node_def for f in graph_def.library.function)]
    return any("Assign" in node.op for body in bodies for node in body)


def counting(compute: Callable[[Any, Any, Any], Any]) -> Any:
    """A module with a function ``apply`` of ``compute(x, count, weight)``; keep it alive."""
    module = tf.Module()
    module.count = tf.Variable(1.0, name="count")
    module.weight = tf.Variable([1.0, 2.0, 3.0], name="weight")
    module.apply = tf.function(
        lambda x: compute(x, module.count, module.weight),
        input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")],
    )
    return module


def read_then_write(x: Any, count: Any, weight: Any) -> Any:
    y = x * weight + count
    count.assign_add(1.0)
    return y


def write_only(x: Any, count: Any, weight: Any) -> Any:
    count.assign(tf.reduce_sum(x))
    return x * weight + 1.0


def write_in_a_loop(x: Any, count: Any, weight: Any) -> Any:
    def body(step: Any, y: Any) -> Any:
        count.assign_add(1.0)
        return step + 1, y + weight

    return tf.while_loop(lambda step, _: step < 3, body, (0, x))[1]


def write_in_a_branch(x: Any, count: Any, weight: Any) -> Any:
    return tf.cond(
        tf.reduce_sum(x) < 1e6, lambda: read_then_write(x, count, weight), lambda: x - count
    )


@pytest.mark.parametrize(
    ("compute", "wanted", "carried"),
    [
        (read_then_write, X * [1, 2, 3] + 1, ("count",)),
        (write_only, X * [1, 2, 3] + 1, ()),
        (write_in_a_loop, X + np.array([3, 6, 9]), ()),
        (write_in_a_branch, X * [1, 2, 3] + 1, ("count",)),
    ],
)
@pytest.mark.parametrize("as_folder", [False, True], ids=["function", "SavedModel"])
def test_assignments_go(
    compute: Any, wanted: Any, carried: tuple[str, ...], as_folder: bool, tmp_path: Path
) -> None:
    module = counting(compute)
    given: Any = module.apply
    if as_folder:
        tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": given})
        given = tmp_path
    source = read_source(given)
    assert not assigns_anywhere(source.graph_def)
    assert source.carried == carried
    np.testing.assert_allclose(output_of(source), wanted, rtol=1e-5)
    assert float(module.count) == 1.0


def write_then_read(x: Any, count: Any, weight: Any) -> Any:
    count.assign_add(1.0)
    return x + count


def read_and_write_in_a_loop(x: Any, count: Any, weight: Any) -> Any:
    def body(step: Any, y: Any) -> Any:
        y = y + count
        count.assign_add(1.0)
        return step + 1, y

    return tf.while_loop(lambda step, _: step < 3, body, (0, x))[1]


def write_in_a_call(x: Any, count: Any, weight: Any) -> Any:
    tf.function(lambda: count.assign_add(1.0))()
    return x + count


def write_in_a_call_of_both(x: Any, count: Any, weight: Any) -> Any:
    return tf.function(lambda: write_then_read(x, count, weight))()


@pytest.mark.parametrize(
    "compute",
    [write_then_read, read_and_write_in_a_loop, write_in_a_call, write_in_a_call_of_both],
)
def test_assignments_that_show_are_refused(compute: Any) -> None:
    module = counting(compute)
    with pytest.raises(HintcError, match="depend on an assignment to the variable"):
        read_source(module.apply)


def test_noise_that_shows_is_refused() -> None:
    generator = tf.random.Generator.from_seed(1)
    function = tf.function(
        lambda x: x + generator.normal([3]), input_signature=[tf.TensorSpec([None, 3])]
    )
    with pytest.raises(HintcError, match="the outputs need the result of"):
        read_source(function)


@pytest.mark.parametrize("resource", [False, True], ids=["reference", "resource"])
def test_sessions(resource: bool) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], "x")
        count = v1.get_variable(
            "count", [], initializer=v1.ones_initializer(), use_resource=resource
        )
        with tf.control_dependencies([tf.identity(x + count, name="before")]):
            added = count.assign_add(1.0)
        with tf.control_dependencies([added]):
            tf.multiply(x, 2.0, name="beside")
            tf.add(x, count.read_value(), name="after")
        tf.add(x, added, name="result")
        session.run(v1.global_variables_initializer())
        beside = read_source(session, ["x"], ["beside"])
        assert not assigns_anywhere(beside.graph_def)
        np.testing.assert_allclose(output_of(beside), 2 * X)
        np.testing.assert_allclose(output_of(read_source(session, ["x"], ["before"])), X + 1)
        for name in ("after", "result"):
            with pytest.raises(HintcError, match=SHOWN):
                read_source(session, ["x"], [name])


def test_control_flow_v1_reads_what_the_last_iteration_wrote() -> None:
    v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default(), v1.Session() as session:
            x = v1.placeholder(tf.float32, [None, 3], "x")
            count = v1.get_variable(
                "count", [], initializer=v1.ones_initializer(), use_resource=True
            )

            def body(step: Any, y: Any) -> Any:
                y = y + count.read_value()
                with tf.control_dependencies([y]):
                    added = count.assign_add(1.0, read_value=False)
                with tf.control_dependencies([added]):
                    return step + 1, tf.identity(y)

            y = v1.while_loop(lambda step, _: step < 3, body, (0, x))[1]
            tf.identity(y, name="y")
            session.run(v1.global_variables_initializer())
            with pytest.raises(HintcError, match=SHOWN):
                read_source(session, ["x"], ["y"])
    finally:
        v1.enable_control_flow_v2()
