"""compile and convert: names, order, dynamic sizes, options, the check, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import tensorflow as tf

import hintc
import recurrences
import small_models
from hintc.convert.count import count_fused_ops
from hintc.errors import EquivalenceError, HintcError
from hintc.instrument import Instrument
from hintc.ir import Module
from hintc.pipeline import PassPipeline
from hintc.registry import isolated, register
from hintc.remark import PassReport
from hintc.rewrite import Pass
from hintc.runtime.interpreter import Interpreter, run
from hintc.tflite import handoff

v1 = tf.compat.v1
X = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
NONE = PassPipeline.EMPTY


def test_convert_equals_the_source() -> None:
    graph_def = small_models.dense_graph()
    result = hintc.convert(graph_def)
    (expected,) = small_models.run(graph_def, {"x": X}, ("y",))
    np.testing.assert_allclose(run(result.tflite, {"x": X})["y"], expected, atol=1e-6)
    (lowered,) = small_models.run(result.graph_def, {"x": X}, ("y",))
    np.testing.assert_allclose(lowered, expected, atol=1e-6)


def test_compile_gives_module_graph_and_report() -> None:
    compiled = hintc.compile(small_models.dense_graph(), pipeline=NONE)
    assert [a.name for a in compiled.module.graph.args] == ["x"]
    assert compiled.graph_def == small_models.dense_graph()
    assert compiled.report.ops_before == compiled.report.ops_after
    assert compiled.report.pipeline == ""
    assert (compiled.inputs, compiled.outputs) == (("x",), ("y",))


def test_what_the_outputs_do_not_need_goes() -> None:
    compiled = hintc.compile(small_models.two_headed_graph(), outputs=["second"])
    names = {node.name for node in compiled.graph_def.node}
    assert "second" in names
    assert "first" not in names


@pytest.mark.parametrize("pipeline", [None, NONE], ids=["default", "empty"])
def test_order_and_names_of_the_ends(pipeline: PassPipeline | None) -> None:
    graph_def = small_models.two_headed_graph()
    result = hintc.convert(graph_def, ["a", "b"], ["second", "first"], pipeline=pipeline)
    model = Interpreter(result.tflite)
    assert [i.name for i in model.inputs] == ["a", "b"]
    assert [o.name for o in model.outputs] == ["second", "first"]
    a, b = np.full((2, 4), 3, np.float32), np.full((2, 4), 5, np.float32)
    found = model.run([a, b])
    np.testing.assert_array_equal(found["second"], a * b)
    np.testing.assert_array_equal(found["first"], a + 2 * b)


def test_second_result_of_a_node_as_output() -> None:
    result = hintc.convert(small_models.split_graph(), outputs=["parts:1"])
    (right,) = run(result.tflite, [np.arange(4, dtype=np.float32)[None]]).values()
    np.testing.assert_array_equal(right, [[2, 3]])


def test_dynamic_sizes_stay_dynamic() -> None:
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, None, 3], "x")
        tf.nn.relu(x, name="y")
    model = Interpreter(hintc.convert(graph.as_graph_def()).tflite)
    assert model.inputs[0].shape == (-1, -1, 3)
    for shape in ((1, 2, 3), (4, 1, 3)):
        assert model.run([np.ones(shape, np.float32)])["y"].shape == shape


def test_marks_of_hints_do_not_freeze_the_batch() -> None:
    graph_def = small_models.dense_graph()
    graph_def.node[0].attr["_tflite_function_input_index"].i = 0
    model = Interpreter(hintc.convert(graph_def, pipeline=NONE).tflite)
    assert model.inputs[0].shape == (-1, 3)
    assert "_tflite_function_input_index" in graph_def.node[0].attr


def test_the_source_is_not_changed() -> None:
    graph_def = small_models.dense_graph()
    before = graph_def.SerializeToString(deterministic=True)
    hintc.convert(graph_def)
    assert graph_def.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("quantize", ["dynamic", "float16"])
def test_smaller_weights(quantize: Literal["dynamic", "float16"]) -> None:
    random = np.random.default_rng(2)
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 64], "x")
        tf.matmul(x, tf.constant(random.standard_normal((64, 64)), tf.float32), name="y")
    whole = hintc.convert(graph.as_graph_def(), check=True)
    small = hintc.convert(graph.as_graph_def(), quantize=quantize)
    assert len(small.tflite) < 0.7 * len(whole.tflite)
    assert whole.report.errors["y"] < 1e-5


@pytest.mark.parametrize("keras", ["keras", "tf_keras"])
def test_keras_models(keras: str) -> None:
    module = pytest.importorskip(keras)
    model = module.Sequential(
        [
            module.layers.Input((8, 8, 1)),
            module.layers.Conv2D(4, 3, activation="relu"),
            module.layers.BatchNormalization(),
            module.layers.Flatten(),
            module.layers.Dense(3, activation="softmax"),
        ]
    )
    result = hintc.convert(model, check=True)
    x = np.random.default_rng(0).standard_normal((7, 8, 8, 1)).astype(np.float32)
    (found,) = run(result.tflite, [x]).values()
    np.testing.assert_allclose(found, model(x), atol=1e-5)


def test_the_signature_speaks_the_sources_names(tmp_path: Path) -> None:
    module = tf.Module()
    spec = [tf.TensorSpec([None, 2], tf.float32, name="data")]
    module.f = tf.function(lambda x: {"twice": 2.0 * x, "same": 1.0 * x}, input_signature=spec)
    tf.saved_model.save(module, str(tmp_path), signatures=module.f)
    data = np.ones((3, 2), np.float32)
    result = hintc.convert(tmp_path, check={"data": data})
    found = run(result.tflite, {"data": data})
    np.testing.assert_array_equal(found["twice"], 2 * data)
    np.testing.assert_array_equal(found["same"], data)


def test_custom_operators_are_checked_through_the_lowered_graph() -> None:
    from hintc.authoring import OpHint

    with tf.Graph().as_default() as graph:
        hint = OpHint("my_op", gain=2.0)
        x = hint.add_input(v1.placeholder(tf.float32, [None, 2], "x"))
        tf.identity(hint.add_output(2.0 * x), name="y")
    report = hintc.convert(graph.as_graph_def(), outputs="y", check=True).report
    assert report.operators["CUSTOM:my_op"] == 1
    assert report.errors == {"y": 0.0}
    assert any("no kernel for 'my_op'" in remark.reason for remark in report.remarks)


def test_state_that_persists_is_checked_once_for_each_feed() -> None:
    x = tf.keras.Input((5, 3), batch_size=1, name="x")
    model = tf.keras.Model(x, tf.keras.layers.LSTM(4, name="y")(x))
    feeds = [{"x": X[None]}, {"x": 2 * X[None]}]  # the second one starts from zero again
    report = hintc.convert(model, state="persist", check=feeds).report
    assert report.errors["y"] < 1e-5


def test_save_is_atomic(tmp_path: Path) -> None:
    result = hintc.convert(small_models.dense_graph(), pipeline=NONE)
    path = result.save(tmp_path / "m.tflite")
    assert path.read_bytes() == result.tflite
    with pytest.raises(HintcError, match="no folder"):
        result.save(tmp_path / "none" / "m.tflite")
    assert [p.name for p in tmp_path.iterdir()] == ["m.tflite"]


# -- the check ---------------------------------------------------------------------------------


class Break(Pass):
    """Makes the model wrong."""

    name: ClassVar[str] = "break"

    def run(self, module: Module) -> PassReport:
        report = PassReport()
        for node in list(module.graph):
            if node.op == "Relu":
                node.op = "Tanh"
                report.count("broken")
        return report


def test_check_reports_the_largest_errors() -> None:
    report = hintc.convert(small_models.dense_graph(), check=True).report
    assert report.errors.keys() == {"y"}
    assert report.errors["y"] < 1e-5
    assert report.tolerance is not None
    assert not hintc.convert(small_models.dense_graph()).report.errors


@pytest.mark.parametrize("drive", [hintc.compile, hintc.convert])
@pytest.mark.parametrize("check", [True, {"x": X}, [{"x:0": X}, {"x": 2 * X}]])
def test_check_finds_a_wrong_result(drive: Any, check: Any) -> None:
    pipeline = PassPipeline((Break(),))
    assert drive(small_models.dense_graph(), pipeline=pipeline).report.counts
    with pytest.raises(EquivalenceError, match="'y'") as caught:
        drive(small_models.dense_graph(), pipeline=pipeline, check=check)
    assert caught.value.exit_code == 2


# -- pipelines and options ---------------------------------------------------------------------


def test_pipelines_may_be_text_passes_or_lists() -> None:
    graph_def = small_models.dense_graph()
    for pipeline in ("eliminate-dead-code", ["eliminate-dead-code"], PassPipeline((Break(),))):
        report = hintc.compile(graph_def, pipeline=pipeline).report
        assert len(report.passes) == 1
    assert hintc.compile(graph_def, pipeline=Break).report.counts == {"break": {"broken": 1}}


def test_options_reach_the_passes_that_have_them() -> None:
    from dataclasses import dataclass

    seen: list[tuple[str, str]] = []
    with isolated():

        @register
        @dataclass(frozen=True)
        class Look(Pass):
            """Remembers its options."""

            name: ClassVar[str] = "look"
            form: str = "auto"
            target: str = "tflite"

            def run(self, module: Module) -> PassReport:
                seen.append((self.form, self.target))
                return PassReport()

        graph_def = small_models.dense_graph()
        hintc.compile(graph_def, pipeline="look", form="unroll", optimize_for="latency")
        hintc.compile(graph_def, pipeline="look{form=while}", target="tflm")
    assert seen == [("unroll", "tflite"), ("while", "tflm")]


def test_instruments_watch() -> None:
    class Names(Instrument):
        def __init__(self) -> None:
            self.names: list[str] = []

        def before_pass(self, step: Pass, module: Module) -> None:
            self.names.append(step.name)

    names = Names()
    hintc.compile(small_models.dense_graph(), instruments=[names])
    assert tuple(names.names) == PassPipeline.DEFAULT.names


def test_timings_cover_all_stages() -> None:
    report = hintc.convert(small_models.dense_graph(), pipeline=Break, check=None).report
    assert list(report.timings) == ["read", "pass break", "lower", "convert"]
    assert report.sizes.keys() == {"source", "lowered", "tflite"}
    assert report.operators


def test_the_report_says_when_a_fused_call_does_not_reach_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stock = handoff._stock_converter()

    class Inlining(stock):  # type: ignore[misc, valid-type]
        def _optimize_tf_model(self, graph_def: Any, *_: Any) -> Any:
            for function in graph_def.library.function:
                function.attr.pop("_implements", None)
            return graph_def

    graph_def, outputs = recurrences.dynamic_rnn_model(lengths=False)
    fused = hintc.convert(graph_def, outputs=outputs).report
    assert fused.fused_ops == {"UNIDIRECTIONAL_SEQUENCE_LSTM": 1}
    monkeypatch.setattr(handoff, "_stock_converter", lambda: Inlining)
    report = hintc.convert(graph_def, outputs=outputs).report
    assert report.fused_ops == {}
    assert "WHILE" in report.operators
    (lost,) = [r for r in report.not_fused if r.code == "fused-call-lost"]
    assert "calls it 1 times, the model has it 0 times" in lost.reason


def test_fused_ops_are_counted_where_they_are_called() -> None:
    graph_def = tf.compat.v1.GraphDef()
    function = graph_def.library.function.add()
    function.signature.name = "f"
    function.attr["_implements"].func.name = "hintc.LSTM"
    other = graph_def.library.function.add()
    other.signature.name = "g"
    for nodes in (graph_def.node, other.node_def):
        nodes.add(op="PartitionedCall").attr["f"].func.name = "f"
    assert count_fused_ops(graph_def) == {"LSTM": 2}


def test_lists_in_loops_without_the_passes_are_one_plain_error() -> None:
    import keras

    model = keras.Sequential([keras.Input((3, 2)), keras.layers.LSTM(2)])
    with pytest.raises(HintcError, match="cannot convert 'TensorListReserve'") as caught:
        hintc.convert(model, pipeline="")
    assert caught.value.node is not None
    assert "TensorArrayV2" in caught.value.node
    text = str(caught.value)
    assert not any(noise in text for noise in ("error:", "loc(", "Please consider", "<unknown>"))
    assert "default pipeline" in text
