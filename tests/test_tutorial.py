"""The tutorial's code as people have it (scripts/tutorial.py) runs with `hintc.install()` added."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydot
import pytest

from hintc.runtime.interpreter import Interpreter
from hintc.tflite.inspect import op_counts

SCRIPT = Path(__file__).parent / "scripts" / "tutorial.py"
FUSED = "UNIDIRECTIONAL_SEQUENCE_LSTM"
TOLERANCE = {"float": 1e-5, "quantized": 5e-2}


def run_script(
    folder: Path, control_flow: str, legacy_keras: str
) -> subprocess.CompletedProcess[str]:
    """One run; `legacy_keras` is the value of the variable, ``unset`` or ``too-late``."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("TF_USE_LEGACY_KERAS", None)
    if legacy_keras in ("0", "1"):
        environment["TF_USE_LEGACY_KERAS"] = legacy_keras
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), control_flow, legacy_keras],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


@pytest.mark.parametrize(
    ("control_flow", "legacy_keras"), [("v2", "unset"), ("v1", "unset"), ("v2", "1"), ("v1", "1")]
)
def test_the_tutorial_runs(control_flow: str, legacy_keras: str, tmp_path: Path) -> None:
    done = run_script(tmp_path, control_flow, legacy_keras)
    assert done.returncode == 0, done.stderr
    for kind in ("float", "quantized"):
        check_model(tmp_path, kind)
    sizes = {kind: (tmp_path / f"{kind}.tflite").stat().st_size for kind in TOLERANCE}
    assert sizes["quantized"] < 0.75 * sizes["float"]  # it is a small model


def check_model(folder: Path, kind: str) -> None:
    """The fused ops and nothing that a stock runtime lacks; the session's numbers."""
    tflite = (folder / f"{kind}.tflite").read_bytes()
    counts = op_counts(tflite)
    assert counts[FUSED] == 2
    assert "WHILE" not in counts
    assert not [name for name in counts if name.startswith(("CUSTOM", "Flex"))]
    with np.load(folder / "run.npz") as run:
        images, labels, expected = run["images"], run["labels"], run["expected"]
    interpreter = Interpreter(tflite)
    for batch in (len(images), 1, 3):
        for _ in range(2):  # no state is left over
            (got,) = interpreter.run([images[:batch]]).values()
            np.testing.assert_allclose(got, expected[:batch], atol=TOLERANCE[kind], rtol=0)
    (got,) = interpreter.run([images]).values()
    accuracy = np.mean(got.argmax(axis=1) == labels)
    assert accuracy > 0.9
    assert abs(accuracy - np.mean(expected.argmax(axis=1) == labels)) <= 0.01


@pytest.mark.parametrize("legacy_keras", ["too-late", "0"])
def test_keras_3_is_one_clear_error(legacy_keras: str, tmp_path: Path) -> None:
    done = run_script(tmp_path, "v2", legacy_keras)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "StackedRNNCells" in last
    assert "Keras 3" in last
    assert "TF_USE_LEGACY_KERAS=1" in last
    assert not (tmp_path / "float.tflite").exists()


def test_the_demo_runs(tmp_path: Path) -> None:
    demo = SCRIPT.parents[2] / "examples" / "mnist_lstm.py"
    command = [sys.executable, str(demo), "--out", str(tmp_path), "--epochs", "4", "--units", "16"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr  # it checks its own numbers
    for name in ("float", "int8 weights", "float16 weights", "full int8"):
        assert f"hintc, {name}" in done.stdout
    assert not re.search(r"^(I\d{4}|INFO:|WARNING:)", done.stderr, flags=re.M), done.stderr
    for kind in ("", "_dynamic", "_float16", "_int8"):
        name = f"mnist_lstm{kind}.tflite"
        assert op_counts((tmp_path / name).read_bytes())[FUSED] == 2
    drawn = sorted((tmp_path / "passes").glob("*.dot"))
    assert drawn[0].stem == "000_lift"
    assert all(len(pydot.graph_from_dot_file(str(path)) or ()) == 1 for path in drawn)
    assert all(path.with_suffix(".svg").exists() for path in drawn)
