"""quantize="int8" from a source to a model: samples, what stays float, the report, the CLI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest

import hintc
from hintc.runtime.interpreter import Interpreter, RuntimeName
from hintc.tflite.flatbuffer import Model
from hintc.tflite.inspect import op_counts
from hintc.tflite.kernel import state_kernels

LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"
RNN = "UNIDIRECTIONAL_SEQUENCE_RNN"
RUNTIMES: tuple[RuntimeName, ...] = ("litert", "tensorflow")
STEPS, WIDTH, CLASSES, WORDS = 6, 5, 4, 20
layers = keras.layers
WIDE = keras.initializers.RandomUniform(-2, 2, seed=1)


def model_of(*stack: Any, shape: tuple[int, ...] = (STEPS, WIDTH), dtype: str = "float32") -> Any:
    """Layers, and a dense layer of probabilities called ``probs``."""
    keras.utils.set_random_seed(5)
    x = keras.Input(shape, name="x", dtype=dtype)
    y = x
    for layer in stack:
        y = layer(y)
    return keras.Model(x, layers.Dense(CLASSES, activation="softmax", name="probs")(y))


def sample(model: Any, seed: int, batch: int = 1) -> list[Any]:
    """Values for the inputs: numbers in ±2, or words."""
    random = np.random.default_rng(seed)
    found = []
    for tensor in model.inputs:
        shape = (batch, *tensor.shape[1:])
        words = tensor.dtype.startswith("int")
        value = random.integers(0, WORDS, shape) if words else random.uniform(-2, 2, shape)
        found.append(value.astype(tensor.dtype))
    return found


def samples(model: Any, count: int = 40) -> Callable[[], Iterator[list[Any]]]:
    return lambda: (sample(model, 1000 + number) for number in range(count))


def int8(model: Any, **options: Any) -> Any:
    given = {"representative_dataset": samples(model), **options}
    return hintc.convert(model, quantize="int8", **given)


def check(model: Any, tflite: bytes, atol: float = 0.03) -> None:
    """Against Keras: both runtimes, two batch sizes on one instance, two invokes."""
    for runtime in RUNTIMES:
        interpreter = Interpreter(tflite, runtime=runtime)
        for seed, batch in enumerate((3, 1, 2)):
            feed = sample(model, seed, batch)
            expected = [np.asarray(e) for e in keras.tree.flatten(model(feed))]
            for _ in range(2):
                got = list(interpreter.run(feed).values())
                for a, b in zip(expected, got, strict=True):
                    np.testing.assert_allclose(b, a, atol=atol)


MODELS: dict[str, tuple[Callable[[], Any], dict[str, int], tuple[str, ...]]] = {
    "conv front": (
        lambda: model_of(layers.Conv1D(6, 3, activation="relu"), layers.LSTM(8)),
        {LSTM: 1, "CONV_2D": 1},
        (),
    ),
    "embedding front": (
        lambda: model_of(
            layers.Embedding(WORDS, 6, WIDE), layers.LSTM(8), shape=(STEPS,), dtype="int32"
        ),
        {LSTM: 1, "GATHER": 1},
        (),
    ),
    "bidirectional": (
        lambda: model_of(
            layers.Bidirectional(layers.LSTM(8, return_sequences=True)), layers.Flatten()
        ),
        {LSTM: 2, "BIDIRECTIONAL_SEQUENCE_LSTM": 0},
        ("bidirectional-not-joined",),
    ),
    "rnn between": (
        lambda: model_of(layers.LSTM(8, return_sequences=True), layers.SimpleRNN(7, name="rnn")),
        {LSTM: 1, RNN: 1},
        ("stays-float",),
    ),
    "gru and lstm": (
        lambda: model_of(layers.GRU(7, return_sequences=True), layers.LSTM(8)),
        {LSTM: 1, "WHILE": 1},
        (),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str) -> None:
    make, counts, codes = MODELS[name]
    model = make()
    made = int8(model)
    found = op_counts(made.tflite)
    assert {op: found[op] for op in counts} == counts
    said = [r for r in made.report.remarks if r.code in ("stays-float", "bidirectional-not-joined")]
    assert tuple(r.code for r in said) == codes
    assert all("_1/" in r.node or "/" in r.node for r in said)  # the layer's path
    check(model, made.tflite)
    cost = made.report.cost.outputs["probs"]
    assert 0 < cost.mean < 0.01
    assert cost.top_1 is not None
    assert cost.top_1 > 0.8
    assert (made.report.cost.feeds, made.report.cost.measured_on) == (8, "held-out samples")


def seq2seq() -> Any:
    """Inputs ``words`` and ``x``; outputs probabilities and the encoder's final c."""
    keras.utils.set_random_seed(6)
    words = keras.Input((4,), name="words", dtype="int32")
    x = keras.Input((STEPS, WIDTH), name="x")
    _, h, c = layers.LSTM(8, return_state=True, name="encoder")(layers.Embedding(WORDS, 6)(words))
    y = layers.LSTM(8, return_sequences=True, name="decoder")(x, initial_state=[h, c])
    return keras.Model([words, x], [layers.Dense(CLASSES, "softmax", name="probs")(y), c])


