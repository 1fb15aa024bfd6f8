"""hintc new-pass: the package installs, is found, runs, may break, and goes when uninstalled."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from fresh_environment import Environment
from hintc.cli import main
from hintc.errors import HintcError
from hintc.registry import isolated
from hintc.scaffold import new_pass

FILES = [
    *("README.md", "hintc_fuse_my_relu/__init__.py", "hintc_fuse_my_relu/fuse_my_relu.py"),
    *("pyproject.toml", "tests/test_fuse_my_relu.py"),
]


def test_the_folder_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-pass", "fuse-my-relu", "--into", str(tmp_path)]) == 0
    made = tmp_path / "fuse-my-relu"
    files = sorted(str(p.relative_to(made)) for p in made.rglob("*") if p.is_file())
    assert files == FILES
    assert f"pip install -e {made}" in capsys.readouterr().out
    for file in files:
        text = (made / file).read_text()
        assert "{{" not in text
        assert "NAME" not in text
        assert "PACKAGE" not in text


@pytest.mark.parametrize("name", ["MyPass", "my_pass", "-x", "a--b", "1st", "a/b", ""])
def test_bad_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(HintcError, match="cannot be the name of a pass"):
        new_pass(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_python_it_writes_is_clean(tmp_path: Path) -> None:
    folder, _ = new_pass("fuse-my-relu", tmp_path)
    for command in (["ruff", "format", "--check", "--diff"], ["ruff", "check"]):
        options = ["--config", str(Path(__file__).parent.parent / "pyproject.toml"), "--no-cache"]
        done = subprocess.run(
            [sys.executable, "-m", *command, *options, str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


TEXT = """
graph {
  %x = Placeholder() {dtype = float, shape = <2>}
  %six = Const() {dtype = float, value = float<>[6.0]}
  %"a/min" = Minimum(%x, %six) {T = float}
  %"a/y" = Relu(%"a/min") {T = float}
  %"b/min" = Minimum(%six, %"a/y") {T = float}
  %"b/y" = Relu(%"b/min") {T = float}
}
"""
RUN = """
import sys
from hintc.pipeline import PassPipeline
from hintc.text import parse_module
module = parse_module(sys.argv[2])
PassPipeline.parse(sys.argv[1]).run(module, verify_each=False)
print(*(f"{node.name}={node.op}" for node in module.graph if node.op.startswith("Relu")))
"""


def test_from_installation_to_removal(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="builds the package, as there is no network")
    folder, _ = new_pass("fuse-my-relu", tmp_path)
    environment = Environment(tmp_path / "venv")
    environment.pip("install", "--no-index", "--no-deps", "--no-build-isolation", str(folder))
    found, said = environment.passes()
    assert {"fuse-my-relu", "fuse-lstm"} <= found
    assert not said
    done = environment.run("-c", RUN, "fuse-my-relu{under=b}", TEXT)
    assert done.stdout.split() == ["a/y=Relu", "b/y=Relu6"]

    (module,) = (tmp_path / "venv").rglob("fuse_my_relu.py")
    module.write_text("import no_such_library\n")
    others, said = environment.passes()
    assert others == found - {"fuse-my-relu"}
    assert "plug-in 'fuse-my-relu'" in said
    assert "no_such_library" in said
    done = environment.run("-c", RUN, "fuse-my-relu", TEXT, status=1)
    assert "pass 'fuse-my-relu' cannot be used" in done.stderr

    environment.pip("uninstall", "--yes", "hintc-fuse-my-relu")
    assert environment.passes() == (others, "")
    assert not list((tmp_path / "venv").rglob("hintc_fuse_my_relu*"))


def test_the_tests_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = new_pass("drop-it", tmp_path)
    monkeypatch.syspath_prepend(str(folder))
    with isolated("hintc_passes", "hintc_drop_it"):
        written = runpy.run_path(str(folder / "tests" / "test_drop_it.py"))
        tests = [value for name, value in written.items() if name.startswith("test_")]
        assert len(tests) == 2
        for test in tests:
            test()
