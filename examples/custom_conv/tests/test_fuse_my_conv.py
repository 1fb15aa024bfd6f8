"""fuse-my-conv: what it makes and refuses; TensorFlow and the kernel compute the same."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

import hintc
from hintc.runtime import Kernels
from hintc_fuse_my_conv.kernel import my_conv

v1 = tf.compat.v1
Array = npt.NDArray[np.float32]

KERNELS = {"MyConv": my_conv}
RANDOM = np.random.default_rng(0)
SHAPES = ((3, 2, 2, 6), (2, 3, 6, 4))  # of the filters; the first convolution has two groups
FILTERS = [RANDOM.standard_normal(shape).astype(np.float32) for shape in SHAPES]
BIASES = [RANDOM.standard_normal(shape[-1]).astype(np.float32) for shape in SHAPES]
# two batch sizes, each twice
FEEDS = [RANDOM.standard_normal([batch, 9, 8, 4]).astype(np.float32) for batch in (1, 1, 3, 3)]
CASES = [
    ((1, 1), "SAME", "Relu"),
    ((2, 1), "SAME", "Tanh"),
    ((1, 2), "VALID", "Relu6"),
    ((3, 2), "SAME", "Relu6"),
]
FUNCTIONS = {"Relu": tf.nn.relu, "Relu6": tf.nn.relu6, "Tanh": tf.tanh}


def graph_of(strides: Any, padding: str, activation: str, *, hinted: bool = False) -> tf.Graph:
    """Two convolutions in a row, with 6 and 4 channels."""
    with tf.Graph().as_default() as graph:
        y = v1.placeholder(tf.float32, [None, 9, 8, 4], "x")
        for number, (filters, bias) in enumerate(zip(FILTERS, BIASES, strict=True)):
            operands = [y, tf.constant(filters), tf.constant(bias)]
            if hinted:
                hint = hintc.OpHint(
                    "MyConv", strides=strides, padding=padding, activation=activation
                )
                operands = hint.add_inputs(*operands)
            y = tf.nn.bias_add(
                tf.nn.conv2d(operands[0], operands[1], strides, padding), operands[2]
            )
            y = FUNCTIONS[activation](y, name=f"conv_{number}")
            if hinted:
                (y,) = hint.add_outputs(y)
        tf.identity(y, "y")
    return graph


def expected(graph: tf.Graph) -> list[Array]:
    """What TensorFlow computes for each of `FEEDS`."""
    with v1.Session(graph=graph) as session:
        return [session.run("y:0", {"x:0": feed}) for feed in FEEDS]


def converted(graph: tf.Graph, pipeline: str) -> Any:
    """The model, compared with its source by hintc too."""
    return hintc.convert(graph.as_graph_def(), ["x"], ["y"], pipeline=pipeline, check=True)


def by_hintc(tflite: bytes) -> Iterator[Array]:
    """The results of one interpreter that hintc drives."""
    model = hintc.Interpreter(tflite, kernels=KERNELS)
    for feed in FEEDS:
        yield model.run({"x": feed})["y"]


def by_tensorflow(tflite: bytes) -> Iterator[Array]:
    """The results of TensorFlow's interpreter, as everybody calls it."""
    model = tf.lite.Interpreter(model_content=tflite, experimental_delegates=[Kernels(KERNELS)])
    (x,), (y,) = model.get_input_details(), model.get_output_details()
    for feed in FEEDS:
        model.resize_tensor_input(x["index"], feed.shape)
        model.allocate_tensors()
        model.set_tensor(x["index"], feed)
        model.invoke()
        yield model.get_tensor(y["index"])


@pytest.mark.parametrize(("strides", "padding", "activation"), CASES)
def test_it_computes_what_tensorflow_does(strides: Any, padding: str, activation: str) -> None:
    """Found by the pattern, marked by a hint, and as TFLite's own operator: the same numbers."""
    graph = graph_of(strides, padding, activation)
    hinted = graph_of(strides, padding, activation, hinted=True)
    matched = converted(graph, "default,fuse-my-conv")
    marked = converted(hinted, "default")
    builtin = converted(graph, "default,fuse-conv")
    assert matched.report.operators == marked.report.operators == {"CUSTOM:MyConv": 2}
    assert builtin.report.operators["CONV_2D"] == 2
    results = [
        by_hintc(matched.tflite),
        by_tensorflow(matched.tflite),
        by_hintc(marked.tflite),
        by_hintc(builtin.tflite),
    ]
    for wanted, *found in zip(expected(graph), *results, strict=True):
        for result in found:
            np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-5)


def test_an_option_narrows_it() -> None:
    """A convolution with fewer channels stays, with a reason."""
    result = converted(graph_of((1, 1), "SAME", "Relu"), "default,fuse-my-conv{min-channels=5}")
    assert result.report.operators == {"CUSTOM:MyConv": 1, "CONV_2D": 1}
    refused = [(remark.node, remark.code) for remark in result.report.not_fused]
    assert refused == [("conv_1", "few-channels")]


@pytest.mark.parametrize(
    "other",
    [
        {"dilations": 2},
        {"padding": [[0, 0], [1, 0], [0, 1], [0, 0]]},
    ],
)
def test_what_the_kernel_does_not_know_stays(other: dict[str, Any]) -> None:
    """Nothing is fused that the kernel would compute wrongly."""
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 9, 8, 6], "x")
        y = tf.nn.conv2d(x, FILTERS[1], **{"strides": 1, "padding": "VALID", **other})
        tf.nn.relu(tf.nn.bias_add(y, BIASES[1]), "y")
    pipeline = "default,fuse-my-conv"
    compiled = hintc.compile(graph.as_graph_def(), ["x"], ["y"], pipeline=pipeline, check=True)
    assert not compiled.report.fused_ops
    ((_, near),) = compiled.report.near_misses
    assert next(iter(other)) in near.reason