@pytest.fixture(scope="module")
def translated() -> tuple[Any, Any]:
    model = seq2seq()

    def by_name() -> Iterator[dict[str, Any]]:
        for words, x in samples(model)():
            yield {"x": x, "words": words}

    return model, int8(model, representative_dataset=by_name)


def test_states_from_one_layer_to_another(translated: tuple[Any, Any]) -> None:
    model, made = translated
    assert op_counts(made.tflite)[LSTM] == 2
    check(model, made.tflite, atol=0.05)


def test_names_and_signature_are_kept(translated: tuple[Any, Any]) -> None:
    model, made = translated
    plain = Interpreter(hintc.convert(model).tflite)
    quantised = Interpreter(made.tflite)
    assert quantised.inputs == plain.inputs
    assert quantised.outputs == plain.outputs
    (signature,) = Model.read(made.tflite).root.signatureDefs
    assert [entry.name for entry in signature.inputs] == [b"words", b"x"]


def test_integer_ends(translated: tuple[Any, Any]) -> None:
    model, _ = translated
    made = int8(model, io_dtype="int8")
    ends = Interpreter(made.tflite)
    assert [str(end.dtype) for end in ends.inputs] == ["int32", "int8"]
    assert {str(end.dtype) for end in ends.outputs} == {"int8"}
    # what it costs is measured on real values, on both sides
    assert made.report.cost.outputs["probs"].mean < 0.01


@pytest.mark.parametrize("keep", ["decoder", "probs"])
def test_a_layer_is_kept_float(translated: tuple[Any, Any], keep: str) -> None:
    model, _ = translated
    made = int8(model, keep_float=[keep])
    main = Model.read(made.tflite).subgraphs[0]
    encoder, decoder = (
        str(main.dtype(kernel.operands["input_to_cell_weights"])) for kernel in state_kernels(main)
    )
    assert encoder == "int8"
    assert decoder == ("float32" if keep == "decoder" else "int8")
    dense = [op for op in main.operators if main.model.op_name(op) == "FULLY_CONNECTED"]
    kinds = {str(main.dtype(op.inputs[1])) for op in dense}
    assert kinds == {"float32" if keep == "probs" else "int8"}
    (softmax,) = (op for op in main.operators if main.model.op_name(op) == "SOFTMAX")
    assert main.dtype(softmax.outputs[0]) == ("float32" if keep == "probs" else "int8")
    check(model, made.tflite, atol=0.05)


@pytest.mark.parametrize("form", ["while", "unroll"])
def test_other_forms(form: Any) -> None:
    model = model_of(layers.LSTM(6))
    made = int8(model, form=form)
    assert op_counts(made.tflite)[LSTM] == 0
    check(model, made.tflite)


@pytest.mark.parametrize("form", ["while", "unroll"])
@pytest.mark.parametrize("layer", [layers.LSTM, layers.GRU])
def test_a_loop_is_kept_float(layer: Any, form: Any) -> None:
    """Nothing in the layer goes through int8: the gates are parts of one product, too."""
    keras.utils.set_random_seed(3)
    x = keras.Input((6, WIDTH), name="x")
    model = keras.Model(x, layer(8, name="kept")(x))
    made = int8(model, form=form, keep_float=["kept"])
    assert "DEQUANTIZE" not in op_counts(made.tflite)
    values = np.random.default_rng(1).uniform(-2, 2, (3, 6, WIDTH)).astype(np.float32)
    for runtime in RUNTIMES:
        (got,) = Interpreter(made.tflite, runtime=runtime).run([values]).values()
        np.testing.assert_allclose(got, model(values), atol=1e-6)


def test_one_of_two_loops_is_kept_float() -> None:
    """Operators in their bodies have the same names."""
    model = model_of(layers.LSTM(6, return_sequences=True, name="one"), layers.LSTM(6, name="two"))
    made = Model.read(int8(model, form="while", keep_float=["two"]).tflite)
    kinds = {
        subgraph.name.split("/")[1]: str(subgraph.dtype(op.outputs[0]))
        for subgraph, op in made.operators()
        if made.op_name(op) == "SPLIT"
    }
    assert {name.partition("_")[0]: kind for name, kind in kinds.items()} == {
        "one": "int8",
        "two": "float32",
    }


def test_a_state_that_persists() -> None:
    """Steps fed in two halves give what they give at once."""
    keras.utils.set_random_seed(5)
    half, whole = (keras.Input((n, WIDTH), batch_size=1, name="x") for n in (3, 6))
    lstm = layers.LSTM(8, return_sequences=True)
    model, at_once = keras.Model(half, lstm(half)), keras.Model(whole, lstm(whole))
    made = int8(model, state="persist")
    x = np.random.default_rng(1).uniform(-2, 2, (1, 6, WIDTH)).astype(np.float32)
    for runtime in RUNTIMES:
        interpreter = Interpreter(made.tflite, runtime=runtime)
        got = [next(iter(interpreter.run([part]).values())) for part in (x[:, :3], x[:, 3:])]
        np.testing.assert_allclose(np.concatenate(got, 1), at_once(x), atol=0.03)
