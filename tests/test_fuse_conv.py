"""fuse-conv: which nodes become one call, what stays, and that the models compute the same."""

from typing import Any

import numpy as np
import pytest

import hintc
from hintc.equivalence import check_equivalence
from hintc.ops.convolution import FUSED_CONV_2D
from hintc.tflite.inspect import op_counts
from pass_cases import check_meaning, lines, run

HEAD = """
graph {
  %x = Placeholder() {dtype = float, shape = <?x4x4x2>}
  %w = Const() {dtype = float, value = float<1x1x2x2>[1.0, 2.0, 3.0, 4.0]}
  %b = Const() {dtype = float, value = float<2>[1.0, 2.0]}
  %s = Const() {dtype = float, value = float<>[3.0]}
"""
CONV = """
  %conv = Conv2D(%x, %w) {T = float, padding = "SAME", strides = [1, 2, 2, 1]}
"""


def calls(body: str, options: str = "") -> list[str]:
    module, _ = run(f"fuse-conv{options}", HEAD + body + "\n}")
    return [line for line in lines(module.graph) if "Const" not in line]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("%y = Relu6(%conv) {T = float}", "y = PartitionedCall(x, w, bias)"),
        ("%y = BiasAdd(%conv, %b) {T = float}", "y = PartitionedCall(x, w, b)"),
        (
            "%a = AddV2(%s, %conv) {T = float}\n%y = Relu(%a) {T = float}",
            "y = PartitionedCall(x, w, bias)",
        ),
    ],
)
def test_one_call(body: str, expected: str) -> None:
    assert calls(CONV + body) == [expected]


def test_the_spec_says_what_is_computed() -> None:
    module, report = run("fuse-conv{emit=custom}", HEAD + CONV + "%y = Tanh(%conv) {T = float}\n}")
    (function,) = module.functions.values()
    marking: Any = function.attributes["_implements"]
    spec = FUSED_CONV_2D.parse_spec(dict(marking.attributes)["spec"].decode())
    assert spec.slots == ("input", "filter")
    assert spec.attributes == {
        "activation": "TANH",
        "padding": "SAME",
        "stride_h": 2,
        "stride_w": 2,
        "dilation_h": 1,
        "dilation_w": 1,
    }
    assert [n.op for n in function.graph] == ["_Arg", "_Arg", "Conv2D", "Tanh", "_Retval"]
    assert [(r.code, r.node) for r in report.remarks] == [("fused-call", "y")]


def test_an_activation_without_a_kernel_stays() -> None:
    assert calls(CONV + "%y = Tanh(%conv) {T = float}") == [
        "y = Tanh(conv)",
        "conv = PartitionedCall(x, w, bias)",
    ]


@pytest.mark.parametrize(
    ("node", "code"),
    [
        ('%y = Conv2D(%x, %w) {T = float, padding = "SAME", strides = [1,1,1,1], '
         'data_format = "NCHW"}', "conv-layout"),
        ('%y = Conv2D(%x, %w) {T = float, padding = "EXPLICIT", strides = [1,1,1,1], '
         "explicit_paddings = [0,0,1,1,1,1,0,0]}", "conv-padding"),
        ("%p = Placeholder() {dtype = float, shape = <?x2>}\n"
         "%m = Const() {dtype = float, value = float<2x2>[1.0, 2.0, 3.0, 4.0]}\n"
         "%y = MatMul(%p, %m) {T = float, transpose_b = true}", "conv-transposed"),
        (CONV + "%c = Const() {dtype = float, value = float<2x1>[1.0, 2.0]}\n"
         "%y = AddV2(%conv, %c) {T = float}", "not-by-channel"),
        (CONV + "%y = BiasAdd(%conv, %b) {T = float}\n%z = Neg(%conv) {T = float}",
         "value-escapes"),
    ],
)  # fmt: skip
def test_left_alone_with_a_reason(node: str, code: str) -> None:
    _, report = run("fuse-conv", HEAD + node + "\n}")
    assert code in [remark.code for remark in report.remarks]


