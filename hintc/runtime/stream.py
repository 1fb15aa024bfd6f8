"""Keeping TensorFlow's converter quiet: what it writes is caught and kept."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


class Captured:
    """What was written while output was caught; complete once `captured_output` has ended."""

    text: str = ""


@contextlib.contextmanager
def captured_output() -> Iterator[Captured]:
    """Catches standard output and error, Python's and C++'s, and warnings.

    File descriptors 1 and 2 belong to the whole process: other threads' output is caught too.
    """
    captured = Captured()
    python = io.StringIO()
    with tempfile.TemporaryFile() as native:
        sys.stdout.flush()
        sys.stderr.flush()
        saved = [(number, os.dup(number)) for number in (1, 2) if _is_open(number)]
        try:
            for number, _ in saved:
                os.dup2(native.fileno(), number)
            with (
                contextlib.redirect_stdout(python),
                contextlib.redirect_stderr(python),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                yield captured
        finally:
            for number, copy in saved:
                os.dup2(copy, number)
                os.close(copy)
            native.seek(0)
            captured.text = native.read().decode("utf-8", "replace") + python.getvalue()


def _is_open(descriptor: int) -> bool:
    """A process started without a terminal may lack standard output or error."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
