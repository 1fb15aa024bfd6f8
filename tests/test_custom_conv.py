"""examples/custom_conv: the page shows it; it installs, is found, runs with options, and goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import pages
from fresh_environment import Environment

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "custom_conv"
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "write-a-fused-op-pass.md"


def test_the_page_shows_the_files_of_the_example() -> None:
    shown = {block.title.partition("/")[2]: block.text for block in pages.blocks(PAGE)}
    files = [f"hintc_fuse_my_conv/{name}.py" for name in ("kernel", "fuse_my_conv")]
    assert {file: shown.get(file) for file in files} == {
        file: (EXAMPLE / file).read_text(encoding="utf-8") for file in files
    }


def test_the_pass_in_the_readme_is_short() -> None:
    (shown,) = (block for block in pages.blocks(README) if block.title == "fuse_my_conv.py")
    assert len([line for line in shown.text.splitlines() if line.strip()]) <= 20


def two_convolutions(file: Path) -> None:
    """Writes a frozen graph with two convolutions, a/y of 8 and b/y of 4 channels."""
    random = np.random.default_rng(0)
    with tf.Graph().as_default() as graph:
        y = tf.compat.v1.placeholder(tf.float32, [None, 6, 6, 3], "x")
        for scope, channels in (("a", 8), ("b", 4)):
            filters = random.standard_normal([3, 3, int(y.shape[-1]), channels])
            convolved = tf.nn.conv2d(y, filters.astype(np.float32), 2, "SAME")
            with tf.name_scope(scope):
                y = tf.nn.relu(tf.nn.bias_add(convolved, tf.ones([channels])), name="y")
    file.write_bytes(graph.as_graph_def().SerializeToString())


def converted(environment: Environment, folder: Path, pipeline: str) -> Any:
    """What the command line reports of a conversion, the kernel's check included."""
    graph, tflite = str(folder / "graph.pb"), str(folder / "model.tflite")
    command = ["convert", graph, "--pipeline", pipeline, "--check", "--json", "-o", tflite]
    return json.loads(environment.run("-m", "hintc", *command).stdout)


def test_from_installation_to_removal(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="builds the package, as there is no network")
    environment = Environment(tmp_path / "venv")
    without, _ = environment.passes()
    environment.pip("install", "--no-index", "--no-deps", "--no-build-isolation", str(EXAMPLE))
    assert environment.passes() == ({"fuse-my-conv"} | without, "")
    described = environment.run("-m", "hintc", "passes", "fuse-my-conv").stdout
    assert "min_channels=1  (int)" in described
    two_convolutions(tmp_path / "graph.pb")
    report = converted(environment, tmp_path, "default,fuse-my-conv")
    assert report["operators"] == {"CUSTOM:MyConv": 2}
    report = converted(environment, tmp_path, "default,fuse-my-conv{min-channels=8}")
    assert report["operators"] == {"CUSTOM:MyConv": 1, "CONV_2D": 1}
    assert [remark["node"] for remark in report["not_fused"]] == ["b/y"]
    assert report["errors"]["b/y"] < 1e-5

    environment.run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE))

    environment.pip("uninstall", "--yes", "hintc-fuse-my-conv")
    assert environment.passes() == (without, "")
    command = ["-m", "hintc", "compile", str(tmp_path / "graph.pb"), "-o", "-"]
    done = environment.run(*command, "--pipeline", "fuse-my-conv", status=1)
    assert "there is no pass 'fuse-my-conv'" in done.stderr
    assert not list((tmp_path / "venv").rglob("hintc_fuse_my_conv*"))
