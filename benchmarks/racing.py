"""Latency of .tflite models against each other: one process, interleaved, ratios with intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Clock = Callable[[], float]
SAMPLE_SECONDS = 0.004
"""A sample is as many runs as fill this time, after one that is not timed (it warms the caches)."""


@dataclass(frozen=True)
class Ratio:
    """The time of one model in units of another's.

    Attributes:
        median: over the rounds, each ratio from one round.
        low, high: a 95 % interval of the median, by bootstrap.
        spread: between the quartiles, as a part of the median.
    """

    median: float
    low: float
    high: float
    spread: float


@dataclass(frozen=True)
class Race:
    """What was measured.

    Attributes:
        seconds: of one run, by model and round.
    """

    seconds: Mapping[str, Array]

    def best(self, name: str) -> float:
        """The fastest sample of a model, in seconds: least disturbed by other work."""
        return float(self.seconds[name].min())

    def ratio(self, name: str, base: str) -> Ratio:
        """How long `name` takes in units of `base`."""
        ratios = self.seconds[name] / self.seconds[base]
        drawn = np.random.default_rng(0).choice(ratios, (1000, len(ratios)))
        low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
        first, middle, third = np.percentile(ratios, [25, 50, 75])
        return Ratio(float(middle), float(low), float(high), float((third - first) / middle))


def race(models: Mapping[str, bytes], x: Array, *, threads: int, rounds: int) -> Race:
    """Run all models in turn, in an order of its own in each round.

    Each round has new interpreters: where the memory of one happens to lie makes up to a fifth of
    its time, and stays for its life.

    Args:
        models: by name; each has one input of the shape of `x`.
        x: what they are fed with.
        threads: of the interpreter. With 1, its time on the CPU counts, not what other processes
            on the machine take in between.
        rounds: samples of each model.
    """
    clock: Clock = time.thread_time if threads == 1 else time.perf_counter
    random = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    counts: dict[str, int] = {}
    for _ in range(rounds):
        for name in random.permutation(list(models)):
            run = _prepared(models[name], x, threads)
            if name not in counts:
                counts[name] = _runs_in_a_sample(run, clock)
            seconds[name].append(_sample(run, counts[name], clock))
    return Race({name: np.array(found) for name, found in seconds.items()})


def _prepared(model: bytes, x: Array, threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=threads)
    (detail,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(detail["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(detail["index"], x)
    interpreter.invoke()
    return interpreter.invoke


def _runs_in_a_sample(run: Any, clock: Clock) -> int:
    return max(1, round(SAMPLE_SECONDS / min(_sample(run, 1, clock) for _ in range(3))))


def _sample(run: Any, count: int, clock: Clock) -> float:
    run()
    start = clock()
    for _ in range(count):
        run()
    return (clock() - start) / count


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive numbers."""
    return float(np.exp(np.mean(np.log(values))))
