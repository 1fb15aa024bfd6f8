"""Hinted models as users wrote them, frozen: one builder per model, by name.

T = 7 steps, batch unknown, 5 inputs, 8 units, projection to 6, unless a builder says otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras.src.layers.rnn.legacy_cells import LSTMStateTuple, MultiRNNCell

import hintc

v1 = tf.compat.v1
STEPS, INPUTS, UNITS, PROJECTED = 7, 5, 8, 6
Builder = Callable[[], list[Any]]


@dataclass(frozen=True)
class HintedModel:
    """A frozen GraphDef with the names of its inputs and outputs, and feeds for a batch size."""

    graph_def: Any
    inputs: dict[str, Any]
    outputs: list[str]
    hinted: list[str] = field(default_factory=list)

    def feeds(self, batch: int, seed: int = 0) -> dict[str, Any]:
        random = np.random.default_rng(seed)
        found = {}
        for name, tensor in self.inputs.items():
            shape = [batch if d is None else d for d in tensor.shape.as_list()]
            if tensor.dtype == tf.int32:
                found[name] = random.integers(0, STEPS + 2, shape).astype(np.int32)
            else:
                found[name] = random.uniform(-1, 1, shape).astype(np.float32)
        return found


@contextlib.contextmanager
def control_flow(version: int) -> Iterator[None]:
    """TensorFlow's control-flow mode while a graph is built."""
    was = v1.control_flow_v2_enabled()
    switch = {True: v1.enable_control_flow_v2, False: v1.disable_control_flow_v2}
    switch[version == 2]()
    try:
        yield
    finally:
        switch[was]()


def freeze(build: Builder, version: int = 2) -> HintedModel:
    """Build a model, give its variables seeded values, freeze it with its hinted outputs."""
    with control_flow(version), tf.Graph().as_default() as graph:
        outputs = [t.op.name for t in build()]
        random = np.random.default_rng(7)
        with v1.Session() as session:
            for variable in v1.global_variables():
                value = random.uniform(-0.5, 0.5, variable.shape.as_list())
                session.run(variable.initializer, {variable.initializer.inputs[1]: value})
            hinted = hintc.find_all_hinted_output_nodes(session=session)
            frozen = v1.graph_util.convert_variables_to_constants(
                session, graph.as_graph_def(), outputs + hinted
            )
        inputs = {
            op.name: op.outputs[0] for op in graph.get_operations() if op.type == "Placeholder"
        }
        names = {n.name for n in frozen.node}
        return HintedModel(frozen, {k: t for k, t in inputs.items() if k in names}, outputs, hinted)


def placeholder(shape: list[int | None], name: str = "x", dtype: Any = tf.float32) -> Any:
    return v1.placeholder(dtype, shape, name)


def lstm(**options: Any) -> Callable[[], Any]:
    return lambda: hintc.TFLiteLSTMCell(UNITS, **options)


def rnn(**options: Any) -> Callable[[], Any]:
    return lambda: hintc.TfLiteRNNCell(UNITS, **options)


CELLS: dict[str, Callable[[], Any]] = {
    "plain": lstm(),
    "peephole": lstm(use_peepholes=True),
    "projection": lstm(num_proj=PROJECTED),
    "both": lstm(use_peepholes=True, num_proj=PROJECTED),
    "clips": lstm(use_peepholes=True, num_proj=PROJECTED, cell_clip=0.3, proj_clip=0.2),
    "no forget bias": lstm(forget_bias=0.0),
    "relu": lstm(activation="relu"),
    "shards": lstm(num_proj=PROJECTED, num_unit_shards=2, num_proj_shards=2),
    "rnn": rnn(),
    "rnn relu": rnn(activation="relu"),
}


def mixed() -> Any:
    return MultiRNNCell([CELLS["plain"](), CELLS["peephole"](), CELLS["both"]()])


def two_rnns() -> Any:
    return MultiRNNCell([hintc.TfLiteRNNCell(UNITS), hintc.TfLiteRNNCell(PROJECTED)])


def stacked() -> Any:
    return tf_keras.layers.StackedRNNCells([CELLS["plain"](), CELLS["peephole"]()])


def dynamic(cell: Callable[[], Any], time_major: bool = True) -> Builder:
    def build() -> list[Any]:
        x = placeholder([STEPS, None, INPUTS] if time_major else [None, STEPS, INPUTS])
        y, _ = hintc.dynamic_rnn(cell(), x, dtype=tf.float32, time_major=time_major)
        return [tf.identity(y, name="y")]

    return build


def static(cell: Callable[[], Any]) -> Builder:
    def build() -> list[Any]:
        steps = tf.unstack(placeholder([STEPS, None, INPUTS]))
        ys, _ = v1.nn.static_rnn(cell(), steps, dtype=tf.float32)
        return [tf.stack(ys, name="y")]

    return build


def both_ways(cell: Callable[[], Any], time_major: bool, lengths: bool = False) -> Builder:
    def build() -> list[Any]:
        x = placeholder([STEPS, None, INPUTS] if time_major else [None, STEPS, INPUTS])
        length = placeholder([None], "lengths", tf.int32) if lengths else None
        (fw, bw), _ = hintc.bidirectional_dynamic_rnn(
            cell(), cell(), x, length, dtype=tf.float32, time_major=time_major
        )
        return [tf.concat([fw, bw], 2, name="y")]

    return build


def both_ways_static(cell: Callable[[], Any]) -> Builder:
    def build() -> list[Any]:
        steps = tf.unstack(placeholder([STEPS, None, INPUTS]))
        ys, _, _ = v1.nn.static_bidirectional_rnn(cell(), cell(), steps, dtype=tf.float32)
        return [tf.stack(ys, name="y")]

    return build


