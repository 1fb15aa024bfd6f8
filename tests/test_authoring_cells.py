"""The hinted cells: numbers against TensorFlow's own cells, hints of every argument, refusals."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
import tf_keras
from tf_keras.src.layers.rnn.legacy_cells import (
    BasicRNNCell,
    LSTMCell,
    LSTMStateTuple,
    MultiRNNCell,
)

from hintc.authoring import TFLiteLSTMCell, TfLiteRNNCell
from hintc.errors import HintAttributeError, HintError

v1 = tf.compat.v1
Array = npt.NDArray[np.float32]

TIME, BATCH, DEPTH, UNITS, PROJECTED = 4, 3, 5, 8, 6

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "peepholes": {"use_peepholes": True},
    "projection": {"num_proj": PROJECTED},
    "peepholes and projection": {"use_peepholes": True, "num_proj": PROJECTED},
    "cell clip": {"cell_clip": 0.1},
    "projection clip": {"num_proj": PROJECTED, "proj_clip": 0.1},
    "all clips": {
        "num_proj": PROJECTED, "proj_clip": 0.1, "cell_clip": 0.1, "use_peepholes": True,
    },
    "projection to the same width": {"num_proj": UNITS},
    "forget bias 0": {"forget_bias": 0.0},
    "forget bias 3": {"forget_bias": 3.0},
    "relu by name": {"activation": "relu"},
    "tanh by name": {"activation": "tanh"},
    "callable": {"activation": tf.nn.relu6},
    "shards": {"num_unit_shards": 2},
    "all shards": {
        "num_unit_shards": 4, "num_proj": PROJECTED, "num_proj_shards": 2, "use_peepholes": True,
    },
    "state in one tensor": {"state_is_tuple": False},
    "state in one tensor, projected": {"state_is_tuple": False, "num_proj": PROJECTED},
    "float64": {"dtype": tf.float64},
}  # fmt: skip


def feed(dtype: Any = np.float32) -> Array:
    return np.random.default_rng(1).uniform(-1, 1, [TIME, BATCH, DEPTH]).astype(dtype)


def unroll(cell: Any, sequence: Any, scope: str) -> tuple[Any, Any]:
    outputs, state = v1.nn.static_rnn(cell, tf.unstack(sequence), dtype=sequence.dtype, scope=scope)
    return tf.stack(outputs), state


def values(session: Any, scope: str) -> dict[str, Array]:
    """The scope's variables by short name, the parts of partitioned ones joined."""
    parts = defaultdict(list)
    for variable in v1.global_variables(scope):
        name = re.sub(r"/part_\d+$", "", variable.op.name)
        parts[name.split("/", 2)[2]].append(session.run(variable))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def set_random(session: Any, scope: str) -> None:
    rng = np.random.default_rng(2)
    for variable in v1.global_variables(scope):
        value = rng.uniform(-0.7, 0.7, variable.shape.as_list())
        session.run(variable.initializer, {variable.initializer.inputs[1]: value})


def set_stock_lstm(session: Any, scope: str, weights: dict[str, Array], forget_bias: float) -> None:
    """Give TensorFlow's LSTMCell the same weights: one kernel, gates i, cell, f, o."""
    order = ("input", "cell", "forget", "output")
    rows = [
        np.concatenate([weights[f"input_to_{g}_w"], weights[f"cell_to_{g}_w"]], 1) for g in order
    ]
    # The stock cell adds forget_bias to the bias; ours is in the variable.
    biases = [weights[f"{g}_bias"] - (forget_bias if g == "forget" else 0.0) for g in order]
    stock = {"kernel": np.concatenate(rows).T, "bias": np.concatenate(biases)}
    stock |= {name: weights[name] for name in weights if name.endswith("diag")}
    if "projection/kernel" in weights:
        stock["projection/kernel"] = weights["projection/kernel"].T
    for variable in v1.global_variables(scope):
        value = stock[variable.op.name.split("/", 2)[2]]
        session.run(variable.initializer, {variable.initializer.inputs[1]: value})


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_lstm_computes_what_tensorflows_lstm_computes(options: dict[str, Any]) -> None:
    dtype = options.get("dtype", tf.float32)
    stock_options = {k: v for k, v in options.items() if "shards" not in k}
    with tf.Graph().as_default(), v1.Session() as session:
        x = tf.constant(feed(dtype.as_numpy_dtype))
        ours = unroll(TFLiteLSTMCell(UNITS, **options), x, "ours")
        stock = unroll(LSTMCell(UNITS, **stock_options), x, "stock")
        set_random(session, "ours")
        set_stock_lstm(session, "stock", values(session, "ours"), options.get("forget_bias", 1.0))
        got, want = session.run([ours, stock])
    for a, b in zip(tf.nest.flatten(got), tf.nest.flatten(want), strict=True):
        assert a.dtype == b.dtype == dtype.as_numpy_dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", [None, "relu", tf.sigmoid])
