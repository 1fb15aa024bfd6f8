"""fuse-lstm: spellings of one LSTM that all must be recognised, and what must be refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from hintc.graphdef import lower
from hintc.ir import Port, Scan, Tensor
from hintc.runtime import session
from hintc_passes.fuse_lstm import FuseLstm
from scan_builder import scan_module

INPUTS, N, P = 5, 8, 6
RANDOM = np.random.default_rng(3)


def weight(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32) * np.float32(0.4)


K, R, B = weight(INPUTS, 4 * N), weight(N, 4 * N), weight(4 * N)
DIAGONALS = [weight(N) for _ in range(3)]
PROJECTION = weight(N, P)
R_PROJECTED = weight(P, 4 * N)


def finish(i: Any, f: Any, g: Any, o: Any, c: Any, act: Callable[..., Any] = tf.tanh) -> Any:
    c = tf.sigmoid(f) * c + tf.sigmoid(i) * act(g)
    h = tf.sigmoid(o) * act(c)
    return h, c, h


def one_matmul_ijfo(t: Any, x: Any, c: Any, h: Any, k: Any, b: Any) -> Any:
    """compat.v1 LSTMCell: concat, split i, j, f, o; forget bias outside of the bias; c before h."""
    i, j, f, o = tf.split(tf.nn.bias_add(tf.concat([x, h], 1) @ k, b), 4, axis=1)
    h, c, y = finish(i, f + 1.0, j, o, c)
    return c, h, y


def keras(t: Any, x: Any, h: Any, c: Any, k: Any, r: Any, b: Any) -> Any:
    """Keras: two products, split i, f, g, o."""
    i, f, g, o = tf.split(tf.nn.bias_add(x @ k + h @ r, b), 4, axis=1)
    return finish(i, f, g, o, c)


def four_products(t: Any, x: Any, h: Any, c: Any, k: Any, r: Any, b: Any) -> Any:
    """Eight products on slices of the weights, operands the other way round."""
    parts = [
        h @ r[:, n * N : (n + 1) * N] + (b[n * N : (n + 1) * N] + x @ k[:, n * N : (n + 1) * N])
        for n in range(4)
    ]
    i, f, g, o = parts
    c = tf.tanh(g) * tf.sigmoid(i) + c * tf.sigmoid(f)
    h = tf.tanh(c) * tf.sigmoid(o)
    return tf.identity(h), c, h


def packed_sigmoid(t: Any, x: Any, h: Any, c: Any, k: Any, r: Any, b: Any) -> Any:
    """One sigmoid on three gates, split after it; transposed weights."""
    z = tf.matmul(x, tf.transpose(k), transpose_b=True) + h @ r + b
    i, f, o = tf.split(tf.sigmoid(tf.concat([z[:, : 2 * N], z[:, 3 * N :]], 1)), 3, axis=1)
    c = f * c + i * tf.tanh(z[:, 2 * N : 3 * N])
    h = o * tf.tanh(c)
    return h, c, h


SPELLINGS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "one_matmul_ijfo": (one_matmul_ijfo, (np.concatenate([K, R]), B)),
    "keras": (keras, (K, R, B)),
    "four_products": (four_products, (K, R, B)),
    "packed_sigmoid": (packed_sigmoid, (K, R, B)),
}


def fuse(step: Callable[..., Any], weights: tuple[Any, ...], **kwargs: Any) -> tuple[Any, Any]:
    module, node = scan_module(step, weights=weights, **kwargs)
    report = FuseLstm().run(module)
    return Scan.of(node).fusion, report


def constant(fusion: Any, slot: str) -> Any:
    value = fusion.operands[slot].node.attributes["value"]
    assert isinstance(value, Tensor)
    return value.array


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_gives_the_same_operands(name: str) -> None:
    step, weights = SPELLINGS[name]
    fusion, report = fuse(step, weights)
    assert fusion is not None, report.remarks
    assert fusion.op == "UNIDIRECTIONAL_SEQUENCE_LSTM"
    ijfo = name == "one_matmul_ijfo"
    order = ("input", "cell", "forget", "output") if ijfo else ("input", "forget", "cell", "output")
    for at, gate in enumerate(order):
        columns = slice(at * N, (at + 1) * N)
        np.testing.assert_array_equal(constant(fusion, f"input_to_{gate}_weights"), K[:, columns].T)
        np.testing.assert_array_equal(
            constant(fusion, f"recurrent_to_{gate}_weights"), R[:, columns].T
        )
        bias = B[columns] + np.float32(1 if ijfo and gate == "forget" else 0)
        np.testing.assert_array_equal(constant(fusion, f"{gate}_gate_bias"), bias)
    states = ("final_cell_state", "final_output_state")
    assert fusion.results == (*(states if ijfo else states[::-1]), "output")
    assert fusion.operands["cell_state"].node.name == ("state0" if ijfo else "state1")
    assert fusion.attributes["activation"] == "TANH"
    assert not {"projection_weights", "cell_to_forget_weights"} & fusion.operands.keys()
    assert [r.kind.value for r in report.remarks] == ["fused"]


def peephole_projection_clips(
    t: Any, x: Any, c: Any, h: Any, k: Any, r: Any, b: Any, p: Any, wi: Any, wf: Any, wo: Any
) -> Any:
    i, f, g, o = tf.split(tf.nn.bias_add(x @ k + h @ r, b), 4, axis=1)
    c = tf.sigmoid(f + wf * c) * c + tf.sigmoid(i + wi * c) * tf.nn.relu(g)
    c = tf.maximum(tf.minimum(c, 0.5), -0.5)
    h = (tf.sigmoid(o + wo * c) * tf.nn.relu(c)) @ p
    h = tf.clip_by_value(h, -0.3, 0.3)
    return c, h, h


def test_peephole_projection_clips_and_relu_are_read_off() -> None:
    weights = (K, R_PROJECTED, B, PROJECTION, *DIAGONALS)
    fusion, report = fuse(peephole_projection_clips, weights, states=(N, P))
    assert fusion is not None, report.remarks
    for gate, diagonal in zip(("input", "forget", "output"), DIAGONALS, strict=True):
        np.testing.assert_array_equal(constant(fusion, f"cell_to_{gate}_weights"), diagonal)
    np.testing.assert_array_equal(constant(fusion, "projection_weights"), PROJECTION.T)
    assert fusion.attributes["activation"] == "RELU"
    assert fusion.attributes["cell_clip"] == pytest.approx(0.5)
    assert fusion.attributes["proj_clip"] == pytest.approx(0.3)


def test_output_peephole_without_clip_is_taken_out_of_the_sum() -> None:
    def step(t: Any, x: Any, c: Any, h: Any, k: Any, r: Any, b: Any, *d: Any) -> Any:
        i, f, g, o = tf.split(tf.nn.bias_add(x @ k + h @ r, b), 4, axis=1)
        c = tf.sigmoid(f + d[1] * c) * c + tf.sigmoid(i + d[0] * c) * tf.tanh(g)
        h = tf.sigmoid(o + d[2] * c) * tf.tanh(c)
        return c, h, h

    fusion, report = fuse(step, (K, R, B, *DIAGONALS))
    assert fusion is not None, report.remarks
    np.testing.assert_array_equal(constant(fusion, "cell_to_output_weights"), DIAGONALS[2])


def test_coupled_gates_leave_the_input_gate_out() -> None:
    def step(t: Any, x: Any, h: Any, c: Any, k: Any, r: Any, b: Any) -> Any:
        f, g, o = tf.split(tf.nn.bias_add(x @ k + h @ r, b), 3, axis=1)
        c = tf.sigmoid(f) * c + (1.0 - tf.sigmoid(f)) * tf.tanh(g)
        h = tf.sigmoid(o) * tf.tanh(c)
        return h, c, h

    fusion, report = fuse(step, (K[:, N:], R[:, N:], B[N:]))
    assert fusion is not None, report.remarks
    assert "input_to_input_weights" not in fusion.operands


def test_a_cell_that_reads_some_columns_gets_zeros_for_the_others() -> None:
    def step(t: Any, x: Any, h: Any, c: Any, k: Any, r: Any, b: Any) -> Any:
        z = x[:, 1:3] @ k[1:3] + h[:, :5] @ r[:5]
        i, f, g, o = tf.split(tf.nn.bias_add(z, b), 4, axis=1)
        return finish(i, f, g, o, c)

    fusion, report = fuse(step, (K, R, B))
    assert fusion is not None, report.remarks
    wanted = np.zeros((INPUTS, N), np.float32)
    wanted[1:3] = K[1:3, :N]
    np.testing.assert_array_equal(constant(fusion, "input_to_input_weights"), wanted.T)
    assert not constant(fusion, "recurrent_to_cell_weights")[:, 5:].any()


def _keras_but(change: Callable[..., Any]) -> Callable[..., Any]:
    def step(t: Any, x: Any, h: Any, c: Any, k: Any, r: Any, b: Any) -> Any:
        i, f, g, o = tf.split(tf.nn.bias_add(x @ k + h @ r, b), 4, axis=1)
        return change(t, x, h, c, i, f, g, o)

    return step


def _hard_sigmoid(t: Any, x: Any, h: Any, c: Any, i: Any, f: Any, g: Any, o: Any) -> Any:
    i, f, o = (tf.clip_by_value(0.2 * z + 0.5, 0.0, 1.0) for z in (i, f, o))
    c = f * c + i * tf.tanh(g)
    h = o * tf.tanh(c)
    return h, c, h


def _swapped_states(t: Any, x: Any, h: Any, c: Any, i: Any, f: Any, g: Any, o: Any) -> Any:
    h, c, y = finish(i, f, g, o, c)
    return c, h, y


def _masked(t: Any, x: Any, h: Any, c: Any, i: Any, f: Any, g: Any, o: Any) -> Any:
    new_h, new_c, _ = finish(i, f, g, o, c)
    keep = x[:, :1] > 0
    return tf.where(keep, new_h, h), tf.where(keep, new_c, c), new_h


def _cell_state_out(t: Any, x: Any, h: Any, c: Any, i: Any, f: Any, g: Any, o: Any) -> Any:
    h, c, _ = finish(i, f, g, o, c)
    return h, c, c


def _two_activations(t: Any, x: Any, h: Any, c: Any, i: Any, f: Any, g: Any, o: Any) -> Any:
    c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
    h = tf.sigmoid(o) * tf.nn.relu(c)
    return h, c, h


def _scaled_update(t: Any, x: Any, h: Any, c: Any, i: Any, f: Any, g: Any, o: Any) -> Any:
    c = 0.9 * (tf.sigmoid(f) * c) + tf.sigmoid(i) * tf.tanh(g)
    h = tf.sigmoid(o) * tf.tanh(c)
    return h, c, h


def _one_sided_clip(t: Any, x: Any, h: Any, c: Any, i: Any, f: Any, g: Any, o: Any) -> Any:
    c = tf.minimum(tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g), 0.5)
    h = tf.sigmoid(o) * tf.tanh(c)
    return h, c, h


def _old_cell_out(t: Any, x: Any, h: Any, c: Any, i: Any, f: Any, g: Any, o: Any) -> Any:
    """The output gate sees the old cell state: not the kernel's peephole."""
    new_c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
    h = tf.sigmoid(o + DIAGONALS[0] * c) * tf.tanh(new_c)
    return h, new_c, h


