"""SVDF in integers, in models: keyword spotting on all runtimes, and what its kernel cannot do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import hintc
from hint_cases import build, x_placeholder
from hintc.ops import SVDF, svdf
from hintc.runtime.interpreter import Interpreter
from hintc.runtime.micro import MicroInterpreter
from hintc.runtime.session import Session
from hintc.tflite.flatbuffer import Model
from hintc.tflite.inspect import op_counts
from hintc.tflite.kernel import Kernel, state_kernels

N_IN, CLASSES, STEPS = 20, 4, 5
STREAM = 100
NEAR = 4 / 256
"""Between runtimes: steps of an int8 probability."""
RUNTIMES: dict[str, Callable[[bytes], Any]] = {
    "tflm": MicroInterpreter,
    "litert": lambda model: Interpreter(model, runtime="litert"),
    "tensorflow": lambda model: Interpreter(model, runtime="tensorflow"),
}


@dataclass(frozen=True)
class Layer:
    """An SVDF with random weights."""

    name: str
    n_in: int
    units: int
    rank: int
    memory: int
    activation: str
    has_bias: bool = True

    @property
    def attributes(self) -> dict[str, Any]:
        return {"rank": self.rank, "activation": self.activation}

    @property
    def weights(self) -> dict[str, Any]:
        random = np.random.default_rng(len(self.name) + self.units)
        filters = self.units * self.rank
        found = {
            "feature_weights": random.standard_normal((filters, self.n_in)) / self.n_in**0.5,
            "time_weights": random.standard_normal((filters, self.memory)) / self.memory**0.5,
            "bias": random.standard_normal(self.units) * 0.2,
        }
        slots = list(found) if self.has_bias else list(found)[:2]
        return {slot: found[slot].astype(np.float32) for slot in slots}

    def hinted(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        """The layer in TensorFlow's operators, in a hint: output and final state.

        Without a state it starts from zeros.
        """
        hint, filters = hintc.OpHint("SVDF", **self.attributes), self.units * self.rank

        def given(slot: str, value: Any) -> Any:
            return hint.add_input(value, index_override=SVDF.slot_names.index(slot))

        x = given("input", x)
        held = {slot: given(slot, tf.constant(value)) for slot, value in self.weights.items()}
        newest = tf.matmul(x, held["feature_weights"], transpose_b=True)[:, :, None]
        if state is None:
            window = tf.pad(newest, [[0, 0], [0, 0], [self.memory - 1, 0]])
        else:
            before = tf.reshape(given("state", state), [-1, filters, self.memory])
            window = tf.concat([before[:, :, 1:], newest], axis=2)
        answers = tf.reduce_sum(window * held["time_weights"], axis=2)
        units = tf.reduce_sum(tf.reshape(answers, [-1, self.units, self.rank]), axis=2)
        units = units + held["bias"] if self.has_bias else units
        functions = {"RELU": tf.nn.relu, "RELU6": tf.nn.relu6, "TANH": tf.tanh}
        y = functions.get(self.activation, tf.identity)(units)
        y = hint.add_output(y, index_override=0)
        if state is None:
            return y, None
        flat = tf.reshape(window, [-1, filters * self.memory])
        return y, hint.add_output(flat, index_override=1)


LAYERS = (
    Layer("first", N_IN, 24, 2, 8, "RELU"),
    Layer("second", 24, 16, 1, 6, "NONE", has_bias=False),
)
DENSE = np.random.default_rng(9).standard_normal((16, CLASSES)).astype(np.float32)


def classes(y: Any) -> Any:
    return tf.identity(tf.nn.softmax(tf.matmul(y, tf.constant(DENSE))), name="probs")


def frames(count: int, seed: int) -> Any:
    """Something like the spectrum of sounds: [count, N_IN], positive, its columns of all sizes."""
    random = np.random.default_rng(seed)
    tone = np.sin(np.cumsum(random.uniform(0, 0.4, (count, 1)), 0) + np.arange(N_IN) / 3)
    return (np.exp(tone) * (1 + 4 / (1 + np.arange(N_IN)))).astype(np.float32)


def streamed(stream: Any) -> Any:
    """What the layers make of frames that follow each other, in float: probabilities."""
    for layer in LAYERS:
        rows = []
        state: dict[str, Any] = {}
        for row in stream:
            operands = {"input": row[None], **layer.weights, **state}
            found = svdf.reference(operands, layer.attributes)
            rows.append(found["output"][0])
            state = {"state": found["final_state"]}
        stream = np.array(rows)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        return session.run(tf.nn.softmax(stream @ DENSE))


def spotter() -> None:
    """One frame at each invoke."""
    y = x_placeholder((1, N_IN))
    for layer in LAYERS:
        y, _ = layer.hinted(y)
    classes(y)


def test_keyword_spotting_of_a_stream() -> None:
    """A frame an invoke, states that go on; the same answers from all three runtimes."""
    converted = hintc.convert(
        build(spotter),
        ["x"],
        ["probs"],
        target="tflm",
        state="persist",
        quantize="int8",
        representative_dataset=lambda: ([frame[None]] for frame in frames(200, 1)),
    )
    assert not [r for r in converted.report.remarks if r.code == "stays-float"]
    found = converted.report.operators
    assert found["SVDF"] == 2
    stream = frames(STREAM, 2)
    wanted = streamed(stream)
    runs = {name: load(converted.tflite) for name, load in RUNTIMES.items()}
    answers = {
        name: np.array([run.run([row[None]])["probs"][0] for row in stream])
        for name, run in runs.items()
    }
    for answer in answers.values():
        assert np.abs(answer - wanted).mean() < 0.02
        assert (answer.argmax(1) == wanted.argmax(1)).mean() > 0.9
        # the kernels of the dense layer round differently
        np.testing.assert_allclose(answer, answers["tflm"], atol=NEAR)


def sequence() -> None:
    """Several frames at each invoke, each layer's state handed from one step to the next."""
    x = x_placeholder((1, STEPS, N_IN))
    rows = tf.unstack(x, axis=1)
    for layer in LAYERS:
        state = tf.zeros([1, layer.units * layer.rank * layer.memory])
        for step, row in enumerate(rows):
            rows[step], state = layer.hinted(row, state)
    classes(rows[-1])


