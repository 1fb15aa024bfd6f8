"""Mistakes on the command line: one message each, an exit status, and no file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import small_models
from hintc.cli import main
from hintc.errors import EquivalenceError, HintcError, VerifyError

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convrt"], "Did you mean 'convert'?"),
        (["convert"], "Missing argument 'SOURCE'"),
        (["convert", "g.pb"], "Missing option '-o'"),
        (["convert", "{g}", "-o", "m.tflite", "--quantise", "x"], "No such option"),
        (["convert", "{g}", "-o", "{dir}/m", "--quantize", "dynamc"], "Did you mean 'dynamic'?"),
        (["convert", "{g}", "-o", "{dir}/m", "--quantize", "16x8"], "float32 with --keep-float"),
        (["explain", "{g}", "--quantize", "float32"], "Leave it out for float32"),
        (["convert", "{g}", "-o", "{dir}/m", "--form", "fuse"], "--form is 'fuse'"),
        (
            ["convert", "{g}", "-o", "{dir}/m", "--state", "persist", "--form", "while"],
            "--state 'persist' does not go with --form 'while'",
        ),
        (
            ["convert", "{g}", "-o", "{dir}/m", "--target", "tflm", "--quantize", "dynamic"],
            "Take 'int8', or leave it out",
        ),
        (["convert", "{g}", "-o", "{dir}/m", "--state", "persist"], "the model has none"),
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


def test_require_fused_says_which_form_was_chosen(tmp_path: Path, capfd: Capture) -> None:
    import keras

    source = tmp_path / "m.keras"
    keras.Sequential([keras.Input((4, 3)), keras.layers.LSTM(4)]).save(source)
    arguments = ["explain", str(source), "--form", "while", "--require-fused"]
    assert main(arguments) == 3
    assert "becomes a loop without TensorLists: form=while" in capfd.readouterr().err


def test_a_saved_model_is_never_written_into(tmp_path: Path, capfd: Capture) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.v = tf.Variable([1.0, 2.0])
    spec = [tf.TensorSpec([2], tf.float32, name="x")]
    module.f = tf.function(lambda x: {"twice": x * module.v}, input_signature=spec)
    tf.saved_model.save(module, str(tmp_path), signatures=module.f)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for path in before:
        assert main(["convert", str(tmp_path), "-o", str(path)]) == 1
        assert "it is what is read" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
    out = tmp_path / "m.tflite"
    for _ in range(2):
        assert main(["convert", str(tmp_path), "-o", str(out)]) == 0
    assert main(["convert", str(tmp_path), "-o", str(out), "--output", "twise"]) == 1
    assert "no output 'twise'. Did you mean 'twice'?" in capfd.readouterr().err


@pytest.mark.usefixtures("own_passes")
def test_message_names_pass_node_and_remedy(tmp_path: Path, graph: str, capfd: Capture) -> None:
    arguments = ["compile", graph, "-o", "-", "--pipeline", "fail"]
    assert main(arguments) == 1
    expected = "error: pass 'fail', node 'y': it does not work. Do not try.\n"
    assert capfd.readouterr().err == expected
    assert main([*arguments, "--traceback"]) == 1
    assert "Traceback" in capfd.readouterr().err
