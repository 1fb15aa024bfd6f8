"""Integer models of single layers: against the float session, in both runtimes.

Feeds are uniform in ±1.5, as the samples: values beyond the calibrated range are clipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import test_legalize
from fused_graphs import (
    N_CELL,
    N_IN,
    STEPS,
    FusedGraph,
    Tracer,
    lstm_call,
    lstm_graph,
    lstm_weights,
    rnn_graph,
    rnn_weights,
)
from hintc.errors import HintcError
from hintc.ops import FusedOp
from hintc.runtime.interpreter import Interpreter, RuntimeName
from hintc.runtime.session import Session
from hintc.tflite.flatbuffer import Model
from hintc.tflite.inspect import op_counts
from hintc.tflite.integers.quantize import IntegerModel, quantize_to_int8
from hintc.tflite.kernel import Kernel, state_kernels

RUNTIMES: tuple[RuntimeName, ...] = ("litert", "tensorflow")
ALL_RESULTS = test_legalize.ALL_RESULTS
LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"

# Mean and largest error, of outputs of order 1.
USUAL = (6e-3, 0.1)

Variant = tuple[Mapping[str, bool], Mapping[str, Any]]
INTEGER: dict[str, Variant] = {
    **{
        name: variant
        for name, variant in test_legalize.VARIANTS.items()
        if name not in ("relu", "relu6", "projection-clip", "all")
    },
    "projection-layer-norm": ({"projection": True, "layer_norm": True}, {}),
    "coupled-projection": ({"coupled": True, "projection": True}, {"time_major": False}),
    "projection-bias": ({"projection": True, "projection_bias": True}, {"cell_clip": 0.8}),
    "peephole-layer-norm": ({"peephole": True, "layer_norm": True}, {}),
    "coupled-layer-norm": ({"coupled": True, "layer_norm": True}, {}),
}
FLOAT: dict[str, Variant] = {
    **{name: test_legalize.VARIANTS[name] for name in ("relu", "projection-clip", "all")},
    "peephole-projection": ({"peephole": True, "projection": True}, {}),
}


def feeds(graph: FusedGraph, batch: int, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    shaped = test_legalize.feeds(graph, batch, seed)
    return {
        name: random.uniform(-1.5, 1.5, value.shape).astype(np.float32)
        for name, value in shaped.items()
    }


def samples(graph: FusedGraph, count: int = 30) -> list[list[Any]]:
    return [list(feeds(graph, 2, 100 + number).values()) for number in range(count)]


def quantised(graph: FusedGraph, **options: Any) -> IntegerModel:
    model = test_legalize.converted(graph, quantize="int8", state=options.get("state", "reset"))
    return quantize_to_int8(model, samples(graph), **options)


def errors(model: bytes, graph: FusedGraph, batches: Sequence[int]) -> tuple[float, float]:
    """Mean and largest over outputs, batches, runtimes; two invokes must give the same."""
    found = []
    with Session(graph.graph_def) as session:
        for runtime in RUNTIMES:
            interpreter = Interpreter(model, runtime=runtime)
            for seed, batch in enumerate(batches):
                feed = feeds(graph, batch, seed)
                expected = session.run(feed, graph.outputs)
                first, second = interpreter.run(feed), interpreter.run(feed)
                assert list(first) == graph.outputs
                for name in graph.outputs:
                    np.testing.assert_array_equal(first[name], second[name])
                    found.append(np.abs(first[name] - expected[name]).ravel())
    together = np.concatenate(found)
    return float(together.mean()), float(together.max())


def check(
    model: bytes, graph: FusedGraph, batches: Sequence[int], limits: tuple[float, float]
) -> None:
    mean, largest = errors(model, graph, batches)
    assert mean <= limits[0]
    assert largest <= limits[1]


def only_kernel(model: bytes) -> Kernel:
    (kernel,) = state_kernels(Model.read(model).subgraphs[0])
    return kernel


def dtypes(kernel: Kernel) -> dict[str, str]:
    return {slot: str(kernel.subgraph.dtype(t)) for slot, t in kernel.operands.items()}


@pytest.mark.parametrize("variant", INTEGER)
def test_lstm_variant_in_integers(variant: str) -> None:
    options, attributes = INTEGER[variant]
    # every other one with a dynamic batch; initial states are fed to every third
    place = list(INTEGER).index(variant)
    graph = lstm_graph(
        lstm_weights(3, **options),
        batch=2 if place % 2 else None,
        attributes=attributes,
        results=ALL_RESULTS,
        fed_states=place % 3 == 0,
    )
    made = quantised(graph)
    assert not made.notes
    found = dtypes(only_kernel(made.tflite))
    assert found["input"] == found["output_state"] == found["input_to_cell_weights"] == "int8"
    assert found["cell_state"] == "int16"
    batches = (2, 2) if place % 2 else (2, 3, 1)
    check(made.tflite, graph, batches, USUAL)


@pytest.mark.parametrize("variant", FLOAT)
def test_lstm_variant_without_an_integer_kernel(variant: str) -> None:
    options, attributes = FLOAT[variant]
    graph = lstm_graph(lstm_weights(3, **options), attributes=attributes, results=ALL_RESULTS)
    made = quantised(graph)
    assert [note.text.split(":")[0] for note in made.notes] == [
        "stays in float arithmetic, with int8 weights"
    ]
    found = dtypes(only_kernel(made.tflite))
    assert found["input"] == found["output_state"] == "float32"
    assert found["input_to_cell_weights"] == "int8"
    check(made.tflite, graph, (2, 3), USUAL)


def test_rnn_stays_in_float_between_integer_layers() -> None:
    graph = rnn_graph(rnn_weights())
    made = quantised(graph)
    found = dtypes(only_kernel(made.tflite))
    assert found["input"] == "float32"
    assert found["input_weights"] == "int8"
    check(made.tflite, graph, (2, 3, 1), (1e-2, 0.1))


def two_layers(join: bool = False, activation: str = "TANH") -> FusedGraph:
    """Two LSTMs one after the other, or side by side and concatenated.

    Args:
        join: side by side.
        activation: of the first one.
    """
    tracer = Tracer()
    small = {
        k: v * (0.2 if join else 1.0) for k, v in lstm_weights(2, N_IN if join else N_CELL).items()
    }

    def model(x: Any) -> Mapping[str, Any]:
        (first,) = lstm_call(tracer, x, lstm_weights(1), attributes={"activation": activation})
        (second,) = lstm_call(tracer, x if join else first, small)
        return {"y": tf.concat([first, second], -1) if join else second}

    return tracer.graph(model, {"x": [STEPS, None, N_IN]})


def test_stacked_layers() -> None:
    graph = two_layers()
    made = quantised(graph)
    assert op_counts(made.tflite)[LSTM] == 2
    assert op_counts(made.tflite)["DEQUANTIZE"] == 1  # of the output
    check(made.tflite, graph, (2, 3), USUAL)


def test_layers_that_are_concatenated_have_one_scale() -> None:
    """The quantiser gives both outputs one scale, and the states must follow."""
    graph = two_layers(join=True)
    made = quantised(graph)
    main = Model.read(made.tflite).subgraphs[0]
    for kernel in state_kernels(main):
        output, state = kernel.op.outputs[0], kernel.states["output_state"]
        hidden = int(kernel.op.intermediates[4])
        scales = {float(main.tensor(t).quantization.scale[0]) for t in (output, state, hidden)}
        assert len(scales) == 1
    check(made.tflite, graph, (2, 3), USUAL)


def test_a_backward_layer_joined_to_a_forward_one() -> None:
    """The quantiser gives REVERSE_V2, which copies, another scale behind than before."""
    tracer = Tracer()
    weak = {slot: value * 0.3 for slot, value in lstm_weights(2).items()}

    def model(x: Any) -> Mapping[str, Any]:
        (ahead,) = lstm_call(tracer, x, lstm_weights(1))
        (back,) = lstm_call(tracer, tf.reverse(x, [0]), weak)
        return {"y": tf.concat([ahead, tf.reverse(back, [0])], -1)}

    graph = tracer.graph(model, {"x": [STEPS, None, N_IN]})
    made = quantised(graph)
    main = Model.read(made.tflite).subgraphs[0]
    for op in main.operators:
        if main.model.op_name(op) == "REVERSE_V2":
            scales = [main.tensor(t).quantization.scale[0] for t in (op.inputs[0], *op.outputs)]
            assert scales[0] == scales[1]
    check(made.tflite, graph, (2, 3), USUAL)


def test_an_input_that_is_joined_to_the_output() -> None:
    """The quantiser forgets the input's range before it looks at the kernel."""
    tracer = Tracer()

    def model(x: Any) -> Mapping[str, Any]:
        x = tf.nn.relu(x)
        (y,) = lstm_call(tracer, x, lstm_weights(1))
        return {"y": tf.concat([x, y], -1)}

    graph = tracer.graph(model, {"x": [STEPS, None, N_IN]})
    made = quantised(graph)
    found = dtypes(only_kernel(made.tflite))
    assert (found["output_state"], found["cell_state"]) == ("int8", "int16")
    assert "TRANSPOSE" not in op_counts(made.tflite)
    check(made.tflite, graph, (2, 3), USUAL)


