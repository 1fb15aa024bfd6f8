"""peel-lengths: bit for bit what dynamic_rnn computes, with a plain cell left in the Scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hintc.graphdef import lift, lower
from hintc.ir import SCAN, Module, Scan
from hintc.remark import PassReport
from hintc_passes.peel_lengths import PeelLengths
from hintc_passes.raise_loops import RaiseLoops
from hinted_graphs import control_flow
from recurrences import DEPTH, Array, dynamic_rnn_model, run_graph_def

LENGTHS = [[5, 3, 0], [2, 1, -4], [9, 5, 1], [0, 0, 0]]


def peeled(graph_def: Any) -> tuple[Module, PassReport]:
    module = lift(graph_def)
    assert RaiseLoops().run(module).changed
    return module, PeelLengths().run(module)


def feeds(lengths: list[int]) -> dict[str, Array]:
    x = np.random.default_rng(0).standard_normal((5, len(lengths), DEPTH)).astype(np.float32)
    return {"x": x, "lengths": np.array(lengths, np.int32)}


@pytest.mark.parametrize("cells", [1, 2])
def test_outputs_and_final_output_state(cells: int) -> None:
    graph_def, names = dynamic_rnn_model(cells=cells)
    module, report = peeled(graph_def)
    assert report.counts == {"peeled": 1}
    scan = next(Scan.of(node) for node in module.graph if node.op == SCAN)
    assert not any(n.op.startswith("Select") for n in scan.body_function(module).graph)
    lowered = lower(module)
    for lengths in LENGTHS:
        before, after = (run_graph_def(g, feeds(lengths), names) for g in (graph_def, lowered))
        for one, other in zip(before, after, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
            assert (np.asarray(one) == 0).tolist() == (np.asarray(other) == 0).tolist()


def test_the_final_cell_state_is_a_reason_to_refuse() -> None:
    graph_def, names = dynamic_rnn_model(final_cell_state=True)
    module, report = peeled(graph_def)
    assert not report.changed
    assert [r.code for r in report.remarks] == ["lengths-final-state"]
    assert "reads the final value of state 0" in report.remarks[0].reason
    before, after = (run_graph_def(g, feeds([4, 0, 7]), names) for g in (graph_def, lower(module)))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_nothing_to_peel() -> None:
    graph_def, _ = dynamic_rnn_model(lengths=False)
    _, report = peeled(graph_def)
    assert not report.changed
    assert not report.remarks


def where_loop(column: Any, *, single: bool = False) -> Any:
    """A recurrence with where(); `column` makes a condition of the comparison."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with control_flow(2), tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [5, None, DEPTH], "x")
        lengths = v1.placeholder(tf.int32, [1 if single else None], "lengths")
        w = tf.constant(np.random.default_rng(1).uniform(-1, 1, (DEPTH, DEPTH)), tf.float32)

        def step(t: Any, h: Any, ys: Any) -> Any:
            new = tf.tanh(x[t] + h @ w)
            within = column(t < lengths)
            zero = tf.zeros_like(new)
            return t + 1, tf.where(within, new, h), ys.write(t, tf.where(within, new, zero))

        ys = tf.TensorArray(tf.float32, 5, element_shape=[None, DEPTH])
        first = tf.fill([tf.shape(x)[1], DEPTH], 0.5)
        _, h, ys = tf.while_loop(lambda t, *_: t < 5, step, (0, first, ys))
        tf.identity(ys.stack(), "y")
        tf.identity(h, "h")
        return graph.as_graph_def()


@pytest.mark.parametrize("single", [False, True])
def test_where_of_tensorflow_2(single: bool) -> None:
    import tensorflow as tf

    graph_def = where_loop(lambda within: tf.expand_dims(within, -1), single=single)
    module, report = peeled(graph_def)
    assert report.counts == {"peeled": 1}
    scan = next(Scan.of(node) for node in module.graph if node.op == SCAN)
    assert not any(n.op.startswith("Select") for n in scan.body_function(module).graph)
    lowered = lower(module)
    for lengths in [[3], [0], [7]] if single else LENGTHS:
        x = np.random.default_rng(0).standard_normal((5, 3, DEPTH)).astype(np.float32)
        given = {"x": x, "lengths": np.array(lengths, np.int32)}
        before, after = (run_graph_def(g, given, ["y", "h"]) for g in (graph_def, lowered))
        for one, other in zip(before, after, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("column", [lambda within: within, lambda within: within[None, :]])
def test_where_along_another_axis_stays(column: Any) -> None:
    """As many lengths as features: each feature ends at a time of its own."""
    _, report = peeled(where_loop(column))
    assert not report.changed


def test_lengths_that_are_computed_from_the_input() -> None:
    """A cast of what is no mask is lengths as well."""
    import tensorflow as tf
    from tf_keras.src.layers.rnn import legacy_cells

    import hintc

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 5, DEPTH], "x")
        lengths = tf.cast(tf.reduce_sum(x, [1, 2]), tf.int32)
        y, _ = v1.nn.dynamic_rnn(legacy_cells.LSTMCell(4), x, lengths, dtype=tf.float32)
        y = tf.identity(y, "y")
        session.run(v1.global_variables_initializer())
        feed = {"x": np.random.default_rng(0).uniform(0, 0.5, (4, 5, DEPTH)).astype(np.float32)}
        compiled = hintc.compile(session, [x], [y], check=[feed])
    assert compiled.report.fused_ops == {"UNIDIRECTIONAL_SEQUENCE_LSTM": 1}
