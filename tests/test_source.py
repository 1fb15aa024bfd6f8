"""Every kind of source becomes a frozen graph with the right ends, which computes the same."""

from __future__ import annotations

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


def outputs_of(source: SourceModel, *values: Any) -> list[Any]:
    feeds = dict(zip(source.inputs, values, strict=True))
    return small_models.run(source.graph_def, feeds, source.outputs)


def placeholder_shape(source: SourceModel, name: str) -> list[int]:
    node = next(n for n in source.graph_def.node if n.name == name)
    assert node.op == "Placeholder"
    return [dim.size for dim in node.attr["shape"].shape.dim]


def by_output_key(source: SourceModel, *values: Any) -> dict[str, Any]:
    names = [source.output_keys[name] for name in source.outputs]
    return dict(zip(names, outputs_of(source, *values), strict=True))


def scale_module() -> Any:
    """A tf.Module with a variable and a function `apply` of it; keep it alive to use `apply`."""
    module = tf.Module()
    module.w = tf.Variable([1.0, 2.0, 3.0])

    def apply(data: Any) -> dict[str, Any]:
        return {"scaled": data * module.w, "plain": data + 0.0}

    spec = tf.TensorSpec([None, 3], tf.float32, name="data")
    module.apply = tf.function(apply, input_signature=[spec])
    return module


# -- GraphDefs ---------------------------------------------------------------------------------


def test_graph_def_ends_are_guessed() -> None:
    source = read_source(small_models.dense_graph())
    assert (source.inputs, source.outputs) == (("x",), ("y",))


@pytest.mark.parametrize("names", ["y", "y:0", ["y"], ["y:0"], ("y",)])
def test_names_may_carry_a_result_number(names: Any) -> None:
    assert read_source(small_models.dense_graph(), "x:0", names).outputs == ("y",)


def test_order_of_the_ends_is_the_users() -> None:
    graph_def = small_models.two_headed_graph()
    source = read_source(graph_def, ["a", "b"], ["second", "first"])
    assert (source.inputs, source.outputs) == (("a", "b"), ("second", "first"))
    assert read_source(graph_def, None, ["first"]).inputs == ("b", "a")


def test_second_result_can_be_an_output() -> None:
    source = read_source(small_models.split_graph(), outputs=["parts:1", "parts:0"])
    assert source.outputs == ("parts:1", "parts")
    right, left = outputs_of(source, np.arange(8, dtype=np.float32).reshape(2, 4))
    np.testing.assert_array_equal(right, [[2, 3], [6, 7]])
    np.testing.assert_array_equal(left, [[0, 1], [4, 5]])


def test_several_possible_outputs_are_listed() -> None:
    with pytest.raises(HintcError, match=r"2 tensors could be meant \('first', 'second'\)"):
        read_source(small_models.two_headed_graph())


def test_an_input_inside_cuts_the_graph() -> None:
    graph_def = small_models.dense_graph()
    before = graph_def.SerializeToString(deterministic=True)
    source = read_source(graph_def, ["add"], ["y"])
    assert placeholder_shape(source, "add") == [-1, 2]
    (y,) = outputs_of(source, np.array([[1.0, -1.0]], np.float32))
    np.testing.assert_array_equal(y, [[1, 0]])
    assert graph_def.SerializeToString(deterministic=True) == before


def test_default_of_an_input_is_kept_unless_it_is_named() -> None:
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None], "x")
        rate = v1.placeholder_with_default(2.0, [], "rate")
        tf.multiply(x, rate, name="y")
    assert read_source(graph.as_graph_def()).inputs == ("x",)
    source = read_source(graph.as_graph_def(), ["x", "rate"])
    (y,) = outputs_of(source, np.ones(3, np.float32), np.float32(5))
    np.testing.assert_array_equal(y, [5, 5, 5])


