"""Settings that must stand before TensorFlow is imported, hypothesis' profile, and fixtures."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# One thread for each of the two test processes; also fixes the order of sums.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
# Dots are bold in no terminal: the same text everywhere.
os.environ.setdefault("NO_COLOR", "1")

import pytest
from hypothesis import settings

import cli_passes
import small_models

settings.register_profile("reproducible", derandomize=True, deadline=None)
settings.load_profile("reproducible")


@pytest.fixture
def graph(tmp_path: Path) -> str:
    """A file of a small GraphDef, for the command line."""
    return str(small_models.write(small_models.dense_graph(), tmp_path / "g.pb"))


@pytest.fixture
def own_passes() -> Iterator[None]:
    """Passes that only the tests of the command line have."""
    with cli_passes.own_passes():
        yield
