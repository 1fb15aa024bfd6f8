"""write_atomically: whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hintc.errors import HintcError
from hintc.files import write_atomically


def test_replaces_and_keeps_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_new_files_get_the_usual_permissions(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("x", encoding="utf-8")
    write_atomically(tmp_path / "a", "text ü")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "text ü"
    assert (tmp_path / "a").stat().st_mode == plain.stat().st_mode


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(HintcError, match="No space left"):
        write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_names_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 248 + ".tflite")
    assert write_atomically(path, b"new").read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HintcError, match="it is a folder"):
        write_atomically(tmp_path, b"")
    with pytest.raises(HintcError, match="there is no folder"):
        write_atomically(tmp_path / "none" / "a", b"")


def test_devices_are_written_to() -> None:
    write_atomically("/dev/null", b"gone")
    with pytest.raises(HintcError, match="No space left"):
        write_atomically("/dev/full", b"gone")
