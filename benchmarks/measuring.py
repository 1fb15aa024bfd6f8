"""What benchmarks share. Imported first, it gives TensorFlow one thread, no GPU and no chatter."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

import numpy as np

for name, value in (
    ("TF_CPP_MIN_LOG_LEVEL", "3"),
    ("CUDA_VISIBLE_DEVICES", "-1"),
    ("TF_NUM_INTRAOP_THREADS", "1"),
    ("TF_NUM_INTEROP_THREADS", "1"),
    ("TF_USE_LEGACY_KERAS", "1"),
):
    os.environ.setdefault(name, value)


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def exponent(sizes: Sequence[int], times: Sequence[float]) -> float:
    """Slope of time over size, both logarithmic: 1 is linear growth."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
