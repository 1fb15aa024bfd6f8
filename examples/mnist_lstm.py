"""The classic two-layer LSTM digit classifier, from training to a fused, quantised .tflite.

Trains on scikit-learn's handwritten digits (8x8 pixels, enlarged to 28x28) or on the real MNIST
file, converts with hintc, runs the results in the interpreter and prints one table.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import hintc
from hintc.runtime.interpreter import Interpreter
from hintc.runtime.session import Session
from hintc.tflite.inspect import op_counts

INFORMATION = re.compile(r"I\d{4} |INFO: |WARNING: All log messages before absl")


@contextmanager
def standard_error_to(file: Any) -> Iterator[None]:
    """Sends what C++ code writes to standard error into an open file."""
    sys.stderr.flush()
    saved = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)


@contextmanager
def without_information() -> Iterator[None]:
    """Drops the lines of C++ logs that only inform; warnings and errors come through."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
        try:
            with standard_error_to(file):
                yield
        finally:
            file.seek(0)
            sys.stderr.writelines(line for line in file if not INFORMATION.match(line))


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with without_information():
    import tensorflow as tf
    import tf_keras

v1 = tf.compat.v1

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

SIDE = 28
CLASSES = 10
BATCH = 64
INPUT = "image"
OUTPUT = "probabilities"
FUSED = "UNIDIRECTIONAL_SEQUENCE_LSTM"
FLOAT_TOLERANCE = 1e-5
# Of the mean: int8 weights move an image that the model cannot decide on by more than that, and
# rounding the weights alone, in TensorFlow, moves it as far.
DYNAMIC_TOLERANCE = 5e-3
FLOAT16_TOLERANCE = 5e-3
# Of the mean again: here activations are rounded to 8 bits too, over 28 steps and two layers.
INTEGER_TOLERANCE = 2e-2
ACCURACY_TOLERANCE = 0.01
INTEGER_ACCURACY_TOLERANCE = 0.02
CALIBRATION = 200


@dataclass(frozen=True)
class Digits:
    """Images [n, 28, 28] in 0..1 with their labels [n], split into training and test."""

    name: str
    train_images: Floats
    train_labels: Integers
    test_images: Floats
    test_labels: Integers


@dataclass(frozen=True)
class Promise:
    """What a converted model has to keep: errors against TensorFlow, loss of accuracy."""

    name: str
    file: str
    largest: float = float("inf")
    mean: float = float("inf")
    accuracy: float = ACCURACY_TOLERANCE


PROMISES: Mapping[str | None, Promise] = {
    None: Promise("float", "mnist_lstm.tflite", largest=FLOAT_TOLERANCE),
    "dynamic": Promise("int8 weights", "mnist_lstm_dynamic.tflite", mean=DYNAMIC_TOLERANCE),
    "float16": Promise("float16 weights", "mnist_lstm_float16.tflite", largest=FLOAT16_TOLERANCE),
    "int8": Promise(
        "full int8",
        "mnist_lstm_int8.tflite",
        mean=INTEGER_TOLERANCE,
        accuracy=INTEGER_ACCURACY_TOLERANCE,
    ),
}


@dataclass(frozen=True)
class Row:
    """One line of the final table."""

    name: str
    accuracy: float | None = None
    largest: float | None = None
    mean: float | None = None
    size: int | None = None
    nodes: int | None = None
    contents: str = ""
    counts: Counter[str] = field(default_factory=Counter)


# --- data ----------------------------------------------------------------------------------------


