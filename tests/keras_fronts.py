"""Recipes of `recurrent_models` as models of Keras 2 and 3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tf_keras

from model_check import Array, Model, drawn
from recurrent_fronts import feeds, said
from recurrent_models import DEPTH, STEPS, Group, Recipe

LAYERS = {"lstm": "LSTM", "rnn": "SimpleRNN", "gru": "GRU"}
MERGES = {"concat": "concat", "sum": "sum", "mul": "mul"}


def keras_model(recipe: Recipe) -> Model:
    """The functional model of a recipe, with seeded weights."""
    version = tf_keras if recipe.front == "keras 2" else keras
    model = KerasFront(recipe, version).build()
    random = np.random.default_rng(recipe.seed)
    values = [drawn(random, w.shape, recipe.coarse) for w in model.weights]
    model.set_weights(values)

    def given(batch: int) -> dict[str, Array]:
        return {"x": feeds(recipe, batch)["x"]}

    def wanted(values: dict[str, Array]) -> list[Array]:
        found = model(values["x"], training=False)
        listed = found if isinstance(found, (list, tuple)) else [found]
        return [np.asarray(value) for value in listed]

    return Model(model, given, wanted, **said(recipe))


class KerasFront:
    """A recipe as a functional model."""

    def __init__(self, recipe: Recipe, version: Any) -> None:
        self._recipe, self._version, self._layers = recipe, version, version.layers

    def build(self) -> Any:
        """The model, its weights as Keras chose them."""
        recipe, layers = self._recipe, self._layers
        steps = None if recipe.dynamic_time else STEPS
        batch = None if recipe.dynamic_batch else 2
        given = y = layers.Input((steps, DEPTH), batch_size=batch, name="x")
        if recipe.lengths:
            y = layers.Masking()(y)
        states: list[Any] = []
        taps: list[Any] = []
        for number, group in enumerate(recipe.groups):
            last = number == len(recipe.groups) - 1
            only_last = last and "sequence" not in recipe.read and recipe.beside == "nothing"
            before, run = y, self._group(group, only_last, self._ended(number, states))
            y, states = run(y)
            if recipe.beside == "shared" and number == 0:
                y = layers.Add()([y, run(layers.Activation("tanh")(before))[0]])
            if recipe.beside == "residual":
                y = layers.Add()([y, layers.Dense(group.width)(before)])
            if recipe.beside == "attention":
                y = layers.Attention()([y, y])
            if not last:
                taps += self._read(recipe.taps, group, y, states)
        read = self._read(recipe.read, recipe.groups[-1], y, states)
        return self._version.Model(given, [*read, *taps])

    def _ended(self, number: int, states: list[Any]) -> list[Any]:
        """What the group before has ended with, (h,) or (h, c) of its last cell."""
        if not number:
            return []
        return states[-2 if self._recipe.groups[number - 1].cells[-1].kind == "lstm" else -1 :]

    def _read(self, wanted: Sequence[str], group: Group, y: Any, states: list[Any]) -> list[Any]:
        found = []
        for what in wanted:
            if what == "sequence":
                found.append(y)
            elif what == "last":
                found.append(y[:, -1] if len(y.shape) == 3 else y)
            else:
                per_way = len(states) // group.ways
                last = 2 if group.cells[-1].kind == "lstm" else 1
                for way in range(group.ways):
                    mine = states[way * per_way : (way + 1) * per_way]
                    found.append(mine[-last:]["hc".index(what)])
        return found

    def _group(
        self, group: Group, only_last: bool, before: list[Any]
    ) -> Callable[[Any], tuple[Any, list[Any]]]:
        """A function that may be called on several inputs: the layers are made once."""
        shared = {
            "return_sequences": not only_last,
            "return_state": True,
            "go_backwards": group.direction == "backward",
        }
        layer = self._layer(group, shared)
        if group.direction == "both":
            layer = self._layers.Bidirectional(layer, merge_mode=MERGES[group.merge])
        widths = [w for c in group.cells for w in [c.units] * (2 if c.kind == "lstm" else 1)]
        # Keras 3's and 2's stacks take nested states, which differ; they start from zeros here
        single = len(group.cells) == 1
        computed = group.initial == "computed" and single
        starts = [self._layers.Dense(w) for w in widths * group.ways] if computed else []
        others = [before[min(k, len(before) - 1)] for k in range(len(widths)) if before]
        others = [self._fit(*pair) for pair in zip(others, widths, strict=False)] * group.ways

        def run(x: Any) -> tuple[Any, list[Any]]:
            initial = {"initial_state": [start(x[:, 0]) for start in starts]} if starts else {}
            if group.initial == "other" and single and others:
                initial = {"initial_state": others}
            y, *states = layer(x, **initial)
            return y, self._flat(states)

        return run

    def _fit(self, state: Any, width: int) -> Any:
        return state if state.shape[-1] == width else self._layers.Dense(width)(state)

    def _flat(self, states: list[Any]) -> list[Any]:
        flat: list[Any] = []
        for state in states:
            flat += self._flat(list(state)) if isinstance(state, (list, tuple)) else [state]
        return flat

    def _layer(self, group: Group, shared: dict[str, Any]) -> Any:
        layers = self._layers
        first = dict(group.cells[0].options)
        unroll = {"unroll": True} if first.pop("unroll", False) else {}
        if len(group.cells) == 1 and not first.pop("as_cell", False):
            kind = getattr(layers, LAYERS[group.cells[0].kind])
            if self._recipe.front == "keras 3":
                first.pop("implementation", None)
            return kind(group.cells[0].units, **first, **unroll, **shared)
        made = []
        for cell in group.cells:
            options = {
                k: v
                for k, v in cell.options.items()
                if k not in ("unroll", "as_cell")
                and (k != "implementation" or self._recipe.front == "keras 2")
            }
            made.append(getattr(layers, f"{LAYERS[cell.kind]}Cell")(cell.units, **options))
        return layers.RNN(made if len(made) > 1 else made[0], **unroll, **shared)
