"""TFLiteConverter: the interface of compat.v1, and no setting that is silently ignored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import hintc
from hint_cases import build, run, x_placeholder
from hintc.runtime.interpreter import Interpreter
from hintc.tflite.inspect import op_counts
from hinted_graphs import CELLS, dynamic, freeze, user_conv

v1 = tf.compat.v1
LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"


def _plain() -> Any:
    return build(lambda: tf.nn.relu(x_placeholder() * 2.0, name="y"))


def _converter(graph_def: Any = None) -> Any:
    return hintc.TFLiteConverter(graph_def or _plain(), ["x"], ["y"])


def _invoke(model: bytes, feeds: dict[str, Any]) -> Any:
    (result,) = Interpreter(model).run(feeds).values()
    return result


@pytest.mark.parametrize("stubbed", [False, True])
def test_a_hinted_graph_or_its_stubs(stubbed: bool) -> None:
    model = freeze(dynamic(CELLS["plain"]))
    graph_def = model.graph_def
    if stubbed:
        graph_def = hintc.convert_op_hints_to_stubs(graph_def=graph_def)
        graph_def = hintc.remove_training_nodes(graph_def, model.outputs)
    hintc.convert(_plain())  # TensorFlow's converter registers ops with the names of stubs
    inputs = list(model.inputs.values())
    converter = hintc.TFLiteConverter(graph_def, inputs, model.outputs)
    assert converter.get_input_arrays() == ["x"]
    tflite = converter.convert()
    assert op_counts(tflite)[LSTM] == 1
    assert converter.report.fused
    feeds = model.feeds(2)
    (want,) = run(model.graph_def, model.outputs, feeds)
    np.testing.assert_allclose(_invoke(tflite, feeds), want, atol=1e-5)


def test_post_training_quantize_makes_it_smaller() -> None:
    model = freeze(dynamic(lambda: hintc.TFLiteLSTMCell(64)))
    inputs = list(model.inputs.values())
    sizes = []
    for quantize in (False, True):
        converter = hintc.TFLiteConverter(model.graph_def, inputs, model.outputs)
        converter.post_training_quantize = quantize
        assert converter.post_training_quantize is quantize
        assert converter.optimizations == ([tf.lite.Optimize.DEFAULT] if quantize else [])
        sizes.append(len(converter.convert()))
    assert sizes[1] < sizes[0] / 2


def test_float16() -> None:
    model = freeze(dynamic(lambda: hintc.TFLiteLSTMCell(64)))
    converter = hintc.TFLiteConverter(model.graph_def, list(model.inputs.values()), model.outputs)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    feeds = model.feeds(2)
    (want,) = run(model.graph_def, model.outputs, feeds)
    np.testing.assert_allclose(_invoke(converter.convert(), feeds), want, atol=5e-3)


def test_from_session_takes_the_present_values() -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = x_placeholder()
        scale = v1.get_variable("scale", [], initializer=v1.constant_initializer(3.0))
        y = tf.multiply(x, scale, name="y")
        session.run(v1.global_variables_initializer())
        model = hintc.TFLiteConverter.from_session(session, [x], [y]).convert()
    np.testing.assert_allclose(_invoke(model, {"x": np.ones((2, 4), np.float32)}), 3.0)


@pytest.mark.parametrize("text", [False, True])
def test_from_frozen_graph(tmp_path: Path, text: bool) -> None:
    name = "graph.pbtxt" if text else "graph.pb"
    tf.io.write_graph(_plain(), str(tmp_path), name, as_text=text)
    converter = hintc.TFLiteConverter.from_frozen_graph(
        str(tmp_path / name), ["x"], ["y"], {"x": [5, 4]}
    )
    model = converter.convert()
    assert Interpreter(model).inputs[0].shape == (5, 4)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"missing\.pb") as caught:
        hintc.TFLiteConverter.from_frozen_graph(tmp_path / "missing.pb", ["x"], ["y"])
    assert isinstance(caught.value, hintc.HintcError)


def test_from_saved_model_and_keras_file(tmp_path: Path) -> None:
    class Doubler(tf.Module):  # type: ignore[misc]
        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")]
        )
        def __call__(self, x: Any) -> Any:
            return x * 2.0

    folder = str(tmp_path / "saved")
    tf.saved_model.save(Doubler(), folder)
    converter = hintc.TFLiteConverter.from_saved_model(folder, tag_set={"serve"})
    ones = np.ones((2, 4), np.float32)
    model = converter.convert()
    name = Interpreter(model).inputs[0].name
    np.testing.assert_allclose(_invoke(model, {name: ones}), 2.0)
    with pytest.raises(ValueError, match="tag_set"):
        hintc.TFLiteConverter.from_saved_model(folder, tag_set={"train"})


def test_custom_ops_must_be_allowed() -> None:
    model = freeze(user_conv)
    converter = hintc.TFLiteConverter(model.graph_def, list(model.inputs.values()), model.outputs)
    with pytest.raises(ValueError, match=r"my_conv.*allow_custom_ops = True"):
        converter.convert()
    converter.allow_custom_ops = True
    assert op_counts(converter.convert())["CUSTOM:my_conv"] == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("inference_type", tf.int8),
        ("inference_input_type", tf.uint8),
        ("inference_output_type", tf.int8),
        ("quantized_input_stats", {"x": (0.0, 1.0)}),
        ("default_ranges_stats", (0, 6)),
        ("output_format", v1.lite.constants.GRAPHVIZ_DOT),
        ("drop_control_dependency", False),
        ("reorder_across_fake_quant", True),
        ("change_concat_input_ranges", True),
        ("dump_graphviz_video", True),
        ("conversion_summary_dir", "/tmp"),
        ("exclude_conversion_metadata", True),
        ("experimental_new_converter", False),
        ("optimizations", [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]),
        ("optimizations", ["DEFAULT"]),
        ("representative_dataset", lambda: iter(())),
        ("target_ops", {tf.lite.OpsSet.SELECT_TF_OPS}),
    ],
)
def test_a_setting_that_cannot_be_followed_is_an_error(name: str, value: Any) -> None:
    converter = _converter()
    setattr(converter, name, value)
    said = {"target_ops": "supported_ops"}.get(name, name)
    with pytest.raises(ValueError, match=rf"{said}.* is not supported"):
        converter.convert()


@pytest.mark.parametrize("spelling", ["list", "dict", "pair", "object"])
def test_full_integer_quantisation(spelling: str) -> None:
    random = np.random.default_rng(0)

    def samples() -> Iterator[Any]:
        for _ in range(8):
            value = random.standard_normal((3, 4)).astype(np.float32)
            yield {"dict": {"x": value}, "pair": (None, {"x": value})}.get(spelling, [value])

    converter = _converter()
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = (
        tf.lite.RepresentativeDataset(samples) if spelling == "object" else samples
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    model = Interpreter(converter.convert())
    assert {end.dtype for end in (*model.inputs, *model.outputs)} == {np.dtype("int8")}
    assert converter.report.cost.feeds == 1


def test_supported_types_that_cannot_be_followed() -> None:
    for optimizations, types in (([], [tf.float16]), ([tf.lite.Optimize.DEFAULT], [tf.int16])):
        converter = _converter()
        converter.optimizations = optimizations
        converter.target_spec.supported_types = types
        with pytest.raises(ValueError, match="supported_types"):
            converter.convert()


def test_an_attribute_that_does_not_exist_is_an_error_when_set() -> None:
    converter = _converter()
    with pytest.raises(ValueError, match=r"'post_training_quantise'.*'post_training_quantize'"):
        converter.post_training_quantise = True
    with pytest.raises(AttributeError, match="nonsense"):
        _ = converter.nonsense


def test_values_that_mean_the_default_are_no_error() -> None:
    converter = _converter()
    converter.inference_type = converter.inference_input_type = tf.float32
    converter.default_ranges_stats = None
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    assert len(converter.convert()) > 100


def test_constructor_arguments() -> None:
    graph_def = _plain()
    converter = hintc.TFLiteConverter(graph_def, None, None, [("x", [3, 4])], ["y"])
    assert Interpreter(converter.convert()).inputs[0].shape == (3, 4)
    for arguments in ((None, None), (None, ["y"]), ([1], ["y"])):
        with pytest.raises(ValueError, match=r"TFLiteConverter needs|expected a tensor"):
            hintc.TFLiteConverter(graph_def, *arguments)
    with pytest.raises(ValueError, match="no input"):
        hintc.TFLiteConverter.from_frozen_graph("g.pb", ["x"], ["y"], {"z": [1]})