def test_unread_results_of_hints_are_no_outputs() -> None:
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None], "x")
        tf.identity(x, name="hinted")
        tf.negative(x, name="y")
    graph_def = graph.as_graph_def()
    hinted = next(n for n in graph_def.node if n.name == "hinted")
    hinted.attr["_tflite_function_uuid"].s = b"1"
    assert read_source(graph_def).outputs == ("y",)
    assert "hinted" in [n.name for n in read_source(graph_def).graph_def.node]


def test_the_callers_graph_is_not_shared() -> None:
    graph_def = small_models.dense_graph()
    source = read_source(graph_def)
    del graph_def.node[:]
    assert len(source.graph_def.node) > 0


def test_lift_declares_args_and_results() -> None:
    graph = read_source(small_models.two_headed_graph(), None, ["second"]).lift().graph
    assert [n.name for n in graph.args] == ["b", "a"]
    assert [r.operands[0].node.name for r in graph.results] == ["second"]


# -- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pb", ".pbtxt"])
def test_graph_files(tmp_path: Path, suffix: str) -> None:
    graph_def = small_models.dense_graph()
    tf.io.write_graph(graph_def, str(tmp_path), f"g{suffix}", as_text=suffix == ".pbtxt")
    source = read_source(tmp_path / f"g{suffix}")
    assert source.graph_def == graph_def
    assert f"g{suffix}" in source.description


def test_text_in_a_pb_file_is_recognised(tmp_path: Path) -> None:
    tf.io.write_graph(small_models.dense_graph(), str(tmp_path), "g.pb", as_text=True)
    assert read_source(str(tmp_path / "g.pb")).outputs == ("y",)


# -- sessions ----------------------------------------------------------------------------------


def test_session_is_frozen_with_tensors_as_ends() -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], "x")
        w = v1.get_variable("w", [3], initializer=v1.ones_initializer())
        y = tf.multiply(x, w, name="y")
        session.run(v1.global_variables_initializer())
        session.run(w.assign([1.0, 2.0, 3.0]))
        source = read_source(session, [x], [y])
        assert read_source(session).outputs == ("y",)
    (got,) = outputs_of(source, X)
    np.testing.assert_allclose(got, X * [1, 2, 3], rtol=1e-6)


def test_session_keeps_hinted_results_that_nobody_reads() -> None:
    from hintc.authoring import OpHint

    with tf.Graph().as_default(), v1.Session() as session:
        hint = OpHint("my_op")
        x = hint.add_input(v1.placeholder(tf.float32, [None, 3], "x"))
        y, unread = hint.add_outputs(x + 1.0, x - 1.0)
        source = read_source(session, ["x"], [tf.identity(y, name="y")])
    assert unread.op.name in [n.name for n in source.graph_def.node]


# -- functions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("traced", [False, True], ids=["tf.function", "ConcreteFunction"])
def test_functions(traced: bool) -> None:
    scale = scale_module()
    source = read_source(scale.apply.get_concrete_function() if traced else scale.apply)
    assert source.inputs == ("data",)
    assert [source.output_keys[name] for name in source.outputs] == ["plain", "scaled"]
    plain, scaled = outputs_of(source, X)
    np.testing.assert_array_equal(plain, X)
    np.testing.assert_allclose(scaled, X * [1, 2, 3], rtol=1e-6)


def test_outputs_can_be_chosen_by_key() -> None:
    scale = scale_module()
    source = read_source(scale.apply, outputs=["scaled"])
    (scaled,) = outputs_of(source, X)
    np.testing.assert_allclose(scaled, X * [1, 2, 3], rtol=1e-6)


def test_loops_of_functions_stay_loops() -> None:
    def doubled(x: Any) -> Any:
        return tf.while_loop(lambda i, _: i < 3, lambda i, s: (i + 1, s * 2.0), (0, x))[1]

    function = tf.function(doubled, input_signature=[tf.TensorSpec([None], tf.float32)])
    ops = {node.op for node in read_source(function).graph_def.node}
    assert ops & {"While", "StatelessWhile"}
    assert "Switch" not in ops


# -- SavedModels -------------------------------------------------------------------------------


