"""fuse-rnn: spellings of the simple recurrent cell, and what must be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from hintc.ir import Scan, Tensor
from hintc_passes.fuse_rnn import FuseRnn
from scan_builder import scan_module

INPUTS, N = 5, 8
RANDOM = np.random.default_rng(4)
K = RANDOM.standard_normal((INPUTS, N)).astype(np.float32) * np.float32(0.4)
R = RANDOM.standard_normal((N, N)).astype(np.float32) * np.float32(0.4)
B = RANDOM.standard_normal(N).astype(np.float32)


def fuse(step: Callable[..., Any], *weights: Any) -> tuple[Any, Any]:
    module, node = scan_module(step, weights=weights, states=(N,))
    report = FuseRnn().run(module)
    return Scan.of(node).fusion, report


def basic(act: Callable[..., Any]) -> Callable[..., Any]:
    def step(t: Any, x: Any, h: Any, k: Any, b: Any) -> Any:
        h = act(tf.nn.bias_add(tf.concat([x, h], 1) @ k, b))
        return h, h

    return step


@pytest.mark.parametrize(
    ("act", "name"),
    [(tf.tanh, "TANH"), (tf.nn.relu, "RELU"), (tf.nn.relu6, "RELU6"), (tf.identity, "NONE")],
)
def test_basic_cell(act: Callable[..., Any], name: str) -> None:
    fusion, report = fuse(basic(act), np.concatenate([K, R]), B)
    assert fusion is not None, report.remarks
    assert fusion.op == "UNIDIRECTIONAL_SEQUENCE_RNN"
    assert fusion.attributes["activation"] == name
    for slot, wanted in (("input_weights", K.T), ("recurrent_weights", R.T), ("bias", B)):
        value = fusion.operands[slot].node.attributes["value"]
        assert isinstance(value, Tensor)
        np.testing.assert_array_equal(value.array, wanted)
    assert fusion.results == ("final_hidden_state", "output")


def test_keras_cell_without_bias() -> None:
    def step(t: Any, x: Any, h: Any, k: Any, r: Any) -> Any:
        h = tf.tanh(x @ k + h @ r)
        return h, h

    fusion, report = fuse(step, K, R)
    assert fusion is not None, report.remarks
    value = fusion.operands["bias"].node.attributes["value"]
    assert isinstance(value, Tensor)
    assert not value.array.any()


def test_products_in_pieces_and_an_activation_in_other_words() -> None:
    def step(t: Any, x: Any, h: Any, k: Any, r: Any, b: Any) -> Any:
        z = (
            x[:, :2] @ k[:2]
            + x[:, 2:] @ k[2:]
            + tf.raw_ops.Einsum(inputs=[h, r], equation="ab,bc->ac")
        )
        h = tf.maximum(tf.minimum(z + b[None], 6.0), 0.0)
        return h, h

    fusion, report = fuse(step, K, R, B)
    assert fusion is not None, report.remarks
    assert fusion.attributes["activation"] == "RELU6"
    value = fusion.operands["input_weights"].node.attributes["value"]
    np.testing.assert_array_equal(value.array, K.T)


@pytest.mark.parametrize("same", [True, False])
def test_two_sequences_are_added_or_put_side_by_side(same: bool) -> None:
    other = K if same else K[::-1].copy()

    def step(t: Any, x: Any, y: Any, h: Any, k: Any, o: Any, r: Any) -> Any:
        h = tf.tanh(x @ k + y @ o + h @ r)
        return h, h

    module, node = scan_module(step, weights=(K, other, R), x=(INPUTS, INPUTS), states=(N,))
    assert FuseRnn().run(module).changed
    fusion = Scan.of(node).fusion
    assert fusion is not None
    assert fusion.operands["input"].node.op == ("AddV2" if same else "ConcatV2")
    value = fusion.operands["input_weights"].node.attributes["value"]
    assert isinstance(value, Tensor)
    np.testing.assert_array_equal(value.array, K.T if same else np.concatenate([K, other]).T)


def test_other_activations_are_refused() -> None:
    fusion, report = fuse(basic(tf.sigmoid), np.concatenate([K, R]), B)
    assert fusion is None
    assert [r.code for r in report.remarks] == ["cell-activation"]


def _gru(update: Callable[..., Any], *, reset_after: bool = False) -> Callable[..., Any]:
    """A GRU whose new state is ``update(gate, h, candidate)``."""

    def step(t: Any, x: Any, h: Any, k: Any, r: Any, b: Any) -> Any:
        z, reset = tf.sigmoid(x @ k + h @ r + b), tf.sigmoid(x @ (2 * k) + h @ r)
        past = reset * (h @ r + b) if reset_after else (reset * h) @ r
        h = update(z, h, tf.tanh(x @ k + past))
        return h, h

    return step


GRUS = {
    "z h": _gru(lambda z, h, c: z * h + (1.0 - z) * c),
    "z c": _gru(lambda z, h, c: z * c + h * (1.0 - z)),
    "reset after": _gru(lambda z, h, c: (1.0 - z) * c + z * h, reset_after=True),
    "towards c": _gru(lambda z, h, c: h + z * (c - h)),
    "towards h": _gru(lambda z, h, c: (h - c) * z + c, reset_after=True),
    "hard": _gru(lambda z, h, c: tf.nn.relu6(6 * z) / 6 * h + (1.0 - tf.nn.relu6(6 * z) / 6) * c),
}


@pytest.mark.parametrize("name", GRUS)
def test_a_gru_is_called_one(name: str) -> None:
    fusion, report = fuse(GRUS[name], K, R, B)
    assert fusion is None
    assert [r.code for r in report.remarks] == ["gru"], report.remarks
    assert "LSTM" in report.remarks[0].remedy


def test_what_only_looks_like_a_gru_is_not_called_one() -> None:
    for update in (
        lambda z, h, c: z * h + (2.0 - z) * c,
        lambda z, h, c: z * h + z * c,
        lambda z, h, c: h + z * (c - 0.5 * h),
        lambda z, h, c: c + z * c,
    ):
        fusion, report = fuse(_gru(update), K, R, B)
        assert fusion is None
        assert [r.code for r in report.remarks] == ["cell-term"]


def test_a_step_without_its_own_state_is_refused() -> None:
    def step(t: Any, x: Any, h: Any, k: Any, b: Any) -> Any:
        return tf.tanh(x @ k + b), x @ k

    fusion, report = fuse(step, K, B)
    assert fusion is None
    assert report.remarks[0].code == "not-recurrent"
    assert "does not read its own state" in report.remarks[0].reason


def test_an_output_that_is_not_the_state_is_refused() -> None:
    def step(t: Any, x: Any, h: Any, k: Any, r: Any) -> Any:
        h = tf.tanh(x @ k + h @ r)
        return h, h + x @ k

    fusion, report = fuse(step, K, R)
    assert fusion is None
    assert [r.code for r in report.remarks] == ["output-is-not-h"]


def test_an_old_state_as_output_is_refused() -> None:
    def step(t: Any, x: Any, h: Any, k: Any, r: Any) -> Any:
        return tf.tanh(x @ k + h @ r), h

    fusion, report = fuse(step, K, R)
    assert fusion is None
    assert [r.code for r in report.remarks] == ["output-is-not-h"]
