"""TFLite's layout: the runtimes that are installed have it, and any other one is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import custom_ops
from custom_ops import Op
from hintc.errors import HintcError
from hintc.runtime import abi_check, abi_probe
from hintc.runtime import tflite_abi as abi
from hintc.runtime.interpreter import Interpreter

MODULES = tuple(abi_check.RUNTIMES)
TENSORS: dict[str, Any] = dict.fromkeys("xy", (np.float32, (-1, 3)))
MODEL = custom_ops.model(TENSORS, [Op("f", ["x"], ["y"])], ["x"], ["y"]).write()
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_the_installed_runtimes_are_the_checked_ones() -> None:
    for distribution in abi_check.RUNTIMES.values():
        version = abi_check._version(distribution)
        assert (distribution, version) in {entry[:2] for entry in abi_check.CHECKED}


def test_the_model_of_the_probe() -> None:
    assert custom_ops.probe_model() == abi_probe.MODEL.read_bytes()


@pytest.mark.parametrize("module", MODULES)
def test_the_probe_accepts_the_installed_runtimes(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(abi_check, "check_runtime", None)  # the probe replaces it
    abi_probe.probe(module)


def test_an_unknown_version_with_the_same_layout_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abi_check, "_version", lambda distribution: "99.0")
    abi_check._check.cache_clear()
    instance = Interpreter(MODEL, runtime="litert", kernels={"f": lambda x: x + 1})
    np.testing.assert_array_equal(instance.run([X])["y"], X + 1)
    assert abi_check._check.cache_info().misses == 1
    abi_check._check.cache_clear()


def test_every_other_layout_is_found() -> None:
    script = Path(__file__).parent / "scripts" / "foreign_layouts.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    found = [line.split() for line in done.stdout.splitlines()]
    structures = [abi.Tensor, abi.Node, abi.Registration, abi.Context, abi.Delegate]
    fields = sum(len(structure._fields_) for structure in structures)
    assert len(found) == fields + len(abi.DelegateParams._fields_)
    # the last field of TfLiteDelegate is never set: where it is makes no difference
    accepted = [line[:2] for line in found if line[2] == "accepted"]
    assert accepted == [["Delegate", "opaque_delegate_builder"]]


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        ("import os; os.abort()", "died of signal 6"),
        ("raise SystemExit('sizes are not where they should be')", "sizes are not where"),
    ],
)
def test_an_unknown_runtime_is_refused(
    probe: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(abi_check, "_version", lambda distribution: "99.0")
    monkeypatch.setattr(abi_check, "_PROBE", probe)
    abi_check._check.cache_clear()
    try:
        with pytest.raises(HintcError, match=f"cannot run in ai-edge-litert 99.0.*{reason}"):
            Interpreter(MODEL, runtime="litert", kernels={"f": np.abs})
    finally:
        abi_check._check.cache_clear()
