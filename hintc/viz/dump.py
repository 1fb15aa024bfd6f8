"""Dump: an instrument that writes the module as text and pictures wherever a pass changed it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hintc.errors import HintcError
from hintc.files import write_atomically
from hintc.instrument import Instrument
from hintc.ir import Module
from hintc.options import describe
from hintc.remark import PassReport, Remark
from hintc.rewrite import Pass
from hintc.text import print_module
from hintc.viz.dot import LIMIT, to_dot
from hintc.viz.page import Entry, page
from hintc.viz.svg import SECONDS, render

_OURS = re.compile(r"\d{3}_[\w.-]+\.(hir|dot|svg)\Z")


@dataclass
class Dump(Instrument):
    """Writes ``000_lift.{hir,dot,svg}``, then the same for each pass that changed the module.

    Files are called after the pass and its position in the pipeline, ``003_raise-loops.hir``;
    what a pass left behind that failed, ``003_raise-loops.failed.hir``. An ``index.html`` shows
    all pictures with the counts and remarks of the passes. Files of an earlier dump in the
    folder are removed.

    Attributes:
        directory: the folder; made if missing.
        pictures: also write ``.dot`` and ``.svg``.
        full: draw every node, see `to_dot`.
        limit: boxes of a graph above which name scopes are collapsed, see `to_dot`.
        constants: write the elements of long constants, so that the text parses back. Without,
            the text is much shorter.
        seconds: limit for the layout of one picture.

    Raises:
        HintcError: the folder cannot be written.
    """

    directory: str | Path
    pictures: bool = True
    full: bool = False
    limit: int = LIMIT
    constants: bool = True
    seconds: float = SECONDS
    entries: list[Entry] = field(default_factory=list, init=False)
    _position: int = field(default=0, init=False, repr=False)

    @property
    def folder(self) -> Path:
        """`directory` as a path."""
        return Path(self.directory)

    def before_pipeline(self, passes: Sequence[Pass], module: Module) -> None:
        """Make the folder and write the module as it comes."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self.folder.iterdir():
                if _OURS.match(path.name):
                    path.unlink()
        except OSError as error:
            raise HintcError(
                f"cannot dump to '{self.directory}'", why=error.strerror or str(error)
            ) from error
        self.entries.clear()
        self._position = 0
        self._write("000_lift", "lift", module)

    def before_pass(self, step: Pass, module: Module) -> None:
        """Count the passes."""
        self._position += 1

    def after_pass(self, step: Pass, module: Module, report: PassReport) -> None:
        """Write what changed; note what did not."""
        stem = f"{self._position:03}_{step.name}"
        if report.changed:
            self._write(stem, describe(step), module, report)
        else:
            self.entries.append(Entry(stem, describe(step), remarks=tuple(report.remarks)))

    def pass_failed(self, step: Pass, module: Module, error: HintcError) -> None:
        """Write what the pass left behind, as far as it can be written."""
        stem = f"{self._position:03}_{step.name}.failed"
        try:
            self._write(stem, f"{describe(step)} failed", module, note=str(error))
        except HintcError as second:
            self.entries.append(Entry(stem, f"{describe(step)} failed", note=f"{error}\n{second}"))
        self._write_page()

    def after_pipeline(self, module: Module) -> None:
        """Write the page that shows all."""
        self._write_page()

    def _write(
        self, stem: str, title: str, module: Module, report: PassReport | None = None,
        note: str = "",
    ) -> None:  # fmt: skip
        self._put(f"{stem}.hir", print_module(module, elide=not self.constants))
        svg: bytes | None = None
        if self.pictures:
            dot = to_dot(module, title=f"{stem[:3]} {title}", full=self.full, limit=self.limit)
            self._put(f"{stem}.dot", dot)
            drawn = render(dot, seconds=self.seconds)
            svg, note = drawn.image, "\n".join(filter(None, (note, drawn.note)))
            if svg is not None:
                self._put(f"{stem}.svg", svg)
        counts = dict(report.counts) if report is not None else {}
        remarks: tuple[Remark, ...] = tuple(report.remarks) if report is not None else ()
        self.entries.append(Entry(stem, title, True, counts, remarks, svg, note))

    def _put(self, name: str, content: str | bytes) -> None:
        write_atomically(self.folder / name, content)

    def _write_page(self) -> None:
        self._put("index.html", page(self.entries, pictures=self.pictures))
