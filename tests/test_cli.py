"""The command line: what it writes where, and that help is fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import small_models
from hintc.cli import main
from hintc.runtime.interpreter import Interpreter

Capture = pytest.CaptureFixture[str]


def test_convert(tmp_path: Path, graph: str, capfd: Capture) -> None:
    out = tmp_path / "m.tflite"
    assert main(["convert", graph, "-o", str(out), "--pipeline", "", "--check"]) == 0
    assert [i.name for i in Interpreter(out.read_bytes()).inputs] == ["x"]
    captured = capfd.readouterr()
    assert "largest error of 'y'" in captured.out
    assert captured.err == ""


def test_convert_with_names_and_quantised_weights(tmp_path: Path, capfd: Capture) -> None:
    source = small_models.write(small_models.two_headed_graph(), tmp_path / "g.pb")
    out = tmp_path / "m.tflite"
    ends = ["--input", "a", "--input", "b:0", "--output", "second", "--output", "first"]
    arguments = ["convert", str(source), "-o", str(out), *ends, "--quantize", "dynamic"]
    assert main([*arguments, "--pipeline", "", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["operators"]
    model = Interpreter(out.read_bytes())
    assert [i.name for i in model.inputs] == ["a", "b"]
    assert [o.name for o in model.outputs] == ["second", "first"]


def test_result_on_standard_output(graph: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hintc", "convert", graph, "-o", "-", "--pipeline", ""],
        capture_output=True,
        check=True,
    )
    assert Interpreter(done.stdout).outputs[0].name == "y"
    assert b"source: GraphDef" in done.stderr


@pytest.mark.parametrize("suffix", [".pb", ".pbtxt", ".hir"])
def test_compile_writes_by_ending(tmp_path: Path, graph: str, suffix: str) -> None:
    from hintc.source import read_source
    from hintc.text import parse_module

    out = tmp_path / f"lowered{suffix}"
    assert main(["compile", graph, "-o", str(out), "--pipeline", ""]) == 0
    if suffix == ".hir":
        assert "MatMul" in parse_module(out.read_text(encoding="utf-8")).graph
    else:
        assert read_source(out).graph_def == small_models.dense_graph()


def test_compile_to_standard_output_is_ir(graph: str, capfd: Capture) -> None:
    assert main(["compile", graph, "-o", "-", "--pipeline", ""]) == 0
    captured = capfd.readouterr()
    assert captured.out.startswith("hintc.ir")
    assert "source:" in captured.err


@pytest.mark.parametrize("suffix", [".dot", ".svg"])
def test_viz(tmp_path: Path, graph: str, suffix: str) -> None:
    if suffix == ".svg":
        pytest.importorskip("pygraphviz")
    out = tmp_path / f"g{suffix}"
    assert main(["viz", graph, "-o", str(out)]) == 0
    assert "MatMul" in out.read_text(encoding="utf-8")
    assert main(["viz", graph, "-o", str(out), "--pipeline", "eliminate-dead-code"]) == 0


def test_viz_draws_what_cannot_be_converted(tmp_path: Path, capfd: Capture) -> None:
    for name, graph_def in (
        ("variables", small_models.dense_graph(frozen=False)),
        ("ends", small_models.two_headed_graph()),
        ("unknown", small_models.unknown_op_graph()),
    ):
        source = small_models.write(graph_def, tmp_path / f"{name}.pb")
        assert main(["viz", str(source), "-o", "-"]) == 0
        assert capfd.readouterr().out.startswith("digraph")


def test_viz_reads_the_text_form(tmp_path: Path, graph: str, capfd: Capture) -> None:
    text = tmp_path / "g.hir"
    assert main(["compile", graph, "-o", str(text), "--pipeline", ""]) == 0
    assert main(["viz", str(text), "-o", "-", "--pipeline", "eliminate-dead-code"]) == 0
    assert "MatMul" in capfd.readouterr().out
    text.write_text("no module", encoding="utf-8")
    assert main(["viz", str(text), "-o", "-"]) == 1


@pytest.mark.usefixtures("own_passes")
def test_passes_lists_documentation_and_defaults(capfd: Capture) -> None:
    assert main(["passes"]) == 0
    out = capfd.readouterr().out
    assert "fuse-y\n    Says that it fused something.\n      gain=1.5  (float)\n" in out
    assert "More about it" not in out
    assert main(["passes", "--json"]) == 0
    names = [entry["name"] for entry in json.loads(capfd.readouterr().out)["passes"]]
    assert names == sorted(names)
    assert main(["passes", "fuse-x"]) == 1
    assert "'fuse-y'" in capfd.readouterr().err


def test_passes_of_the_plug_in(capfd: Capture) -> None:
    assert main(["passes"]) == 0
    captured = capfd.readouterr()
    assert "collect-hints" in captured.out
    assert "default pipeline:" in captured.out
    assert captured.err == ""


def test_the_bare_command_shows_help(capfd: Capture) -> None:
    assert main([]) == 0
    assert capfd.readouterr().out.startswith("Usage: hintc")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["passes"], ["convert", "--help"], ["--version"]]
)
def test_help_needs_no_tensorflow(arguments: list[str]) -> None:
    script = (
        "import sys; from hintc.cli import main\n"
        f"status = main({arguments!r})\n"
        "print(status, *[m for m in ('tensorflow', 'google.protobuf') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""
