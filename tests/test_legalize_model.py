"""Legalisation beyond the kernels: subgraphs, users' ops, bad bytes, what else is in a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from fused_graphs import (
    LSTM,
    N_CELL,
    N_IN,
    STEPS,
    FusedGraph,
    Tracer,
    lstm_call,
    lstm_graph,
    lstm_weights,
)
from hintc.errors import HintcError
from hintc.flexbuffer import load_attributes
from hintc.ops import AttributeSpec, BuiltinLowering, FusedOp, OperandSlot, declare
from hintc.ops.arithmetic import symmetric_int8
from hintc.runtime import session
from hintc.runtime.interpreter import Interpreter
from hintc.tflite import handoff
from hintc.tflite.flatbuffer import BUFFER_ALIGNMENT, Model
from hintc.tflite.handoff import to_tflite
from hintc.tflite.inspect import op_counts
from hintc.tflite.legalize import legalize, legalize_model
from hintc.tflite.schema import schema
from test_legalize import FLOAT, HYBRID, converted, feeds, largest_error


def while_graph(batch: int | None) -> FusedGraph:
    """A fused call inside a loop's body: its output is its next input."""
    tracer, weights = Tracer(), lstm_weights(1, N_CELL)

    def model(x: Any) -> Mapping[str, Any]:
        def body(time: Any, value: Any) -> Any:
            (y,) = lstm_call(tracer, value, weights)
            return time + 1, y

        _, y = tf.while_loop(lambda time, _: time < 3, body, (0, x))
        return {"y": y}

    return tracer.graph(model, {"x": [STEPS, batch, N_CELL]})


def if_graph(batch: int | None) -> FusedGraph:
    """Fused calls in both branches of a condition on the data."""
    tracer, first, second = Tracer(), lstm_weights(1), lstm_weights(2)

    def model(x: Any) -> Mapping[str, Any]:
        y = tf.cond(
            tf.reduce_sum(x) > 0,
            lambda: lstm_call(tracer, x, first, ("output", "final_cell_state"))[0],
            lambda: lstm_call(tracer, x, second, ("output", "final_cell_state"))[0],
        )
        return {"y": y}

    return tracer.graph(model, {"x": [STEPS, batch, N_IN]})


@pytest.mark.parametrize("make", [while_graph, if_graph])
@pytest.mark.parametrize("batch", [2, None])
def test_calls_in_control_flow_bodies(make: Any, batch: int | None) -> None:
    graph = make(batch)
    model = converted(graph)
    assert op_counts(model)["UNIDIRECTIONAL_SEQUENCE_LSTM"] == (1 if make is while_graph else 2)
    batches = (2, 2, 2) if batch else (1, 4, 2)
    for delegates in (True, False):
        assert largest_error(model, graph, batches, delegates=delegates) < FLOAT


def conv_graph(op: FusedOp, attributes: Mapping[str, Any]) -> FusedGraph:
    """A user's conv + bias + relu with an operand that only the body needs."""
    tracer = Tracer()
    kernel = np.random.default_rng(0).standard_normal((3, 3, 1, 2)).astype(np.float32)

    def model(x: Any) -> Mapping[str, Any]:
        operands = [
            ("image", x),
            (None, tf.constant(np.float32(2.5))),
            ("kernel", tf.constant(kernel)),
            ("bias", tf.constant(np.ones(2, np.float32))),
        ]

        def body(image: Any, factor: Any, kernel: Any, bias: Any) -> Any:
            y = tf.nn.conv2d(image * factor, kernel, strides=1, padding="SAME") + bias
            return (tf.nn.relu(y),)

        return {"y": tracer.call(op, operands, body, ["activations"], attributes)[0]}

    return tracer.graph(model, {"x": [None, 6, 6, 1]})


def test_users_op_keeps_its_name_and_typed_attributes() -> None:
    attributes = {
        "same": True,
        "groups": 3,
        "slope": 2.0,
        "mode": "fast",
        "strides": (1, 2),
        "names": ("a", "b"),
    }
    model = Model.read(converted(conv_graph(FusedOp.custom("my_conv"), attributes)))
    (subgraph, op), *others = model.operators()
    assert not others
    assert model.op_name(op) == "CUSTOM:my_conv"
    found = load_attributes(bytes(op.customOptions))
    assert {name: type(value) for name, value in found.items()} == {
        "same": bool,
        "groups": int,
        "slope": float,
        "mode": str,
        "strides": list,
        "names": list,
    }
    assert found == {**attributes, "strides": [1, 2], "names": ["a", "b"]}
    shapes = [subgraph.shape(index) for index in op.inputs]
    assert shapes == [(-1, 6, 6, 1), (3, 3, 1, 2), (2,)], "the body's own operand is dropped"
    names = [subgraph.tensor_name(index) for index in range(len(subgraph.graph.tensors))]
    assert len(names) == 4, names