def load_digits() -> Digits:
    """1,797 digits of scikit-learn, enlarged to 28x28; every fifth is kept for the test."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    images = enlarge(np.asarray(bunch.images, np.float32) / 16.0)
    labels = np.asarray(bunch.target, np.int64)
    test = np.arange(len(labels)) % 5 == 0
    name = "digits (8x8 enlarged to 28x28)"
    return Digits(name, images[~test], labels[~test], images[test], labels[test])


def load_mnist(path: Path) -> Digits:
    """The `mnist.npz` that Keras distributes."""
    with np.load(path) as arrays:
        return Digits(
            "MNIST",
            arrays["x_train"].astype(np.float32) / 255.0,
            arrays["y_train"].astype(np.int64),
            arrays["x_test"].astype(np.float32) / 255.0,
            arrays["y_test"].astype(np.int64),
        )


def enlarge(images: Floats) -> Floats:
    """Bilinear interpolation of square images [n, side, side] to [n, 28, 28]."""
    side = images.shape[1]
    at = np.clip((np.arange(SIDE) + 0.5) * side / SIDE - 0.5, 0, side - 1)
    weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(side))).astype(np.float32)
    enlarged: Floats = np.einsum("ai,nij,bj->nab", weights, images, weights).astype(np.float32)
    return enlarged


# --- the model -----------------------------------------------------------------------------------


def build(units: int) -> tuple[Any, Any, Any]:
    """Builds the classifier in the default graph: an image is a sequence of 28 rows.

    Args:
        units: width of each of the two LSTM layers.

    Returns:
        Images [batch, 28, 28], logits and probabilities [batch, 10], all float32.
    """
    images = v1.placeholder(tf.float32, [None, SIDE, SIDE], INPUT)
    cells = tf_keras.layers.StackedRNNCells(
        [hintc.TFLiteLSTMCell(units, name=f"lstm_{layer}") for layer in (1, 2)]
    )
    rows = tf.transpose(images, [1, 0, 2])  # time first
    outputs, _ = hintc.dynamic_rnn(cells, rows, dtype=tf.float32)
    weights = v1.get_variable("weights", [units, CLASSES])
    bias = v1.get_variable("bias", [CLASSES], initializer=v1.zeros_initializer())
    logits = tf.matmul(outputs[-1], weights) + bias
    return images, logits, tf.nn.softmax(logits, name=OUTPUT)


def train(digits: Digits, checkpoint: Path, *, units: int, epochs: int, seed: int) -> None:
    """Trains with Adam and writes the variables to `checkpoint`."""
    with tf.Graph().as_default(), v1.Session() as session:
        v1.set_random_seed(seed)
        images, logits, _ = build(units)
        labels = v1.placeholder(tf.int64, [None], "label")
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        loss = tf.reduce_mean(losses)
        step = v1.train.AdamOptimizer(0.003).minimize(loss)
        session.run(v1.global_variables_initializer())
        with progress() as bar:
            task = bar.add_task("training", total=epochs, loss=float("nan"))
            for chosen in epochs_of_batches(len(digits.train_labels), epochs, seed):
                values = [
                    session.run(
                        [loss, step],
                        {images: digits.train_images[i], labels: digits.train_labels[i]},
                    )[0]
                    for i in chosen
                ]
                bar.update(task, advance=1, loss=float(np.mean(values)))
        v1.train.Saver().save(session, str(checkpoint))


def epochs_of_batches(count: int, epochs: int, seed: int) -> Iterator[list[Integers]]:
    """For each epoch the indices of its batches, shuffled; a short last batch is left out."""
    random = np.random.default_rng(seed)
    for _ in range(epochs):
        order = random.permutation(count)
        yield [order[at : at + BATCH] for at in range(0, count - BATCH + 1, BATCH)]


def progress() -> Progress:
    """A progress bar that shows the loss."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs, loss {task.fields[loss]:.4f},"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def export(checkpoint: Path, units: int) -> Any:
    """Rebuilds the graph for inference, restores the variables and freezes them.

    Returns:
        The frozen GraphDef, hints included.
    """
    with tf.Graph().as_default() as graph, v1.Session() as session:
        build(units)
        v1.train.Saver().restore(session, str(checkpoint))
        graph_def = graph.as_graph_def()
        # Without the hinted outputs here, freezing would drop those that nobody reads.
        kept = [OUTPUT, *hintc.find_all_hinted_output_nodes(session)]
        return v1.graph_util.convert_variables_to_constants(session, graph_def, kept)


