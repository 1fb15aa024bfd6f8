"""The command line: what it writes where, exit status, switches, and that help is fast."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

import small_models
from hintc.cli import main
from hintc.cli.main import cli
from hintc.errors import EquivalenceError, HintcError, VerifyError
from hintc.ir import Module
from hintc.registry import isolated, register
from hintc.remark import PassReport
from hintc.rewrite import Pass, RewritePass
from hintc.runtime.interpreter import Interpreter

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def graph(tmp_path: Path) -> str:
    return str(small_models.write(small_models.dense_graph(), tmp_path / "g.pb"))


@pytest.fixture
def own_passes() -> Iterator[None]:
    """Only these passes are known."""
    with isolated():

        @register
        @dataclass(frozen=True)
        class Fuse(Pass):
            """Says that it fused something.

            More about it.
            """

            name: ClassVar[str] = "fuse-y"
            gain: float = 1.5

            def run(self, module: Module) -> PassReport:
                report = PassReport()
                report.fused("y", "y", "y is fused now")
                return report

        @register
        class Refuse(Pass):
            """Refuses."""

            name: ClassVar[str] = "refuse-y"

            def run(self, module: Module) -> PassReport:
                report = PassReport()
                report.refused("y", "y", "y is too odd", "Make it even.")
                return report

        @register
        class Rename(Pass):
            """Changes the module: MatMul gets another name."""

            name: ClassVar[str] = "rename"

            def run(self, module: Module) -> PassReport:
                report = PassReport()
                node = module.graph.find("MatMul")
                if node is not None:
                    module.graph.rename(node, "product")
                    report.count("renamed")
                return report

        @register
        class Fail(Pass):
            """Fails."""

            name: ClassVar[str] = "fail"

            def run(self, module: Module) -> PassReport:
                raise HintcError("it does not work", node="y", remedy="Do not try.")

        @register
        class Wrong(Pass):
            """Makes the model compute something else."""

            name: ClassVar[str] = "wrong"

            def run(self, module: Module) -> PassReport:
                module.graph["y"].op = "Tanh"
                return PassReport({"changed": 1})

        @register
        class Spoil(Pass):
            """Leaves a broken module."""

            name: ClassVar[str] = "spoil"

            def run(self, module: Module) -> PassReport:
                module.graph["y"]._operands = ()
                return PassReport({"changed": 1})

        yield


# -- convert -----------------------------------------------------------------------------------


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


# -- compile, explain, viz ---------------------------------------------------------------------


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


# -- passes and help ---------------------------------------------------------------------------


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


# -- mistakes and exit status ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convrt"], "Did you mean 'convert'?"),
        (["convert"], "Missing argument 'SOURCE'"),
        (["convert", "g.pb"], "Missing option '-o'"),
        (["convert", "{g}", "-o", "m.tflite", "--quantise", "x"], "No such option"),
        (["convert", "{g}", "-o", "{dir}/m", "--quantize", "dynamc"], "Did you mean 'dynamic'?"),
        (["convert", "{g}", "-o", "{dir}/m", "--form", "fuse"], "--form is 'fuse'"),
        (["convert", "none.pb", "-o", "m.tflite"], "'none.pb' does not exist"),
        (["convert", "{g}", "-o", "{dir}/none/m.tflite"], "there is no folder"),
        (["convert", "{g}", "-o", "{dir}"], "it is a folder"),
        (["convert", "{g}", "-o", "{g}"], "it is what is read"),
        (["compile", "{g}", "-o", "{dir}/../{name}/g.pb"], "it is what is read"),
        (["convert", "", "-o", "{dir}/m"], "'' does not exist"),
        (["convert", "{g}", "-o", "/dev/full", "--pipeline", ""], "No space left on device"),
        (["convert", "{g}", "-o", "{dir}/m", "--quantize", "int8"], "--representative-data FILE"),
        (["convert", "{g}", "-o", "{dir}/m", "--keep-float", "y"], "--keep-float goes with"),
        (["convert", "{g}", "-o", "{dir}/m", "--io-dtype", "int8"], "--io-dtype int8 goes with"),
        (["new-pass", "fuse-lstm", "--into", "{dir}"], "there is a pass 'fuse-lstm' already"),
        (["compile", "{g}", "-o", "{dir}/m.tflite"], "Use one of .pb, .pbtxt, .hir"),
        (["viz", "{g}", "-o", "{dir}/m.jpg"], "Use one of .dot, .svg, .png"),
        (["compile", "{g}", "-o", "-", "--pipeline", "fuse-lst"], "'fuse-lstm'"),
        (
            ["compile", "{g}", "-o", "-", "--pipeline", "", "--print-ir-after", "fuse-lstm"],
            "not in the pipeline",
        ),
        (["convert", "{g}", "-o", "{dir}/m", "--pipeline", "", "--output", "z"], "no output 'z'"),
    ],
)
def test_mistakes_of_the_user(
    tmp_path: Path, graph: str, capfd: Capture, arguments: list[str], message: str
) -> None:
    places = {"{g}": graph, "{dir}": str(tmp_path), "{name}": tmp_path.name}
    given = []
    for argument in arguments:
        for key, place in places.items():
            argument = argument.replace(key, place)
        given.append(argument)
    before = Path(graph).read_bytes()
    assert main(given) == 1
    captured = capfd.readouterr()
    assert message in captured.err
    assert Path(graph).read_bytes() == before
    assert captured.err.count("error:") == 1
    assert "Traceback" not in captured.err
    assert [p.name for p in tmp_path.iterdir()] == ["g.pb"]


@pytest.mark.parametrize("arguments", [["passes"], ["convert", "{g}", "-o", "-"]])
def test_standard_output_that_is_full(graph: str, arguments: list[str]) -> None:
    given = [graph if a == "{g}" else a for a in arguments]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hintc", *given],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "error: cannot read or write: No space left on device\n"


def test_what_nobody_expected_is_one_message(
    graph: str, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> str:
        raise KeyError("lost")

    monkeypatch.setattr("hintc.text.print_module", broken)
    assert main(["compile", graph, "-o", "-", "--pipeline", ""]) == 1
    err = capfd.readouterr().err
    assert err == (
        "error: KeyError: 'lost'. hintc did not expect this: please report it, with what "
        "--traceback prints.\n"
    )
    assert main(["compile", graph, "-o", "-", "--pipeline", "", "--traceback"]) == 1
    assert "in broken" in capfd.readouterr().err


@pytest.mark.usefixtures("own_passes")
@pytest.mark.parametrize(
    ("pipeline", "switches", "status"),
    [
        ("fuse-y", ["--require-fused"], 3),  # it only says so
        ("refuse-y", ["--require-fused"], 3),
        ("refuse-y", [], 0),
        ("fail", [], HintcError.exit_code),
        ("spoil", [], VerifyError.exit_code),
        ("wrong", ["--check"], EquivalenceError.exit_code),
        ("wrong", [], 0),
    ],
)
def test_exit_status(
    tmp_path: Path, graph: str, capfd: Capture, pipeline: str, switches: list[str], status: int
) -> None:
    out = tmp_path / "m.tflite"
    assert main(["convert", graph, "-o", str(out), "--pipeline", pipeline, *switches]) == status
    assert out.exists() == (status == 0)
    err = capfd.readouterr().err
    assert "Traceback" not in err
    assert err.count("error:") == (status != 0)


def test_require_fused_is_content_with_a_fused_op(tmp_path: Path) -> None:
    import tensorflow as tf

    from hintc.authoring import OpHint

    with tf.Graph().as_default() as graph:
        hint = OpHint("my_op")
        x = hint.add_input(tf.compat.v1.placeholder(tf.float32, [None, 2], "x"))
        tf.identity(hint.add_output(2.0 * x), name="y")
    source = small_models.write(graph.as_graph_def(), tmp_path / "g.pb")
    assert main(["convert", str(source), "-o", "/dev/null", "--require-fused"]) == 0


@pytest.mark.usefixtures("own_passes")
def test_message_names_pass_node_and_remedy(tmp_path: Path, graph: str, capfd: Capture) -> None:
    arguments = ["compile", graph, "-o", "-", "--pipeline", "fail"]
    assert main(arguments) == 1
    expected = "error: pass 'fail', node 'y': it does not work. Do not try.\n"
    assert capfd.readouterr().err == expected
    assert main([*arguments, "--traceback"]) == 1
    assert "Traceback" in capfd.readouterr().err


# -- debug switches ----------------------------------------------------------------------------


@pytest.mark.usefixtures("own_passes")
@pytest.mark.parametrize(
    ("switch", "after"),
    [
        (["--print-ir-after", "fuse-y"], ["fuse-y"]),
        (["--print-ir-after-all"], ["fuse-y", "rename"]),
        (["--print-ir-after-change"], ["rename"]),
        ([], []),
    ],
)
def test_ir_goes_to_standard_error(
    graph: str, capfd: Capture, switch: list[str], after: list[str]
) -> None:
    arguments = ["compile", graph, "-o", "-", "--pipeline", "fuse-y,rename", *switch]
    assert main(arguments) == 0
    captured = capfd.readouterr()
    headings = [line for line in captured.err.splitlines() if line.startswith("// ----")]
    assert headings == [f"// ---- after {name} ----" for name in after]
    assert captured.out.count("hintc.ir 1") == 1


@pytest.mark.usefixtures("own_passes")
def test_timing(graph: str, capfd: Capture) -> None:
    assert main(["compile", graph, "-o", "-", "--pipeline", "rename", "--timing"]) == 0
    assert "total" in capfd.readouterr().err


@pytest.mark.usefixtures("own_passes")
def test_verification_can_be_turned_off(graph: str, capfd: Capture) -> None:
    arguments = ["explain", graph, "--pipeline", "spoil"]
    assert main(arguments) == 2
    assert main([*arguments, "--no-verify-each"]) in (0, 1)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.usefixtures("own_passes")
def test_reproducer(tmp_path: Path, graph: str, capfd: Capture) -> None:
    folder = tmp_path / "debug"
    arguments = ["explain", graph, "--pipeline", "rename,fail,fuse-y", "--reproducer", str(folder)]
    assert main(arguments) == 1
    (file,) = folder.iterdir()
    assert file.read_text(encoding="utf-8").startswith("// pipeline: fail,fuse-y\n")
    assert str(file) in capfd.readouterr().err


@pytest.mark.usefixtures("own_passes")
def test_dumps(tmp_path: Path, graph: str) -> None:
    folder = tmp_path / "dumps"
    arguments = ["explain", graph, "--pipeline", "fuse-y,rename", "--dump-dir", str(folder)]
    assert main(arguments) == 0
    names = {path.name for path in folder.iterdir()}
    assert any("rename" in name for name in names)
    assert not any("fuse-y" in name for name in names)
