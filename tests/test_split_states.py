"""split-states: cells with one packed state fuse like those with a tuple; what is not cut stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tf_keras.src.layers.rnn import legacy_cells

import hintc
from hintc.graphdef import lower
from hintc.ir import SCAN, Scan
from hintc.runtime import session
from hintc.runtime.interpreter import Interpreter
from hintc_passes.split_states import SplitStates
from scan_builder import scan_module

v1 = tf.compat.v1
DEPTH, UNITS, STEPS = 3, 4, 5
LSTM, RNN = "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN"


def packed(name: str, *args: Any, **options: Any) -> Any:
    return getattr(legacy_cells, name)(*args, state_is_tuple=False, **options)


CELLS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "peephole_projection": (
        lambda: packed("LSTMCell", UNITS, use_peepholes=True, num_proj=3, cell_clip=0.5),
        [LSTM],
    ),
    "basic": (lambda: packed("BasicLSTMCell", UNITS), [LSTM]),
    "stacked": (
        lambda: packed("MultiRNNCell", [packed("LSTMCell", UNITS), packed("BasicLSTMCell", 3)]),
        [LSTM, LSTM],
    ),
    "stacked_rnn": (
        lambda: packed("MultiRNNCell", [legacy_cells.BasicRNNCell(n) for n in (UNITS, 3)]),
        [RNN, RNN],
    ),
}


def frozen_rnn(cell: Callable[[], Any], *, lengths: bool) -> Any:
    """x [?, 5, 3] (and len [?]) -> y and the packed final state s."""
    from tensorflow.python.ops import control_flow_util

    control_flow_util.ENABLE_CONTROL_FLOW_V2, before = (
        True,
        control_flow_util.ENABLE_CONTROL_FLOW_V2,
    )
    try:
        with tf.Graph().as_default() as graph, v1.Session() as running:
            x = v1.placeholder(tf.float32, [None, STEPS, DEPTH], "x")
            sizes = v1.placeholder(tf.int32, [None], "len") if lengths else None
            y, state = v1.nn.dynamic_rnn(cell(), x, sizes, dtype=tf.float32)
            tf.identity(y, "y"), tf.identity(state, "s")
            random = np.random.default_rng(0)
            for variable in v1.global_variables():
                value = random.uniform(-0.5, 0.5, variable.shape.as_list())
                running.run(variable.initializer, {variable.initializer.inputs[1]: value})
            return v1.graph_util.convert_variables_to_constants(
                running, graph.as_graph_def(), ["y", "s"]
            )
    finally:
        control_flow_util.ENABLE_CONTROL_FLOW_V2 = before


def fused_ops(report: Any) -> list[str]:
    return [r.reason.removeprefix("becomes one ") for r in report.fused]


@pytest.mark.parametrize(
    ("name", "lengths"), [*((name, False) for name in CELLS), ("stacked", True)]
)
def test_packed_states_of_cells_fuse(name: str, lengths: bool) -> None:
    cell, ops = CELLS[name]
    graph_def = frozen_rnn(cell, lengths=lengths)
    outputs = ["y"] if lengths else ["y", "s"]
    result = hintc.convert(graph_def, ["x", "len"] if lengths else ["x"], outputs)
    assert fused_ops(result.report) == ops, result.report.not_fused
    model = Interpreter(result.tflite)
    for batch in (1, 3):
        x = np.random.default_rng(batch).standard_normal((batch, STEPS, DEPTH))
        feeds: dict[str, Any] = {"x": x.astype(np.float32)}
        if lengths:
            feeds["len"] = np.array([2, STEPS, 0][:batch], np.int32)
        wanted = session.run(graph_def, feeds, outputs)
        for _ in range(2):
            got = model.run(feeds)
            for output in outputs:
                np.testing.assert_allclose(got[output], wanted[output], rtol=0, atol=1e-6)


W = np.random.default_rng(1).uniform(-0.5, 0.5, (DEPTH, UNITS)).astype(np.float32)


def split(step: Callable[..., Any], states: Sequence[int]) -> tuple[Any, list[Scan]]:
    """The report, and the Scans after it; the numbers must be the same bit for bit."""
    module, _ = scan_module(step, x=(DEPTH,), states=states, weights=(W,))
    random = np.random.default_rng(2)
    feeds = {"x0": random.standard_normal((7, 2, DEPTH)).astype(np.float32)}
    for k, width in enumerate(states):
        feeds[f"state{k}"] = random.standard_normal((2, width)).astype(np.float32)
    names = [f"out{k}" for k in range(len(module.graph.results))]
    before = session.run(lower(module), feeds, names)
    report = SplitStates().run(module)
    after = session.run(lower(module), feeds, names)
    for name in names:
        np.testing.assert_array_equal(before[name], after[name])
    assert not SplitStates().run(module).changed
    return report, [Scan.of(n) for n in module.graph if n.op == SCAN]


def test_parts_of_any_width_nested_cuts_and_other_states() -> None:
    def step(t: Any, x: Any, s: Any, other: Any, w: Any) -> Any:
        pair, c = s[:, :6], s[:, 6:]
        a, b = tf.split(tf.identity(pair), [2, 4], axis=1)
        new = tf.concat([tf.concat([b[:, :2], tf.tanh(x @ w)], 1), c + other], -1)
        return new, other + c, a

    report, (scan,) = split(step, (11, 5))
    assert report.counts == {"unpacked": 1}
    assert len(scan.states) == 4


def test_rows_that_a_mask_holds_back() -> None:
    def step(t: Any, x: Any, s: Any, w: Any) -> Any:
        a, b = tf.split(s, 2, axis=1)
        new = tf.concat([b, tf.tanh(x @ w) + a], 1)
        return tf.raw_ops.Select(condition=x[:, 0] > 0, x=s, y=new), b

    _, (scan,) = split(step, (2 * UNITS,))
    assert len(scan.states) == 2


def _reads_all(t: Any, x: Any, s: Any, w: Any) -> Any:
    return tf.concat([s[:, UNITS:], tf.tanh(x @ w)], 1), tf.tanh(s)


def _reads_across(t: Any, x: Any, s: Any, w: Any) -> Any:
    return tf.concat([s[:, 1:5], tf.tanh(x @ w)], 1), s[:, 4:]


def _mask_by_element(t: Any, x: Any, s: Any, w: Any) -> Any:
    a, b = tf.split(s, 2, axis=1)
    return tf.raw_ops.Select(condition=s > 0, x=s, y=tf.concat([b, tf.tanh(x @ w)], 1)), a


def _not_a_concatenation(t: Any, x: Any, s: Any, w: Any) -> Any:
    a, b = tf.split(s, 2, axis=1)
    return tf.nn.relu(tf.concat([b, tf.tanh(x @ w)], 1)), a


@pytest.mark.parametrize(
    "step", [_reads_all, _reads_across, _mask_by_element, _not_a_concatenation]
)
def test_what_is_not_cut_at_the_same_borders_stays(step: Callable[..., Any]) -> None:
    report, (scan,) = split(step, (2 * UNITS,))
    assert not report.changed
    assert len(scan.states) == 1
