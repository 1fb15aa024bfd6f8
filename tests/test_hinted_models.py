"""Hinted models from TensorFlow to the interpreter: fused, and equal to the original graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import hintc
from hintc.runtime import interpreter, session
from hintc.tflite.flatbuffer import Model
from hintc.tflite.inspect import op_counts
from hinted_graphs import (
    CELLS,
    Builder,
    HintedModel,
    batch_major_static,
    both_ways,
    both_ways_static,
    constant_state,
    digits,
    dynamic,
    dynamic_time,
    fed_state,
    final_states,
    freeze,
    lengths_dynamic,
    mixed,
    placeholder,
    stacked,
    static,
    two_rnns,
    user_aggregated,
    user_chain,
    user_conv,
    user_nested,
    user_sparse_arguments,
)

v1 = tf.compat.v1
LSTM, RNN = "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN"
BOTH_LSTM, BOTH_RNN = "BIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_RNN"
UNFUSED = ("WHILE", "CUSTOM", "Flex")

RECURRENT: dict[str, tuple[Builder, str, int]] = {
    **{f"dynamic {c}": (dynamic(m), RNN if "rnn" in c else LSTM, 1) for c, m in CELLS.items()},
    **{f"static {c}": (static(m), RNN if "rnn" in c else LSTM, 1) for c, m in CELLS.items()},
    "dynamic mixed": (dynamic(mixed), LSTM, 3),
    "static mixed": (static(mixed), LSTM, 3),
    "dynamic stacked": (dynamic(stacked), LSTM, 2),
    "dynamic two rnns": (dynamic(two_rnns), RNN, 2),
    "static two rnns": (static(two_rnns), RNN, 2),
    "dynamic batch-major": (dynamic(CELLS["plain"], time_major=False), LSTM, 1),
    "static batch-major": (batch_major_static, LSTM, 1),
    **{
        f"both ways {c} {'time' if major else 'batch'}-major": (
            both_ways(CELLS[c], major),
            BOTH_RNN if c == "rnn" else BOTH_LSTM,
            1,
        )
        for c in ("plain", "peephole", "projection", "both", "rnn")
        for major in (True, False)
    },
    **{
        f"both ways static {c}": (
            both_ways_static(CELLS[c]),
            BOTH_RNN if c == "rnn" else BOTH_LSTM,
            1,
        )
        for c in ("plain", "peephole", "projection", "both", "rnn")
    },
    "fed state": (fed_state, LSTM, 1),
    "constant state": (constant_state, LSTM, 1),
    "final states": (final_states(static_chain=False), LSTM, 1),
    "final states static": (final_states(static_chain=True), LSTM, 1),
    "dynamic time": (dynamic_time, LSTM, 1),
    "digits": (digits(units=16), LSTM, 2),
    "digits multi": (digits(multi=True, units=16), LSTM, 2),
    "digits transposed": (digits(transposed=True, units=16), LSTM, 2),
}

USERS: dict[str, tuple[Builder, dict[str, int]]] = {
    "conv": (user_conv, {"my_conv": 1}),
    "nested": (user_nested, {"my_outer": 1}),
    "aggregated": (user_aggregated, {"my_cumsum": 1}),
    "chain": (user_chain, {"my_square": 3}),
    "sparse arguments": (user_sparse_arguments, {"my_sparse_args": 1}),
}


def in_tensorflow(graph_def: Any, model: HintedModel, batch: int) -> dict[str, Any]:
    return session.run(graph_def, model.feeds(batch), model.outputs)


def assert_equal(
    got: dict[str, Any], wanted: dict[str, Any], model: HintedModel, tolerance: float
) -> None:
    for name in model.outputs:
        np.testing.assert_allclose(got[name], wanted[name], rtol=0, atol=tolerance)


def convert(model: HintedModel, **options: Any) -> Any:
    return hintc.convert(
        model.graph_def, inputs=list(model.inputs), outputs=model.outputs, **options
    )


def batches(model: HintedModel) -> tuple[int, ...]:
    fixed = all(None not in t.shape.as_list() for t in model.inputs.values())
    return (1,) if fixed else (1, 4)


def check_tflite(tflite: bytes, model: HintedModel, tolerance: float) -> None:
    """Equal to TensorFlow on the original graph, at two batch sizes, on two invokes each."""
    runner = interpreter.Interpreter(tflite)
    for batch in batches(model):
        wanted = in_tensorflow(model.graph_def, model, batch)
        for _ in range(2):
            assert_equal(runner.run(model.feeds(batch)), wanted, model, tolerance)


# A hinted loop is a v2 While in both modes; what version 1 changes is around it.
IN_VERSION_1 = (
    "dynamic both",
    "dynamic rnn",
    "static both",
    "static rnn",
    "dynamic stacked",
    "static mixed",
    "both ways plain batch-major",
    "both ways static rnn",
    "final states",
    "digits transposed",
)


@pytest.mark.parametrize(
    ("name", "version"), [(n, 2) for n in RECURRENT] + [(n, 1) for n in IN_VERSION_1]
)
def test_is_fused_and_equals_tensorflow(name: str, version: int) -> None:
    build, op, count = RECURRENT[name]
    model = freeze(build, version)
    converted = convert(model)
    ops = op_counts(converted.tflite)
    assert ops[op] == count, (ops, [str(r) for r in converted.report.remarks])
    assert not [k for k in ops if k.startswith(UNFUSED)], ops
    check_tflite(converted.tflite, model, 1e-5)
    for batch in batches(model):
        wanted = in_tensorflow(model.graph_def, model, batch)
        assert_equal(in_tensorflow(converted.graph_def, model, batch), wanted, model, 1e-5)


@pytest.mark.parametrize("cell", ["plain", "rnn"])
@pytest.mark.parametrize("directions", [1, 2])
def test_sequence_lengths_give_right_results(cell: str, directions: int) -> None:
    build = (
        lengths_dynamic(CELLS[cell])
        if directions == 1
        else both_ways(CELLS[cell], time_major=True, lengths=True)
    )
    model = freeze(build)
    converted = convert(model)
    assert not [k for k in op_counts(converted.tflite) if k.startswith(("CUSTOM", "Flex"))]
    check_tflite(converted.tflite, model, 1e-5)


@pytest.mark.parametrize("version", [1, 2])
def test_lengths_in_a_static_loop_that_was_trained_in_this_graph(version: int) -> None:
    def build() -> list[Any]:
        x, lengths = placeholder([3, None, 4]), placeholder([None], "lengths", tf.int32)
        cell = hintc.TFLiteLSTMCell(3)
        ys, _ = v1.nn.static_rnn(cell, tf.unstack(x), sequence_length=lengths, dtype=tf.float32)
        y = tf.stack(ys, name="y")
        v1.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_sum(y))
        return [y]

    model = freeze(build, version)
    converted = convert(model)
    assert op_counts(converted.tflite)[LSTM] == 1, [str(r) for r in converted.report.remarks]
    check_tflite(converted.tflite, model, 1e-5)


def test_a_dynamic_loop_that_was_trained_in_this_graph() -> None:
    def build() -> list[Any]:
        cell = hintc.TFLiteLSTMCell(3)
        ys, state = hintc.dynamic_rnn(cell, placeholder([3, None, 4]), dtype=tf.float32)
        results = [tf.identity(ys, "y"), tf.identity(state.c, "c")]
        v1.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_sum(ys))
        return results

    model = freeze(build)
    converted = convert(model)
    assert op_counts(converted.tflite)[LSTM] == 1, [str(r) for r in converted.report.remarks]
    check_tflite(converted.tflite, model, 1e-5)


@pytest.mark.parametrize("form", ["unroll", "while"])
@pytest.mark.parametrize("name", ["dynamic both", "static both", "digits", "dynamic mixed"])
def test_other_forms_equal_tensorflow(name: str, form: str) -> None:
    build, op, _ = RECURRENT[name]
    model = freeze(build)
    converted = convert(model, form=form)
    ops = op_counts(converted.tflite)
    assert op not in ops
    assert not [k for k in ops if k.startswith(("CUSTOM", "Flex"))], ops
    assert ("WHILE" in ops) == (form == "while"), ops
    check_tflite(converted.tflite, model, 1e-5)
    for batch in (1, 4):
        wanted = in_tensorflow(model.graph_def, model, batch)
        assert_equal(in_tensorflow(converted.graph_def, model, batch), wanted, model, 1e-5)


@pytest.mark.parametrize(("quantize", "tolerance"), [("dynamic", 5e-3), ("float16", 1e-3)])
def test_quantised_digits(quantize: Any, tolerance: float) -> None:
    model = freeze(digits())
    converted = convert(model, quantize=quantize)
    assert op_counts(converted.tflite)[LSTM] == 2
    assert len(converted.tflite) < 0.6 * len(convert(model).tflite)
    check_tflite(converted.tflite, model, tolerance)


@pytest.mark.parametrize(("name", "version"), [(n, 2) for n in USERS] + [("aggregated", 1)])
def test_users_own_ops_become_custom_ops(name: str, version: int) -> None:
    build, wanted = USERS[name]
    model = freeze(build, version)
    converted = convert(model)
    ops = op_counts(converted.tflite)
    assert {k.removeprefix("CUSTOM:"): n for k, n in ops.items() if "CUSTOM" in k} == wanted, ops
    results = in_tensorflow(model.graph_def, model, 2)
    assert_equal(in_tensorflow(converted.graph_def, model, 2), results, model, 1e-6)


def test_a_custom_op_keeps_the_place_of_an_argument_that_is_not_given() -> None:
    model = Model.read(convert(freeze(user_sparse_arguments)).tflite)
    ((subgraph, op),) = [
        (g, op) for g, op in model.operators() if model.op_name(op).endswith("my_sparse_args")
    ]
    assert [i if i < 0 else subgraph.tensor_name(i) for i in op.inputs] == ["x", -1, "z"]


def test_the_same_model_converts_to_the_same_bytes() -> None:
    model = freeze(dynamic(mixed))
    assert convert(model).tflite == convert(model).tflite


def test_the_source_is_left_alone() -> None:
    model = freeze(dynamic(CELLS["plain"]))
    before = model.graph_def.SerializeToString(deterministic=True)
    convert(model)
    assert model.graph_def.SerializeToString(deterministic=True) == before
