"""A third party's package of passes, as pip installs it: found by name, without an import."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hintc
import small_models
from hintc.registry import isolated

TEN_LINES = '''
import hintc
from hintc.remark import PassReport

@hintc.register
class SayRelu(hintc.Pass):
    """Makes every Tanh a Relu."""
    name = "say-relu"
    def run(self, module):
        for node in (found := [n for n in module.graph if n.op == "Tanh"]): node.op = "Relu"
        return PassReport({"changed": len(found)} if found else {})
'''


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a package of one pass and the metadata that its installation writes."""
    site = tmp_path / "site"
    info = site / "their_passes-1.0.dist-info"
    (site / "their_passes").mkdir(parents=True)
    info.mkdir()
    (site / "their_passes" / "__init__.py").write_text("")
    (site / "their_passes" / "say_relu.py").write_text(TEN_LINES)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-passes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hintc.passes]\ntheirs = their_passes\n")
    return site


def hintc_command(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [str(site), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.run(
        [sys.executable, "-m", "hintc", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def with_tanh() -> Any:
    graph_def = small_models.dense_graph()
    for node in graph_def.node:
        node.op = "Tanh" if node.op == "Relu" else node.op
    return graph_def


def test_an_installed_package_adds_its_pass(site: Path, tmp_path: Path) -> None:
    listed = hintc_command(site, "passes")
    assert "say-relu" in listed.stdout
    assert "fuse-lstm" in listed.stdout
    before = with_tanh()
    source = small_models.write(before, tmp_path / "g.pb")
    lowered = tmp_path / "lowered.pb"
    done = hintc_command(site, "compile", str(source), "--pipeline", "say-relu", "-o", str(lowered))
    assert done.returncode == 0, done.stderr
    graph_def = type(before).FromString(lowered.read_bytes())
    ops = [node.op for node in graph_def.node]
    assert "Relu" in ops
    assert "Tanh" not in ops


def test_ten_lines_and_the_decorator(tmp_path: Path) -> None:
    (tmp_path / "say_relu.py").write_text(TEN_LINES)
    with isolated():
        runpy.run_path(str(tmp_path / "say_relu.py"))
        compiled = hintc.compile(with_tanh(), pipeline="say-relu")
    assert "Relu" in [node.op for node in compiled.graph_def.node]
