"""Keeping TensorFlow's converter quiet: what it writes is caught and kept."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from hintc.shared import Shared


class Captured:
    """What was written while output was caught; complete once `captured_output` has ended."""

    text: str = ""


@contextlib.contextmanager
def captured_output() -> Iterator[Captured]:
    """Catches standard output and error, Python's and C++'s, and warnings.

    File descriptors 1 and 2 belong to the whole process: other threads' output is caught too.
    """
    captured = Captured()
    with _caught() as written:
        native, python = written.sizes()
        try:
            yield captured
        finally:
            captured.text = written.since(native, python)


@dataclass(frozen=True)
class _Written:
    """Where everything goes that the process writes."""

    native: BinaryIO
    python: io.StringIO = field(default_factory=io.StringIO)

    def sizes(self) -> tuple[int, int]:
        """How much there is, of C++'s output and of Python's."""
        return os.fstat(self.native.fileno()).st_size, len(self.python.getvalue())

    def since(self, native: int, python: int) -> str:
        """What was written beyond these sizes."""
        end, _ = self.sizes()
        # pread, as read would move the place at which C++ writes
        text = os.pread(self.native.fileno(), end - native, native).decode("utf-8", "replace")
        return text + self.python.getvalue()[python:]


@contextlib.contextmanager
def _redirected() -> Iterator[_Written]:
    with tempfile.TemporaryFile() as native:
        written = _Written(native)
        sys.stdout.flush()
        sys.stderr.flush()
        saved = [(number, os.dup(number)) for number in (1, 2) if _is_open(number)]
        try:
            for number, _ in saved:
                os.dup2(native.fileno(), number)
            with (
                contextlib.redirect_stdout(written.python),
                contextlib.redirect_stderr(written.python),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                yield written
        finally:
            for number, copy in saved:
                os.dup2(copy, number)
                os.close(copy)


_caught = Shared(_redirected)


def _is_open(descriptor: int) -> bool:
    """A process started without a terminal may lack standard output or error."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
