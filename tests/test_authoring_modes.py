"""The loops around hinted cells: built, trained and frozen in every mode of TensorFlow.

The modes are process-wide. This file runs in TF2's; test_authoring_rnn.py runs it again in a
process of its own for each of the others, named by the variable HINTC_TEST_TENSORFLOW_MODE.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.python.ops import control_flow_util
from tf_keras.src.layers.rnn.legacy_cells import LSTMStateTuple, MultiRNNCell

from hintc.authoring import (
    TFLiteLSTMCell,
    TfLiteRNNCell,
    bidirectional_dynamic_rnn,
    dynamic_rnn,
    find_all_hinted_output_nodes,
)

v1 = tf.compat.v1
Array = npt.NDArray[Any]

MODE = os.environ.get("HINTC_TEST_TENSORFLOW_MODE", "")
if MODE:
    getattr(v1, MODE)()

TIME, BATCH, DEPTH, UNITS = 7, 3, 5, 8


def feed(time_major: bool = True) -> Array:
    x = np.random.default_rng(1).uniform(-1, 1, [TIME, BATCH, DEPTH]).astype(np.float32)
    return x if time_major else x.transpose(1, 0, 2)


def lstm() -> Any:
    return TFLiteLSTMCell(UNITS, use_peepholes=True, num_proj=6)


def stack() -> Any:
    cells = [TFLiteLSTMCell(UNITS, name="a"), TfLiteRNNCell(6, name="b")]
    return tf_keras.layers.StackedRNNCells(cells)


def multi() -> Any:
    return MultiRNNCell([TFLiteLSTMCell(UNITS), TfLiteRNNCell(6)])


@contextmanager
def session() -> Iterator[Any]:
    with tf.Graph().as_default(), v1.Session() as opened:
        yield opened


def freeze(opened: Any, *outputs: Any) -> Any:
    names = [output.op.name for output in outputs]
    names += find_all_hinted_output_nodes(session=opened)
    graph_def = opened.graph.as_graph_def()
    return v1.graph_util.convert_variables_to_constants(opened, graph_def, names)


def run(graph_def: Any, feeds: dict[str, Array], *outputs: Any) -> Any:
    with session() as opened:
        tf.import_graph_def(graph_def, name="")
        return opened.run([output.name for output in outputs], feeds)


def ops_of(graph_def: Any) -> set[str]:
    bodies = [node for function in graph_def.library.function for node in function.node_def]
    return {node.op for node in [*graph_def.node, *bodies]}


SHAPES: dict[str, list[int | None]] = {
    "static": [TIME, BATCH, DEPTH],
    "dynamic batch": [TIME, None, DEPTH],
    "dynamic time": [None, BATCH, DEPTH],
    "dynamic both": [None, None, DEPTH],
}


@pytest.mark.parametrize(
    ("shape", "make"),
    [
        ("static", lstm),
        ("dynamic batch", stack),
        ("dynamic time", multi),
        ("dynamic both", stack),
    ],
)
def test_trains_and_freezes_to_a_functional_loop(shape: str, make: Callable[[], Any]) -> None:
    with session() as opened:
        x = v1.placeholder(tf.float32, SHAPES[shape], "x")
        outputs, state = dynamic_rnn(make(), x, dtype=tf.float32)
        assert outputs.shape.as_list() == [*SHAPES[shape][:2], 6]
        loss = tf.reduce_mean(tf.square(outputs - 0.3))
        step = v1.train.AdamOptimizer(0.03).minimize(loss)
        opened.run(v1.global_variables_initializer())
        losses = [opened.run([loss, step], {x: feed()})[0] for _ in range(20)]
        assert losses[-1] < 0.5 * losses[0]
        finals = tf.nest.flatten(state)
        want = opened.run([outputs, *finals], {x: feed()})
        frozen = freeze(opened, outputs, *finals)
    got = run(frozen, {"x:0": feed()}, outputs, *finals)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    ops = ops_of(frozen)
    assert ops & {"While", "StatelessWhile"}
    assert not ops & {"Enter", "Exit", "Switch", "Merge", "NextIteration", "VariableV2"}


def test_the_stock_loop_runs_the_cells_too() -> None:
    with session() as opened:
        x = tf.constant(feed())
        stock, _ = v1.nn.dynamic_rnn(stack(), x, dtype=tf.float32, time_major=True)
        with v1.variable_scope("", reuse=True):
            ours, _ = dynamic_rnn(stack(), x, dtype=tf.float32)
        gradients = tf.gradients(stock, v1.trainable_variables())
        opened.run(v1.global_variables_initializer())
        a, b, _ = opened.run([stock, ours, gradients])
    np.testing.assert_array_equal(a, b)


def test_computes_what_the_stock_loop_computes() -> None:
    with session() as opened:
        x, lengths = tf.constant(feed()), [TIME, 0, 2]
        cell = lstm()
        first = LSTMStateTuple(tf.fill([BATCH, UNITS], 0.4), tf.fill([BATCH, 6], -0.3))
        got = dynamic_rnn(cell, x, lengths, initial_state=first)
        want = v1.nn.static_rnn(cell, tf.unstack(x), first, sequence_length=tf.constant(lengths))
        opened.run(v1.global_variables_initializer())
        (outputs, state), (stock_outputs, stock_state) = opened.run([got, want])
    np.testing.assert_allclose(outputs, np.stack(stock_outputs), rtol=0, atol=1e-6)
    np.testing.assert_allclose(state.c, stock_state.c, rtol=0, atol=1e-6)
    np.testing.assert_allclose(state.h, stock_state.h, rtol=0, atol=1e-6)
    assert not outputs[2:, 2].any()
    assert not outputs[:, 1].any()


def test_batch_major_is_the_transposed_time_major() -> None:
    with session() as opened:
        cell = lstm()
        by_time, _ = dynamic_rnn(cell, tf.constant(feed()), dtype=tf.float32)
        by_batch, _ = dynamic_rnn(
            cell, tf.constant(feed(time_major=False)), dtype=tf.float32, time_major=False
        )
        assert by_batch.shape.as_list() == [BATCH, TIME, 6]
        assert by_batch.op.type == "Transpose"
        opened.run(v1.global_variables_initializer())
        a, b = opened.run([by_time, by_batch])
    np.testing.assert_array_equal(a.transpose(1, 0, 2), b)


@pytest.mark.parametrize(("time_major", "lengths"), [(False, [TIME, 1, 3]), (True, None)])
def test_bidirectional_is_forward_and_reversed_backward(time_major: bool, lengths: Any) -> None:
    x = feed(time_major)
    reversed_x = feed().copy()
    for row, length in enumerate(lengths or [TIME] * BATCH):
        reversed_x[:length, row] = reversed_x[:length, row][::-1]
    with session() as opened:
        forward, backward = lstm(), TfLiteRNNCell(4)
        placeholder = v1.placeholder(tf.float32, [None, None, DEPTH], "x")
        (fw, bw), (fw_state, bw_state) = bidirectional_dynamic_rnn(
            forward, backward, placeholder, lengths, dtype=tf.float32, time_major=time_major
        )
        alone, alone_state = dynamic_rnn(backward, reversed_x, lengths, dtype=tf.float32)
        forwards, forward_state = dynamic_rnn(forward, feed(), lengths, dtype=tf.float32)
        loss = tf.reduce_mean(tf.square(bw - 0.2)) + tf.reduce_mean(tf.square(fw - 0.2))
        step = v1.train.AdamOptimizer(0.03).minimize(loss)
        opened.run(v1.global_variables_initializer())
        losses = [opened.run([loss, step], {placeholder: x})[0] for _ in range(20)]
        assert losses[-1] < losses[0]
        fetches = [fw, bw, fw_state, bw_state, forwards, alone, forward_state, alone_state]
        values = opened.run(fetches, {placeholder: x})
        frozen = freeze(opened, fw, bw)
    frozen_fw, frozen_bw = run(frozen, {"x:0": x}, fw, bw)
    np.testing.assert_allclose(frozen_fw, values[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(frozen_bw, values[1], rtol=0, atol=1e-6)
    got_fw, got_bw = (v if time_major else v.transpose(1, 0, 2) for v in values[:2])
    np.testing.assert_allclose(got_fw, values[4], rtol=0, atol=1e-6)
    for row, length in enumerate(lengths or [TIME] * BATCH):
        want = values[5][:length, row][::-1]
        np.testing.assert_allclose(got_bw[:length, row], want, rtol=0, atol=1e-6)
    np.testing.assert_allclose(values[3], values[7], rtol=0, atol=1e-6)


def test_the_mode_is_restored_also_after_an_error() -> None:
    def mode() -> Any:
        return control_flow_util.ENABLE_CONTROL_FLOW_V2

    class Broken(TfLiteRNNCell):
        def call(self, inputs: Any, state: Any) -> Any:
            assert mode() is True
            raise ZeroDivisionError

    before = mode()
    assert before is (MODE != "disable_v2_behavior")
    with session():
        dynamic_rnn(lstm(), tf.constant(feed()), dtype=tf.float32)
        assert mode() is before
        with pytest.raises(ZeroDivisionError):
            dynamic_rnn(Broken(UNITS), tf.constant(feed()), dtype=tf.float32, scope="broken")
        assert mode() is before