def test_states_from_step_to_step_on_all_runtimes() -> None:
    samples = [[frames(STEPS, seed)[None]] for seed in range(60)]
    converted = hintc.convert(
        build(sequence),
        ["x"],
        ["probs"],
        target="tflm",
        quantize="int8",
        representative_dataset=lambda: samples,
        check=True,
    )
    assert converted.report.operators["SVDF"] == len(LAYERS) * STEPS
    assert converted.report.cost is not None
    cost = converted.report.cost.outputs["probs"]
    assert cost.mean < 0.01
    assert cost.top_1 is not None
    assert cost.top_1 > 0.9
    runs = [load(converted.tflite) for load in RUNTIMES.values()]
    for sample in samples[-3:]:
        first, *others = [run.run(sample)["probs"] for run in runs]
        for other in others:
            np.testing.assert_allclose(other, first, atol=NEAR)


# -- what the kernel does not do ---------------------------------------------------------------


def converted(make: Callable[[], None], **options: Any) -> tuple[Any, Any, Any]:
    """A model x [?, 4] to y in integers, and what it and TensorFlow give of held-out inputs."""
    graph_def = build(make)
    random = np.random.default_rng(0)
    samples = [[random.uniform(-2, 2, (4, 4)).astype(np.float32)] for _ in range(40)]
    made = hintc.convert(
        graph_def,
        ["x"],
        ["y"],
        quantize="int8",
        representative_dataset=lambda: samples,
        check=True,
        **options,
    )
    with Session(graph_def) as session:
        wanted = session.run({"x": samples[0][0]}, ["y"])["y"]
    return made, Interpreter(made.tflite).run(samples[0])["y"], wanted