def _reads_time(t: Any, x: Any, h: Any, c: Any, i: Any, f: Any, g: Any, o: Any) -> Any:
    return finish(i + tf.cast(t, tf.float32), f, g, o, c)


def _linear(t: Any, x: Any, h: Any, c: Any, i: Any, f: Any, g: Any, o: Any) -> Any:
    c = tf.sigmoid(f) * c + tf.sigmoid(i) * g
    h = tf.sigmoid(o) * c
    return h, c, h


REFUSED = {
    "gate-activation": _hard_sigmoid,
    "opaque-state": _masked,
    "output-is-not-h": _cell_state_out,
    "two-activations": _two_activations,
    "cell-update": _scaled_update,
    "asymmetric-clip": _one_sided_clip,
    "gate-term": _old_cell_out,
    "cell-activation": _linear,
}


@pytest.mark.parametrize("code", REFUSED)
def test_what_differs_is_refused_with_its_reason(code: str) -> None:
    fusion, report = fuse(_keras_but(REFUSED[code]), (K, R, B))
    assert fusion is None
    assert [r.code for r in report.remarks] == [code], report.remarks
    assert not report.changed


def test_a_step_that_reads_the_time_is_refused() -> None:
    fusion, report = fuse(_keras_but(_reads_time), (K, R, B))
    assert fusion is None
    assert [r.code for r in report.remarks] == ["gate-term"]


