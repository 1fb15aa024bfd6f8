"""Loops over time as people write them: how they count, and where they read and write rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from hand_written_cells import Step
from recurrent_models import STEPS, Walk

States = list[tuple[Any, ...]]
"""(h,) or (h, c) of each cell of a loop, of the last direction last."""


def with_lengths(step: Step, lengths: Any, width: int) -> Step:
    """States stay, and outputs are zero, beyond the lengths."""

    def masked(t: Any, row: Any, states: States) -> tuple[Any, States]:
        y, following = step(t, row, states)
        within = (t < lengths)[:, None]
        kept = [
            tuple(tf.where(within, new, old) for new, old in zip(*pair, strict=True))
            for pair in zip(following, states, strict=True)
        ]
        return tf.where(within, y, tf.zeros_like(y)), kept

    return masked


class _Places:
    """Where a step of a walk reads and writes.

    Args:
        x: the rows, time-major.
        walk: how the loop goes over them.
        backward: its direction.
    """

    def __init__(self, x: Any, walk: Walk, backward: bool) -> None:
        self._x, self._walk, self._backward = x, walk, backward
        self.length = STEPS if walk.literal else tf.shape(x)[0]
        self._rows: Any = None
        if walk.row == "array":
            self._rows = tf.TensorArray(tf.float32, self.length, element_shape=x.shape[1:])
            self._rows = self._rows.unstack(x)

    def read(self, t: Any) -> tuple[Any, Any]:
        """Which row is read where the index is `t`, and the row."""
        at = self._place(t, self._walk.reads_backward(self._backward))
        if self._rows is not None:
            return at, self._rows.read(at)
        return at, tf.gather(self._x, at) if self._walk.row == "gather" else self._x[at]

    def written(self, t: Any) -> Any:
        """Which row is written where the index is `t`."""
        return self._place(t, self._walk.writes_backward(self._backward))

    def _place(self, t: Any, backward: bool) -> Any:
        counted = t - 1 if self._walk.count == "from one" else t
        return counted if backward == (self._walk.count == "down") else self.length - 1 - counted


def while_loop(
    step: Step, x: Any, first: States, width: int, walk: Walk, backward: bool
) -> tuple[Any, States]:
    places = _Places(x, walk, backward)
    length = places.length
    ys = tf.TensorArray(tf.float32, length, element_shape=[x.shape[1], width])

    def body(t: Any, ys: Any, states: States) -> Any:
        at, row = places.read(t)
        y, following = step(at, row, states)
        after = t - 1 if walk.count == "down" else t + 1
        return after, ys.write(places.written(t), y), following

    def goes_on(t: Any, ys: Any, states: States) -> Any:
        if walk.count == "down":
            return t >= 0
        return t <= length if walk.count == "from one" else t < length

    start = {"up": 0, "down": length - 1, "from one": 1}[walk.count]
    _, ys, states = tf.while_loop(goes_on, body, [start, ys, first])
    return ys.stack(), states


def scan_loop(
    step: Step, x: Any, first: States, width: int, walk: Walk, backward: bool
) -> tuple[Any, States]:
    del walk
    start = tf.zeros([tf.shape(x)[1], width])
    steps = tf.range(tf.shape(x)[0])
    ys, states = tf.scan(
        lambda carried, now: step(now[0], now[1], carried[1]),
        (steps, x),
        (start, first),
        reverse=backward,
    )
    last = 0 if backward else -1
    return ys, [tuple(value[last] for value in state) for state in states]


def autograph_loop(
    step: Step, x: Any, first: States, width: int, walk: Walk, backward: bool
) -> tuple[Any, States]:
    places, run = _Places(x, walk, backward), tf.autograph.to_graph(_rows)
    ys = tf.TensorArray(tf.float32, places.length, element_shape=[x.shape[1], width])
    plain: Any = tf.autograph.experimental.do_not_convert

    def placed(t: Any, states: States) -> tuple[Any, States, Any]:
        at, row = places.read(t)
        return *step(at, row, states), places.written(t)

    return run(plain(placed), _indices(walk, places.length), first, ys)  # type: ignore[no-any-return]


def _rows(step: Any, indices: Any, states: States, ys: Any) -> tuple[Any, States]:
    for t in indices:
        y, states, at = step(t, states)
        ys = ys.write(at, y)
    return ys.stack(), states


def _indices(walk: Walk, length: Any) -> Any:
    if walk.count == "down":
        return tf.range(length - 1, -1, -1)
    return tf.range(1, length + 1) if walk.count == "from one" else tf.range(length)


LOOPS: dict[str, Callable[[Step, Any, States, int, Walk, bool], tuple[Any, States]]] = {
    "while": while_loop,
    "scan": scan_loop,
    "autograph": autograph_loop,
}
"""Front end -> (step, rows, first states, width of the output, walk, whether it goes backward) ->
outputs, as they are written, and final states."""
