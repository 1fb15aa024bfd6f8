"""How the cost of raising, re-rolling and fusing recurrences grows with their number and length.

Also the cost of one model as people have it: a Keras 3 model of two LSTM layers. Processor time,
the least of two runs. With ``--full`` every series has all sizes (some ten minutes); without, two
have, and the others end earlier.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import recurrent_graphs as graphs
from measuring import cpu_seconds, exponent

LOOPS = (10, 100, 1000)
STEPS = (28, 300, 5000)


@dataclass(frozen=True)
class Series:
    """A model that is made larger and larger.

    Attributes:
        title: what there is more and more of.
        build: makes the model that is multiplied.
        multiplied: gives the GraphDef of so many loops or steps.
        sizes: with ``--full``.
        most: the largest size without it.
    """

    title: str
    build: Callable[[], Any]
    multiplied: Callable[[Any, int], Any]
    sizes: tuple[int, ...]
    most: int


SERIES = (
    Series("loops", graphs.loop, graphs.in_a_row, LOOPS, 1000),
    Series("v1 loops", graphs.frames_loop, graphs.in_a_row, LOOPS, 100),
    Series("hinted loops", graphs.hinted_loop, graphs.in_a_row, LOOPS, 100),
    Series("unrolled steps", graphs.steps, graphs.with_steps, STEPS, 5000),
    Series("hinted steps", graphs.hinted_steps, graphs.with_steps, STEPS, 300),
)


def table(series: Series, *, full: bool) -> None:
    """Measure `hintc.compile` for each size and print it with the exponent."""
    import hintc

    out = sys.stdout
    out.write(f"{series.title:>16} {'hintc.compile':>14}\n")
    seed = graphs.frozen(series.build)
    sizes = [size for size in series.sizes if full or size <= series.most]
    times = []
    for size in sizes:
        graph_def = series.multiplied(seed, size)
        times.append(cpu_seconds(partial(hintc.compile, graph_def, ["x"], ["y"])))
        out.write(f"{size:16} {times[-1]:12.3f} s\n")
        out.flush()
    out.write(f"growth exponent, {sizes[0]} to {sizes[-1]}: {exponent(sizes, times):.2f}\n")


def two_layers() -> Any:
    """A Keras 3 model of two LSTM layers."""
    import keras

    x = keras.Input((28, 28))
    y = keras.layers.LSTM(20, return_sequences=True)(x)
    return keras.Model(x, keras.layers.Dense(10)(keras.layers.LSTM(20)(y)))


def main() -> None:
    """Print all tables."""
    import hintc

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="all sizes of all series")
    full = parser.parse_args().full
    model = two_layers()
    hintc.compile(model)  # registries are read on first use
    sys.stdout.write(f"Keras 3, two LSTMs: {cpu_seconds(lambda: hintc.compile(model)):.3f} s\n")
    for series in SERIES:
        table(series, full=full)


if __name__ == "__main__":
    main()
