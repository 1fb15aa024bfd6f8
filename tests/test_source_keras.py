"""Keras models as sources: names, order, structures, files of both versions, states and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import hintc
import small_models
from hintc.errors import HintcError
from hintc.runtime.interpreter import Interpreter
from hintc.source import SourceModel, read_source
from hintc.tflite.inspect import op_counts

VERSIONS = pytest.mark.parametrize("version", [tf_keras, keras], ids=lambda m: m.__name__)
BATCH, STEPS, DEPTH, UNITS = 2, 5, 3, 4


def values(*shape: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def run(source: SourceModel, feeds: dict[str, Any]) -> dict[str, Any]:
    """Outputs by key, for inputs by key."""
    named = {name: feeds[source.input_keys[name]] for name in source.inputs}
    found = small_models.run(source.graph_def, named, source.outputs)
    return dict(zip([source.output_keys[n] for n in source.outputs], found, strict=True))


def shape_of(source: SourceModel, key: str) -> list[int]:
    name = next(n for n in source.inputs if source.input_keys[n] == key)
    node = next(n for n in source.graph_def.node if n.name == name)
    return [dim.size for dim in node.attr["shape"].shape.dim]


def two_headed(version: Any) -> tuple[list[Any], list[Any]]:
    """Inputs zeta, alpha and outputs second, first: neither in alphabetical order."""
    layers = version.layers
    given = [layers.Input((None, DEPTH), name="zeta"), layers.Input((STEPS, 2), name="alpha")]
    second = layers.Dense(2, name="second")(layers.LSTM(3)(given[1]))
    return given, [second, layers.LSTM(UNITS, return_sequences=True, name="first")(given[0])]


FEEDS = {"zeta": values(BATCH, 7, DEPTH), "alpha": values(BATCH, STEPS, 2)}


@VERSIONS
def test_order_names_and_dynamic_dimensions(version: Any) -> None:
    model = version.Model(*two_headed(version))
    source = read_source(model)
    assert [source.input_keys[n] for n in source.inputs] == ["zeta", "alpha"]
    assert [source.output_keys[n] for n in source.outputs] == ["second", "first"]
    assert shape_of(source, "zeta") == [-1, -1, DEPTH]
    assert shape_of(source, "alpha") == [-1, STEPS, 2]
    second, first = model(list(FEEDS.values()))
    got = run(source, FEEDS)
    np.testing.assert_allclose(got["second"], second, atol=1e-6)
    np.testing.assert_allclose(got["first"], first, atol=1e-6)


@VERSIONS
def test_a_sequential_keeps_the_name_of_its_input(version: Any) -> None:
    layers = [version.Input((3,), name="rows"), version.layers.Dense(2, name="probs")]
    source = read_source(version.Sequential(layers))
    assert [source.input_keys[n] for n in source.inputs] == ["rows"]
    model = version.Sequential(layers)
    converted = hintc.convert(model, inputs="rows", outputs="probs", check=True)
    assert converted.report.errors.keys() == {"probs"}


@VERSIONS
def test_dicts_of_inputs_and_outputs(version: Any) -> None:
    given, (second, first) = two_headed(version)
    model = version.Model({"zeta": given[0], "alpha": given[1]}, {"z": second, "a": first})
    source = read_source(model)
    assert [source.output_keys[n] for n in source.outputs] == ["a", "z"]
    wanted, got = model(FEEDS), run(source, FEEDS)
    for key in "az":
        np.testing.assert_allclose(got[key], wanted[key], atol=1e-6)


@VERSIONS
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_of_both_versions(version: Any, suffix: str, tmp_path: Path) -> None:
    model = version.Model(*two_headed(version))
    model.save(tmp_path / f"m{suffix}")
    got = run(read_source(tmp_path / f"m{suffix}"), FEEDS)
    np.testing.assert_allclose(got["second"], model(list(FEEDS.values()))[0], atol=1e-6)


@VERSIONS
def test_subclass_that_was_called(version: Any) -> None:
    layers = version.layers

    class Model(version.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.recurrent, self.dense = layers.LSTM(UNITS, dropout=0.5), layers.Dense(2)

        def call(self, given: Any, training: Any = None) -> Any:
            return self.dense(self.recurrent(given, training=training))

    model, x = Model(), values(BATCH, STEPS, DEPTH)
    with pytest.raises(HintcError, match="no inputs yet"):
        read_source(model)
    wanted = model(x)
    source = read_source(model)
    (got,) = small_models.run(source.graph_def, {source.inputs[0]: x}, source.outputs)
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    (node,) = [n for n in source.graph_def.node if n.name == source.inputs[0]]
    assert node.attr["shape"].shape.dim[0].size == -1


def exported(model: Any, version: Any, folder: Path) -> Path:
    if version is keras:
        model.export(folder, verbose=False)
    else:
        model.save(folder, save_format="tf")
    return folder


@VERSIONS
@pytest.mark.parametrize("as_folder", [False, True], ids=["model", "SavedModel"])
def test_seeds_of_dropout_vanish(version: Any, as_folder: bool, tmp_path: Path) -> None:
    layers = version.layers
    model = version.Sequential(
        [layers.Input((STEPS, DEPTH)), layers.LSTM(UNITS, dropout=0.5, recurrent_dropout=0.5)]
    )
    x = values(BATCH, STEPS, DEPTH)
    source = read_source(exported(model, version, tmp_path / "m") if as_folder else model)
    assert source.carried == ()
    graph_def = source.graph_def
    bodies = [graph_def.node, *(f.node_def for f in graph_def.library.function)]
    ops = {node.op for body in bodies for node in body}
    assert not {op for op in ops if "Assign" in op or "VarHandle" in op}
    (got,) = small_models.run(graph_def, {source.inputs[0]: x}, source.outputs)
    np.testing.assert_allclose(got, model(x), atol=1e-6)


@VERSIONS
def test_stateful_layers_start_from_their_present_state(version: Any) -> None:
    layers = version.layers
    given = layers.Input(batch_shape=(BATCH, STEPS, DEPTH))
    model = version.Model(given, layers.LSTM(UNITS, stateful=True)(given))
    model(values(BATCH, STEPS, DEPTH, seed=2))  # a state that is not zero
    x = values(BATCH, STEPS, DEPTH)
    converted = hintc.convert(model)
    wanted = model(x).numpy()  # changes the state, so after the conversion
    assert op_counts(converted.tflite)["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 1
    runner = Interpreter(converted.tflite)
    for _ in range(2):
        (got,) = runner.run({converted.inputs[0]: x}).values()
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    (note,) = [r for r in converted.report.remarks if r.code == "state-not-carried"]
    assert "lstm" in note.node  # both states have this name


@pytest.mark.parametrize("layer", ["SimpleRNN", "GRU"])
def test_stateful_folders_in_graph_mode(layer: str, tmp_path: Path) -> None:
    """Freezing renames functions of loops, and leaves shapes of one step on what is hoisted."""
    layers = tf_keras.layers
    given = layers.Input(batch_shape=(BATCH, STEPS, DEPTH))
    model = tf_keras.Model(given, getattr(layers, layer)(UNITS, stateful=True)(given))
    x = values(BATCH, STEPS, DEPTH)
    folder = exported(model, tf_keras, tmp_path / "m")
    with tf.Graph().as_default():
        converted = hintc.convert(folder)
    runner = Interpreter(converted.tflite)
    model.reset_states()
    wanted = model(x).numpy()
    for _ in range(2):
        (got,) = runner.run([x]).values()
        np.testing.assert_allclose(got, wanted, atol=1e-6)


@VERSIONS
def test_persisting_states_go_on_as_in_keras(version: Any) -> None:
    layers = version.layers
    given = layers.Input(batch_shape=(BATCH, STEPS, DEPTH))
    model = version.Model(given, layers.LSTM(UNITS, stateful=True)(given))
    runner = Interpreter(hintc.convert(model, state="persist").tflite)
    for seed in (1, 2, 3):
        x = values(BATCH, STEPS, DEPTH, seed=seed)
        (got,) = runner.run([x]).values()
        np.testing.assert_allclose(got, model(x), atol=1e-6)


@VERSIONS
def test_a_state_that_the_same_call_reads_again_is_refused(version: Any) -> None:
    layers = version.layers
    given = layers.Input(batch_shape=(BATCH, STEPS, DEPTH))
    layer = layers.LSTM(DEPTH, stateful=True)
    model = version.Model(given, layer(layers.RepeatVector(STEPS)(layer(given))))
    with pytest.raises(HintcError, match="depend on an assignment to the variable 'lstm"):
        read_source(model)


@VERSIONS
@pytest.mark.parametrize("policy", ["float16", "mixed_float16"])
def test_float16_is_refused_with_the_remedy(version: Any, policy: str) -> None:
    if version is keras:
        dtype = keras.DTypePolicy(policy)
    else:
        dtype = tf_keras.mixed_precision.Policy(policy)
    given = version.layers.Input((STEPS, DEPTH))
    model = version.Model(given, version.layers.SimpleRNN(UNITS, dtype=dtype)(given))
    with pytest.raises(HintcError, match=r"computes in float16 .* dtype policy 'float32'"):
        hintc.convert(model)


def test_functions_that_call_models() -> None:
    layers = keras.layers
    inner = keras.Sequential([layers.Input((STEPS, DEPTH)), layers.LSTM(UNITS, dropout=0.5)])
    given = layers.Input((STEPS, DEPTH))
    outer = keras.Model(given, layers.Dense(1)(inner(given)))
    spec = tf.TensorSpec([None, STEPS, DEPTH], tf.float32, name="x")
    function = tf.function(
        lambda x: {"outer": outer(x, training=False), "inner": inner(x)}, input_signature=[spec]
    )
    x = values(BATCH, STEPS, DEPTH)
    for source in (read_source(function), read_source(function.get_concrete_function())):
        got = run(source, {"x": x})
        np.testing.assert_allclose(got["outer"], outer(x), atol=1e-6)
        np.testing.assert_allclose(got["inner"], inner(x), atol=1e-6)