def test_users_op_that_lowers_to_a_builtin() -> None:
    op = declare(
        FusedOp(
            name="conv_bias_relu",
            operands=(OperandSlot("x"), OperandSlot("filter", "weight"), OperandSlot("bias")),
            results=("y",),
            attributes={
                "activation": AttributeSpec(str, "NONE"),
                "padding": AttributeSpec(str, "SAME", ("SAME", "VALID")),
                "rows": AttributeSpec(int, 1),
                "columns": AttributeSpec(int, 1),
            },
            lowering=BuiltinLowering(
                operator="CONV_2D",
                options="Conv2DOptions",
                fields={
                    "activation": "fusedActivationFunction",
                    "padding": "padding",
                    "rows": "strideH",
                    "columns": "strideW",
                },
                version=lambda hybrid: 1,
                enums={"activation": "ActivationFunctionType", "padding": "Padding"},
            ),
        )
    )
    tracer = Tracer()
    kernel = np.random.default_rng(0).standard_normal((2, 3, 3, 1)).astype(np.float32)

    def body(x: Any, kernel: Any, bias: Any) -> Any:
        kernel = tf.transpose(kernel, [1, 2, 3, 0])
        return (tf.nn.relu(tf.nn.conv2d(x, kernel, strides=[1, 1, 2, 1], padding="SAME") + bias),)

    def model(x: Any) -> Mapping[str, Any]:
        operands = [("x", x), ("filter", tf.constant(kernel)), ("bias", tf.ones(2))]
        attributes = {"activation": "RELU", "columns": 2}
        return {"y": tracer.call(op, operands, body, ["y"], attributes)[0]}

    graph = tracer.graph(model, {"x": [None, 6, 6, 1]})
    tflite = Model.read(converted(graph, quantize="dynamic"))
    ((_, conv),) = tflite.operators()
    assert tflite.op_name(conv) == "CONV_2D"
    assert largest_error(tflite.write(), graph, batches=(1, 3)) < FLOAT


def test_a_built_in_name_that_is_not_declared_is_refused() -> None:
    graph = conv_graph(FusedOp.custom("TRANSPOSE_CONV"), {})
    with pytest.raises(HintcError, match="TRANSPOSE_CONV is not declared"):
        converted(graph)


@pytest.fixture(scope="module")
def unfinished() -> bytes:
    """A converted model whose fused call is still CUSTOM."""
    graph = lstm_graph(lstm_weights(1), results=("output", "final_cell_state"))
    return handoff.convert(graph.graph_def, graph.inputs, graph.outputs, None)


def test_nothing_to_legalise_is_returned_unchanged() -> None:
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 3], "x")
        tf.tanh(x, "y")
    model = to_tflite(graph.as_graph_def(), ["x"], ["y"])
    assert legalize(model) is model


@pytest.mark.parametrize(
    "data", [b"", b"TFL3", b"not a model at all", b"\x1c\0\0\0TFL3" + b"\xff" * 40]
)
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(HintcError):
        legalize(data)


def test_truncated_models_are_refused(unfinished: bytes) -> None:
    for length in range(0, len(unfinished) - 16, 37):
        with pytest.raises(HintcError):
            legalize(unfinished[:length])


def test_options_are_checked(unfinished: bytes) -> None:
    options: dict[str, Any] = {"quantize": "int4", "target": "tpu", "state": "none"}
    for option, value in options.items():
        with pytest.raises(HintcError, match=f"{option} is '{value}'"):
            legalize(unfinished, **{option: value})


def test_written_models_are_aligned_and_read_back(unfinished: bytes) -> None:
    model = legalize(unfinished, quantize="dynamic")
    generated = schema().Model.GetRootAs(model, 0)
    base = np.frombuffer(model, np.uint8).ctypes.data
    for number in range(generated.BuffersLength()):
        buffer = generated.Buffers(number)
        if buffer.DataLength():
            offset = buffer.DataAsNumpy().ctypes.data - base
            assert offset % BUFFER_ALIGNMENT == 0
    assert Model.read(model).write() == model


