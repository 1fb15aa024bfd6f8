"""install: yesterday's names on TensorFlow's modules, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_START = """
import tensorflow.compat.v1 as tf
import tensorflow
import hintc
"""


def _run(script: str, **environment: str) -> str:
    settings = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", _START + script],
        capture_output=True,
        text=True,
        check=False,
        env={**settings, **environment},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_names_are_there_and_go_again() -> None:
    out = _run("""
from tensorflow.lite.python import op_hint
def names():
    nn = getattr(tf.lite.experimental, "nn", None)
    return [tf.lite.OpHint, tf.lite.TFLiteConverter, tf.graph_util.remove_training_nodes,
            tf.lite.experimental.convert_op_hints_to_stubs, op_hint.is_ophint_converted,
            getattr(tf.lite, "find_all_hinted_output_nodes", None),
            getattr(tensorflow.lite, "OpHint", None), tensorflow.lite.TFLiteConverter,
            nn and [nn.TFLiteLSTMCell, nn.TfLiteRNNCell, nn.dynamic_rnn,
                    nn.bidirectional_dynamic_rnn]]
before = names()
hintc.install()
during = names()
hintc.install()
assert names() == during
assert during == [hintc.OpHint, hintc.TFLiteConverter, hintc.remove_training_nodes,
                  hintc.convert_op_hints_to_stubs, hintc.is_ophint_converted,
                  hintc.find_all_hinted_output_nodes, hintc.OpHint,
                  tensorflow.lite.TFLiteConverter,
                  [hintc.TFLiteLSTMCell, hintc.TfLiteRNNCell, hintc.dynamic_rnn,
                   hintc.bidirectional_dynamic_rnn]]
assert before[7] is during[7]
hintc.uninstall()
hintc.uninstall()
assert names() == before
import os
print("TF_USE_LEGACY_KERAS" in os.environ)
hintc.install()
assert names() == during
""")
    assert out.split() == ["False"]


def test_what_somebody_else_set_meanwhile_stays() -> None:
    _run("""
hintc.install()
tf.lite.OpHint = "mine"
hintc.uninstall()
assert tf.lite.OpHint == "mine"
""")


@pytest.mark.parametrize("setting", [{}, {"TF_USE_LEGACY_KERAS": "1"}])
def test_keras_2_is_chosen_when_keras_was_not_touched(setting: dict[str, str]) -> None:
    out = _run("hintc.install(); print(tf.keras.layers.StackedRNNCells.__module__)", **setting)
    assert out.startswith("tf_keras")


def test_keras_3_that_is_there_already_refuses_hinted_cells_only() -> None:
    out = _run("""
tensorflow.keras.layers.StackedRNNCells
hintc.install()
keras = tensorflow.keras
keras.layers.StackedRNNCells([keras.layers.LSTMCell(3)])
try:
    keras.layers.StackedRNNCells([tf.lite.experimental.nn.TFLiteLSTMCell(3)])
except RuntimeError as error:
    print(type(error).__name__, error)
""")
    assert "HintRuntimeError" in out
    assert "TF_USE_LEGACY_KERAS=1" in out


def test_a_submodule_does_not_hide_the_function() -> None:
    _run("""
import hintc.compat.installer, hintc.compat.converter
assert callable(hintc.compat.install) and callable(hintc.install)
""")


def test_unknown_names_of_the_compat_package_and_of_nn() -> None:
    _run("""
hintc.install()
for module in (hintc.compat, tf.lite.experimental.nn):
    try:
        module.nonsense
    except AttributeError as error:
        assert "nonsense" in str(error)
    else:
        raise SystemExit(1)
assert "dynamic_rnn" in dir(tf.lite.experimental.nn)
""")


def test_hintc_converts_while_its_own_converter_is_installed() -> None:
    out = _run("""
hintc.install()
with tf.Graph().as_default(), tf.Session() as session:
    x = tf.placeholder(tf.float32, [None, 4], "x")
    y = tf.nn.relu(x * 2.0, name="y")
    print(len(tf.lite.TFLiteConverter.from_session(session, [x], [y]).convert()) > 100)
    print(len(hintc.convert(session, [x], [y]).tflite) > 100)
""")
    assert out.split() == ["True", "True"]