# --- what came out -------------------------------------------------------------------------------


def accuracy(probabilities: Floats, labels: Integers) -> float:
    """Share of images whose most probable class is their label."""
    return float(np.mean(probabilities.argmax(axis=1) == labels))


def run_tensorflow(graph_def: Any, images: Floats) -> Floats:
    """Probabilities [n, 10] from a TensorFlow session."""
    with Session(graph_def) as session:
        return np.asarray(session.run({INPUT: images}, [OUTPUT])[OUTPUT], np.float32)


def run_tflite(tflite: bytes, images: Floats) -> Floats:
    """Probabilities [n, 10] from the interpreter, asked twice and in several batch sizes."""
    with without_information():
        interpreter = Interpreter(tflite)

        def probabilities(batch: Floats) -> Floats:
            return np.asarray(interpreter.run([batch])[OUTPUT], np.float32)

        together = probabilities(images)
        again = probabilities(images)
        parts = {size: probabilities(images[:size]) for size in (1, 7)}
    if not np.array_equal(together, again):
        raise click.ClickException("two invokes of the model differ: it keeps state")
    for size, part in parts.items():
        if np.abs(part - together[:size]).max() > FLOAT_TOLERANCE:
            raise click.ClickException(f"in a batch of {size} the answer is another one")
    return together


def stock_converter_says(graph_def: Any, log: Path) -> str:
    """What TensorFlow's own converter makes of the same graph, in one line."""
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        images = graph.get_tensor_by_name(f"{INPUT}:0")
        output = graph.get_tensor_by_name(f"{OUTPUT}:0")
        converter = v1.lite.TFLiteConverter(graph_def, [images], [output])
        try:
            with log.open("wb") as file, standard_error_to(file):
                tflite = bytes(converter.convert())
        except Exception as error:  # noqa: BLE001 (the converter raises several families)
            return f"fails: {first_telling_line(str(error))}"
    return contents(op_counts(tflite))


