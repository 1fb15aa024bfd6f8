"""Random spellings of one LSTM step in TensorFlow, all of the same maths, and steps that are not.

A spelling is a set of choices; `step_of` builds the step for the model that `Cell` describes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Array = npt.NDArray[np.float32]
INPUTS, CELLS, OUTPUTS = 3, 4, 2
GATES = ("input", "forget", "cell", "output")


def _weights(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).uniform(-0.6, 0.6, shape).astype(np.float32)


@dataclass(frozen=True)
class Cell:
    """What is computed; the kernel has all of it."""

    coupled: bool = False
    peephole: bool = False
    projected: bool = False
    biased: bool = True
    cell_clip: float = 0.0
    proj_clip: float = 0.0
    activation: str = "tanh"
    forget_bias: float = 0.0

    @property
    def gates(self) -> tuple[str, ...]:
        return GATES[1:] if self.coupled else GATES

    @property
    def outputs(self) -> int:
        return OUTPUTS if self.projected else CELLS


CHOICES: dict[str, tuple[Any, ...]] = {
    "order": ((0, 1, 2, 3), (0, 2, 1, 3), (3, 1, 0, 2)),
    "product": (
        *("joined", "joined_hx", "two", "gates_joined", "gates", "einsum", "einsum_t"),
        *("batch", "transposed", "halves"),
    ),
    "bias": ("last", "first", "row", "add_n"),
    "cut": ("split", "split_v", "slice", "strided"),
    "sigmoid": ("each", "packed", "tanh"),
    "swapped": (False, True),
    "forget": ("gate", "bias", "sub"),
    "clip": ("min_max", "max_min", "clip"),
    "cell_first": (False, True),
    "identity": (False, True),
}
Choice = Mapping[str, Any]
Values = dict[str, Any]


def _matmul(kind: str, a: Any, matrix: Array) -> Any:
    if kind == "einsum":
        return tf.raw_ops.Einsum(inputs=[a, matrix], equation="bi,io->bo")
    if kind == "einsum_t":
        return tf.raw_ops.Einsum(inputs=[matrix.T.copy(), a], equation="oi,bi->bo")
    if kind == "batch":
        return tf.raw_ops.BatchMatMulV2(x=a, y=matrix)
    if kind == "transposed":
        return tf.matmul(a, matrix.T.copy(), transpose_b=True)
    if kind == "halves":
        at = matrix.shape[0] // 2
        return a[:, :at] @ matrix[:at] + a[:, at:] @ matrix[at:]
    return tf.matmul(a, matrix)


def _cut(kind: str, value: Any, count: int) -> list[Any]:
    width = value.shape[1] // count
    if kind == "split":
        return list(tf.split(value, count, axis=1))
    if kind == "split_v":
        return list(tf.split(value, [width] * (count - 1) + [-1], axis=-1))
    if kind == "slice":
        return [tf.slice(value, [0, n * width], [-1, width]) for n in range(count)]
    return [value[:, n * width : (n + 1) * width] for n in range(count)]


def _gates(cell: Cell, choice: Choice, x: Any, h: Any) -> Values:
    """Pre-activations without peepholes."""
    names = [GATES[at] for at in choice["order"] if GATES[at] in cell.gates]
    w = {g: _weights(n, INPUTS, CELLS) for n, g in enumerate(GATES)}
    r = {g: _weights(4 + n, cell.outputs, CELLS) for n, g in enumerate(GATES)}
    b = {g: _weights(8 + n, CELLS) * np.float32(cell.biased) for n, g in enumerate(GATES)}
    if choice["forget"] == "bias":
        b["forget"] = b["forget"] + np.float32(cell.forget_bias)
    kind = choice["product"]
    if kind in ("gates", "gates_joined"):
        found = {}
        for g in names:
            parts = [_matmul("two", x, w[g]), _matmul("two", h, r[g])]
            if kind == "gates_joined":
                parts = [tf.concat([x, h], 1) @ np.concatenate([w[g], r[g]])]
            found[g] = _biased(cell, choice, parts, b[g])
        return _with_forget_bias(cell, choice, found)
    wide = {key: np.concatenate([v[g] for g in names], -1) for key, v in (("w", w), ("r", r))}
    bias = np.concatenate([b[g] for g in names])
    if kind == "joined":
        parts = [tf.concat([x, h], 1) @ np.concatenate([wide["w"], wide["r"]])]
    elif kind == "joined_hx":
        parts = [tf.concat([h, x], -1) @ np.concatenate([wide["r"], wide["w"]])]
    else:
        parts = [_matmul(kind, x, wide["w"]), _matmul(kind, h, wide["r"])]
    z = _biased(cell, choice, parts, bias)
    cuts = _cut(choice["cut"], z, len(names))
    return _with_forget_bias(cell, choice, dict(zip(names, cuts, strict=True)))


def _biased(cell: Cell, choice: Choice, parts: list[Any], bias: Array) -> Any:
    if not cell.biased and choice["forget"] != "bias":
        return tf.add_n(parts) if len(parts) > 1 else parts[0]
    if choice["bias"] == "first":
        first = tf.nn.bias_add(parts[0], bias)
        return tf.raw_ops.Add(x=parts[1], y=first) if len(parts) > 1 else first
    if choice["bias"] == "row":
        return sum(parts[1:], parts[0]) + bias[None]
    if choice["bias"] == "add_n":
        return tf.nn.bias_add(tf.add_n(parts), bias)
    return tf.nn.bias_add(sum(parts[1:], parts[0]), bias)


def _with_forget_bias(cell: Cell, choice: Choice, gates: Values) -> Values:
    if choice["forget"] == "gate":
        gates["forget"] = gates["forget"] + cell.forget_bias
    elif choice["forget"] == "sub":
        gates["forget"] = gates["forget"] - np.float32(-cell.forget_bias)
    return gates


def sigmoids(choice: Choice, values: Values) -> Values:
    """Sigmoids of several gates, one by one or at once."""
    if choice["sigmoid"] == "packed" and len(values) > 1:
        packed = tf.sigmoid(tf.concat(list(values.values()), 1))
        return dict(zip(values, _cut(choice["cut"], packed, len(values)), strict=True))
    if choice["sigmoid"] == "tanh":
        return {g: 0.5 * tf.tanh(0.5 * v) + 0.5 for g, v in values.items()}
    return {g: tf.sigmoid(v) for g, v in values.items()}


def clipped(kind: str, value: Any, limit: float) -> Any:
    """Clipped to ``[-limit, limit]``; 0 for no clip."""
    if not limit:
        return value
    if kind == "clip":
        return tf.raw_ops.ClipByValue(t=value, clip_value_min=-limit, clip_value_max=limit)
    if kind == "min_max":
        return tf.maximum(tf.minimum(value, limit), -limit)
    return tf.minimum(limit, tf.maximum(-limit, value))


def _times(choice: Choice, a: Any, b: Any) -> Any:
    return b * a if choice["swapped"] else a * b


class Change:
    """Hooks of a step; overridden ones make it another cell's."""

    def gates(self, z: Values, x: Any, h: Any, c: Any) -> Values:
        return z

    def activated(self, s: Values) -> Values:
        return s

    def update(self, f: Any, c: Any, i: Any, g: Any, new: Any) -> Any:
        return new

    def carried(self, c: Any, raw: Any) -> Any:
        """What the next step gets as c."""
        return c

    def output_peephole(self, old: Any, new: Any) -> Any:
        return new

    def hidden(self, o: Any, act: Callable[..., Any], c: Any, h: Any, x: Any) -> Any:
        return o * act(c)

    def results(self, h: Any, c: Any, old_h: Any) -> tuple[Any, Any, Any]:
        """next h, next c, y."""
        return h, c, h


