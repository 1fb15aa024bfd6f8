"""The representative dataset: what fits and what does not, in a program and in files."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import hintc
import small_models
from hintc.cli import main
from hintc.errors import EquivalenceError
from hintc.instrument import Instrument
from hintc.runtime.interpreter import Interpreter


def dense(dataset: Any, **options: Any) -> Any:
    """The model has one input: x [?, 3]."""
    return hintc.convert(
        small_models.dense_graph(),
        pipeline="",
        quantize="int8",
        representative_dataset=dataset,
        **options,
    )


ONES = np.ones((1, 3), np.float32)


def torn() -> Iterator[list[Any]]:
    yield [ONES]
    raise RuntimeError("the disk is gone")


class Numbered:
    """Samples by number, as data sets of other libraries are."""

    def __getitem__(self, number: int) -> list[Any]:
        if number > 3:
            raise IndexError
        return [ONES * number]


@pytest.mark.parametrize(
    ("dataset", "parts"),
    [
        ([[ONES]], ["representative_dataset is a list", "lambda"]),
        (lambda one: [], ["fails at sample 0", "TypeError", "'one'"]),
        (torn, ["fails at sample 1", "RuntimeError: the disk is gone"]),
        (lambda: 3, ["gives a int, not samples"]),
        (list, ["gives no samples"]),
        (lambda: [ONES], ["sample 0", "is a ndarray", "lists of arrays"]),
        (lambda: [[ONES], [ONES, ONES]], ["sample 1", "has 2 arrays", "1 inputs: 'x'"]),
        (lambda: [{"xx": ONES}], ["names 'xx'", "Did you mean 'x'?"]),
        (lambda: [{}], ["lacks the input 'x'"]),
        (lambda: [[ONES[0]]], ["input 'x' has shape [3]", "[?, 3]", "batch axis"]),
        (lambda: [[np.ones((0, 3))]], ["has shape [0, 3]"]),
        (lambda: [[[["a"] * 3]]], ["is <U1", "takes float32"]),
        (lambda: [[ONES], [ONES * np.nan]], ["sample 1", "not finite"]),
        (lambda: [[ONES * 3e38], [ONES * -3e38]], ["node 'x'", "too far apart for int8"]),
    ],
)
def test_samples_that_do_not_fit(dataset: Any, parts: list[str]) -> None:
    with pytest.raises(hintc.HintcError) as caught:
        dense(dataset)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"keep_float": "y"}, "keep_float is 'y'"),
        ({"keep_float": ["z"]}, "keep_float names 'z'"),
        ({"io_dtype": "uint8"}, "io_dtype is 'uint8'"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], part: str) -> None:
    with pytest.raises(hintc.HintcError) as caught:
        dense(lambda: [[ONES]], **options)
    assert part in str(caught.value)


def test_few_samples_are_all_calibrated_with() -> None:
    made = dense(lambda: [{"x:0": ONES}, [np.zeros((2, 3))]], check=True)
    assert (made.report.cost.feeds, made.report.cost.measured_on) == (
        2,
        "samples of the calibration",
    )
    assert made.report.errors["y"] == made.report.cost.outputs["y"].largest


def test_samples_by_number() -> None:
    assert dense(Numbered).report.cost.feeds == 4


def test_a_sample_that_the_model_cannot_run() -> None:
    ids = keras.Input((4,), dtype="int32", name="ids")
    model = keras.Model(ids, keras.layers.Embedding(5, 3)(ids))
    words = [[np.full((1, 4), word, np.int32)] for word in (1, 2, 9)]
    with pytest.raises(hintc.HintcError, match=r"on sample 2 of representative_dataset \(.*bounds"):
        hintc.convert(model, quantize="int8", representative_dataset=lambda: words)


def test_steps_of_probabilities_are_no_error() -> None:
    """An untrained classifier's probabilities differ by less than int8 can show."""
    x = keras.Input((3,), name="x")
    sure = keras.layers.Dense(2, activation="softmax", kernel_initializer="zeros", name="y")
    random = np.random.default_rng(0)
    model = keras.Model(x, sure(x))
    sure.set_weights([random.uniform(-1e-2, 1e-2, (3, 2)), np.zeros(2)])
    rows = random.uniform(-1, 1, (20, 1, 3)).astype(np.float32)
    made = hintc.convert(
        model, quantize="int8", representative_dataset=lambda: ([row] for row in rows), check=True
    )
    assert made.report.cost is not None
    error = made.report.cost.outputs["y"]
    assert error.step == 1 / 256
    assert error.mean > 0.05 * error.span
    assert "less than a step of int8 (0.00391)" in str(made.report)


