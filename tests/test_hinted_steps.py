"""Hints with the names of kernels of a single step: LSTM, RNN, SVDF."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import hintc
from hint_cases import build, x_placeholder
from hintc.ops import LSTM, RNN, SVDF, FusedOp
from hintc.runtime.interpreter import Interpreter
from hintc.runtime.session import Session
from hintc.tflite.inspect import op_counts

N_IN, UNITS, MEMORY, RANK = 4, 5, 3, 2
RANDOM = np.random.default_rng(3)


def weight(*shape: int) -> Any:
    return tf.constant(RANDOM.standard_normal(shape).astype(np.float32) * 0.4)


class Hinted:
    """An OpHint that is called with the slots and results of a kernel."""

    def __init__(self, op: FusedOp, **attributes: Any) -> None:
        self.op, self.hint = op, hintc.OpHint(op.name, **attributes)

    def given(self, slot: str, value: Any) -> Any:
        return self.hint.add_input(value, index_override=self.op.slot_names.index(slot))

    def result(self, name: str, value: Any) -> Any:
        made = self.hint.add_output(value, index_override=self.op.results.index(name))
        return tf.identity(made, name=name)


def rnn_step(function: Callable[[Any], Any] = tf.tanh, **attributes: Any) -> None:
    hinted = Hinted(RNN, **attributes)
    x = hinted.given("input", x_placeholder((None, N_IN)))
    w = hinted.given("input_weights", weight(UNITS, N_IN))
    r = hinted.given("recurrent_weights", weight(UNITS, UNITS))
    b = hinted.given("bias", weight(UNITS))
    h = hinted.given("hidden_state", x_placeholder((None, UNITS), "h"))
    z = tf.matmul(x, w, transpose_b=True) + tf.matmul(h, r, transpose_b=True) + b
    hinted.result("output", function(z))


def lstm_step(clip: float = 0.0, **attributes: Any) -> None:
    hinted = Hinted(LSTM, **attributes)
    x = hinted.given("input", x_placeholder((None, N_IN)))
    h = hinted.given("output_state", x_placeholder((None, UNITS), "h"))
    c = hinted.given("cell_state", x_placeholder((None, UNITS), "c"))
    gates = {}
    for gate in ("input", "forget", "cell", "output"):
        w = hinted.given(f"input_to_{gate}_weights", weight(UNITS, N_IN))
        r = hinted.given(f"recurrent_to_{gate}_weights", weight(UNITS, UNITS))
        b = hinted.given(f"{gate}_gate_bias", weight(UNITS))
        gates[gate] = tf.matmul(x, w, transpose_b=True) + tf.matmul(h, r, transpose_b=True) + b
    new = tf.sigmoid(gates["forget"]) * c + tf.sigmoid(gates["input"]) * tf.tanh(gates["cell"])
    new = tf.clip_by_value(new, -clip, clip) if clip else new
    hinted.result("output", tf.sigmoid(gates["output"]) * tf.tanh(new))
    hinted.result("final_cell_state", new)


def svdf_step(oldest_first: bool = True, **attributes: Any) -> None:
    hinted, filters = Hinted(SVDF, rank=RANK, **attributes), UNITS * RANK
    x = hinted.given("input", x_placeholder((None, N_IN)))
    features = hinted.given("feature_weights", weight(filters, N_IN))
    times = hinted.given("time_weights", weight(filters, MEMORY))
    bias = hinted.given("bias", weight(UNITS))
    state = hinted.given("state", x_placeholder((None, filters * MEMORY), "h"))
    window = tf.reshape(state, [-1, filters, MEMORY])
    newest = tf.matmul(x, features, transpose_b=True)[:, :, None]
    parts = [window[:, :, 1:], newest] if oldest_first else [newest, window[:, :, :-1]]
    window = tf.concat(parts, axis=2)
    answers = tf.reshape(tf.reduce_sum(window * times, axis=2), [-1, UNITS, RANK])
    hinted.result("output", tf.reduce_sum(answers, axis=2) + bias)
    hinted.result("final_state", tf.reshape(window, [-1, filters * MEMORY]))


def check(graph_def: Any, kernel: str, count: int) -> Any:
    """Converts; the kernel is there `count` times, and the numbers are the graph's."""
    fetches = [n.name for n in graph_def.node if n.name in ("output", "final_cell_state")]
    fetches += [n.name for n in graph_def.node if n.name == "final_state"]
    inputs = [n.name for n in graph_def.node if n.op == "Placeholder"]
    converted = hintc.convert(graph_def, inputs, fetches)
    assert op_counts(converted.tflite)[kernel] == count
    assert not [op for op in op_counts(converted.tflite) if op.startswith("CUSTOM")]
    runner = Interpreter(converted.tflite)
    with Session(graph_def) as session:
        for batch in (3, 1, 1):
            feeds = {
                info.name: RANDOM.standard_normal((batch, info.shape[1])).astype(np.float32)
                for info in runner.inputs
            }
            wanted, found = session.run(feeds, fetches), runner.run(feeds)
            assert list(found) == fetches
            for name in fetches:
                np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=1e-5)
    return converted


