"""The debug switches of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from hintc.cli import main

Capture = pytest.CaptureFixture[str]


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
