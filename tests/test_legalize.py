"""Fused calls through the real converter and the real interpreters, against a TF session."""

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
    respec,
    rnn_graph,
    rnn_weights,
)
from hintc.errors import HintcError
from hintc.ops import AttributeValue, sequence_lstm, sequence_rnn
from hintc.runtime import session
from hintc.runtime.interpreter import Interpreter, RuntimeName
from hintc.tflite.handoff import to_tflite
from hintc.tflite.inspect import op_counts
from hintc.tflite.legalize import legalize

FLOAT, HYBRID, FLOAT16 = 1e-6, 2e-2, 3e-3
RUNTIMES: tuple[RuntimeName, ...] = ("litert", "tensorflow")
ALL_RESULTS = ("final_cell_state", "output", "final_output_state")


def feeds(graph: FusedGraph, batch: int, seed: int = 0) -> dict[str, Any]:
    """Seeded values for the inputs; `batch` for the dynamic size."""
    random = np.random.default_rng(seed)
    found = {}
    for node in graph.graph_def.node:
        if node.op == "Placeholder" and node.name in graph.inputs:
            sizes = [dim.size if dim.size >= 0 else batch for dim in node.attr["shape"].shape.dim]
            found[node.name] = random.standard_normal(sizes).astype(np.float32)
    return found


def largest_error(
    model: bytes,
    graph: FusedGraph,
    batches: tuple[int, ...] = (2,),
    runtimes: tuple[RuntimeName, ...] = RUNTIMES,
    delegates: bool = True,
) -> float:
    """Over both runtimes, all batches and outputs, and two invokes on one instance."""
    errors = []
    with session.Session(graph.graph_def) as reference:
        for runtime in runtimes:
            interpreter = Interpreter(model, runtime=runtime, delegates=delegates)
            for number, batch in enumerate(b for b in batches for _ in range(2)):
                feed = feeds(graph, batch, number)
                expected = reference.run(feed, graph.outputs)
                got = interpreter.run(feed)
                assert list(got) == graph.outputs
                for name in graph.outputs:
                    assert got[name].shape == expected[name].shape
                    errors.append(float(np.abs(got[name] - expected[name]).max()))
    return max(errors)


def converted(graph: FusedGraph, **options: Any) -> bytes:
    return to_tflite(graph.graph_def, graph.inputs, graph.outputs, **options)


