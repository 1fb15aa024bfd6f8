"""``hintc explain``: what became of each loop, why, and where patterns nearly fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from hintc.cli import main
from hintc.cli.main import cli
from hintc.ir import Module
from hintc.registry import isolated, register
from hintc.remark import PassReport
from hintc.rewrite import Pass, RewritePass

Capture = pytest.CaptureFixture[str]


@pytest.mark.usefixtures("own_passes")
def test_explain_says_why(graph: str, capfd: Capture) -> None:
    assert main(["explain", graph, "--pipeline", "fuse-y,refuse-y"]) == 0
    out = capfd.readouterr().out
    assert "y\n  becomes  y is fused now\n" in out
    assert "fused: 1, not fused: 0" in out
    assert main(["explain", graph, "--pipeline", "refuse-y"]) == 0
    out = capfd.readouterr().out
    assert "y\n  becomes  stays as it is\n  why      y is too odd [y]\n" in out
    assert "  helps    Make it even.\n" in out
    assert "fused: 0, not fused: 1" in out
    assert main(["explain", graph, "--pipeline", "refuse-y", "--json"]) == 0
    data = json.loads(capfd.readouterr().out)
    assert data["not_fused"][0]["remedy"] == "Make it even."
    assert data["outcomes"][0]["became"] == "stays as it is"


def test_explain_recurrent_layers(tmp_path: Path) -> None:
    import keras

    given = keras.Input((5, 3))
    both = keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True))(given)
    model = keras.Model(given, keras.layers.GRU(4, unroll=True)(both))
    path = tmp_path / "m.keras"
    model.save(path)
    done = CliRunner().invoke(cli, ["explain", str(path)])
    assert done.exit_code == 0
    rows = [line for line in done.stdout.splitlines() if line.startswith("  becomes")]
    assert len(rows) == 3, done.stdout
    assert sum("one BIDIRECTIONAL_SEQUENCE_LSTM" in row for row in rows) == 2
    assert "keeps its 5 unrolled steps" in "".join(rows)
    assert "(GRU)" in done.stdout
    assert "[gru]" in done.stdout
    assert "fused: 2, not fused: 1" in done.stdout
    prose = [line for line in done.stdout.splitlines() if "/" not in line]
    assert max(map(len, prose)) <= 80


def test_explain_says_why_a_form_was_chosen(tmp_path: Path) -> None:
    import keras

    x = keras.Input((5, 3), batch_size=1)
    path = tmp_path / "m.keras"
    keras.Model(x, keras.layers.LSTM(64)(x)).save(path)
    said = {}
    for how in ([], ["--quantize", "dynamic"]):
        done = CliRunner().invoke(cli, ["explain", str(path), "--optimize-for", "latency", *how])
        assert done.exit_code == 0
        said[len(how)] = " ".join(done.stdout.split())
        assert "unrolled into 5 steps: an estimated 0." in said[len(how)]
        assert "of the fused kernel's time (batch 1) is LSTM of 64 cells" in said[len(how)]
    assert said[0] != said[2]  # int8 weights have prices of their own


def test_explain_says_that_there_is_nothing(graph: str, capfd: Capture) -> None:
    assert main(["explain", graph]) == 0
    assert capfd.readouterr().out.startswith("no loop, recurrent layer or hint: ")


@pytest.fixture
def own_pattern() -> Iterator[None]:
    with isolated():

        @register
        @dataclass(frozen=True)
        class FuseDense(RewritePass):
            """Fuses what is nearly in the graph."""

            name: ClassVar[str] = "fuse-dense"

            def pattern(self, op: Any, x: Any) -> Any:
                return op.Relu(op.Softplus(x))

            def rewrite(self, match: Any, new: Any) -> Any:
                raise AssertionError

        @register
        class Rename(Pass):
            """Has no pattern."""

            name: ClassVar[str] = "rename"

            def run(self, module: Module) -> PassReport:
                return PassReport()

        yield


@pytest.mark.usefixtures("own_pattern")
def test_explain_shows_where_a_pattern_nearly_fits(graph: str, capfd: Capture) -> None:
    pipeline = ["--pipeline", "fuse-dense,rename"]
    assert main(["explain", graph, *pipeline]) == 0
    out = capfd.readouterr().out
    assert "near misses\n  fuse-dense 'y': 1 operation fits, then 'add' differs: " in out
    assert main(["explain", graph, *pipeline, "--pass", "rename"]) == 0
    assert "'rename' has no pattern that nearly fits." in capfd.readouterr().out
    assert main(["explain", graph, *pipeline, "--json"]) == 0
    (miss,) = json.loads(capfd.readouterr().out)["near_misses"]
    assert (miss["pass"], miss["anchor"], miss["matched"]) == ("fuse-dense", "y", 1)
    assert main(["explain", graph, "--pipeline", "rename", "--pass", "fuse-dense"]) == 0
    assert "fuse-dense 'y': 1 operation fits, then 'add' differs: " in capfd.readouterr().out
    assert main(["explain", graph, *pipeline, "--pass", "fuse-dens"]) == 1
    assert "Did you mean 'fuse-dense'?" in capfd.readouterr().err