def test_states_that_a_body_returns_swapped_are_refused() -> None:
    fusion, report = fuse(_keras_but(_swapped_states), (K, R, B))
    assert fusion is None, report.remarks


def test_weights_that_vary_are_refused() -> None:
    module, node = scan_module(keras, weights=(K, R, B))
    placeholder = module.graph.add("Placeholder", (), dict(module.graph["x0"].attributes))
    module.graph.set_operand(node, node.operands.index(Port(module.graph["w1"])), placeholder)
    report = FuseLstm().run(module)
    assert Scan.of(node).fusion is None
    assert not report.changed
    assert report.remarks[0].code == "varying-weight"
    assert "'Placeholder'" in report.remarks[0].reason
    assert "freeze" in report.remarks[0].remedy


def test_a_reversed_scan_is_fused_forward_and_gives_the_same_numbers() -> None:
    module, node = scan_module(keras, weights=(K, R, B))
    replace(Scan.of(node), reverse_xs=(True,), reverse_ys=(True,)).write_to(module, node)
    feeds = {
        "x0": RANDOM.standard_normal((7, 3, INPUTS)),
        "state0": RANDOM.standard_normal((3, N)),
        "state1": RANDOM.standard_normal((3, N)),
    }
    names = ["out0", "out1", "out2"]
    before = session.run(lower(module), feeds, names)
    assert FuseLstm().run(module).changed
    assert not any((*Scan.of(node).reverse_xs, *Scan.of(node).reverse_ys))
    after = session.run(lower(module), feeds, names)
    for name in names:
        np.testing.assert_array_equal(before[name], after[name])