def step_of(cell: Cell, choice: Choice, change: Change | None = None) -> Callable[..., Any]:
    """``step(t, x, *states)``, states ``(h, c)`` or, with `cell_first`, ``(c, h)``."""
    hooks = change or Change()
    act = {"tanh": tf.tanh, "relu": tf.nn.relu, "relu6": tf.nn.relu6}[cell.activation]
    peepholes = [_weights(20 + n, CELLS) for n in range(3)]

    def step(t: Any, x: Any, *states: Any) -> Any:
        c, h = states if choice["cell_first"] else states[::-1]
        old_h, old_c = h, c
        z = hooks.gates(_gates(cell, choice, x, h), x, h, c)
        early = {g: v for g, v in z.items() if g in ("input", "forget")}
        if cell.peephole:
            early = {g: v + _times(choice, c, peepholes[g == "forget"]) for g, v in early.items()}
        if not cell.peephole:
            early["output"] = z["output"]
        s = hooks.activated(sigmoids(choice, early))
        i = 1.0 - s["forget"] if cell.coupled else s["input"]
        kept, new = _times(choice, s["forget"], c), _times(choice, i, act(z["cell"]))
        raw = new + kept if choice["swapped"] else kept + new
        raw = hooks.update(s["forget"], c, i, act(z["cell"]), raw)
        c = clipped(choice["clip"], raw, cell.cell_clip)
        if cell.peephole:
            late = {"output": z["output"] + peepholes[2] * hooks.output_peephole(old_c, c)}
            s |= hooks.activated(sigmoids(choice, late))
        h = hooks.hidden(s["output"], act, c, old_h, x)
        if cell.projected:
            h = clipped(choice["clip"], h @ _weights(30, CELLS, OUTPUTS), cell.proj_clip)
        if choice["identity"]:
            h, c = tf.identity(h), tf.identity(c)
        h, c, y = hooks.results(h, hooks.carried(c, raw), old_h)
        return (c, h, y) if choice["cell_first"] else (h, c, y)

    return step