def first_telling_line(message: str) -> str:
    """The first line of an error message that states an error, else the first line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    telling = [line.partition("error: ")[2] for line in lines if "error: " in line]
    return re.sub(r"^loc\(.*?\): ", "", (telling or lines or ["no message"])[0])


def contents(counts: Mapping[str, int]) -> str:
    """What a model is made of, e.g. ``2 x UNIDIRECTIONAL_SEQUENCE_LSTM, SOFTMAX``."""
    ordered = sorted(counts, key=lambda name: (name != FUSED, name))
    return ", ".join(f"{counts[name]} x {name}" if counts[name] > 1 else name for name in ordered)


def node_counts(graph_def: Any) -> Counter[str]:
    """How often each op occurs in a graph, bodies of loops included."""
    bodies = (function.node_def for function in graph_def.library.function)
    return Counter(node.op for nodes in (graph_def.node, *bodies) for node in nodes)


def table(title: str, rows: list[Row]) -> Table:
    """The rows as a table for the terminal."""
    made = Table(title=title, title_justify="left")
    made.add_column("model", no_wrap=True)
    made.add_column("accuracy", justify="right")
    made.add_column("largest error", justify="right")
    made.add_column("mean error", justify="right")
    made.add_column("bytes", justify="right")
    made.add_column("nodes", justify="right")
    for row in rows:
        made.add_row(
            row.name,
            "" if row.accuracy is None else f"{row.accuracy:.2%}",
            "" if row.largest is None else f"{row.largest:.1e}",
            "" if row.mean is None else f"{row.mean:.1e}",
            "" if row.size is None else f"{row.size:,}",
            "" if row.nodes is None else f"{row.nodes}",
        )
    return made


def measure(name: str, tflite: bytes, expected: Floats, digits: Digits) -> Row:
    """Runs a model on the test images and compares it with what TensorFlow gave."""
    got = run_tflite(tflite, digits.test_images)
    errors = np.abs(got - expected).max(axis=1)
    return Row(
        name,
        accuracy(got, digits.test_labels),
        float(errors.max()),
        float(errors.mean()),
        len(tflite),
        op_counts(tflite).total(),
        contents(op_counts(tflite)),
        op_counts(tflite),
    )


def check(row: Row, reference: Row, promise: Promise) -> None:
    """Stops with an error if a converted model is not what this example promises."""
    counts = row.counts
    others = [name for name in counts if name == "WHILE" or name.startswith(("CUSTOM", "Flex"))]
    if counts[FUSED] != 2 or others:
        raise click.ClickException(f"{row.name}: expected 2 x {FUSED}, got {row.contents}")
    for what, error, most in (
        ("largest error", row.largest, promise.largest),
        ("mean error", row.mean, promise.mean),
        (
            "loss of accuracy",
            abs((row.accuracy or 0) - (reference.accuracy or 0)),
            promise.accuracy,
        ),
    ):
        if error is None or not error <= most:
            raise click.ClickException(f"{row.name}: the {what}, {error}, is above {most}")


# --- the command ---------------------------------------------------------------------------------


def convert_all(graph_def: Any, digits: Digits, out: Path) -> list[Row]:
    """Converts float and quantised, measures all against TensorFlow, and the stock converter."""
    expected = run_tensorflow(graph_def, digits.test_images)
    counts = node_counts(graph_def)
    reference = Row(
        "TensorFlow, frozen",
        accuracy(expected, digits.test_labels),
        size=graph_def.ByteSize(),
        nodes=counts.total(),
        contents=contents(dict(counts.most_common(8))) + ", ...",
    )
    rows = [reference]
    for quantize, promise in PROMISES.items():
        result = hintc.convert(graph_def, [INPUT], [OUTPUT], **options(quantize, digits, out))
        result.save(out / promise.file)
        rows.append(measure(f"hintc, {promise.name}", result.tflite, expected, digits))
        check(rows[-1], reference, promise)
    said = stock_converter_says(graph_def, out / "stock_converter.log")
    return [*rows, Row("stock converter", contents=said)]


def options(quantize: str | None, digits: Digits, out: Path) -> dict[str, Any]:
    """What `hintc.convert` is given beside the model."""
    if quantize is None:
        return {"instruments": [hintc.Dump(out / "passes")]}
    if quantize != "int8":
        return {"quantize": quantize}
    return {
        "quantize": "int8",
        "representative_dataset": lambda: (
            [image[None]] for image in digits.train_images[:CALIBRATION]
        ),
    }


@click.command(help=__doc__)
@click.option("--epochs", default=20, show_default=True, help="Passes over the training images.")
@click.option(
    "--data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Keras' mnist.npz; default: scikit-learn's digits.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/demo"),
    show_default=True,
    help="Folder for models, checkpoints and pictures.",
)
@click.option("--units", default=64, show_default=True, help="Width of each LSTM layer.")
@click.option("--seed", default=1, show_default=True, help="Seed of weights and batches.")
def main(epochs: int, data: Path | None, out: Path, units: int, seed: int) -> None:
    """Runs everything; its help is the module's docstring."""
    tf.get_logger().setLevel("ERROR")
    out.mkdir(parents=True, exist_ok=True)
    digits = load_mnist(data) if data else load_digits()
    console = Console()
    console.print(f"{digits.name}: {len(digits.train_labels)} images to train", highlight=False)
    checkpoint = out / "checkpoint" / "model"
    train(digits, checkpoint, units=units, epochs=epochs, seed=seed)
    graph_def = export(checkpoint, units)
    (out / "frozen.pb").write_bytes(graph_def.SerializeToString(deterministic=True))
    rows = convert_all(graph_def, digits, out)
    title = f"{digits.name}, {len(digits.test_labels)} test images"
    console.print(table(title, rows))
    for row in rows:
        console.print(f"{row.name}: {row.contents}", highlight=False, markup=False)
    console.print(f"Models, pictures and logs are in {out}/", highlight=False)


if __name__ == "__main__":
    main()