def test_ranges_are_those_of_computed_initial_states() -> None:
    """A layer that starts from far beyond what it reaches by itself is not clipped."""
    tracer = Tracer()

    def model(x: Any) -> Mapping[str, Any]:
        start = tf.matmul(x[0], tf.ones([N_IN, N_CELL])) * 2.0
        states = {"output_state": tf.tanh(start), "cell_state": start}
        y, c = lstm_call(tracer, x, lstm_weights(1), ("output", "final_cell_state"), states=states)
        return {"y": y, "c": c}

    graph = tracer.graph(model, {"x": [STEPS, None, N_IN]})
    check(quantised(graph).tflite, graph, (2, 3), (2e-2, 0.15))


@pytest.mark.parametrize("op", ["matmul", "reverse"])
def test_operators_that_are_wrong_or_missing_in_int8_stay_float(op: str) -> None:
    def model(x: Any) -> Mapping[str, Any]:
        if op == "matmul":
            return {"y": tf.matmul(x, tf.nn.relu(x), transpose_b=True)}
        return {"y": tf.nn.relu(tf.reverse_sequence(x, tf.fill(tf.shape(x)[:1], 2), 1))}

    graph = Tracer().graph(model, {"x": [None, STEPS, N_IN]})
    made = quantised(graph)
    assert len(made.notes) == 1
    check(made.tflite, graph, (2, 3, 1), (5e-2, 0.3))