VARIANTS: dict[str, tuple[Mapping[str, bool], Mapping[str, Any]]] = {
    "plain": ({}, {}),
    "batch-major": ({}, {"time_major": False}),
    "coupled": ({"coupled": True}, {}),
    "peephole": ({"peephole": True}, {}),
    "coupled-peephole": ({"coupled": True, "peephole": True}, {"cell_clip": 0.4}),
    "cell-clip": ({}, {"cell_clip": 0.3}),
    "projection": ({"projection": True}, {}),
    "projection-clip": ({"projection": True, "projection_bias": True}, {"proj_clip": 0.2}),
    "layer-norm": ({"layer_norm": True}, {}),
    "relu": ({}, {"activation": "RELU", "cell_clip": 5.0}),
    "relu6": ({}, {"activation": "RELU6"}),
    "all": (
        {"peephole": True, "projection": True, "projection_bias": True, "layer_norm": True},
        {"cell_clip": 0.5, "proj_clip": 0.3, "time_major": False},
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_lstm_variant_equals_the_session(variant: str) -> None:
    options, attributes = VARIANTS[variant]
    weights = lstm_weights(3, **options)
    graph = lstm_graph(weights, batch=2, attributes=attributes, results=ALL_RESULTS)
    model = converted(graph)
    assert op_counts(model)["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 1
    assert not [name for name in op_counts(model) if name.startswith("CUSTOM")]
    assert largest_error(model, graph) < FLOAT
    hybrid = converted(graph, quantize="dynamic")
    assert largest_error(hybrid, graph) < HYBRID
    feed = feeds(graph, 2)
    expected = sequence_lstm.reference({**weights, "input": feed["x"]}, attributes)
    for name, value in Interpreter(model).run(feed).items():
        np.testing.assert_allclose(value, expected[name], atol=FLOAT)


@pytest.mark.parametrize("time_major", [True, False])
@pytest.mark.parametrize(
    ("quantize", "tolerance"), [(None, FLOAT), ("dynamic", HYBRID), ("float16", FLOAT16)]
)
def test_dynamic_batch_stays_dynamic(time_major: bool, quantize: Any, tolerance: float) -> None:
    attributes = {"time_major": time_major}
    graph = lstm_graph(lstm_weights(1), attributes=attributes, results=ALL_RESULTS)
    model = converted(graph, quantize=quantize)
    expected = (STEPS, -1, N_IN) if time_major else (-1, STEPS, N_IN)
    assert Interpreter(model).inputs[0].shape == expected
    assert largest_error(model, graph, batches=(1, 5, 2)) < tolerance
    assert largest_error(model, graph, batches=(1, 5, 2), delegates=False) < tolerance


def test_fed_initial_states() -> None:
    graph = lstm_graph(lstm_weights(2, projection=True), fed_states=True, results=ALL_RESULTS)
    assert largest_error(converted(graph), graph, batches=(1, 4)) < FLOAT


def test_constant_initial_states() -> None:
    random = np.random.default_rng(4)
    states = {
        "output_state": random.standard_normal((2, N_CELL)).astype(np.float32),
        "cell_state": random.standard_normal((2, N_CELL)).astype(np.float32),
    }
    graph = lstm_graph(lstm_weights(2), batch=2, states=states)
    assert largest_error(converted(graph), graph) < FLOAT


def test_initial_state_of_one_row_is_broadcast() -> None:
    random = np.random.default_rng(4)
    states = {
        "output_state": random.standard_normal((1, N_CELL)).astype(np.float32),
        "cell_state": random.standard_normal((1, N_CELL)).astype(np.float32),
    }
    graph = lstm_graph(lstm_weights(2), states=states)
    assert largest_error(converted(graph), graph, batches=(1, 3)) < FLOAT


def test_computed_initial_states() -> None:
    tracer = Tracer()
    weights, random = lstm_weights(5), np.random.default_rng(0)
    dense = random.standard_normal((3, 2 * N_CELL)).astype(np.float32)

    def model(x: Any, context: Any) -> Mapping[str, Any]:
        h, c = tf.split(tf.tanh(tf.matmul(context, tf.constant(dense))), 2, axis=1)
        states = {"output_state": h, "cell_state": c}
        y, final = lstm_call(tracer, x, weights, ("output", "final_cell_state"), states=states)
        return {"y": tf.nn.relu(y), "c": final + 1.0}

    graph = tracer.graph(model, {"x": [STEPS, None, N_IN], "context": [None, 3]})
    assert largest_error(converted(graph), graph, batches=(1, 4)) < FLOAT


def test_zero_initial_states_are_filled() -> None:
    zeros = np.zeros((2, N_CELL), np.float32)
    graph = lstm_graph(
        lstm_weights(2), batch=2, states={"output_state": zeros, "cell_state": zeros}
    )
    counts = op_counts(converted(graph))
    assert (counts["FILL"], counts["RESHAPE"]) == (2, 0)


def test_two_layers_and_a_dense_layer() -> None:
    tracer = Tracer()
    first, second = lstm_weights(1), lstm_weights(2, N_CELL, peephole=True)
    dense = np.random.default_rng(0).standard_normal((N_CELL, 200)).astype(np.float32)

    def model(x: Any) -> Mapping[str, Any]:
        (y,) = lstm_call(tracer, x, first)
        y, h, _ = lstm_call(tracer, y, second, ("output", "final_output_state", "final_cell_state"))
        return {"logits": tf.matmul(h, tf.constant(dense)), "y": y}

    graph = tracer.graph(model, {"x": [STEPS, None, N_IN]})
    plain = converted(graph)
    assert op_counts(plain)["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 2
    assert largest_error(plain, graph, batches=(1, 5)) < 1e-5
    for quantize, tolerance in (("dynamic", 0.1), ("float16", 1e-2)):
        small = converted(graph, quantize=quantize)
        assert largest_error(small, graph, batches=(1, 5)) < tolerance
        assert largest_error(small, graph, batches=(1, 5), delegates=False) < tolerance


def test_while_body_and_dynamic_time() -> None:
    graph = lstm_graph(lstm_weights(7), steps=None)
    model = converted(graph)
    assert set(op_counts(model)) >= {"UNIDIRECTIONAL_SEQUENCE_LSTM", "FILL"}
    assert "WHILE" not in op_counts(model)
    assert largest_error(model, graph, batches=(3, 6)) < FLOAT


@pytest.mark.parametrize("activation", ["TANH", "RELU", "RELU6", "NONE"])
def test_rnn(activation: str) -> None:
    attributes: dict[str, AttributeValue] = {"activation": activation}
    attributes["time_major"] = activation != "RELU"
    graph = rnn_graph(rnn_weights(1), attributes=attributes)
    model = converted(graph)
    assert op_counts(model)["UNIDIRECTIONAL_SEQUENCE_RNN"] == 1
    assert largest_error(model, graph, batches=(1, 5)) < 1e-5
    assert largest_error(converted(graph, quantize="dynamic"), graph, batches=(1, 5)) < 7e-2
    feed = feeds(graph, 2)
    expected = sequence_rnn.reference({**rnn_weights(1), "input": feed["x"]}, attributes)
    for name, value in Interpreter(model).run(feed).items():
        np.testing.assert_allclose(value, expected[name], atol=FLOAT, rtol=1e-5)


def test_only_a_final_state_is_asked_for() -> None:
    graph = lstm_graph(lstm_weights(1), results=("final_cell_state",))
    assert largest_error(converted(graph), graph, batches=(1, 3)) < FLOAT


def test_legalize_twice_changes_nothing() -> None:
    model = converted(lstm_graph(lstm_weights(1)))
    assert legalize(model) == model
    assert legalize(model, quantize="dynamic") == model


def test_conversion_is_reproducible() -> None:
    graph = lstm_graph(lstm_weights(1))
    assert converted(graph) == converted(graph)


def test_zero_weights_are_quantised() -> None:
    weights = {name: np.zeros_like(value) for name, value in lstm_weights(1).items()}
    weights["cell_gate_bias"] += 1.0
    graph = lstm_graph(weights, batch=2)
    assert largest_error(converted(graph, quantize="dynamic"), graph) < FLOAT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: spec["attributes"].update(activation="SIGMOID"), "activation"),
        (lambda spec: spec["attributes"].update(activation="NONE"), "wrong values"),
        (lambda spec: spec["attributes"].update(cell_clip=-1.0), "negative"),
        (lambda spec: spec["attributes"].update(proj_clip=1.0), "clips a projection"),
        (lambda spec: spec["slots"].append(None), "lists"),
        (lambda spec: spec["slots"].__setitem__(1, None), "neither complete nor absent"),
        (lambda spec: spec["slots"].__setitem__(1, "nonsense"), "nonsense"),
        (lambda spec: spec.update(results=["nothing"]), "nothing"),
        (lambda spec: spec.update(op="LSTM"), "marked"),
        (lambda spec: spec.pop("slots"), "cannot be read"),
    ],
)
def test_illegal_specs_are_refused(change: Any, message: str) -> None:
    graph = respec(lstm_graph(lstm_weights(1)), change)
    with pytest.raises(HintcError, match=message) as caught:
        converted(graph)
    assert caught.value.node


def test_micro_target_refuses_what_it_cannot_run() -> None:
    graph = lstm_graph(lstm_weights(1, peephole=True))
    with pytest.raises(HintcError, match="TFLite Micro"):
        converted(graph, target="tflm")
    with pytest.raises(HintcError, match="NaN"):
        converted(lstm_graph(lstm_weights(1)), target="tflm", quantize="dynamic")
    assert LSTM.refusals([None, *lstm_weights(1)], {}, target="tflm") == []