@pytest.mark.parametrize(
    ("kernel", "make"),
    [
        ("RNN", rnn_step),
        ("RNN", lambda: rnn_step(tf.nn.relu6, activation="RELU6")),
        ("LSTM", lstm_step),
        ("LSTM", lambda: lstm_step(clip=2.0, cell_clip=2.0)),
        ("SVDF", svdf_step),
    ],
    ids=["rnn", "rnn relu6", "lstm", "lstm clip", "svdf"],
)
def test_a_step_becomes_its_kernel(kernel: str, make: Callable[[], None]) -> None:
    check(build(make), kernel, 1)


@pytest.mark.parametrize(
    ("kernel", "make", "reason"),
    [
        ("RNN", lambda: rnn_step(tf.nn.relu), "'output' differs"),
        ("RNN", lambda: rnn_step(tf.nn.relu6, activation="RELU"), "'output' differs"),
        ("LSTM", lambda: lstm_step(clip=20.0), "'output' differs|'final_cell_state' differs"),
        ("SVDF", lambda: svdf_step(oldest_first=False), "'output' differs"),
    ],
    ids=["activation", "bounded", "clip", "order"],
)
def test_a_step_that_is_not_the_kernel_is_refused(
    kernel: str, make: Callable[[], None], reason: str
) -> None:
    converted = check(build(make), kernel, 0)
    (remark,) = [r for r in converted.report.not_fused if r.code == "hint-not-the-kernel"]
    assert any(part in remark.reason for part in reason.split("|"))


def test_a_function_of_ones_own_with_the_name_of_a_kernel() -> None:
    def make() -> None:
        hint = hintc.OpHint("RNN")
        tf.identity(hint.add_output(hint.add_input(x_placeholder((None, N_IN))) * 2.0), "output")

    converted = check(build(make), "RNN", 0)
    assert "hint-not-the-kernel" in [remark.code for remark in converted.report.not_fused]


def test_int8_weights_of_a_step() -> None:
    graph_def = build(lstm_step)
    tflite = hintc.convert(graph_def, ["x", "h", "c"], ["output"], quantize="dynamic").tflite
    assert op_counts(tflite)["LSTM"] == 1
    feeds = {name: np.full((2, n), 0.3, np.float32) for name, n in (("x", N_IN), ("h", UNITS))}
    feeds["c"] = feeds["h"]
    with Session(graph_def) as session:
        wanted = session.run(feeds, ["output"])["output"]
    np.testing.assert_allclose(Interpreter(tflite).run(feeds)["output"], wanted, atol=2e-2)


@pytest.mark.parametrize(
    ("kernel", "make", "count"),
    [("LSTM", lstm_step, 1), ("SVDF", svdf_step, 1), ("RNN", rnn_step, 0)],
)
def test_a_step_in_integers(kernel: str, make: Callable[[], None], count: int) -> None:
    """TensorFlow's quantiser does not know RNN: that step stays as it was written."""
    graph_def = build(make)
    inputs = [node for node in graph_def.node if node.op == "Placeholder"]
    widths = {node.name: node.attr["shape"].shape.dim[1].size for node in inputs}
    random = np.random.default_rng(5)
    samples = [
        {name: random.uniform(-1, 1, (2, n)).astype(np.float32) for name, n in widths.items()}
        for _ in range(10)
    ]
    converted = hintc.convert(
        graph_def, list(widths), ["output"], quantize="int8", representative_dataset=lambda: samples
    )
    assert op_counts(converted.tflite)[kernel] == count
    codes = [remark.code for remark in converted.report.not_fused]
    assert ("hint-constraint" in codes) == (not count)
    with Session(graph_def) as session:
        wanted = session.run(samples[0], ["output"])["output"]
    found = Interpreter(converted.tflite).run(samples[0])["output"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0.05)
