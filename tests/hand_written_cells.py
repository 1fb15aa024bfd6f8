"""Recurrent cells as people write them in plain ops: gate orders, packings, options, and traps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from recurrent_models import Cell, Group

Step = Callable[[Any, Any, Any], tuple[Any, Any]]
"""(index of the step, inputs [B, D], states) -> (output [B, N], next states)."""
Weights = Callable[..., Any]
"""Shape -> a new seeded array or tensor."""
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "tanh": tf.tanh,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "sigmoid": tf.sigmoid,
    "linear": lambda value: value,
}


def hand_written(group: Group, depth: int, weights: Weights) -> Step:
    """One step of all cells of a group; the states are a list of (h,) or (h, c)."""
    kinds = {"lstm": lstm, "rnn": rnn, "gru": gru}
    widths = [depth, *(cell.width for cell in group.cells)]
    made = [kinds[c.kind](c, w, weights) for c, w in zip(group.cells, widths, strict=False)]

    def step(t: Any, row: Any, states: Any) -> tuple[Any, Any]:
        following = []
        for one, state in zip(made, states, strict=True):
            row, new = one(t, row, state)
            following.append(new)
        return row, following

    return step


def rnn(cell: Cell, depth: int, weights: Weights) -> Step:
    w, r, b = weights(depth, cell.units), weights(cell.units, cell.units), weights(cell.units)
    activation = ACTIVATIONS[cell.options.get("activation", "tanh")]

    def step(t: Any, row: Any, state: Any) -> tuple[Any, Any]:
        h = activation(tf.matmul(row, w) + tf.matmul(state[0], r) + b)
        return (state[0] if cell.options.get("trap") == "shifted" else h), (h,)

    return step


def gru(cell: Cell, depth: int, weights: Weights) -> Step:
    gates = weights(depth + cell.units, 2 * cell.units)
    value = weights(depth + cell.units, cell.units)

    def step(t: Any, row: Any, state: Any) -> tuple[Any, Any]:
        (h,) = state
        reset, update = tf.split(tf.sigmoid(tf.matmul(tf.concat([row, h], 1), gates)), 2, 1)
        new = tf.tanh(tf.matmul(tf.concat([row, reset * h], 1), value))
        h = update * h + (1.0 - update) * new
        return h, (h,)

    return step


def lstm(cell: Cell, depth: int, weights: Weights) -> Step:
    """All options of TF1's cell and some more; see `TRAPS` for what is not an LSTM."""
    options, units = cell.options, cell.units
    trap = options.get("trap", "")
    pre_activations = _gates(cell, depth, weights)
    peepholes = {g: weights(units) for g in "ifo"} if options.get("use_peepholes") else {}
    projection = weights(units, cell.width) if "num_proj" in options else None
    activation = ACTIVATIONS[options.get("activation", "tanh")]
    second = tf.nn.relu6 if trap == "two activations" else activation
    gate = _hard_sigmoid if trap == "hard gate" else tf.sigmoid

    def step(t: Any, row: Any, state: Any) -> tuple[Any, Any]:
        h, c = state
        z = pre_activations(row, h)

        def look(name: str, value: Any) -> Any:
            return z[name] + peepholes[name] * value if peepholes else z[name]

        z["f"] = look("f", c) + options.get("forget_bias", 1.0)
        if trap == "time":
            z["f"] = z["f"] - tf.cast(t, tf.float32)
        forget = gate(z["f"])
        entry = 1.0 - forget if options.get("cifg") else tf.sigmoid(look("i", c))
        new = forget * c + entry * activation(z["g"]) * (0.5 if trap == "half" else 1.0)
        if "cell_clip" in options:
            new = tf.clip_by_value(new, -options["cell_clip"], options["cell_clip"])
        out = tf.sigmoid(look("o", new)) * second(new)
        out = out if projection is None else tf.matmul(out, projection)
        if "proj_clip" in options:
            out = tf.clip_by_value(out, -options["proj_clip"], options["proj_clip"])
        if trap == "zoneout":
            out = 0.9 * out + 0.1 * h
        following = (new, out) if trap == "swapped" and units == cell.width else (out, new)
        y = h if trap == "shifted" else out
        return (new if trap == "reads c" and units == cell.width else y), following

    return step


def _gates(cell: Cell, depth: int, weights: Weights) -> Callable[[Any, Any], dict[str, Any]]:
    """The pre-activations of i, f, g, o, packed as the options say."""
    units, order = cell.units, cell.options["order"]
    bias = cell.options.get("use_bias", True)
    packing = cell.options["packing"]
    if packing == "four":
        parts = {
            g: (weights(depth, units), weights(cell.width, units), weights(units)) for g in order
        }

        def four(row: Any, h: Any) -> dict[str, Any]:
            found = {}
            for name, (w, r, b) in parts.items():
                z = tf.matmul(row, w) + tf.matmul(h, r)
                found[name] = z + b if bias else z
            return found

        return four
    w, r = weights(depth, 4 * units), weights(cell.width, 4 * units)
    both, b = weights(depth + cell.width, 4 * units), weights(4 * units)

    def packed(row: Any, h: Any) -> dict[str, Any]:
        if packing == "concat":
            z = tf.matmul(tf.concat([row, h], 1), both)
        else:
            z = tf.matmul(row, w) + tf.matmul(h, r)
        z = tf.nn.bias_add(z, b) if bias else z
        return dict(zip(order, tf.split(z, 4, 1), strict=True))

    return packed


def _hard_sigmoid(value: Any) -> Any:
    return tf.clip_by_value(0.2 * value + 0.5, 0.0, 1.0)