@pytest.mark.parametrize("signature", [None, "serving_default", "other"])
def test_saved_model_2(tmp_path: Path, signature: str | None) -> None:
    scale = scale_module()
    signatures = {"serving_default": scale.apply, "other": scale.apply}
    tf.saved_model.save(scale, str(tmp_path), signatures=signatures)
    source = read_source(tmp_path, signature=signature)
    assert sorted(source.output_keys.values()) == ["plain", "scaled"]
    assert list(source.input_keys.values()) == ["data"]
    by_key = by_output_key(source, X)
    np.testing.assert_allclose(by_key["scaled"], X * [1, 2, 3], rtol=1e-6)
    np.testing.assert_array_equal(by_key["plain"], X)


def test_saved_model_1(tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], "x")
        y = tf.multiply(x, v1.get_variable("w", [3], initializer=v1.ones_initializer()), name="y")
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(tmp_path / "m"), {"in": x}, {"out": y})
    source = read_source(tmp_path / "m")
    assert (source.inputs, source.outputs) == (("x",), ("y",))
    assert (dict(source.input_keys), dict(source.output_keys)) == ({"x": "in"}, {"y": "out"})
    assert read_source(tmp_path / "m" / "saved_model.pb", ["in"], ["out"]).outputs == ("y",)
    np.testing.assert_array_equal(outputs_of(source, X)[0], X)


def test_signatures_are_listed_and_chosen(tmp_path: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], "x")
        y = tf.multiply(x, v1.get_variable("w", [3], initializer=v1.ones_initializer()), name="y")
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(tmp_path / "m"))
        define = v1.saved_model.signature_def_utils.predict_signature_def
        signatures = {"one": define({"in": x}, {"out": y}), "two": define({"in": x}, {"same": x})}
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    with pytest.raises(HintcError, match="2 signatures: 'one', 'two'"):
        read_source(tmp_path / "m")
    assert read_source(tmp_path / "m", signature="one").outputs == ("y",)
    source = read_source(tmp_path / "m", signature="two")  # one tensor, two names
    assert (dict(source.input_keys), dict(source.output_keys)) == ({"x": "in"}, {"x": "same"})


# -- Keras -------------------------------------------------------------------------------------


def keras_modules() -> list[Any]:
    import keras

    modules = [keras]
    try:
        import tf_keras
    except ImportError:
        return modules
    return [*modules, tf_keras]


@pytest.mark.parametrize("keras", keras_modules(), ids=lambda module: module.__name__)
def test_keras_models_keep_a_dynamic_batch(keras: Any) -> None:
    model = keras.Sequential(
        [keras.layers.Input((3,)), keras.layers.Dense(4), keras.layers.Dropout(0.5)]
    )
    source = read_source(model)
    (name,) = source.inputs
    assert placeholder_shape(source, name) == [-1, 3]
    np.testing.assert_allclose(outputs_of(source, X)[0], model(X), atol=1e-6)


@pytest.mark.parametrize("keras", keras_modules(), ids=lambda module: module.__name__)
def test_keras_models_with_several_ends(keras: Any) -> None:
    a, b = keras.layers.Input((3,), name="a"), keras.layers.Input((3,), name="b")
    model = keras.Model([b, a], [keras.layers.Subtract()([a, b]), keras.layers.Add()([a, b])])
    source = read_source(model)
    assert source.inputs == ("b", "a")
    difference, total = outputs_of(source, X, 3 * X)
    np.testing.assert_allclose(difference, 2 * X, atol=1e-6)
    np.testing.assert_allclose(total, 4 * X, atol=1e-6)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_keras_files(tmp_path: Path, suffix: str) -> None:
    model = tf.keras.Sequential([tf.keras.layers.Input((3,)), tf.keras.layers.Dense(2)])
    path = tmp_path / f"m{suffix}"
    model.save(path)
    np.testing.assert_allclose(outputs_of(read_source(path), X)[0], model(X), atol=1e-6)
