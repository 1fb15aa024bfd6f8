"""How the cost of raising, re-rolling and fusing recurrences grows with their number and length.

Also the cost of one model as people have it: a Keras 3 model of two LSTM layers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import recurrent_graphs as graphs
from measuring import exponent, seconds

LOOPS = (10, 30, 100, 300, 1000)
FEWER_LOOPS = (10, 30, 100)
STEPS = (28, 300, 1000, 5000)
HINTED_STEPS = (28, 100, 300)
SERIES: tuple[tuple[str, Callable[[], Any], Callable[[Any, int], Any], tuple[int, ...]], ...] = (
    ("loops", graphs.loop, graphs.in_a_row, LOOPS),
    ("v1 loops", graphs.frames_loop, graphs.in_a_row, FEWER_LOOPS),
    ("hinted loops", graphs.hinted_loop, graphs.in_a_row, FEWER_LOOPS),
    ("unrolled steps", graphs.steps, graphs.with_steps, STEPS),
    ("hinted steps", graphs.hinted_steps, graphs.with_steps, HINTED_STEPS),
)
"""What is multiplied, how, and how often."""


def table(title: str, sizes: tuple[int, ...], graph_of: Callable[[int], Any]) -> None:
    """Time `hintc.compile` for each size and print it with the exponent."""
    import hintc

    out = sys.stdout
    out.write(f"{title:>16} {'hintc.compile':>14}\n")
    times = []
    for size in sizes:
        graph_def = graph_of(size)
        times.append(seconds(partial(hintc.compile, graph_def, ["x"], ["y"])))
        out.write(f"{size:16} {times[-1]:12.3f} s\n")
    out.write(f"growth exponent: {exponent(sizes, times):.2f}\n")


def two_layers() -> Any:
    """A Keras 3 model of two LSTM layers."""
    import keras

    x = keras.Input((28, 28))
    y = keras.layers.LSTM(20, return_sequences=True)(x)
    return keras.Model(x, keras.layers.Dense(10)(keras.layers.LSTM(20)(y)))


def main() -> None:
    """Print all tables."""
    import hintc

    model = two_layers()
    hintc.compile(model)  # registries are read on first use
    sys.stdout.write(f"Keras 3, two LSTMs: {seconds(lambda: hintc.compile(model)):.3f} s\n")
    for title, build, multiplied, sizes in SERIES:
        table(title, sizes, partial(multiplied, graphs.frozen(build)))


if __name__ == "__main__":
    main()