@pytest.mark.parametrize(
    ("size", "stride", "before", "after", "folded"),
    [
        (8, 1, 1, 1, True),
        (-1, 1, 1, 1, True),  # whatever the size
        (8, 2, 0, 1, True),
        (7, 2, 1, 1, True),
        (8, 2, 1, 1, False),
        (7, 2, 0, 1, False),
        (-1, 2, 0, 1, False),
        (8, 1, 0, 2, False),
    ],
)
def test_a_pad_becomes_padding_where_it_is_same(
    size: int, stride: int, before: int, after: int, folded: bool
) -> None:
    import tensorflow as tf

    shape = [None, *([None if size < 0 else size] * 2), 2]
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, shape, "x")
        pad = tf.pad(x, [[0, 0], [before, after], [before, after], [0, 0]])
        y = tf.nn.conv2d(pad, np.ones([3, 3, 2, 2], np.float32), stride, "VALID")
        tf.nn.relu(y, name="y")
    width = 6 if size < 0 else size
    values = np.random.default_rng(0).normal(size=(2, width, width, 2))
    feed = {"x:0": values.astype(np.float32)}
    module, _ = check_meaning("fuse-conv,eliminate-dead-code", graph.as_graph_def(), feed, ["y:0"])
    assert ("Pad" not in {node.op for node in module.graph}) == folded


def test_a_model_that_is_quantised_is_left_to_the_converter() -> None:
    _, report = run("fuse-conv{quantize=dynamic}", HEAD + CONV + "}")
    assert [remark.code for remark in report.remarks] == ["conv-quantised"]


def everything() -> Any:
    """Convolutions of all kinds with all activations, as a GraphDef."""
    import tensorflow as tf

    random = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return random.normal(size=shape).astype(np.float32) * 0.5

    nn = tf.nn
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 9, 8, 4], "x")
        y = nn.relu6(nn.bias_add(nn.conv2d(x, draw(3, 2, 4, 6), [1, 2, 1, 1], "SAME"), draw(6)))
        y = nn.tanh(nn.conv2d(y, draw(3, 3, 2, 6), 1, "SAME", dilations=2) + draw(1, 1, 1, 6))
        y = nn.relu(nn.depthwise_conv2d(y, draw(3, 3, 6, 2), [1, 2, 2, 1], "VALID") + draw(12))
        y = nn.depthwise_conv2d(y, draw(3, 3, 12, 1), [1, 1, 1, 1], "SAME", dilations=[2, 2])
        y = tf.reshape(y, [-1, 6, 12])
        y = nn.elu(nn.bias_add(nn.conv1d(y, draw(3, 12, 5), 2, "SAME"), draw(5)))
        y = nn.sigmoid(tf.reshape(y, [-1, 15]) @ draw(15, 7))
        tf.identity(nn.relu(y @ draw(7, 3) + draw(3)), "y")
    return graph.as_graph_def()


FEED = {"x": np.random.default_rng(1).normal(size=(2, 9, 8, 4)).astype(np.float32)}


def test_built_in_kernels_compute_the_same() -> None:
    graph_def = everything()
    result = hintc.convert(
        graph_def, ["x"], ["y"], pipeline="fold-constants,fuse-conv,eliminate-dead-code", check=FEED
    )
    assert result.report.fused_ops == {
        "CONV_2D": 3,
        "DEPTHWISE_CONV_2D": 2,
        "FULLY_CONNECTED": 2,
    }
    assert max(result.report.errors.values()) < 1e-5
    kinds = op_counts(result.tflite)
    assert (kinds["RELU"], kinds["RELU6"], kinds["TANH"]) == (0, 0, 1)


def test_custom_ops_keep_a_body_that_computes_the_same() -> None:
    result = hintc.convert(
        everything(),
        ["x"],
        ["y"],
        pipeline="fold-constants,fuse-conv{emit=custom},eliminate-dead-code",
    )
    kinds = op_counts(result.tflite)
    assert {k: n for k, n in kinds.items() if k.startswith("CUSTOM")} == {
        "CUSTOM:FusedConv2D": 3,
        "CUSTOM:FusedDepthwiseConv2D": 2,
        "CUSTOM:FusedMatMul": 2,
    }
    assert {"CONV_2D", "ADD", "TANH", "ELU"}.isdisjoint(kinds)
    check_equivalence(
        everything(), result.graph_def, FEED, inputs=["x"], outputs=["y"], rtol=1e-6, atol=1e-6
    ).raise_if_failed()