def test_a_projection_of_values_of_one_sign() -> None:
    """The kernel clips what it projects as if its zero point were negated."""
    weights = lstm_weights(3, projection=True)
    weights["cell_gate_bias"] = weights["cell_gate_bias"] + np.float32(3)
    graph = lstm_graph(weights, results=ALL_RESULTS)
    check(quantised(graph).tflite, graph, (2, 3), USUAL)


def counting_graph(steps: int) -> FusedGraph:
    """An LSTM whose cells grow by about one at each step."""
    weights = lstm_weights(3)
    for gate, bias in (("cell", 5), ("input", 5), ("forget", 12)):
        weights[f"{gate}_gate_bias"] = weights[f"{gate}_gate_bias"] + np.float32(bias)
    return lstm_graph(weights, steps=steps, results=ALL_RESULTS)


@pytest.mark.parametrize("steps", [40, 80])
def test_cell_states_that_grow(steps: int) -> None:
    """The kernel has no tanh of values beyond 64: with headroom up to there, in float behind it."""
    graph = counting_graph(steps)
    random = np.random.default_rng(0)
    given = [random.uniform(-1.5, 1.5, (steps, 2, N_IN)).astype(np.float32) for _ in range(5)]
    made = quantize_to_int8(
        test_legalize.converted(graph, quantize="int8"), [[value] for value in given]
    )
    assert [note.text for note in made.notes] == [
        "stays in float arithmetic, with int8 weights: the integer kernel cannot hold cell states "
        "beyond 64, and the samples reach 80"
    ] * (steps > 64)
    with Session(graph.graph_def) as session:
        expected = session.run({"x": given[0]}, graph.outputs)
    for runtime in RUNTIMES:
        found = Interpreter(made.tflite, runtime=runtime).run({"x": given[0]})
        for name, value in expected.items():
            close = 0.02 * max(1.0, float(np.abs(value).max()))
            np.testing.assert_allclose(found[name], value, rtol=0, atol=close)


def test_cell_state_of_small_values() -> None:
    """A cell state below 2**-15 a step would be garbage."""
    weights = {slot: value * 0.02 for slot, value in lstm_weights(3).items()}
    graph = lstm_graph(weights, results=ALL_RESULTS)
    made = quantised(graph)
    kernel = only_kernel(made.tflite)
    cell = kernel.subgraph.tensor(kernel.states["cell_state"])
    assert float(cell.quantization.scale[0]) >= 2.0**-15
    check(made.tflite, graph, (2,), (1e-3, 2e-3))


@pytest.mark.parametrize("batch", [None, 2])
def test_computed_initial_states(batch: int | None) -> None:
    """The states of one layer start another; both of a dynamic and of a fixed size."""
    tracer = Tracer()

    def model(x: Any) -> Mapping[str, Any]:
        y, h, c = lstm_call(tracer, x, lstm_weights(1), ("output", *ALL_RESULTS[::2][::-1]))
        (second,) = lstm_call(
            tracer, tf.nn.relu(x), lstm_weights(2), states={"output_state": h, "cell_state": c}
        )
        return {"y": y, "second": second, "c": c}

    graph = tracer.graph(model, {"x": [STEPS, batch, N_IN]})
    check(quantised(graph).tflite, graph, (2, 2) if batch else (2, 3, 1), USUAL)