def fed_state() -> list[Any]:
    c, h = placeholder([None, UNITS], "c0"), placeholder([None, UNITS], "h0")
    x = placeholder([STEPS, None, INPUTS])
    y, _ = hintc.dynamic_rnn(CELLS["plain"](), x, initial_state=LSTMStateTuple(c, h))
    return [tf.identity(y, name="y")]


def constant_state() -> list[Any]:
    random = np.random.default_rng(3)
    c, h = (tf.constant(random.uniform(-1, 1, [3, UNITS]), tf.float32) for _ in range(2))
    x = placeholder([STEPS, 3, INPUTS])
    y, _ = hintc.dynamic_rnn(CELLS["plain"](), x, initial_state=LSTMStateTuple(c, h))
    return [tf.identity(y, name="y")]


def final_states(static_chain: bool) -> Builder:
    def build() -> list[Any]:
        x = placeholder([STEPS, None, INPUTS])
        if static_chain:
            ys, state = v1.nn.static_rnn(CELLS["plain"](), tf.unstack(x), dtype=tf.float32)
            y = tf.stack(ys)
        else:
            y, state = hintc.dynamic_rnn(CELLS["plain"](), x, dtype=tf.float32)
        named = zip("ych", (y, state.c, state.h), strict=True)
        return [tf.identity(value, name=name) for name, value in named]

    return build


def batch_major_static() -> list[Any]:
    """A fixed batch, unstacked and stacked on axis 1."""
    steps = tf.unstack(placeholder([2, STEPS, INPUTS]), axis=1)
    ys, _ = v1.nn.static_rnn(CELLS["plain"](), steps, dtype=tf.float32)
    return [tf.stack(ys, axis=1, name="y")]


def lengths_dynamic(cell: Callable[[], Any]) -> Builder:
    def build() -> list[Any]:
        lengths = placeholder([None], "lengths", tf.int32)
        x = placeholder([STEPS, None, INPUTS])
        y, _ = hintc.dynamic_rnn(cell(), x, lengths, dtype=tf.float32)
        return [tf.identity(y, name="y")]

    return build


def dynamic_time() -> list[Any]:
    x = placeholder([None, None, INPUTS])
    y, _ = hintc.dynamic_rnn(CELLS["plain"](), x, dtype=tf.float32)
    return [tf.identity(y, name="y")]


def digits(multi: bool = False, transposed: bool = False, units: int = 64) -> Builder:
    """The classic two-layer digit classifier; `transposed` reads the last step as the tutorial."""

    def build() -> list[Any]:
        x = placeholder([None, 28, 28], "INPUT")
        cells = [hintc.TFLiteLSTMCell(units, name=f"rnn{n}") for n in (1, 2)]
        cell = MultiRNNCell(cells) if multi else tf_keras.layers.StackedRNNCells(cells)
        y, _ = hintc.dynamic_rnn(cell, tf.transpose(x, [1, 0, 2]), dtype="float32")
        last = tf.unstack(tf.transpose(y, [1, 0, 2]), axis=1)[-1] if transposed else y[-1]
        w, b = v1.get_variable("out_w", [units, 10]), v1.get_variable("out_b", [10])
        return [tf.nn.softmax(tf.matmul(last, w) + b, name="OUTPUT_CLASS")]

    return build


def user_conv() -> list[Any]:
    x = placeholder([None, 8, 8, 3])
    kernel, bias = v1.get_variable("k", [3, 3, 3, 4]), v1.get_variable("b", [4])
    hint = hintc.OpHint("my_conv", stride=2, alpha=0.5)
    x, kernel, bias = hint.add_inputs(x, kernel, bias, names=["x", "k", "b"])
    y = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, 2, "SAME"), bias))
    (y,) = hint.add_outputs(y)
    return [tf.identity(y, name="y")]


def user_nested() -> list[Any]:
    outer = hintc.OpHint("my_outer")
    (a,) = outer.add_inputs(placeholder([None, 4]))
    inner = hintc.OpHint("my_inner", gain=2.0)
    (b,) = inner.add_inputs(tf.nn.relu(a))
    (c,) = inner.add_outputs(b * 2.0 + 1.0)
    (d,) = outer.add_outputs(tf.tanh(c))
    return [tf.identity(d, name="y")]


def user_aggregated() -> list[Any]:
    x = placeholder([3, None, 4])
    hint = hintc.OpHint("my_cumsum")
    total = tf.zeros_like(x[0])
    outs = []
    total = hint.add_input(total, tag="state", aggregate="first", index_override=1)
    for step in tf.unstack(x):
        member = hint.add_input(step, tag="x", aggregate="stack", index_override=0)
        total = total + member
        outs.append(hint.add_output(total, tag="y", aggregate="stack"))
        last = hint.add_output(total, tag="last", aggregate="last", name="last")
    return [tf.stack(outs, name="y"), tf.identity(last, name="end")]


def user_chain() -> list[Any]:
    x = placeholder([None, 4])
    for n in range(3):
        hint = hintc.OpHint("my_square", n=n)
        (x,) = hint.add_inputs(x)
        (x,) = hint.add_outputs(x * x + 0.1)
    return [tf.identity(x, name="y")]


def user_sparse_arguments() -> list[Any]:
    x, z = placeholder([None, 4], "x"), placeholder([None, 4], "z")
    hint = hintc.OpHint("my_sparse_args")
    x = hint.add_input(x, index_override=0)
    z = hint.add_input(z, index_override=2)
    return [tf.identity(hint.add_output(x - z, index_override=1), name="y")]