def test_rnn_computes_what_tensorflows_rnn_computes(activation: Any) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = tf.constant(feed())
        ours = unroll(TfLiteRNNCell(UNITS, activation), x, "ours")
        stock = unroll(BasicRNNCell(UNITS, activation), x, "stock")
        set_random(session, "ours")
        weights = values(session, "ours")
        kernel = np.concatenate([weights["input_weights"], weights["recurrent_weights"]], 1).T
        for variable in v1.global_variables("stock"):
            value = kernel if "kernel" in variable.name else weights["bias"]
            session.run(variable.initializer, {variable.initializer.inputs[1]: value})
        got, want = session.run([ours, stock])
    np.testing.assert_allclose(got[0], want[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(got[1], want[1], rtol=0, atol=1e-6)


def hints(graph: Any) -> dict[str, dict[str, list[str]]]:
    """Call id -> {"I<index>" or "O<index>": [aggregate, label, ...]} of a graph's top level."""
    calls: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for node in graph.as_graph_def().node:
        if "_tflite_function_uuid" in node.attr:
            side = "input" if "_tflite_function_input_index" in node.attr else "output"
            index = node.attr[f"_tflite_function_{side}_index"].i
            aggregated = "_tflite_function_aggregate" in node.attr
            label = node.attr["_tflite_function_aggregate"].s.decode() if aggregated else ""
            label += " " + re.sub(r"_\d+$", "", node.name.split("-")[-1])
            call = calls[node.attr["_tflite_function_uuid"].s.decode()]
            call[f"{side[0].upper()}{index}"].append(label)
    return calls


def test_every_argument_of_the_lstm_has_the_index_of_the_table() -> None:
    with tf.Graph().as_default() as graph:
        cell = TFLiteLSTMCell(
            UNITS, use_peepholes=True, num_proj=PROJECTED, cell_clip=2.0, proj_clip=1.0
        )
        unroll(cell, tf.constant(feed()), "rnn")
    (call,) = hints(graph).values()
    gates = ("input", "forget", "cell", "output")
    want = {f"I{1 + i}": [f" input_to_{g}_w"] for i, g in enumerate(gates)}
    want |= {f"I{5 + i}": [f" cell_to_{g}_w"] for i, g in enumerate(gates)}
    want |= {f"I{12 + i}": [f" {g}_bias"] for i, g in enumerate(gates)}
    want |= {"I9": [" w_i_diag"], "I10": [" w_f_diag"], "I11": [" w_o_diag"]}
    want |= {"I16": [" projection/kernel"], "I0": ["stack input"] * TIME}
    want |= {"I18": ["first m_prev"] * TIME, "I19": ["first c_prev"] * TIME}
    want |= {"O1": ["last c"] * TIME, "O2": ["stack m"] * TIME}
    assert call == want
    hinted = [n for n in graph.as_graph_def().node if "_tflite_function_uuid" in n.attr]
    assert {n.attr["_tflite_function_name"].s for n in hinted} == {b"UnidirectionalSequenceLstm"}
    for node in hinted:
        assert node.attr["_tflite_attr_activation"].s == b"tanh"
        assert node.attr["_tflite_attr_cell_clip"].f == 2.0
        assert node.attr["_tflite_attr_proj_clip"].f == 1.0


def test_every_argument_of_the_rnn_has_the_index_of_the_table() -> None:
    with tf.Graph().as_default() as graph:
        unroll(TfLiteRNNCell(UNITS, activation="relu"), tf.constant(feed()), "rnn")
    (call,) = hints(graph).values()
    assert call == {
        "I0": ["stack input"] * TIME,
        "I1": [" input_weights"],
        "I2": [" recurrent_weights"],
        "I3": [" bias"],
        "I4": ["first hidden_state"] * TIME,
        "O1": ["stack output"] * TIME,
    }
    hinted = [n for n in graph.as_graph_def().node if "_tflite_function_uuid" in n.attr]
    assert {n.attr["_tflite_function_name"].s for n in hinted} == {b"UnidirectionalSequenceRnn"}
    assert {n.attr["_tflite_attr_activation"].s for n in hinted} == {b"relu"}


def test_variables_keep_the_names_and_shapes_of_old_checkpoints() -> None:
    with tf.Graph().as_default():
        cell = TFLiteLSTMCell(UNITS, use_peepholes=True, num_proj=PROJECTED)
        unroll(cell, tf.constant(feed()), "rnn")
        unroll(TfLiteRNNCell(UNITS, name="second"), tf.constant(feed()), "rnn")
        shapes = {v.op.name: v.shape.as_list() for v in v1.trainable_variables()}
    lstm = "rnn/tf_lite_lstm_cell/"
    assert shapes[lstm + "input_to_cell_w"] == [UNITS, DEPTH]
    assert shapes[lstm + "cell_to_cell_w"] == [UNITS, PROJECTED]
    assert shapes[lstm + "w_o_diag"] == shapes[lstm + "forget_bias"] == [UNITS]
    assert shapes[lstm + "projection/kernel"] == [PROJECTED, UNITS]
    assert shapes["rnn/second/input_weights"] == [UNITS, DEPTH]
    assert shapes["rnn/second/recurrent_weights"] == [UNITS, UNITS]
    assert len(shapes) == 12 + 3 + 1 + 3


def test_forget_bias_is_the_initial_value_of_its_variable() -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        unroll(TFLiteLSTMCell(UNITS, forget_bias=1.5), tf.constant(feed()), "rnn")
        session.run(v1.global_variables_initializer())
        weights = values(session, "rnn")
    np.testing.assert_array_equal(weights["forget_bias"], np.full([UNITS], 1.5))
    np.testing.assert_array_equal(weights["output_bias"], np.zeros([UNITS]))


@pytest.mark.parametrize(
    "initializer", [None, "glorot_uniform", tf_keras.initializers.GlorotUniform(), "v1"]
)
def test_gates_start_with_different_weights(initializer: Any) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        if initializer == "v1":
            initializer = v1.random_uniform_initializer(-1, 1)
        cell = TFLiteLSTMCell(UNITS, initializer=initializer, num_unit_shards=2)
        unroll(cell, tf.constant(feed()), "rnn")
        session.run(v1.global_variables_initializer())
        weights = values(session, "rnn")
    matrices = [weights[f"input_to_{g}_w"] for g in ("input", "forget", "cell", "output")]
    distinct = {matrix.tobytes() for matrix in matrices}
    assert len(distinct) == 4
    if initializer is None:
        assert not np.array_equal(matrices[0][: UNITS // 2], matrices[0][UNITS // 2 :])


def test_the_initializer_of_the_scope_is_used() -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        with v1.variable_scope("all", initializer=v1.constant_initializer(0.25)):
            unroll(TfLiteRNNCell(UNITS), tf.constant(feed()), "rnn")
        session.run(v1.global_variables_initializer())
        (weights,) = (v for v in v1.global_variables() if "input_weights" in v.name)
        np.testing.assert_array_equal(session.run(weights), np.full([UNITS, DEPTH], 0.25))


def stacked(cells: list[Any]) -> Any:
    return tf_keras.layers.StackedRNNCells(cells)


@pytest.mark.parametrize("stack", [MultiRNNCell, stacked])
def test_stacks_hint_each_cell_as_a_call_of_its_own(stack: Callable[[Any], Any]) -> None:
    with tf.Graph().as_default() as graph, v1.Session() as session:
        cells = [
            TFLiteLSTMCell(UNITS, name="a"),
            TFLiteLSTMCell(UNITS, use_peepholes=True, name="b"),
            TfLiteRNNCell(3, name="c"),
        ]
        outputs, state = unroll(stack(cells), tf.constant(feed()), "rnn")
        session.run(v1.global_variables_initializer())
        got, got_state = session.run([outputs, state])
        assert len(v1.trainable_variables()) == 12 + 15 + 3
    assert got.shape == (TIME, BATCH, 3)
    np.testing.assert_array_equal(got[-1], got_state[-1])
    calls = hints(graph).values()
    assert [len(call["I0"]) for call in calls] == [TIME] * 3


def test_bidirectional_static_loop() -> None:
    with tf.Graph().as_default() as graph, v1.Session() as session:
        outputs, _, _ = v1.nn.static_bidirectional_rnn(
            TFLiteLSTMCell(UNITS),
            TFLiteLSTMCell(UNITS),
            tf.unstack(tf.constant(feed())),
            dtype=tf.float32,
        )
        session.run(v1.global_variables_initializer())
        assert session.run(outputs[0]).shape == (BATCH, 2 * UNITS)
    assert [len(call["O2"]) for call in hints(graph).values()] == [TIME, TIME]


def test_a_cell_used_on_two_sequences_makes_two_calls() -> None:
    with tf.Graph().as_default() as graph, v1.Session() as session:
        cell = TFLiteLSTMCell(UNITS)
        x = tf.constant(feed())
        first, _ = unroll(cell, x, "rnn")
        second, _ = v1.nn.static_rnn(cell, tf.unstack(x * 0.5), dtype=tf.float32)
        session.run(v1.global_variables_initializer())
        session.run([first, second])
        assert len(v1.trainable_variables()) == 12
    calls = list(hints(graph).values())
    assert [len(call["I0"]) for call in calls] == [TIME, TIME]
    assert [len(call) for call in calls] == [17, 17]


def test_a_cell_that_continues_from_its_own_state_stays_one_call() -> None:
    with tf.Graph().as_default() as graph:
        cell = TFLiteLSTMCell(UNITS)
        steps = tf.unstack(tf.constant(feed()))
        _, state = v1.nn.static_rnn(cell, steps, dtype=tf.float32)
        v1.nn.static_rnn(cell, steps, initial_state=state)
    (call,) = hints(graph).values()
    assert len(call["I0"]) == 2 * TIME


def test_one_cell_in_two_layers_makes_a_call_for_each() -> None:
    with tf.Graph().as_default() as graph:
        cell = TfLiteRNNCell(DEPTH)
        unroll(MultiRNNCell([cell, cell]), tf.constant(feed()), "rnn")
    assert [len(call["I0"]) for call in hints(graph).values()] == [TIME, TIME]


def test_a_state_that_is_computed_between_steps_starts_another_call() -> None:
    with tf.Graph().as_default() as graph:
        cell = TfLiteRNNCell(UNITS)
        steps = tf.unstack(tf.constant(feed()))
        _, state = v1.nn.static_rnn(cell, steps, dtype=tf.float32)
        v1.nn.static_rnn(cell, steps, initial_state=tf.stop_gradient(state))
        v1.nn.static_rnn(cell, steps, initial_state=0.5 * state)
    assert [len(call["I0"]) for call in hints(graph).values()] == [2 * TIME, TIME]


def test_each_step_in_a_condition_is_a_call_of_its_own() -> None:
    before = v1.control_flow_v2_enabled()
    v1.disable_control_flow_v2()
    try:
        for state_is_tuple in (True, False):
            with tf.Graph().as_default() as graph:
                cell = TFLiteLSTMCell(UNITS, state_is_tuple=state_is_tuple)
                steps, lengths = tf.unstack(feed()), tf.constant([TIME, 1, 2])
                v1.nn.static_rnn(cell, steps, sequence_length=lengths, dtype=tf.float32)
            assert [len(call["I0"]) for call in hints(graph).values()] == [1] * TIME
            places = {op._get_control_flow_context() for op in graph.get_operations()
                      if "InputHint-" in op.name and op.type == "Identity"}  # fmt: skip
            assert len(places) == TIME
    finally:
        (v1.enable_control_flow_v2 if before else v1.disable_control_flow_v2)()


@pytest.mark.parametrize("functional", [False, True])
def test_static_lengths_build_and_compute_in_both_control_flow_modes(functional: bool) -> None:
    # Functional: each branch is a graph of its own, where upstream's cell failed to build.
    before = v1.control_flow_v2_enabled()
    (v1.enable_control_flow_v2 if functional else v1.disable_control_flow_v2)()
    try:
        with tf.Graph().as_default(), v1.Session() as session:
            x, lengths = feed(), [TIME, 1, 2]
            outputs, _ = v1.nn.static_rnn(
                TFLiteLSTMCell(UNITS), tf.unstack(x), sequence_length=lengths, dtype=tf.float32
            )
            session.run(v1.global_variables_initializer())
            got = session.run(tf.stack(outputs))
    finally:
        (v1.enable_control_flow_v2 if before else v1.disable_control_flow_v2)()
    alive = np.arange(TIME)[:, None] < np.array(lengths)
    np.testing.assert_array_equal(np.abs(got).sum(2) > 0, alive)


def test_reuse_shares_the_variables() -> None:
    with tf.Graph().as_default():
        x = tf.constant(feed())
        unroll(TFLiteLSTMCell(UNITS, name="cell"), x, "rnn")
        with pytest.raises(ValueError, match="already exists"):
            unroll(TFLiteLSTMCell(UNITS, name="cell", reuse=False), x, "rnn")
        unroll(TFLiteLSTMCell(UNITS, name="cell", reuse=True), x, "rnn")
        assert len(v1.trainable_variables()) == 12


@pytest.mark.parametrize(
    "options",
    [
        {"num_units": 0},
        {"num_units": 4, "cell_clip": -1.0},
        {"num_units": 4, "proj_clip": -1.0},
        {"num_units": 4, "num_proj": -1},
        {"num_units": 4, "num_unit_shards": 0},
        {"num_units": 4, "activation": "no_such_function"},
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with tf.Graph().as_default(), pytest.raises(HintError, match="TFLiteLSTMCell"):
        TFLiteLSTMCell(**options)


def test_wrong_inputs_are_refused() -> None:
    with tf.Graph().as_default():
        unknown = v1.placeholder(tf.float32, [2, None])
        zero = TFLiteLSTMCell(UNITS).zero_state(2, tf.float32)
        with pytest.raises(HintError, match="known depth"):
            TFLiteLSTMCell(UNITS)(unknown, zero)
        with pytest.raises(HintError, match=r"float64.*float32.*Cast"):
            TFLiteLSTMCell(UNITS, dtype=tf.float32)(tf.ones([2, 3], tf.float64), zero)


def test_eager_use_is_refused() -> None:
    cell = TfLiteRNNCell(UNITS)
    with pytest.raises(HintAttributeError, match=r"UnidirectionalSequenceRnn.*eager"):
        cell(tf.ones([2, 3]), tf.zeros([2, UNITS]))


@pytest.mark.parametrize("wrap", [tf.function, lambda f: v1.wrap_function(f, [])])
def test_creating_variables_in_a_traced_function_is_refused(wrap: Callable[[Any], Any]) -> None:
    def build() -> Any:
        return unroll(TFLiteLSTMCell(UNITS), tf.constant(feed()), "traced")[0]

    with pytest.raises(Exception, match=r"cannot create its variables in a tf\.function.*Graph"):
        wrap(build)()


def test_sizes_and_config() -> None:
    with tf.Graph().as_default():
        cell = TFLiteLSTMCell(UNITS, num_proj=PROJECTED, activation="relu", cell_clip=1.0)
        assert cell.output_size == PROJECTED
        assert cell.state_size == LSTMStateTuple(UNITS, PROJECTED)
        assert TFLiteLSTMCell(UNITS, state_is_tuple=False).state_size == 2 * UNITS
        config = cell.get_config()
        assert (config["num_proj"], config["activation"]) == (PROJECTED, "relu")
        copy = TFLiteLSTMCell.from_config(config)
        assert copy.get_config() == config
        rnn = TfLiteRNNCell(UNITS)
        assert rnn.state_size == rnn.output_size == rnn.get_config()["num_units"] == UNITS