def test_state_that_persists() -> None:
    graph = lstm_graph(lstm_weights(3), batch=2, results=ALL_RESULTS)
    halves = lstm_graph(lstm_weights(3), batch=2, results=ALL_RESULTS, fed_states=True)
    made = quantised(graph, state="persist")
    assert "FILL" not in op_counts(made.tflite)
    for runtime in RUNTIMES:
        interpreter = Interpreter(made.tflite, runtime=runtime)
        state = {"h0": np.zeros((2, N_CELL), np.float32), "c0": np.zeros((2, N_CELL), np.float32)}
        with Session(halves.graph_def) as session:
            for seed in range(4):
                feed = feeds(graph, 2, seed)
                expected = session.run({**feed, **state}, halves.outputs)
                for name, value in interpreter.run(feed).items():
                    np.testing.assert_allclose(value, expected[name], atol=0.05)
                state = {
                    "h0": expected["final_output_state"],
                    "c0": expected["final_cell_state"],
                }


@pytest.mark.parametrize("keep", [(), ("output",)])
def test_integer_inputs_and_outputs(keep: tuple[str, ...]) -> None:
    graph = lstm_graph(lstm_weights(3), results=ALL_RESULTS, fed_states=True)
    real, stored = (quantised(graph, io_dtype=io, keep_float=keep) for io in ("float32", "int8"))
    main = Model.read(stored.tflite).subgraphs[0]
    ends = [main.tensor(tensor) for tensor in (*main.graph.inputs, *main.graph.outputs)]
    assert {main.dtype(t) for t in (*main.graph.inputs, *main.graph.outputs)} == {np.dtype("int8")}
    scales = [(end.quantization.scale[0], end.quantization.zeroPoint[0]) for end in ends]
    assert op_counts(stored.tflite)["QUANTIZE"] <= op_counts(real.tflite)["QUANTIZE"] + 3
    feed = feeds(graph, 3, 0)
    given = {
        name: np.clip(np.rint(value / scale + zero), -128, 127).astype(np.int8)
        for (name, value), (scale, zero) in zip(feed.items(), scales, strict=False)
    }
    for runtime in RUNTIMES:
        expected = Interpreter(real.tflite, runtime=runtime).run(feed)
        got = Interpreter(stored.tflite, runtime=runtime).run(given)
        for (name, value), (scale, zero) in zip(got.items(), scales[3:], strict=True):
            plain = (value.astype(np.float32) - zero) * scale
            clipped = np.clip(expected[name], *((np.array([-128, 127]) - zero) * scale))
            np.testing.assert_allclose(plain, clipped, atol=2 * float(scale) + 1e-6)


def test_a_layer_that_is_kept_in_float() -> None:
    graph = two_layers()
    model = test_legalize.converted(graph, quantize="int8")
    first, second = (kernel.name for kernel in state_kernels(Model.read(model).subgraphs[0]))
    made = quantize_to_int8(model, samples(graph), keep_float=[second])
    kinds = [
        dtypes(kernel)["input"] for kernel in state_kernels(Model.read(made.tflite).subgraphs[0])
    ]
    assert kinds == ["int8", "float32"]
    weights = dtypes(list(state_kernels(Model.read(made.tflite).subgraphs[0]))[1])
    assert weights["input_to_cell_weights"] == "float32"
    check(made.tflite, graph, (2, 3), USUAL)
    with pytest.raises(HintcError, match=f"keep_float names '{first}x'.*Did you mean"):
        quantize_to_int8(model, samples(graph), keep_float=[f"{first}x"])


def test_names_that_begin_alike_are_told_apart() -> None:
    """The first layer has int8 weights, as no integer kernel does relu; the second was kept."""
    graph = two_layers(activation="RELU")
    model = Model.read(test_legalize.converted(graph, quantize="int8"))
    kernels = list(state_kernels(model.subgraphs[0]))
    for kernel, name in zip(kernels, (b"layer", b"layer_1"), strict=True):
        model.subgraphs[0].tensor(kernel.op.outputs[0]).name = name
    made = quantize_to_int8(model.write(), samples(graph), keep_float=["layer_1"])
    found = list(state_kernels(Model.read(made.tflite).subgraphs[0]))
    assert [dtypes(kernel)["input_to_cell_weights"] for kernel in found] == ["int8", "float32"]


def test_a_custom_operator_is_refused() -> None:
    tracer = Tracer()
    own = FusedOp.custom("MyOwn")

    def model(x: Any) -> Mapping[str, Any]:
        (y,) = tracer.call(own, [("input_0", x)], lambda v: (tf.sin(v),), ["output_0"])
        return {"y": tf.nn.relu(y)}

    graph = tracer.graph(model, {"x": [None, 3]})
    with pytest.raises(HintcError, match=r"custom operator 'MyOwn'.*no kernel.*'dynamic'"):
        quantised(graph)
