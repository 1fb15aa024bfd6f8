"""Recipes of `recurrent_models` as models of TensorFlow 1 and 2, Keras 2 and 3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tf_keras.src.layers.rnn import legacy_cell_wrappers as wrappers
from tf_keras.src.layers.rnn import legacy_cells

import hintc
from hand_written_cells import Step, hand_written
from hand_written_loops import LOOPS, States, with_lengths
from model_check import Array, Model, drawn, frozen
from recurrent_models import DEPTH, STEPS, Cell, Group, Recipe, Walk

v1 = tf.compat.v1
ACTIVATIONS = {
    "tanh": tf.tanh,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "sigmoid": tf.sigmoid,
    "linear": tf.identity,
}


def build(recipe: Recipe) -> Model:
    """The model of a recipe."""
    if recipe.keras:
        from keras_fronts import keras_model

        return keras_model(recipe)
    return frozen(
        lambda: GraphFront(recipe).build(),
        lambda batch: feeds(recipe, batch),
        control_flow=recipe.control_flow,
        seed=recipe.seed,
        hinted=recipe.front.startswith("hinted"),
        coarse=recipe.coarse,
        **said(recipe),
    )


def said(recipe: Recipe) -> dict[str, Any]:
    """What a recipe says of its model."""
    return {
        "kernels": recipe.kernels,
        "possible": recipe.possible,
        "loops": len(recipe.recurrences) - recipe.possible,
        "batches": (1, 3) if recipe.dynamic_batch else (2,),
    }


def feeds(recipe: Recipe, batch: int) -> dict[str, Array]:
    """Seeded values; with a dynamic time, the second batch size is longer."""
    steps = STEPS + (batch if recipe.dynamic_time else 0)
    random = np.random.default_rng([recipe.seed, batch])
    x = random.uniform(-1, 1, [batch, steps, DEPTH]).astype(np.float32)
    lengths = random.integers(0 if not recipe.keras else 1, steps + 1, batch).astype(np.int32)
    if recipe.keras and recipe.lengths:
        x *= np.arange(steps)[None, :, None] < lengths[:, None, None]
    return {"x": x.swapaxes(0, 1).copy() if recipe.time_major else x, "lengths": lengths}


class GraphFront:
    """A recipe as a TF1 graph."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._random = np.random.default_rng(recipe.seed)
        self._lengths: Any = None
        self._before: tuple[Any, ...] | None = None
        """What the loop before has ended with, (h,) or (h, c) of its last cell."""

    def build(self) -> tuple[dict[str, Any], list[Any]]:
        """Its placeholders and outputs."""
        recipe = self._recipe
        batch = None if recipe.dynamic_batch else 2
        steps = None if recipe.dynamic_time else STEPS
        shape = [steps, batch, DEPTH] if recipe.time_major else [batch, steps, DEPTH]
        inputs = {"x": v1.placeholder(tf.float32, shape, "x")}
        if recipe.lengths:
            self._lengths = inputs["lengths"] = v1.placeholder(tf.int32, [batch], "lengths")
        y, taps = inputs["x"], []
        states: States = []
        for number, group in enumerate(recipe.groups):
            before = y
            y, states = self._group(number, group, y)
            if recipe.beside == "residual":
                y += before @ self._weights(int(before.shape[-1]), group.width)
            if recipe.beside == "attention":
                y = attend(y, recipe.time_major)
            if group is not recipe.groups[-1]:
                taps += self._read(recipe.taps, group, y, states)
        return inputs, [*self._read(recipe.read, recipe.groups[-1], y, states), *taps]

    def _array(self, *shape: int) -> Array:
        return drawn(self._random, shape, self._recipe.coarse)

    def _weights(self, *shape: int) -> Any:
        return tf.constant(self._array(*shape))

    def _read(self, wanted: Sequence[str], group: Group, y: Any, states: States) -> Any:
        """What is wanted of a group; of both directions, two states."""
        for what in wanted:
            if what == "sequence":
                yield y
            elif what == "last":
                yield y[-1] if self._recipe.time_major else y[:, -1]
            else:
                for way in range(group.ways):
                    yield states[(way + 1) * len(group.cells) - 1]["hc".index(what)]

    def _group(self, number: int, group: Group, x: Any) -> tuple[Any, States]:
        """Run a group, in the layout of the model."""
        run = self._ways(number, group, int(x.shape[-1]))
        if self._recipe.beside == "nested" and number == 0:
            x = tf.while_loop(
                lambda k, value: k < 2,
                lambda k, value: (k + 1, tf.ensure_shape(run(value)[0], x.shape) + value),
                [tf.constant(0), x],
            )[1]
            self._before = None  # what is in the outer loop cannot be read outside
            return x, [(x[0], x[0])] * len(group.cells) * group.ways
        y, states = run(x)
        if self._recipe.beside == "shared" and number == 0:
            y = y + run(tf.sin(x))[0]
        return y, states

    def _ways(self, number: int, group: Group, depth: int) -> Callable[[Any], tuple[Any, States]]:
        """A function that may be called on several inputs: the cells are made once."""
        names = {"forward": ["fw"], "backward": ["bw"], "both": ["fw", "bw"]}[group.direction]
        loops = {name: self._loop(f"group_{number}_{name}", group, depth) for name in names}
        # so that each direction starts, in one group or another, where the other one ended
        order = names[::-1] if number % 2 and group.initial == "other" else names

        def run(x: Any) -> tuple[Any, States]:
            found: dict[str, tuple[Any, States]] = {}
            for name in order:
                around = name == "bw" and group.walk is None
                found[name] = self._reversed(loops[name], x) if around else loops[name](x)
                self._before = found[name][1][-1]
            ys = [found[name][0] for name in names]
            return merged(ys, group.merge), [s for name in names for s in found[name][1]]

        return run

    def _reversed(self, loop: Any, x: Any) -> tuple[Any, States]:
        y, states = loop(self._reverse(x))
        return self._reverse(y), states

    def _reverse(self, x: Any) -> Any:
        time = 0 if self._recipe.time_major else 1
        if self._lengths is None:
            return tf.reverse(x, [time])
        return tf.reverse_sequence(x, self._lengths, seq_axis=time, batch_axis=1 - time)

    def _loop(self, name: str, group: Group, depth: int) -> Callable[[Any], tuple[Any, States]]:
        front = self._recipe.front
        if front.startswith(("v1", "hinted")):
            return self._tf1_loop(name, group)
        # constants of the step, or captured from around it
        weights = self._array if self._recipe.seed % 2 else self._weights
        step, backward = hand_written(group, depth, weights), name.endswith("bw")
        return lambda x: self._hand_loop(group, step, x, backward)

    def _initial(self, group: Group, x: Any) -> States:
        """(h,) or (h, c) of each cell; x is time-major."""
        found: States = []
        before = self._before if group.initial == "other" else None
        for cell in group.cells:
            widths = [cell.width] + ([cell.units] if cell.kind == "lstm" else [])
            if before is not None:
                found.append(
                    tuple(
                        self._fit(before[min(k, len(before) - 1)], w) for k, w in enumerate(widths)
                    )
                )
            elif group.initial == "computed":
                found.append(
                    tuple(tf.sin(x[0] @ self._weights(int(x.shape[-1]), w)) for w in widths)
                )
            else:
                batch = tf.shape(x)[1] if x.shape[1] is None else x.shape[1]
                found.append(tuple(tf.zeros([batch, w]) for w in widths))
        return found

    def _fit(self, state: Any, width: int) -> Any:
        now = int(state.shape[-1])
        return state if now == width else tf.sin(state @ self._weights(now, width))

    # -- compat.v1 and hinted cells --------------------------------------------------------------

    def _tf1_loop(self, name: str, group: Group) -> Callable[[Any], tuple[Any, States]]:
        hinted = self._recipe.front.startswith("hinted")
        made = [(hinted_cell if hinted else tf1_cell)(cell) for cell in group.cells]
        cell = made[0] if len(made) == 1 else legacy_cells.MultiRNNCell(made)

        def run(x: Any) -> tuple[Any, States]:
            time_major = x if self._recipe.time_major else tf.transpose(x, [1, 0, 2])
            options: dict[str, Any] = {"sequence_length": self._lengths, "dtype": tf.float32}
            if group.initial != "zeros":
                first = [
                    tf1_state(c, s)
                    for c, s in zip(group.cells, self._initial(group, time_major), strict=True)
                ]
                options["initial_state"] = first[0] if len(made) == 1 else tuple(first)
            with v1.variable_scope(name, reuse=v1.AUTO_REUSE):
                y, state = self._tf1_call(cell, x, options)
            states = [state] if len(made) == 1 else list(state)
            return y, [own_state(c, s) for c, s in zip(group.cells, states, strict=True)]

        return run

    def _tf1_call(self, cell: Any, x: Any, options: dict[str, Any]) -> tuple[Any, Any]:
        front, major = self._recipe.front, self._recipe.time_major
        if front.endswith("static"):
            time = 0 if major else 1
            ys, state = v1.nn.static_rnn(cell, tf.unstack(x, STEPS, time), **options)
            return tf.stack(ys, time), state
        call = hintc.dynamic_rnn if front.startswith("hinted") else v1.nn.dynamic_rnn
        return call(cell, x, time_major=major, **options)

    # -- by hand ---------------------------------------------------------------------------------

    def _hand_loop(self, group: Group, step: Step, x: Any, backward: bool) -> tuple[Any, States]:
        if not self._recipe.time_major:
            x = tf.transpose(x, [1, 0, 2])
        first, width = self._initial(group, x), group.cells[-1].width
        if self._lengths is not None:
            step = with_lengths(step, self._lengths, width)
        walk = group.walk or Walk(row="slice" if self._recipe.front == "autograph" else "array")
        loop, backward = LOOPS[self._recipe.front], backward and group.walk is not None
        y, states = loop(step, x, first, width, walk, backward)
        return (y if self._recipe.time_major else tf.transpose(y, [1, 0, 2])), states


