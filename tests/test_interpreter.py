"""The interpreters, the session and the hand-off's complaints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from fused_graphs import lstm_graph, lstm_weights
from hintc.errors import HintcError
from hintc.runtime import interpreter, session
from hintc.runtime.interpreter import Interpreter, RuntimeName, installed
from hintc.tflite.flatbuffer import Model
from hintc.tflite.handoff import SIGNATURE_KEY, to_tflite
from hintc.tflite.inspect import op_counts

RUNTIMES: tuple[RuntimeName, ...] = ("litert", "tensorflow")


def affine() -> Any:
    """two inputs; y = a @ b, z = 2 a."""
    with tf.Graph().as_default() as graph:
        a = tf.compat.v1.placeholder(tf.float32, [None, 3], "scope/a")
        b = tf.compat.v1.placeholder(tf.float32, [3, 2], "b")
        tf.matmul(a, b, name="y")
        tf.multiply(a, 2.0, name="z")
    return graph.as_graph_def()


@pytest.fixture(scope="module")
def model() -> bytes:
    return to_tflite(affine(), ["scope/a:0", "b"], ["z", "y:0"])


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("delegates", [True, False])
def test_run(model: bytes, runtime: RuntimeName, delegates: bool) -> None:
    instance = Interpreter(model, runtime=runtime, delegates=delegates)
    assert [info.name for info in instance.inputs] == ["scope/a", "b"]
    assert [info.name for info in instance.outputs] == ["z", "y"]
    assert instance.inputs[0].shape == (-1, 3)
    b = np.eye(3, 2, dtype=np.float32)
    for batch in (1, 4, 4, 2):
        a = np.random.default_rng(batch).standard_normal((batch, 3)).astype(np.float32)
        by_name = instance.run({"b": b, "scope/a:0": a})
        in_order = instance.run([a, b])
        assert list(by_name) == ["z", "y"]
        np.testing.assert_allclose(by_name["y"], a @ b, rtol=1e-6)
        np.testing.assert_array_equal(by_name["z"], in_order["z"])


def test_results_are_copies(model: bytes) -> None:
    instance = Interpreter(model)
    b = np.eye(3, 2, dtype=np.float32)
    first = instance.run([np.ones((1, 3)), b])["z"]
    instance.run([np.zeros((1, 3)), b])
    assert first.tolist() == [[2.0, 2.0, 2.0]]


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"b": np.zeros((3, 2))}, "'scope/a' is not fed"),
        ({"b": np.zeros((3, 2)), "scope/a": np.zeros((1, 3)), "c": 1}, "'c' is fed"),
        ([np.zeros((1, 3))], "1 values are fed to 2"),
        ([np.zeros((1, 4)), np.zeros((3, 2))], r"shape \[1, 4\]"),
        ([np.zeros((1, 3)), np.zeros((3, 3))], r"takes \[3, 2\]"),
        ([np.zeros((1, 3), complex), np.zeros((3, 2))], "complex128"),
    ],
)
def test_unfit_feeds_are_refused(model: bytes, feeds: Any, message: str) -> None:
    with pytest.raises(HintcError, match=message):
        interpreter.run(model, feeds)


def test_a_failed_feed_leaves_the_instance_usable(model: bytes) -> None:
    instance = Interpreter(model)
    with pytest.raises(HintcError):
        instance.run([np.zeros((1, 4)), np.zeros((3, 2))])
    assert instance.run([np.zeros((2, 3)), np.zeros((3, 2))])["y"].shape == (2, 2)


def test_bytes_that_are_no_model_are_refused() -> None:
    for runtime in RUNTIMES:
        with pytest.raises(HintcError, match="refuses"):
            Interpreter(b"nothing", runtime=runtime)


def test_runtimes() -> None:
    assert installed() == RUNTIMES
    with pytest.raises(HintcError, match="unknown runtime"):
        Interpreter(b"", runtime="other")  # type: ignore[arg-type]


def test_session() -> None:
    feeds = {"scope/a": np.ones((2, 3), np.float32), "b:0": np.ones((3, 2), np.float32)}
    found = session.run(affine(), feeds, ["y", "z:0"])
    assert list(found) == ["y", "z:0"]
    assert found["y"].tolist() == [[3.0, 3.0], [3.0, 3.0]]
    with pytest.raises(HintcError, match="did not run"):
        session.run(affine(), {}, ["y"])
    with pytest.raises(HintcError, match="did not run"):
        session.run(affine(), feeds, ["nothing"])
    broken = affine()
    broken.node[0].op = "NoSuchOp"
    with pytest.raises(HintcError, match="cannot import"):
        session.run(broken, {}, ["y"])


def test_handoff_names_and_signature(model: bytes) -> None:
    (signature,) = Model.read(model).root.signatureDefs
    assert signature.signatureKey == SIGNATURE_KEY.encode()
    assert [entry.name for entry in signature.inputs] == [b"scope/a", b"b"]
    assert [entry.name for entry in signature.outputs] == [b"z", b"y"]


def test_handoff_leaves_the_graph_alone() -> None:
    graph_def = affine()
    before = graph_def.SerializeToString(deterministic=True)
    to_tflite(graph_def, ["scope/a", "b"], ["y"])
    assert graph_def.SerializeToString(deterministic=True) == before


def test_handoff_quantises_the_rest_of_the_model() -> None:
    weights = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 64], "x")
        tf.matmul(x, tf.constant(weights), name="y")
    sizes = {
        quantize: len(to_tflite(graph.as_graph_def(), ["x"], ["y"], quantize=quantize))
        for quantize in (None, "dynamic", "float16")
    }
    assert sizes["dynamic"] < 0.4 * sizes[None]
    assert sizes["float16"] < 0.65 * sizes[None]


def unary(op: str, **attributes: Any) -> Any:
    """x -> op -> y, by hand: TensorFlow need not know the op."""
    graph_def = tf.compat.v1.GraphDef()
    x = graph_def.node.add(name="x", op="Placeholder")
    x.attr["dtype"].type = tf.float32.as_datatype_enum
    x.attr["shape"].shape.CopyFrom(tf.TensorShape([4, 4]).as_proto())
    node = graph_def.node.add(name="scope/middle", op=op, input=["x"])
    node.attr["T"].type = tf.float32.as_datatype_enum
    end = graph_def.node.add(name="y", op="Identity", input=["scope/middle"])
    end.attr["T"].type = tf.float32.as_datatype_enum
    for name, value in attributes.items():
        node.attr[name].i = value
    return graph_def


def test_handoff_refuses_what_tensorflow_does_not_know() -> None:
    with pytest.raises(HintcError, match="knows no operator 'MyConv'") as caught:
        to_tflite(unary("MyConv"), ["x"], ["y"])
    assert caught.value.node == "scope/middle"
    assert caught.value.remedy


def test_handoff_refuses_what_tflite_does_not_know(capfd: Any) -> None:
    graph_def = unary("Cholesky")
    with pytest.raises(HintcError, match="no operator 'Cholesky'") as caught:
        to_tflite(graph_def, ["x"], ["y"])
    assert caught.value.node
    allowed = to_tflite(graph_def, ["x"], ["y"], allow_custom=["Cholesky"])
    assert op_counts(allowed) == {"CUSTOM:Cholesky": 1}
    assert capfd.readouterr() == ("", "")


def test_handoff_refuses_variables() -> None:
    with tf.Graph().as_default() as graph:
        tf.identity(tf.compat.v1.get_variable("v", [2], use_resource=True), name="y")
    with pytest.raises(HintcError, match="has variables") as caught:
        to_tflite(graph.as_graph_def(), [], ["y"])
    assert caught.value.node == "v"


def test_handoff_ignores_what_the_outputs_do_not_need() -> None:
    graph_def = affine()
    graph_def.node.add(name="odd", op="NoSuchOp")
    function = graph_def.library.function.add()
    function.signature.name = "never_called"
    function.node_def.add(name="v", op="VarHandleOp")
    with pytest.raises(HintcError, match="knows no operator 'NoSuchOp'"):
        to_tflite(graph_def, ["scope/a"], ["z", "odd"])
    assert to_tflite(graph_def, ["scope/a"], ["z"])


def test_handoff_refuses_unknown_names() -> None:
    with pytest.raises(HintcError, match="no node 'nothing'"):
        to_tflite(affine(), ["nothing"], ["y"])
    with pytest.raises(HintcError, match="no tensor 'y:3'"):
        to_tflite(affine(), ["scope/a", "b"], ["y:3"])
    with pytest.raises(HintcError, match="no input") as caught:
        to_tflite(affine(), ["b"], ["y"])
    assert caught.value.node == "scope/a"
    with pytest.raises(HintcError, match="no outputs"):
        to_tflite(affine(), ["b"], [])
    with pytest.raises(HintcError, match="not a GraphDef"):
        to_tflite(b"", ["b"], ["y"])


def test_handoff_refuses_missing_functions() -> None:
    graph = lstm_graph(lstm_weights(1))
    del graph.graph_def.library.function[:]
    with pytest.raises(HintcError, match="function '__inference") as caught:
        to_tflite(graph.graph_def, graph.inputs, graph.outputs)
    assert caught.value.node == "PartitionedCall"


def test_handoff_reports_the_converters_complaint(capfd: Any) -> None:
    def loop(x: Any) -> Any:
        values = tf.TensorArray(tf.float32, size=tf.shape(x)[0])
        body = lambda time, values: (time + 1, values.write(time, tf.tanh(x[time])))  # noqa: E731
        _, values = tf.while_loop(lambda time, _: time < tf.shape(x)[0], body, (0, values))
        return tf.identity(values.stack(), "y")

    spec = tf.TensorSpec([None, None, 3], tf.float32, "x")
    graph = tf.function(loop, autograph=False).get_concrete_function(spec).graph
    with pytest.raises(HintcError, match="'TensorListReserve'") as caught:
        to_tflite(graph.as_graph_def(), ["x"], ["y"])
    assert caught.value.node == "TensorArrayV2"
    assert capfd.readouterr() == ("", "")


def test_outputs_that_are_the_same_tensor() -> None:
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [2], "x")
        for name in ("first", "second", "third"):
            tf.identity(tf.tanh(x) if name != "first" else x, name)
    outputs = ["second", "first", "third"]
    model = to_tflite(graph.as_graph_def(), ["x"], outputs)
    found = interpreter.run(model, {"x": np.ones(2)})
    assert list(found) == outputs
    assert found["first"].tolist() == [1.0, 1.0]
    np.testing.assert_array_equal(found["second"], found["third"])
    np.testing.assert_allclose(found["second"], np.tanh(np.ones(2)), rtol=1e-6)
