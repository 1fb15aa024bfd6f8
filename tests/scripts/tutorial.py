"""The tutorial's code as people have it, with only `import hintc; hintc.install()` added.

Usage: ``tutorial.py FOLDER CONTROL_FLOW LEGACY_KERAS``. FOLDER gets the model, the images and what
the session gave for them. CONTROL_FLOW: ``v1`` or ``v2``. LEGACY_KERAS: ``too-late`` touches
tf.keras before `install`.
"""

import os
import sys
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

import hintc

folder, control_flow, legacy_keras = sys.argv[1:]
if legacy_keras == "too-late":
    tf.keras.layers  # noqa: B018
hintc.install()

tf.disable_v2_behavior()
if control_flow == "v2":
    tf.enable_control_flow_v2()
tf.logging.set_verbosity(tf.logging.ERROR)

STEPS, INPUT_SIZE, UNITS, CLASSES = 7, 6, 16, 4
MODEL = os.path.join(folder, "model")

np.random.seed(0)
centres = np.random.rand(CLASSES, STEPS, INPUT_SIZE)
labels = np.random.randint(CLASSES, size=200)
images = (centres[labels] + 0.1 * np.random.randn(200, STEPS, INPUT_SIZE)).astype("float32")
one_hot = np.eye(CLASSES, dtype="float32")[labels]


def build_lstm_layer(num_layers: int) -> Any:
    lstm_layers = []
    for i in range(num_layers):
        lstm_layers.append(
            tf.lite.experimental.nn.TFLiteLSTMCell(num_units=UNITS, name=f"rnn{i}", forget_bias=1.0)
        )
    return tf.keras.layers.StackedRNNCells(lstm_layers)


def build_model() -> Any:
    x = tf.placeholder("float", [None, STEPS, INPUT_SIZE], name="INPUT_IMAGE")
    inputs = tf.transpose(x, perm=[1, 0, 2])
    outputs, _ = tf.lite.experimental.nn.dynamic_rnn(build_lstm_layer(2), inputs, dtype="float32")
    outputs = tf.unstack(outputs, axis=0)
    out_weight = tf.Variable(tf.random_normal([UNITS, CLASSES]))
    out_bias = tf.Variable(tf.random_normal([CLASSES]))
    logits = tf.matmul(outputs[-1], out_weight) + out_bias
    return x, logits, tf.nn.softmax(logits, name="OUTPUT_CLASS")


# --- train ---
tf.set_random_seed(0)
x, logits, prediction = build_model()
y = tf.placeholder("float", [None, CLASSES])
loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(logits=logits, labels=y))
opt = tf.train.AdamOptimizer(learning_rate=0.02).minimize(loss)
sess = tf.Session()
sess.run(tf.global_variables_initializer())
for _ in range(30):
    sess.run(opt, feed_dict={x: images, y: one_hot})
saver = tf.train.Saver()
saver.save(sess, MODEL)
sess.close()

# --- rebuild for inference, restore, freeze ---
tf.reset_default_graph()
x, logits, prediction = build_model()
sess = tf.Session()
tf.train.Saver().restore(sess, MODEL)
expected = sess.run(prediction, feed_dict={x: images})
frozen_graph = tf.graph_util.convert_variables_to_constants(
    sess, sess.graph_def, [prediction.op.name]
)

# --- convert ---
graph = tf.Graph()
with graph.as_default():
    tf.import_graph_def(frozen_graph, name="")
    stubs = tf.lite.experimental.convert_op_hints_to_stubs(graph_def=frozen_graph)
    stubs = tf.graph_util.remove_training_nodes(stubs)
    for quantized, name in ((False, "float"), (True, "quantized")):
        converter = tf.lite.TFLiteConverter(stubs, [x], [prediction])
        converter.post_training_quantize = quantized
        with open(os.path.join(folder, name + ".tflite"), "wb") as file:
            file.write(converter.convert())

np.savez(os.path.join(folder, "run.npz"), images=images, labels=labels, expected=expected)
