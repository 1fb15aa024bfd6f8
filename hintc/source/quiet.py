"""TensorFlow's Python log kept silent for a moment."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

from hintc.shared import Shared


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    log = logging.getLogger("tensorflow")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


quiet = Shared(_silence)
"""Lets through errors only; freezing and loading say things that concern nobody here."""
