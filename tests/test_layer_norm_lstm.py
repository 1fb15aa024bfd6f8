"""fuse-lstm: layer normalisation of the gates, where it is exactly the kernel's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import hintc
from hintc.ir import Scan
from hintc.runtime import session
from hintc.runtime.interpreter import Interpreter
from hintc_passes.cells import fuse
from hintc_passes.fuse_lstm import FuseLstm
from recurrences import traced
from scan_builder import scan_module

INPUTS, CELLS, STEPS = 3, 4, 5
EPSILON = 1e-8
Norm = Callable[[Any, Any, Any], Any]


def weight(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).uniform(-0.7, 0.7, shape).astype(np.float32)


W, R = weight(0, INPUTS, 4 * CELLS), weight(1, CELLS, 4 * CELLS)
SCALES, BIASES, DIAGONALS = weight(2, 4, CELLS) + 1, weight(3, 4, CELLS), weight(4, 3, CELLS)


def moments(z: Any, scale: Any, bias: Any) -> Any:
    """tf.nn.batch_normalization: z k + (bias - mean k)."""
    mean, variance = tf.nn.moments(z, [1], keepdims=True)
    return tf.nn.batch_normalization(z, mean, variance, bias, scale, EPSILON)


def spelled(z: Any, scale: Any, bias: Any) -> Any:
    centred = z - tf.reduce_mean(z, -1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), -1, keepdims=True)
    return centred / tf.sqrt(variance + EPSILON) * scale + bias


def product_of_itself(z: Any, scale: Any, bias: Any) -> Any:
    centred = z - tf.reduce_mean(z, 1, keepdims=True)
    variance = tf.reduce_mean(centred * centred, 1, keepdims=True)
    return bias + scale * (tf.math.rsqrt(EPSILON + variance) * centred)


def step_of(
    norm: Norm, *, coupled: bool = False, peephole: bool = False, which: int = 4
) -> Callable[..., Any]:
    def step(t: Any, x: Any, h: Any, c: Any) -> Any:
        i, f, g, o = tf.split(x @ W + h @ R, 4, axis=1)
        old = c

        def gate(at: int, z: Any, diagonal: int = -1, c: Any = None) -> Any:
            if peephole and diagonal >= 0:
                z = z + DIAGONALS[diagonal] * c
            return norm(z, SCALES[at], BIASES[at]) if at < which else z + BIASES[at]

        keep = tf.sigmoid(gate(1, f, 1, old))
        write = 1.0 - keep if coupled else tf.sigmoid(gate(0, i, 0, old))
        c = keep * old + write * tf.tanh(gate(2, g))
        h = tf.sigmoid(gate(3, o, 2, c)) * tf.tanh(c)
        return h, c, h

    return step


VARIANTS: dict[str, tuple[Norm, dict[str, Any]]] = {
    "moments": (moments, {}),
    "spelled": (spelled, {"peephole": True}),
    "product": (product_of_itself, {"coupled": True}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_kernels_normalisation_is_fused(name: str) -> None:
    norm, options = VARIANTS[name]
    step = step_of(norm, **options)

    def model(x: Any) -> list[Any]:
        zero = tf.zeros([tf.shape(x)[1], CELLS])
        rows = tf.TensorArray(tf.float32, STEPS, element_shape=[None, CELLS])
        given = tf.TensorArray(tf.float32, STEPS, element_shape=[None, INPUTS]).unstack(x)

        def body(t: Any, h: Any, c: Any, rows: Any) -> Any:
            h, c, y = step(t, given.read(t), h, c)
            return t + 1, h, c, rows.write(t, y)

        _, h, c, rows = tf.while_loop(lambda t, *_: t < STEPS, body, [0, zero, zero, rows])
        return [rows.stack(), h, c]

    graph_def = traced(model, x=tf.TensorSpec([STEPS, None, INPUTS], tf.float32))
    outputs = ["y_0", "y_1", "y_2"]
    result = hintc.convert(graph_def, ["x"], outputs)
    assert [r.code for r in result.report.fused] == ["form-fused"], result.report.not_fused
    interpreter = Interpreter(result.tflite)
    for batch in (1, 3):
        feeds = {"x": weight(batch, STEPS, batch, INPUTS)}
        wanted = session.run(graph_def, feeds, outputs)
        for _ in range(2):
            got = interpreter.run(feeds)
            for key in outputs:
                np.testing.assert_allclose(got[key], wanted[key], rtol=0, atol=2e-6)


def _with(function: Callable[..., Any]) -> Norm:
    return lambda z, scale, bias: function(z) * scale + bias


def _layer_norm(z: Any, over: Any = None, epsilon: float = EPSILON) -> Any:
    mean, variance = tf.nn.moments(z if over is None else over, [1], keepdims=True)
    return (z - mean) * tf.math.rsqrt(variance + epsilon)


def _not_centred(z: Any) -> Any:
    return z * tf.math.rsqrt(tf.reduce_mean(z * z, 1, keepdims=True) + EPSILON)


def _uncentred_variance(z: Any) -> Any:
    centred = z - tf.reduce_mean(z, 1, keepdims=True)
    return centred * tf.math.rsqrt(tf.reduce_mean(z * z, 1, keepdims=True) + EPSILON)


def _scaled_apart(z: Any, scale: Any, bias: Any) -> Any:
    mean, variance = tf.nn.moments(z, [1], keepdims=True)
    deviation = tf.math.rsqrt(variance + EPSILON)
    return z * deviation * scale - mean * deviation + bias


NEAR_MISSES: dict[str, tuple[Norm, dict[str, Any]]] = {
    "keras_epsilon": (_with(lambda z: _layer_norm(z, epsilon=1e-3)), {}),
    "smaller_epsilon": (_with(lambda z: _layer_norm(z, epsilon=1e-12)), {}),
    "no_epsilon": (_with(lambda z: _layer_norm(z, epsilon=0.0)), {}),
    "bias_before": (lambda z, scale, bias: _layer_norm(z + bias) * scale, {}),
    "not_centred": (_with(_not_centred), {}),
    "uncentred_variance": (_with(_uncentred_variance), {}),
    "deviation_of_another": (_with(lambda z: _layer_norm(z, over=2.0 * z)), {}),
    "scaled_apart": (_scaled_apart, {}),
    "some_gates": (moments, {"which": 3}),
    "twice": (_with(lambda z: _layer_norm(_layer_norm(z))), {}),
    "residual": (lambda z, scale, bias: moments(z, scale, bias) + z, {}),
    "sum_over_batch": (
        _with(
            lambda z: (
                (z - tf.reduce_mean(z, 0, keepdims=True))
                * tf.math.rsqrt(tf.reduce_mean(z * z, 0, keepdims=True) + EPSILON)
            )
        ),
        {},
    ),
}


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_other_normalisations_are_refused_by_the_proof(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuse, "check_step", lambda *args: None)
    norm, options = NEAR_MISSES[name]
    module, node = scan_module(step_of(norm, **options), x=(INPUTS,), states=(CELLS, CELLS))
    report = FuseLstm().run(module)
    assert Scan.of(node).fusion is None
    (remark,) = report.remarks
    assert remark.code in ("layer-norm", "gate-term"), remark


def test_gates_normalised_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuse, "check_step", lambda *args: None)

    def step(t: Any, x: Any, h: Any, c: Any) -> Any:
        z = moments(x @ W + h @ R, SCALES.reshape(-1), BIASES.reshape(-1))
        i, f, g, o = tf.split(z, 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        h = tf.sigmoid(o) * tf.tanh(c)
        return h, c, h

    module, node = scan_module(step, x=(INPUTS,), states=(CELLS, CELLS))
    assert [r.code for r in FuseLstm().run(module).remarks] == ["layer-norm"]
    assert Scan.of(node).fusion is None
