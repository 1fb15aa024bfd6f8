"""GraphDefs as TensorFlow makes them, one builder per kind, for tests that any graph must pass."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

v1 = tf.compat.v1


@functools.cache
def graph_def(name: str) -> Any:
    """The GraphDef called `name`; do not change it."""
    return BUILDERS[name]()


@contextlib.contextmanager
def control_flow(*, v2: bool) -> Iterator[None]:
    before = v1.control_flow_v2_enabled()
    (v1.enable_control_flow_v2 if v2 else v1.disable_control_flow_v2)()
    try:
        yield
    finally:
        (v1.enable_control_flow_v2 if before else v1.disable_control_flow_v2)()


def _model() -> Any:
    x = tf_keras.Input([7, 5])
    y = tf_keras.layers.Bidirectional(tf_keras.layers.LSTM(4, return_sequences=True))(x)
    y = tf_keras.layers.GRU(3)(y)
    y = tf_keras.layers.BatchNormalization()(y)
    return tf_keras.Model(x, tf_keras.layers.Dropout(0.5)(y))


_X = tf.TensorSpec([None, 7, 5])


def keras_2() -> Any:
    model = _model()
    call = tf.function(lambda x: model(x, training=True))
    return call.get_concrete_function(_X).graph.as_graph_def(add_shapes=True)


def keras_3() -> Any:
    import keras

    x = keras.Input([7, 5])
    model = keras.Model(x, keras.layers.Dense(3)(keras.layers.LSTM(4, return_sequences=True)(x)))
    return tf.function(model.call).get_concrete_function(_X).graph.as_graph_def()


def gradients() -> Any:
    model = _model()

    @tf.function  # type: ignore[untyped-decorator]
    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x) ** 2)
        return tape.gradient(loss, model.trainable_variables)

    return step.get_concrete_function(_X).graph.as_graph_def()


def saved_model() -> Any:
    from tensorflow.python.saved_model import loader_impl

    cell = tf_keras.layers.LSTM(3)
    model = tf_keras.Sequential([tf_keras.Input([4, 2]), cell, tf_keras.layers.Dense(2)])
    with tempfile.TemporaryDirectory() as folder:
        model.export(folder)
        return loader_impl.parse_saved_model(folder).meta_graphs[0].graph_def


def control_and_data() -> Any:
    """Conditions, loops, cases, data sets, print, strings, bfloat16, complex numbers."""

    @tf.function  # type: ignore[untyped-decorator]
    def call(x: Any, n: Any) -> Any:
        x = tf.cond(tf.reduce_sum(x) > 0, lambda: x + 1.0, lambda: x - 1.0)
        sums, _ = tf.while_loop(
            lambda s, i: i < n, lambda s, i: (tf.concat([s, x], 0), i + 1), [x, 0],
            shape_invariants=[tf.TensorShape([None]), tf.TensorShape([])],
        )  # fmt: skip
        tf.print(sums)
        case = tf.switch_case(n, [lambda: x, lambda: x * 2, lambda: x * 3])
        data = tf.data.Dataset.range(4).map(lambda v: v * 2).batch(2).reduce(
            tf.constant(0, tf.int64), lambda a, b: a + tf.reduce_sum(b)
        )  # fmt: skip
        text = tf.strings.join(['a\n"', "\\"])
        odd = tf.cast(x, tf.bfloat16) * tf.constant([float("nan"), 1, -0.0], tf.bfloat16)
        mapped = tf.map_fn(lambda a: a * 2, tf.complex(x, x))
        return sums, case, data, text, odd, mapped

    spec = tf.TensorSpec([3]), tf.TensorSpec([], tf.int32)
    return call.get_concrete_function(*spec).graph.as_graph_def()


def _recurrent(*, v2: bool, resource: bool) -> Any:
    """dynamic_rnn with gradients, optimiser and saver."""
    from tf_keras.src.layers.rnn.legacy_cells import LSTMCell

    with control_flow(v2=v2), tf.Graph().as_default() as graph:
        with v1.variable_scope("s", use_resource=resource):
            x = v1.placeholder(tf.float32, [None, 7, 5], "x")
            output, _ = v1.nn.dynamic_rnn(LSTMCell(4), x, dtype=tf.float32)
            v1.train.AdamOptimizer().minimize(tf.reduce_sum(output))
        v1.train.Saver()
        v1.global_variables_initializer()
    return graph.as_graph_def(add_shapes=True)


def constants() -> Any:
    with tf.Graph().as_default() as graph, tf.device("/cpu:0"):
        values: list[tuple[Any, Any]] = [
            (np.arange(100), tf.float16), (np.arange(5) * 1j, tf.complex64), (True, tf.bool),
            (np.full((3, 4), np.nan), tf.float32), ([b"a", b'\x00"\\%$\xff'], tf.string),
            ([], tf.float32), (np.zeros((0, 3)), tf.float64), ("", tf.string),
            (np.arange(40), tf.bfloat16), (np.int64(-(2**63)), tf.int64), (1e-45, tf.float32),
            (np.frombuffer(b"\x01\x00\xc0\x7f\x00\x00\xc0\xff", np.float32), tf.float32),
            (-np.inf, tf.float64), (np.linspace(0, 1, 50), tf.float64), (0.1, tf.float64),
        ]  # fmt: skip
        for value, dtype in values:
            tf.constant(value, dtype)
        with tf.control_dependencies([tf.no_op("first")]):
            tf.zeros([2, 3], name="second")
    return graph.as_graph_def()


BUILDERS: dict[str, Callable[[], Any]] = {
    "keras_2": keras_2,
    "keras_3": keras_3,
    "gradients": gradients,
    "saved_model": saved_model,
    "control_and_data": control_and_data,
    "v1_loop": lambda: _recurrent(v2=False, resource=False),
    "v1_loop_resource": lambda: _recurrent(v2=False, resource=True),
    "v2_loop": lambda: _recurrent(v2=True, resource=True),
    "constants": constants,
}
NAMES = tuple(BUILDERS)
