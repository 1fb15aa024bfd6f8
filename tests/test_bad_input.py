"""What people get wrong: one HintcError each, that names the thing and the remedy; no file left."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import hintc
import small_models
from hintc.cli import main
from hintc.errors import HintcError
from hintc.source import read_source

v1 = tf.compat.v1


def refused(source: Any, *parts: str, **options: Any) -> HintcError:
    """Reading `source` fails with one HintcError that says all of `parts`."""
    with pytest.raises(HintcError) as caught:
        read_source(source, **options)
    error = caught.value
    assert error.exit_code == 1
    for part in parts:
        assert part in str(error)
    return error


# -- files -------------------------------------------------------------------------------------


def truncated(path: Path) -> None:
    path.write_bytes(small_models.dense_graph().SerializeToString()[:-7])


def foreign(path: Path) -> None:
    path.write_bytes(b"\x08\x96\x01\x12\x07testing\x1a\x02\x08\x01" * 3)


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(300))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def no_nodes(path: Path) -> None:
    graph_def = tf.compat.v1.GraphDef()
    graph_def.versions.producer = 27
    path.write_bytes(graph_def.SerializeToString())


def meta_graph(path: Path) -> None:
    with tf.Graph().as_default() as graph:
        v1.placeholder(tf.float32, [], "x")
        path.write_bytes(v1.train.export_meta_graph(graph=graph).SerializeToString())


FILES: list[tuple[Callable[[Path], None], str]] = [
    (truncated, "no whole GraphDef"),
    (foreign, "GraphDef"),
    (noise, "no whole GraphDef"),
    (empty, "is empty"),
    (no_nodes, "no whole GraphDef"),
    (meta_graph, "is a MetaGraphDef, not a GraphDef"),
]


@pytest.mark.parametrize(("make", "message"), FILES, ids=[make.__name__ for make, _ in FILES])
def test_damaged_and_foreign_files(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    make: Callable[[Path], None],
    message: str,
) -> None:
    path, out = tmp_path / "g.pb", tmp_path / "out.tflite"
    make(path)
    error = refused(path, message, str(path))
    assert error.remedy
    assert main(["convert", str(path), "-o", str(out), "--pipeline", ""]) == 1
    assert capfd.readouterr().err.count("error:") == 1
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_text_says_where(tmp_path: Path) -> None:
    path = tmp_path / "g.pbtxt"
    path.write_text('node { name: "x"\n op Placeholder }', encoding="utf-8")
    refused(path, "no GraphDef in text form", "2:")


def test_file_that_is_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "none.pb", "none.pb' does not exist")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("m.tflite", "hintc.legalize"),
        ("m.meta", "import_meta_graph"),
        ("m.ckpt", "restore it into your model"),
        ("m.onnx", "TensorFlow models only"),
        ("m.txt", "A source is"),
        ("m", "A source is"),
    ],
)
def test_unknown_file_type(tmp_path: Path, name: str, remedy: str) -> None:
    (tmp_path / name).write_bytes(b"something")
    refused(tmp_path / name, "no known file type", remedy)


def test_folder_without_a_saved_model(tmp_path: Path) -> None:
    refused(tmp_path, "is no SavedModel", "saved_model.pb")


def test_damaged_saved_model(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\x00\x01\x02")
    refused(tmp_path, "is damaged")


def test_saved_model_without_its_variables(tmp_path: Path) -> None:
    module = tf.Module()
    module.v = tf.Variable([1.0, 2.0])
    spec = [tf.TensorSpec([2], tf.float32)]
    module.f = tf.function(lambda x: x * module.v, input_signature=spec)
    tf.saved_model.save(module, str(tmp_path), signatures=module.f)
    for file in (tmp_path / "variables").iterdir():
        file.unlink()
    refused(tmp_path, "cannot be loaded", "variables")


def test_wrong_signature(tmp_path: Path) -> None:
    module = tf.Module()
    spec = [tf.TensorSpec([2], tf.float32)]
    module.f = tf.function(lambda x: x * 2.0, input_signature=spec)
    tf.saved_model.save(module, str(tmp_path), signatures=module.f)
    refused(tmp_path, "no signature 'serving'", "'serving_default'", signature="serving")
    graph_def = small_models.dense_graph()
    refused(graph_def, "a GraphDef has no signatures", signature="serving_default")


def test_damaged_keras_file(tmp_path: Path) -> None:
    (tmp_path / "m.keras").write_bytes(b"no archive")
    refused(tmp_path / "m.keras", "is no whole Keras file", "Save or copy it again")
    (tmp_path / "m.h5").write_bytes(b"")
    refused(tmp_path / "m.h5", "empty")


def test_keras_file_by_another_name(tmp_path: Path) -> None:
    import keras

    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "m.keras")
    refused((tmp_path / "m.keras").rename(tmp_path / "m.h5"), "Give it the ending .keras")
    with zipfile.ZipFile(tmp_path / "n.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
    refused(tmp_path / "n.keras", "Keras cannot load")


# -- graphs ------------------------------------------------------------------------------------


def test_missing_node() -> None:
    graph_def = small_models.dense_graph()
    del graph_def.node[1]  # w
    refused(graph_def, "'MatMul'", "'w'", "not in the graph")


def test_duplicate_name() -> None:
    graph_def = small_models.dense_graph()
    graph_def.node.add().CopyFrom(graph_def.node[1])
    refused(graph_def, "'w'", "two nodes have this name")


def test_cycle() -> None:
    graph_def = small_models.dense_graph()
    by_name = {node.name: node for node in graph_def.node}
    by_name["add"].input[1] = "y"
    refused(graph_def, "cycle", outputs="y")


def call_without_function(graph_def: Any) -> str:
    call = graph_def.node.add(name="call", op="PartitionedCall", input=["y"])
    call.attr["Tin"].list.type.append(1)
    call.attr["Tout"].list.type.append(1)
    call.attr["f"].func.name = "gone"
    return "node 'call': attribute 'f': there is no function 'gone'"


def result_that_is_not_there(graph_def: Any) -> str:
    graph_def.node.add(name="call", op="Neg", input=["y:7"]).attr["T"].type = 1
    return "node 'call': operand 0 reads result 7 of 'y' (Relu), which has 1"


def attribute_of_another_type(graph_def: Any) -> str:
    graph_def.node.add(name="call", op="Neg", input=["y"]).attr["T"].i = 1
    return "node 'call': attribute 'T' of Neg must be a type"


@pytest.mark.parametrize(
    "spoil", [call_without_function, result_that_is_not_there, attribute_of_another_type]
)
def test_a_graph_that_breaks_the_rules_is_the_users_error(
    spoil: Callable[[Any], str],
) -> None:
    graph_def = small_models.dense_graph()
    says = spoil(graph_def)
    with pytest.raises(HintcError) as caught:
        hintc.compile(graph_def, ["x"], ["call"])
    assert says in str(caught.value)
    assert "Export it again, with its function library" in str(caught.value)
    assert caught.value.exit_code == 1


def test_unfrozen_variables_are_named() -> None:
    graph_def = small_models.dense_graph(frozen=False)
    error = refused(graph_def, "'w'", "not frozen", "Session", "convert_variables_to_constants")
    assert error.node == "w"


def test_variables_that_the_outputs_do_not_need_do_no_harm() -> None:
    graph_def = small_models.dense_graph()
    graph_def.node.add(name="unused", op="VarHandleOp")
    assert read_source(graph_def, outputs="y").outputs == ("y",)


@pytest.mark.parametrize("resource", [False, True])
def test_session_without_values(resource: bool) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], "x")
        w = v1.get_variable("scope/w", [3], use_resource=resource)
        refused(session, "'scope/w'", "no value", "initialisers", inputs=x, outputs=x * w)


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_hint_with_one_side_only(side: str) -> None:
    with tf.Graph().as_default() as graph:
        hint = hintc.OpHint("my_op")
        x = v1.placeholder(tf.float32, [None, 2], "x")
        x = hint.add_input(x) if side == "inputs" else x
        y = 2.0 * x
        tf.identity(hint.add_output(y) if side == "outputs" else y, name="y")
    with pytest.raises(HintcError, match=f"'my_op'.*has {side} but no") as caught:
        hintc.convert(graph.as_graph_def(), outputs="y")
    assert caught.value.remedy
    assert caught.value.pass_name == "collect-hints"


def test_hint_that_is_not_closed_is_a_remark() -> None:
    with tf.Graph().as_default() as graph:
        hint = hintc.OpHint("my_op")
        inside = 2.0 * hint.add_input(v1.placeholder(tf.float32, [None, 2], "x"))
        hint.add_output(inside + 1.0)
        tf.identity(inside, name="y")
    report = hintc.convert(graph.as_graph_def(), outputs="y", check=True).report
    (remark,) = report.not_fused
    assert "'my_op'" in remark.reason
    assert "add_output" in remark.remedy


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outputs", "parts"),
    [
        ("Y", ["no output 'Y'", "Did you mean 'y'?"]),
        ("MatMull", ["no output 'MatMull'", "'MatMul'"]),
        ("scope/y", ["no output 'scope/y'", "'y'"]),
        ("quite_other", ["no output", "Candidates: 'y'"]),
        ("y:1", ["'y:1' cannot be an output", "Relu has 1 result"]),
        ("y:a", ["'y:a' is no name"]),
        ("^y", ["'^y' is no name"]),
        ("", ["is no name"]),
        ([], ["list of outputs is empty"]),
        (["y", "y:0"], ["'y' is named twice"]),
        ([3], ["an output is a int"]),
    ],
)
def test_wrong_outputs(outputs: Any, parts: list[str]) -> None:
    refused(small_models.dense_graph(), *parts, outputs=outputs)


def test_wrong_inputs() -> None:
    graph_def = small_models.dense_graph()
    refused(graph_def, "no input 'X'", "'x'", inputs="X")
    refused(graph_def, "needs 'x' too", inputs="b", outputs="y")
    refused(small_models.split_graph(), "has 2 results", inputs="parts", outputs="parts:1")


def test_output_that_needs_no_input() -> None:
    refused(small_models.dense_graph(), "'w' need no Placeholder", outputs="w")


# -- objects -----------------------------------------------------------------------------------


def test_tensors_are_no_sources() -> None:
    refused(tf.constant([1.0]), "an eager tensor is no source", "outputs")
    with tf.Graph().as_default():
        refused(v1.placeholder(tf.float32, [], "x"), "a tensor of a graph is no source")


def test_eager_tensor_as_output() -> None:
    refused(small_models.dense_graph(), "an eager tensor cannot be an output", outputs=tf.ones(2))


@pytest.mark.parametrize("source", [None, 3, b"bytes", np.zeros(2), [], object])
def test_other_objects_are_no_sources(source: Any) -> None:
    refused(source, "is no source", "A source is a Keras model")


def test_function_without_a_signature() -> None:
    refused(tf.function(lambda x: x), "has no input signature", "get_concrete_function")


def test_function_that_raises() -> None:
    def broken(x: Any) -> Any:
        raise ZeroDivisionError("oh")

    function = tf.function(broken, input_signature=[tf.TensorSpec([2], tf.float32)])
    refused(function, "cannot be traced", "ZeroDivisionError", "oh")


def test_keras_model_without_inputs() -> None:
    refused(tf.keras.Sequential([tf.keras.layers.Dense(2)]), "no inputs yet", "keras.Input")


# -- options and operators ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"quantize": "dynamc"}, ["quantize is 'dynamc'", "Did you mean 'dynamic'?"]),
        ({"quantize": "int8"}, ["needs a representative_dataset", "'dynamic' needs no data"]),
        ({"quantize": "int16x8"}, ["int16 activations", "keep_float"]),
        ({"quantize": 8}, ["quantize is 8", "'float16'", "Leave it out for float32"]),
        (
            {"state": "persist", "form": "unroll"},
            ["state 'persist' does not go with form 'unroll'"],
        ),
        ({"state": "persist"}, ["only fused kernels keep a state", "the model has none"]),
        ({"target": "tflm", "quantize": "float16"}, ["no values of type float16", "'int8'"]),
        ({"form": "fuse"}, ["form is 'fuse'", "'fused'"]),
        ({"target": "tflit"}, ["target is 'tflit'", "'tflite'"]),
        ({"state": "keep"}, ["state is 'keep'", "'reset', 'persist'"]),
        ({"optimize_for": "speed"}, ["optimize_for is 'speed'", "'latency'"]),
        ({"io_dtype": "int8"}, ["io_dtype='int8' has no use here"]),
        ({"keep_float": ["y"]}, ["keep_float has no use here"]),
        ({"representative_dataset": list}, ["representative_dataset has no use here"]),
        ({"check": "yes"}, ["check is a str"]),
        ({"check": {"z": np.ones((1, 3))}}, ["'z'"]),
        ({"pipeline": "fuse-lst"}, ["no pass 'fuse-lst'", "fuse-lstm"]),
        ({"pipeline": 3}, ["3 is not a pass"]),
    ],
)
def test_wrong_options(options: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(HintcError) as caught:
        hintc.convert(small_models.dense_graph(), **{"pipeline": "", **options})
    for part in parts:
        assert part in str(caught.value)


def test_an_op_that_tensorflow_does_not_know() -> None:
    graph_def = small_models.unknown_op_graph()
    assert hintc.lower(hintc.lift(graph_def)) == graph_def
    assert [n.op for n in hintc.compile(graph_def, pipeline="").graph_def.node][-1] == "MyOwnOp"
    with pytest.raises(HintcError, match="no operator 'MyOwnOp'") as caught:
        hintc.convert(graph_def, pipeline="")
    assert caught.value.node == "y"
    assert caught.value.remedy


def test_a_type_that_tflite_does_not_compute_in() -> None:
    given = [tf.TensorSpec([3], tf.float64, name="x")]
    doubled = tf.function(lambda x: {"y": x * 2.0}, input_signature=given)
    with pytest.raises(HintcError, match=r"'Mul' that computes in float64.*model in float32"):
        hintc.convert(doubled)
    square = [tf.TensorSpec([2, 2], name="x")]
    cholesky = tf.function(tf.linalg.cholesky, input_signature=square)
    with pytest.raises(HintcError, match=r"no operator 'Cholesky'.*docs/custom-kernels\.md"):
        hintc.convert(cholesky)


def test_no_partial_file(tmp_path: Path) -> None:
    path = small_models.write(small_models.unknown_op_graph(), tmp_path / "g.pb")
    out = tmp_path / "model.tflite"
    out.write_bytes(b"the old one")
    assert main(["convert", str(path), "-o", str(out), "--pipeline", ""]) == 1
    assert out.read_bytes() == b"the old one"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g.pb", "model.tflite"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"check": {"zz": 1.0}}, "check feeds 'zz', which is no input"),
        ({"check": {"xx": 1.0}}, "Did you mean 'x'?"),
        ({"check": {}}, "check does not feed the input 'x'"),
        ({"instruments": None}, "instruments is None"),
        ({"instruments": hintc.Timing()}, "instruments is a single one"),
        ({"instruments": ["timing"]}, "''timing'' is no instrument"),
    ],
    ids=str,
)
@pytest.mark.parametrize("run", [hintc.compile, hintc.convert])
def test_options_of_the_drivers(run: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(hintc.HintcError) as caught:
        run(small_models.dense_graph(), pipeline="", **options)
    assert message in str(caught.value)


def test_two_functions_of_one_name() -> None:
    graph_def = small_models.dense_graph()
    for _ in range(2):
        graph_def.library.function.add().signature.name = "f"
    with pytest.raises(hintc.HintcError) as caught:
        hintc.compile(graph_def, ["x"], ["y"])
    assert "'f'" in str(caught.value)
    assert "Rename one of them" in str(caught.value)