@pytest.mark.parametrize(
    ("quantize", "wanted"), [(None, b"1.13.1"), ("dynamic", b"1.14.0"), ("float16", b"1.15.0")]
)
def test_the_runtime_that_the_kernels_need_is_said(quantize: Any, wanted: bytes) -> None:
    """By the versions of the kernel and of what stands before it; never less than it was."""
    graph = lstm_graph(lstm_weights(1), batch=2)
    unfinished = handoff.convert(graph.graph_def, graph.inputs, graph.outputs, None)
    assert runtimes(legalize(unfinished, quantize=quantize)) == [wanted]
    model = Model.read(unfinished)
    (entry,) = (e for e in model.root.metadata if e.name == b"min_runtime_version")
    model.root.buffers[entry.buffer].data = list(b"2.9.0".ljust(16, b"\0"))
    assert runtimes(legalize(model.write(), quantize=quantize)) == [b"2.9.0"]


def runtimes(tflite: bytes) -> list[bytes]:
    """What the metadata of a model say of them, without padding to 16 bytes."""
    root = Model.read(tflite).root
    data = [
        bytes(root.buffers[entry.buffer].data)
        for entry in root.metadata
        if entry.name == b"min_runtime_version"
    ]
    assert all(len(one) == 16 for one in data)
    return [one.rstrip(b"\0") for one in data]


def test_unused_storage_goes(unfinished: bytes) -> None:
    model = Model.read(legalize(unfinished, quantize="dynamic"))
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.graph.tensors}
    used |= {entry.buffer for entry in model.root.metadata or []}
    assert used | {0} == set(range(len(model.root.buffers)))
    assert {op.opcodeIndex for _, op in model.operators()} == set(
        range(len(model.root.operatorCodes))
    )
    (signature,) = Model.read(legalize(unfinished)).root.signatureDefs or [None]
    assert signature is None or signature.inputs


def test_weights_that_are_not_constant_stay_float() -> None:
    tracer, weights = Tracer(), lstm_weights(1)

    def model(x: Any, scale: Any) -> Mapping[str, Any]:
        scaled = dict(weights)
        scaled["input_to_cell_weights"] = scale * weights["input_to_cell_weights"]
        return {"y": lstm_call(tracer, x, scaled)[0]}

    graph = tracer.graph(model, {"x": [STEPS, 2, N_IN], "scale": []})
    assert largest_error(converted(graph, quantize="dynamic"), graph) < FLOAT


def test_a_weight_that_cannot_be_quantised_is_noted(unfinished: bytes) -> None:
    model = Model.read(unfinished)
    graph = model.subgraphs[0]
    (op,) = graph.operators
    value = np.array(graph.constant(op.inputs[1]))
    value[0, 0] = np.inf
    graph.tensor(op.inputs[1]).buffer = model.add_buffer(value)
    result = legalize_model(model.write(), quantize="dynamic")
    assert [note.text for note in result.notes] == [
        "weights stay float32: operand 'input_to_input_weights' holds values that are not finite"
    ]


def test_hybrid_versions_and_sizes() -> None:
    graph = lstm_graph(lstm_weights(1, peephole=True, projection=True))
    model = Model.read(converted(graph, quantize="dynamic"))
    (kernel,) = [op for _, op in model.operators() if "LSTM" in model.op_name(op)]
    assert model.root.operatorCodes[kernel.opcodeIndex].version == 2
    subgraph = model.subgraphs[0]
    kinds = {slot.name: slot.kind for slot in LSTM.operands}
    for slot, index in zip(LSTM.slot_names, kernel.inputs, strict=True):
        if index >= 0 and slot != "input":
            expected = np.int8 if kinds[slot] == "weight" else np.float32
            assert subgraph.dtype(index) == expected, slot


def test_symmetric_int8() -> None:
    values = np.array([[-2.0, 0.5], [1.0, 2.0]], np.float32)
    stored, scale = symmetric_int8(values)
    assert stored.tolist() == [[-127, 32], [64, 127]]
    assert scale == pytest.approx(2 / 127)
    tiny, one = symmetric_int8(np.full(3, 1e-44, np.float32))
    assert (tiny.tolist(), one) == ([0, 0, 0], 1.0)


