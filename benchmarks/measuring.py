"""What benchmarks share. Imported first, it gives TensorFlow one thread, no GPU and no chatter."""

from __future__ import annotations

import gc
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


def cpu_seconds(work: Callable[[], object], rounds: int = 2) -> float:
    """Processor time that `work` takes, all threads together; the least of `rounds` runs."""
    found = []
    for _ in range(rounds):
        gc.collect()  # what the run before left is not this one's
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def exponent(sizes: Sequence[int], times: Sequence[float]) -> float:
    """Slope of time over size, both logarithmic: 1 is linear growth."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
