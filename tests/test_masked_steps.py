"""Steps in Python with masks made by hand, around plain and hinted cells: fused and right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tf_keras.src.layers.rnn import legacy_cells

import hintc
from model_check import Array, Outcome, check, frozen

v1 = tf.compat.v1
STEPS, DEPTH, UNITS = 4, 3, 4
BOTH = ("litert", "tensorflow")

CELLS: dict[str, Callable[[], Any]] = {
    "plain lstm": lambda: legacy_cells.LSTMCell(UNITS),
    "plain rnn": lambda: legacy_cells.BasicRNNCell(UNITS),
    "hinted lstm": lambda: hintc.TFLiteLSTMCell(UNITS, use_peepholes=True),
    "hinted rnn": lambda: hintc.TfLiteRNNCell(UNITS),
}


def column_before(lengths: Any) -> list[Any]:
    column = lengths[:, None]
    return [t < column for t in range(STEPS)]


def sequence_mask(lengths: Any) -> list[Any]:
    rows = tf.unstack(tf.sequence_mask(lengths, STEPS), axis=1)
    return [row[:, None] for row in rows]


MASKS: dict[str, Callable[[Any], list[Any]]] = {
    "column after": lambda n: [(t < n)[:, None] for t in range(STEPS)],
    "column before": column_before,
    "sequence_mask": sequence_mask,
    "negated": lambda n: [tf.expand_dims(tf.logical_not(t >= n), -1) for t in range(STEPS)],
    "one step late": lambda n: [(max(t - 1, 0) < n)[:, None] for t in range(STEPS)],
    "float lengths": lambda n: [(t < tf.cast(n, tf.float32))[:, None] for t in range(STEPS)],
}
"""Lengths -> for each step the mask, a column."""


def outcome(
    cell: str, mask: str = "column after", beyond: str = "zeros", read: str = "yh", **said: Any
) -> Outcome:
    """A model whose states keep their value under the mask.

    Args:
        cell: of `CELLS`.
        mask: of `MASKS`.
        beyond: what outputs are there: "zeros", "the last output", "the state", "anything".
        read: "y" all outputs, "l" the last one, "h" and "c" final states.
        said: of the model.
    """

    def build() -> tuple[dict[str, Any], list[Any]]:
        x = v1.placeholder(tf.float32, [STEPS, None, DEPTH], "x")
        lengths = v1.placeholder(tf.int32, [None], "lengths")
        of, batch = CELLS[cell](), tf.shape(x)[1]
        state, y, ys = of.zero_state(batch, tf.float32), tf.fill([batch, UNITS], 0.5), []
        for row, keep in zip(tf.unstack(x), MASKS[mask](lengths), strict=True):
            new_y, new = of(row, state)
            kept = [
                tf.where(keep, a, b)
                for a, b in zip(tf.nest.flatten(new), tf.nest.flatten(state), strict=True)
            ]
            state = tf.nest.pack_sequence_as(state, kept)
            y = {
                "zeros": lambda: tf.where(keep, new_y, tf.zeros_like(new_y)),  # noqa: B023
                "the last output": lambda: tf.where(keep, new_y, y),  # noqa: B023
                "the state": lambda: kept[-1],  # noqa: B023
                "anything": lambda: new_y,  # noqa: B023
            }[beyond]()
            ys.append(y)
        values = {"y": tf.stack(ys), "l": ys[-1], "h": kept[-1], "c": kept[0]}
        return {"x": x, "lengths": lengths}, [values[name] for name in read]

    def feeds(batch: int) -> dict[str, Array]:
        random = np.random.default_rng(batch)
        x = random.uniform(-1, 1, (STEPS, batch, DEPTH)).astype(np.float32)
        return {"x": x, "lengths": random.integers(-1, STEPS + 2, batch).astype(np.int32)}

    return check(
        frozen(build, feeds, hinted="hinted" in cell, batches=(1, 6), runtimes=BOTH, **said)
    )


@pytest.mark.parametrize("mask", ["column after", "column before", "sequence_mask", "negated"])
def test_masks(mask: str) -> None:
    assert outcome("plain rnn", mask).status == "fused"


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("beyond", "read"), [("zeros", "yh"), ("the last output", "yl"), ("the state", "yh")]
)
def test_outputs_beyond_the_lengths(cell: str, beyond: str, read: str) -> None:
    assert outcome(cell, beyond=beyond, read=read).status == "fused"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"mask": "one step late"}, "chain-order"),
        ({"mask": "float lengths"}, "chain-order"),
        ({"beyond": "anything"}, "lengths-output"),
        ({"read": "yc"}, "lengths-final-state"),
    ],
    ids=["one step late", "float lengths", "output", "final c"],
)
def test_what_no_kernel_gives_stays_and_is_right(options: dict[str, str], code: str) -> None:
    found = outcome("plain lstm", **options)
    assert (found.status, found.kernels) == ("refused", 0), found
    assert code in found.codes


def test_only_the_last_output_held_is_the_final_state() -> None:
    assert outcome("plain lstm", beyond="the last output", read="l").status == "fused"
