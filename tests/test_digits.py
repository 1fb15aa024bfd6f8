"""The digit classifier in every precision, in every runtime: the same answers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hintc
from hintc.runtime.interpreter import Interpreter, RuntimeName
from hintc.runtime.micro import MicroInterpreter

SCRIPT = Path(__file__).parent / "scripts" / "digits.py"
IMAGES = 120
"""How many images TFLite Micro is shown, one by one."""
LARGEST = {None: 1e-5, "dynamic": 0.2, "float16": 1e-2, "int8": 0.3}
MEAN = {None: 1e-6, "dynamic": 5e-3, "float16": 5e-4, "int8": 1e-2}
"""Errors of the probabilities; an image that the model cannot decide on moves far."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    run = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return folder


def data(folder: Path) -> dict[str, Any]:
    with np.load(folder / "digits.npz") as arrays:
        return dict(arrays)


def convert(folder: Path, quantize: Any, **options: Any) -> bytes:
    if quantize == "int8":
        samples = data(folder)["samples"]
        options["representative_dataset"] = lambda: [[sample[None]] for sample in samples]
    source = str(folder / "digits.pb")
    return hintc.convert(source, ["image"], ["probabilities"], quantize=quantize, **options).tflite


def one_by_one(run: Callable[[Any], dict[str, Any]], images: Any) -> Any:
    return np.concatenate([next(iter(run([image[None]]).values())) for image in images])


@pytest.mark.parametrize("quantize", LARGEST)
def test_precision(quantize: str | None, trained: Path) -> None:
    arrays = data(trained)
    images, labels, expected = arrays["images"], arrays["labels"], arrays["expected"]
    right = np.mean(expected.argmax(axis=1) == labels)
    assert right > 0.85
    tflite = convert(trained, quantize)
    runtimes: tuple[RuntimeName, ...] = ("tensorflow", "litert")
    answers = []
    for runtime in runtimes:
        interpreter = Interpreter(tflite, runtime=runtime)
        for _ in range(2):  # no state is left over
            (found,) = interpreter.run([images]).values()
            errors = np.abs(found - expected)
            assert errors.max() <= LARGEST[quantize]
            assert errors.mean() <= MEAN[quantize]
        assert abs(np.mean(found.argmax(axis=1) == labels) - right) <= 0.02
        answers.append(found)
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-2 if quantize == "int8" else 1e-5)


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_tflite_micro(quantize: str | None, trained: Path) -> None:
    arrays = data(trained)
    images = arrays["images"][:IMAGES]
    tflite = convert(trained, quantize, target="tflm")
    micro = one_by_one(MicroInterpreter(tflite).run, images)
    runtimes: tuple[RuntimeName, ...] = ("tensorflow", "litert")
    for runtime in runtimes:
        found = one_by_one(Interpreter(tflite, runtime=runtime).run, images)
        np.testing.assert_allclose(micro, found, atol=0.03 if quantize else 1e-5)
        assert np.mean(micro.argmax(axis=1) == found.argmax(axis=1)) >= 0.99
    right = np.mean(arrays["expected"][:IMAGES].argmax(axis=1) == arrays["labels"][:IMAGES])
    assert abs(np.mean(micro.argmax(axis=1) == arrays["labels"][:IMAGES]) - right) <= 0.02
