"""A template's files with names filled in, written as one folder: all of them or none."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hintc.errors import HintcError

TEMPLATES = Path(__file__).with_name("templates")
SUFFIX = ".in"
"""Of every file of a template; keeps tools from taking it for what it will be."""


def write_folder(template: str, folder: Path, words: Mapping[str, str]) -> list[Path]:
    """Writes a template's files into a new folder.

    Args:
        template: name of a folder of templates.
        folder: what to make; its parent exists.
        words: what stands for ``{{word}}`` in the files. In their paths ``NAME`` stands for the
            word "file" and ``PACKAGE`` for "package".

    Returns:
        The files, relative to `folder`, sorted.

    Raises:
        HintcError: the folder exists, or cannot be written; then nothing is left behind.
    """
    source = TEMPLATES / template
    texts = {
        _target(path.relative_to(source), words): _filled(path.read_text("utf-8"), words)
        for path in sorted(source.rglob(f"*{SUFFIX}"))
    }
    if os.path.lexists(folder):
        raise HintcError(
            f"cannot write '{folder}'",
            why="it exists",
            remedy="Choose another name or folder; nothing is overwritten.",
        )
    if not folder.parent.is_dir():
        raise HintcError(f"cannot write '{folder}'", why=f"there is no folder '{folder.parent}'")
    try:
        _write(folder, texts)
    except OSError as error:
        raise HintcError(f"cannot write '{folder}'", why=error.strerror or str(error)) from error
    return sorted(texts)


def _write(folder: Path, texts: Mapping[Path, str]) -> None:
    """Writes beside `folder` first: the last step, a rename, is the only one that shows."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        made = temporary / folder.name  # with the permissions that folders have here
        made.mkdir()
        for path, text in texts.items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_text(text, encoding="utf-8")
        made.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _target(path: Path, words: Mapping[str, str]) -> Path:
    named = str(path).removesuffix(SUFFIX).replace("NAME", words["file"])
    return Path(named.replace("PACKAGE", words.get("package", "")))


def _filled(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(f"{{{{{word}}}}}", value)
    return text
