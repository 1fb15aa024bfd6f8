"""The loops around hinted cells: hints, options, refusals. See also test_authoring_modes.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.lite.python.op_hint import OpHint as StockHint
from tensorflow.lite.python.op_hint import convert_op_hints_to_stubs
from tensorflow.python.ops import control_flow_util

from hintc.authoring import (
    TFLiteLSTMCell,
    TfLiteRNNCell,
    bidirectional_dynamic_rnn,
    dynamic_rnn,
    find_all_hinted_output_nodes,
)
from hintc.errors import HintAttributeError, HintError

v1 = tf.compat.v1
Array = npt.NDArray[Any]

TIME, BATCH, DEPTH, UNITS = 7, 3, 5, 8


def feed() -> Array:
    return np.random.default_rng(1).uniform(-1, 1, [TIME, BATCH, DEPTH]).astype(np.float32)


def lstm() -> Any:
    return TFLiteLSTMCell(UNITS, use_peepholes=True, num_proj=6)


def stack() -> Any:
    cells = [TFLiteLSTMCell(UNITS, name="a"), TfLiteRNNCell(6, name="b")]
    return tf_keras.layers.StackedRNNCells(cells)


@contextmanager
def session() -> Iterator[Any]:
    with tf.Graph().as_default(), v1.Session() as opened:
        yield opened


@pytest.mark.parametrize("mode", ["disable_v2_behavior", "disable_eager_execution"])
def test_the_loops_work_in_a_process_with(mode: str) -> None:
    file = Path(__file__).with_name("test_authoring_modes.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", file, "-q", "-o", "addopts=", "-p", "no:cacheprovider"],
        env=os.environ | {"HINTC_TEST_TENSORFLOW_MODE": mode},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_off_switch_of_control_flow_v2_alone() -> None:
    before = control_flow_util.ENABLE_CONTROL_FLOW_V2
    v1.disable_control_flow_v2()
    try:
        with session() as opened:
            outputs, _ = dynamic_rnn(lstm(), tf.constant(feed()), dtype=tf.float32)
            gradients = tf.gradients(outputs, v1.trainable_variables())
            opened.run(v1.global_variables_initializer())
            opened.run(gradients)
            assert control_flow_util.ENABLE_CONTROL_FLOW_V2 is False
            assert "While" in {
                op.type.removeprefix("Stateless") for op in opened.graph.get_operations()
            }
    finally:
        control_flow_util.ENABLE_CONTROL_FLOW_V2 = before


def test_the_wrapper_hint_is_tensorflows_byte_for_byte() -> None:
    with session() as opened:
        outputs, _ = dynamic_rnn(lstm(), tf.constant(feed()), dtype=tf.float32)
        names = [op.name for op in opened.graph.get_operations() if "Hint-" in op.name]
        assert [name.split("Hint-")[0] for name in names] == ["rnn/Input", "rnn/Output"]
        assert [name.split("-", 3)[3] for name in names] == ["0-None-input", "0-None-outputs"]
        assert outputs.op.name == names[1]
        (loop,) = (op for op in opened.graph.get_operations() if op.type.endswith("While"))
        got = opened.graph.get_operation_by_name(names[0]).node_def
    one = "child_output_index"
    mappings = {
        "parent_first_child_input": [
            {"parent_ophint_input_index": 0, "first_child_ophint_input_index": 0}
        ],
        "parent_last_child_output": [{"parent_output_index": 0, one: -1}],
        "internal_children_input_output": [{"child_input_index": 0, one: -1}],
    }
    with session():
        stock = StockHint("TfLiteDynamicRnn", level=2, children_inputs_mappings=mappings)
        want = stock.add_input(tf.constant(feed()), name="input", index_override=0).op.node_def
    assert set(got.attr) == set(want.attr)
    for key in set(got.attr) - {StockHint.FUNCTION_UUID_ATTR}:
        assert got.attr[key] == want.attr[key]
    body = next(
        f for f in loop.graph.as_graph_def().library.function
        if f.signature.name == loop.get_attr("body").name
    )  # fmt: skip
    inside = [n for n in body.node_def if StockHint.FUNCTION_UUID_ATTR in n.attr]
    assert {n.attr[StockHint.FUNCTION_NAME_ATTR].s for n in inside} == {
        b"UnidirectionalSequenceLstm"
    }
    assert len(inside) == 1 + 8 + 4 + 3 + 1 + 2 + 2


@pytest.mark.parametrize("make", [lstm, stack])
@pytest.mark.parametrize("dynamic", [False, True])
def test_tensorflows_own_stub_conversion_accepts_the_graph(
    make: Callable[[], Any], dynamic: bool
) -> None:
    with session() as opened:
        x = tf.constant(feed())
        if dynamic:
            outputs, _ = dynamic_rnn(make(), x, dtype=tf.float32)
        else:
            outputs = tf.stack(v1.nn.static_rnn(make(), tf.unstack(x), dtype=tf.float32)[0])
        outputs = tf.identity(outputs, name="y")
        opened.run(v1.global_variables_initializer())
        names = ["y", *find_all_hinted_output_nodes(session=opened)]
        graph_def = opened.graph.as_graph_def()
        frozen = v1.graph_util.convert_variables_to_constants(opened, graph_def, names)
    stubs = [n for n in convert_op_hints_to_stubs(graph_def=frozen).node if n.op.startswith("Uni")]
    operands = {node.op: len(node.input) for node in stubs}
    rnn = {"UnidirectionalSequenceRnn": 5} if make is stack else {}
    assert operands == {"UnidirectionalSequenceLstm": 20} | rnn


def test_options_reach_the_loop() -> None:
    with session() as opened:
        with v1.variable_scope("mine") as scope:
            pass
        dynamic_rnn(lstm(), tf.constant(feed()), dtype=tf.float32, parallel_iterations=5,
                    swap_memory=True, scope=scope)  # fmt: skip
        (loop,) = (op for op in opened.graph.get_operations() if op.type.endswith("While"))
        assert loop.get_attr("parallel_iterations") == 5
        assert all(v.op.name.startswith("mine/") for v in v1.trainable_variables())
        dynamic_rnn(TfLiteRNNCell(2), tf.constant(feed()), dtype=tf.float32)
        assert v1.trainable_variables()[-1].op.name.startswith("rnn/tf_lite_rnn_cell")


def test_a_saver_restores_into_the_rebuilt_model(tmp_path: Any) -> None:
    def build() -> Any:
        return dynamic_rnn(stack(), tf.constant(feed()), dtype=tf.float32)[0]

    with session() as opened:
        outputs = build()
        opened.run(v1.global_variables_initializer())
        v1.train.Saver().save(opened, str(tmp_path / "model"))
        want = opened.run(outputs)
    with session() as opened:
        outputs = build()
        v1.train.Saver().restore(opened, str(tmp_path / "model"))
        np.testing.assert_array_equal(opened.run(outputs), want)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: (tf.constant(feed()), tf.constant(feed())), "one tensor"),
        (lambda: None, "one tensor of three axes"),
        (lambda: v1.placeholder(tf.float32, [TIME, BATCH]), r"\(7, 3\)"),
        (lambda: v1.placeholder(tf.float32, None), "three axes"),
        (lambda: v1.placeholder(tf.float32, [TIME, BATCH, None]), "known depth"),
    ],
)
def test_wrong_inputs_are_refused(make: Callable[[], Any], says: str) -> None:
    with session():
        for time_major in (False, True):
            with pytest.raises(HintError, match=f"'TfLiteDynamicRnn'.*{says}"):
                dynamic_rnn(lstm(), make(), dtype=tf.float32, time_major=time_major)
        with pytest.raises(HintError, match=says):
            bidirectional_dynamic_rnn(lstm(), lstm(), make(), dtype=tf.float32)


def test_other_misuse_is_refused() -> None:
    with session():
        with pytest.raises(HintError, match="neither initial_state nor dtype"):
            dynamic_rnn(lstm(), tf.constant(feed()))
        keras_3 = keras.layers.StackedRNNCells([TFLiteLSTMCell(UNITS)])
        with pytest.raises(HintError, match=r"StackedRNNCells of Keras 3.*TF_USE_LEGACY_KERAS"):
            dynamic_rnn(keras_3, tf.constant(feed()), dtype=tf.float32)
        with pytest.raises(TypeError, match="cell"):
            dynamic_rnn("cell", tf.constant(feed()), dtype=tf.float32)
    with pytest.raises(HintAttributeError, match=r"'TfLiteDynamicRnn'.*eager"):
        dynamic_rnn(lstm(), tf.constant(feed()), dtype=tf.float32)
    with pytest.raises(HintAttributeError, match="eager"):
        bidirectional_dynamic_rnn(lstm(), lstm(), tf.constant(feed()), dtype=tf.float32)