def test_feeds_that_are_given_are_measured_on() -> None:
    feed = {"x": np.full((2, 3), 0.5, np.float32)}
    made = dense(lambda: [[ONES], [-ONES]] * 9, check=feed)
    assert (made.report.cost.feeds, made.report.cost.measured_on) == (1, "given feeds")
    far = {"x": np.full((2, 3), 50.0, np.float32) * [[1], [-1]]}
    with pytest.raises(EquivalenceError, match=r"differs by up to .*samples like the real"):
        dense(lambda: [[ONES], [-ONES]] * 9, check=far)


def test_progress_is_told() -> None:
    told = []

    class Listener(Instrument):
        def progress(self, stage: str, done: int, total: int) -> None:
            told.append((stage, done, total))

    dense(lambda: [[ONES]] * 10, instruments=[Listener()])
    assert told == [("calibrating", done, 8) for done in range(1, 9)]


def test_legalize_alone_has_no_samples() -> None:
    with pytest.raises(hintc.HintcError, match=r"sample inputs.*hintc\.convert"):
        hintc.legalize(
            hintc.convert(small_models.dense_graph(), pipeline="").tflite, quantize="int8"
        )


# -- the command line --------------------------------------------------------------------------


def test_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = small_models.write(small_models.two_headed_graph(), tmp_path / "g.pb")
    data, out = tmp_path / "data.npz", tmp_path / "m.tflite"
    random = np.random.default_rng(0)
    np.savez(data, a=random.standard_normal((20, 4)), b=random.standard_normal((20, 4)))
    ends = ["--input", "a", "--input", "b", "--output", "first", "--output", "second"]
    arguments = [
        "convert",
        str(source),
        "-o",
        str(out),
        *ends,
        "--pipeline",
        "",
        "--quantize",
        "int8",
    ]
    arguments += [
        "--representative-data",
        str(data),
        "--io-dtype",
        "int8",
        "--keep-float",
        "second",
    ]
    assert main(arguments) == 0
    said = capfd.readouterr().out
    assert "cost of quantisation, on 4 held-out samples:" in said
    assert "'first': largest error" in said
    assert "float tflite" in said
    model = Interpreter(out.read_bytes())
    assert {str(end.dtype) for end in (*model.inputs, *model.outputs)} == {"int8"}
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["cost"]["feeds"] == 4


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        ({"x": np.ones((3, 3)), "z": np.ones((3, 3))}, "names 'z'"),
        ({"x": np.ones((3, 3)), "z": np.ones((2, 3))}, "different numbers of samples"),
        ({"x": np.ones(())}, "gives no samples"),
        ({"x": np.array([None, {}])}, "cannot read the representative data"),
        ({}, "'nowhere.npz' does not exist"),
    ],
)
def test_data_files_that_do_not_fit(
    arrays: dict[str, Any], part: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = small_models.write(small_models.dense_graph(), tmp_path / "g.pb")
    data = tmp_path / "data.npz"
    np.savez(data, **arrays)
    given = str(data) if arrays else "nowhere.npz"
    out = tmp_path / "m.tflite"
    arguments = ["convert", str(source), "-o", str(out), "--pipeline", "", "--quantize", "int8"]
    assert main([*arguments, "--representative-data", given]) == 1
    assert part in capfd.readouterr().err
    assert not out.exists()


def test_a_single_array(tmp_path: Path) -> None:
    source = small_models.write(small_models.dense_graph(), tmp_path / "g.pb")
    np.save(tmp_path / "data.npy", np.ones((3, 1, 3)))
    out = tmp_path / "m.tflite"
    arguments = ["convert", str(source), "-o", str(out), "--pipeline", "", "--quantize", "int8"]
    assert main([*arguments, "--representative-data", str(tmp_path / "data.npy")]) == 0
    assert tf.lite.Interpreter(model_content=out.read_bytes())


def test_an_archive_of_something_else(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = small_models.write(small_models.dense_graph(), tmp_path / "g.pb")
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    arguments = ["convert", str(source), "-o", str(tmp_path / "m.tflite"), "--quantize", "int8"]
    assert main([*arguments, "--representative-data", str(tmp_path / "m.keras")]) == 1
    assert "'config.json' in it is no array). Write it with numpy.savez" in capfd.readouterr().err