def small(activation: str, **changes: Any) -> Layer:
    return Layer(**{**SMALL, "activation": activation, **changes})


SMALL: dict[str, Any] = {"name": "small", "n_in": 4, "units": 6, "rank": 1, "memory": 3}


def kernels(made: Any) -> list[Kernel]:
    return list(state_kernels(Model.read(made.tflite).subgraphs[0]))


@pytest.mark.parametrize("activation", ["RELU", "RELU6"])
def test_relu_beside_negative_values(activation: str) -> None:
    """The quantiser gives both one scale, whose zero point cuts off nothing below zero."""

    def make() -> None:
        x = x_placeholder() * 20.0
        y, _ = small(activation).hinted(x)
        tf.concat([y, 3.0 * tf.tanh(x) - 20.0], 1, name="y")

    made, found, wanted = converted(make)
    (kernel,) = kernels(made)
    scales = kernel.subgraph.tensor(kernel.op.outputs[0]).quantization
    assert list(scales.zeroPoint) == [-128]
    assert wanted[:, :6].min() == 0
    np.testing.assert_allclose(found, wanted, atol=0.3)
    assert found[:, :6].min() >= -1e-6
    if activation == "RELU6":
        assert (wanted[:, :6] == 6).any()
        assert found[:, :6].max() < 6.1


@pytest.mark.parametrize("activation", ["RELU", "RELU6", "NONE", "TANH"])
def test_values_beyond_the_samples(activation: str) -> None:
    """They are cut off at the limits of the samples' range, as any int8 value, and come back."""

    def make() -> None:
        y, _ = small(activation).hinted(x_placeholder())
        tf.identity(y, "y")

    made, _, _ = converted(make)
    graph_def = build(make)
    far = np.full((2, 4), 2, np.float32) * [[1], [-1]] * 50
    near = far / 50
    run = Interpreter(made.tflite)
    with Session(graph_def) as session:
        wanted = session.run({"x": near.astype(np.float32)}, ["y"])["y"]
    np.testing.assert_allclose(run.run([far.astype(np.float32)])["y"], wanted, atol=0.5)
    np.testing.assert_allclose(run.run([near.astype(np.float32)])["y"], wanted, atol=0.1)


def test_a_bias_that_two_layers_share() -> None:
    """Each has its own scale of it."""

    def make() -> None:
        x = x_placeholder()
        first, _ = small("RELU").hinted(x)
        second, _ = small("RELU").hinted(x * 0.01)
        tf.concat([first, second], 1, name="y")

    _, found, wanted = converted(make)
    np.testing.assert_allclose(found, wanted, atol=0.05)