def test_constants_shared_with_other_ops_survive() -> None:
    tracer, weights = Tracer(), lstm_weights(1)

    def model(x: Any) -> Mapping[str, Any]:
        (y,) = lstm_call(tracer, x, weights)
        shared = tf.constant(weights["recurrent_to_cell_weights"])
        return {"y": y, "z": tf.tanh(tf.reduce_sum(y, 0) + tf.reduce_sum(shared, 0)) @ shared}

    graph = tracer.graph(model, {"x": [STEPS, None, N_IN]})
    assert largest_error(converted(graph), graph, batches=(1, 3)) < 1e-5
    hybrid = converted(graph, quantize="dynamic")
    assert largest_error(hybrid, graph, batches=(1, 3)) < 5 * HYBRID


def test_a_batch_of_another_size_is_refused_by_a_constant_state() -> None:
    state = {"cell_state": np.ones((2, N_CELL), np.float32)}
    graph = lstm_graph(lstm_weights(1), states=state)
    with pytest.raises(HintcError, match="cell_state is for a batch of 2"):
        converted(graph)


def test_float16_halves_a_larger_model() -> None:
    tracer = Tracer()
    weights = {
        name: np.random.default_rng(1)
        .standard_normal([64 if size == N_CELL else size for size in value.shape])
        .astype(np.float32)
        * 0.1
        for name, value in lstm_weights(1).items()
    }

    def model(x: Any) -> Mapping[str, Any]:
        return {"y": lstm_call(tracer, x, weights)[0]}

    graph = tracer.graph(model, {"x": [STEPS, None, N_IN]})
    plain, half = converted(graph), converted(graph, quantize="float16")
    assert len(half) < 0.6 * len(plain)
    assert largest_error(half, graph, batches=(1, 4)) < 3e-3
    later = legalize(convert_only(graph), quantize="float16")
    assert len(later) < 0.6 * len(plain)
    assert Interpreter(later).run([np.zeros((STEPS, 3, N_IN), np.float32)])


def convert_only(graph: FusedGraph) -> bytes:
    return handoff.convert(graph.graph_def, graph.inputs, graph.outputs, None)


def test_persistent_state_goes_on() -> None:
    weights = lstm_weights(1)
    graph = lstm_graph(weights, batch=2)
    interpreter = Interpreter(converted(graph, state="persist"))
    long = lstm_graph(weights, batch=2, steps=2 * STEPS)
    feed = feeds(long, 2)
    expected = session.run(long.graph_def, feed, long.outputs)["output"]
    parts = [interpreter.run({"x": part})["output"] for part in np.split(feed["x"], 2)]
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=FLOAT)


def test_persistent_state_needs_a_fixed_batch_and_zeros() -> None:
    with pytest.raises(HintcError, match="batch size is dynamic"):
        converted(lstm_graph(lstm_weights(1)), state="persist")
    loop = while_graph(2)
    with pytest.raises(HintcError, match="of a loop or a condition"):
        converted(loop, state="persist")
    ones = {"cell_state": np.ones((2, N_CELL), np.float32)}
    with pytest.raises(HintcError, match="cell_state is not zero"):
        converted(lstm_graph(lstm_weights(1), batch=2, states=ones), state="persist")


def test_dequantised_constants_survive_a_resize() -> None:
    """Integer constants behind DEQUANTIZE, as the converter leaves them for shared weights."""
    graph = lstm_graph(lstm_weights(1))
    model = Model.read(convert_only(graph))
    subgraph = model.subgraphs[0]
    (call,) = subgraph.operators
    operators = []
    for number, zero in ((2, [0]), (3, [0] * N_CELL), (6, [5])):
        index = call.inputs[number]
        value = np.asarray(subgraph.constant(index))
        axes = None if len(zero) == 1 else 1
        scale = np.abs(value).max(axis=axes, keepdims=True) / 100
        stored = np.rint(value / scale).astype(np.int8) + np.int8(zero[0])
        constant = subgraph.add_constant(f"stored_{number}", stored)
        quantization = schema().QuantizationParametersT()
        quantization.scale, quantization.zeroPoint = scale.ravel().tolist(), zero
        subgraph.tensor(constant).quantization = quantization
        result = subgraph.add_tensor(f"real_{number}", value.shape)
        operators.append(subgraph.make_op("DEQUANTIZE", [constant], [result]))
        call.inputs[number] = result
    subgraph.operators = [*operators, call]
    legal = legalize(model.write())
    assert {name: op_counts(legal)[name] for name in ("CAST", "MUL", "DEQUANTIZE")} == {
        "CAST": 2,
        "MUL": 2,
        "DEQUANTIZE": 0,
    }
    assert largest_error(legal, graph, batches=(1, 5, 2)) < HYBRID
