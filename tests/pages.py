"""Reads Markdown pages and runs their code blocks, top to bottom, in the current folder.

``python`` blocks share one namespace, ``console`` blocks run the commands after ``$``; a block with
``title="file"`` is written to that file instead. Other languages are left alone.

Run as a program, it runs one page: ``python pages.py PAGE``. A process for each page keeps pages
apart, `hintc.install()` included.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FENCE = re.compile(r"^```(\w*)[ ]*(?:title=\"([^\"]+)\")?[ ]*$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file it is (or ""), its first line and its text."""

    language: str
    title: str
    line: int
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    opened: tuple[str, str, int] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if opened is None:
            if line.startswith("```"):
                fence = _FENCE.match(line)
                assert fence, f"{page}:{number}: cannot read the fence {line}"
                opened, lines = (fence[1], fence[2] or "", number + 1), []
        elif line == "```":
            yield Block(*opened, "\n".join(lines) + "\n")
            opened = None
        else:
            lines.append(line)
    assert opened is None, f"{page}: a block is not closed"


def links(page: Path) -> Iterator[str]:
    """The targets of a page's links, code blocks left out."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for match in _LINK.finditer(text):
        yield match[1]


def commands(block: Block) -> Iterator[str]:
    """The commands of a ``console`` block."""
    for line in block.text.splitlines():
        if line.startswith("$ "):
            yield line.removeprefix("$ ")


def run(page: Path) -> None:
    """Runs a page; errors point to the line of the page."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.title:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            exec(code, namespace)
        elif block.language == "console":
            for command in commands(block):
                if not command.startswith("make "):  # test_docs looks these up in the Makefile
                    _run_command(command)


def _run_command(command: str) -> None:
    scripts = str(Path(sys.executable).parent)
    path = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    subprocess.run(command, shell=True, check=True, env={**os.environ, "PATH": path})


if __name__ == "__main__":
    sys.path.insert(0, "")
    run(Path(sys.argv[1]))