def timed(layer: Layer, times: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the layer these time weights, [memory] for all filters, and positive features."""
    weights = layer.weights
    weights["time_weights"] = np.tile(np.float32(times), (layer.units, 1))
    weights["feature_weights"] = np.abs(weights["feature_weights"])
    monkeypatch.setattr(Layer, "weights", property(lambda self: weights))


def test_zero_weights_stay_in_float(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = small("NONE")
    timed(layer, np.zeros(3), monkeypatch)
    made, found, wanted = converted(lambda: tf.identity(layer.hinted(x_placeholder())[0], "y"))
    (remark,) = [r for r in made.report.remarks if r.code == "stays-float"]
    assert "time_weights are zero" in remark.reason
    np.testing.assert_allclose(found, wanted, atol=0.01)


def test_floats_on_tflite_micro(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no int8 weights of float kernels, and crashes without a bias."""
    layer = small("RELU", memory=300, has_bias=False)
    timed(layer, np.ones(300), monkeypatch)

    def make() -> None:
        tf.identity(layer.hinted(x_placeholder((1, 4)))[0], "y")

    rows = [[np.random.default_rng(n).uniform(-2, 2, (1, 4)).astype("f4")] for n in range(20)]
    made = hintc.convert(
        build(make),
        ["x"],
        ["y"],
        target="tflm",
        quantize="int8",
        representative_dataset=lambda: rows,
    )
    (remark,) = [r for r in made.report.remarks if r.code == "stays-float"]
    assert "keeps its float32 weights" in remark.reason
    found = MicroInterpreter(made.tflite).run(rows[0])["y"]
    wanted = svdf.reference({"input": rows[0][0], **layer.weights}, layer.attributes)["output"]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(("memory", "fits"), [(300, False), (300, True), (60, True)])
def test_sums_that_fit_in_32_bits(memory: int, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All inputs at their limit until the memory is full; what counts is the weights' sum.

    The kernel itself gives 0 instead of 939 with the 300 ones, on all runtimes.
    """
    layer = small("RELU", memory=memory)
    times = np.exp(-np.arange(memory) / 50) if memory == 300 and fits else np.ones(memory)
    timed(layer, times, monkeypatch)

    def make() -> None:
        tf.identity(layer.hinted(x_placeholder((1, 4)))[0], "y")

    row = np.full((1, 4), 2, np.float32)
    made = hintc.convert(
        build(make),
        ["x"],
        ["y"],
        quantize="int8",
        state="persist",
        representative_dataset=lambda: [[row]] * (2 * memory),
    )
    said = [r.reason for r in made.report.remarks if r.code == "stays-float"]
    assert len(said) == (not fits)
    assert all("sums of 300 products might not fit in 32 bits" in text for text in said)
    run = Interpreter(made.tflite)
    for _ in range(memory):
        found = run.run([row])["y"]
    weights = layer.weights
    wanted = weights["feature_weights"].sum(1) * 2 * times.sum() + weights["bias"]
    np.testing.assert_allclose(found[0], wanted, rtol=0, atol=0.01 * wanted.max())


def test_a_bias_that_is_large_beside_what_is_weighed() -> None:
    """A state of the inputs' own scale would leave no room for it in 32 bits."""

    def make() -> None:
        y, _ = small("NONE").hinted(x_placeholder() * 1e-4)
        tf.identity(y, "y")

    made, found, wanted = converted(make)
    (kernel,) = kernels(made)
    bias = kernel.subgraph.constant(kernel.operands["bias"])
    assert bias is not None
    assert np.abs(bias.astype(np.int64)).max() <= 2**30 + 1
    np.testing.assert_allclose(found, wanted, atol=0.01)


def test_a_layer_that_is_kept_in_float() -> None:
    def make() -> None:
        y, _ = small("TANH").hinted(x_placeholder())
        tf.identity(y, "y")

    made, found, wanted = converted(make, keep_float=["y"])
    (kernel,) = kernels(made)
    assert kernel.subgraph.dtype(kernel.operands["time_weights"]) == np.float32
    assert op_counts(made.tflite)["TANH"] == 0
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_an_input_that_is_joined_to_the_output() -> None:
    """The quantiser forgets the input's range before it looks at the kernel."""

    def make() -> None:
        x = x_placeholder() * 3.0
        y, _ = small("NONE").hinted(x)
        tf.concat([x, y], 1, name="y")

    made, found, wanted = converted(make)
    (kernel,) = kernels(made)
    assert kernel.subgraph.dtype(kernel.states["state"]) == np.int16
    assert "TRANSPOSE" not in op_counts(made.tflite)
    np.testing.assert_allclose(found, wanted, atol=0.1)


def test_steep_tanh() -> None:
    """Where it is as good as 1 takes no steps of int8 away from where it is not."""

    def make() -> None:
        y, _ = small("TANH").hinted(x_placeholder() * 50.0)
        tf.identity(y, "y")

    made, _, _ = converted(make)
    assert made.report.cost.outputs["y"].mean < 0.01