def merged(ys: Sequence[Any], merge: str) -> Any:
    """The outputs of one or two directions."""
    if len(ys) == 1:
        return ys[0]
    return (
        tf.concat(ys, -1)
        if merge == "concat"
        else ys[0] + ys[1]
        if merge == "sum"
        else ys[0] * ys[1]
    )


def attend(y: Any, time_major: bool) -> Any:
    """Dot-product attention of a sequence on itself."""
    rows = tf.transpose(y, [1, 0, 2]) if time_major else y
    rows = tf.matmul(tf.nn.softmax(tf.matmul(rows, rows, transpose_b=True)), rows)
    return tf.transpose(rows, [1, 0, 2]) if time_major else rows


def tf1_cell(cell: Cell) -> Any:
    options = dict(cell.options)
    if "activation" in options:
        options["activation"] = ACTIVATIONS[options["activation"]]
    kinds = {
        "lstm": legacy_cells.LSTMCell,
        "rnn": legacy_cells.BasicRNNCell,
        "gru": legacy_cells.GRUCell,
    }
    made = kinds[cell.kind](cell.units, **options)
    if cell.wrapper == "dropout":
        return wrappers.DropoutWrapper(made, 1.0, 1.0, 1.0)
    if cell.wrapper == "residual":
        return wrappers.ResidualWrapper(made)
    return wrappers.DeviceWrapper(made, "/cpu:0") if cell.wrapper == "device" else made


def hinted_cell(cell: Cell) -> Any:
    options = dict(cell.options)
    if "activation" in options:
        options["activation"] = ACTIVATIONS[options["activation"]]
    made = hintc.TFLiteLSTMCell if cell.kind == "lstm" else hintc.TfLiteRNNCell
    return made(cell.units, **options)


def tf1_state(cell: Cell, state: tuple[Any, ...]) -> Any:
    if cell.kind != "lstm":
        return state[0]
    if cell.options.get("state_is_tuple", True):
        return legacy_cells.LSTMStateTuple(state[1], state[0])
    return tf.concat(state[::-1], 1)


def own_state(cell: Cell, state: Any) -> tuple[Any, ...]:
    if cell.kind != "lstm":
        return (state,)
    if hasattr(state, "h"):
        return state.h, state.c
    return state[:, cell.units :], state[:, : cell.units]
