"""fold-batch-norm: what is folded, exactly what is left alone, and that the maths stays."""

from typing import Any

import numpy as np
import pytest

from hintc.ir import Tensor
from pass_cases import check_meaning, lines, run

NAME = "fold-batch-norm"


def in_graph(body: str) -> str:
    return f"""
    graph {{
      %x = Placeholder() {{dtype = float, shape = <?x2>}}
      %w = Const() {{dtype = float, value = float<2x3>[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}}
      %f = Const() {{dtype = float, value = float<3>[1.0, 10.0, 100.0]}}
      %b = Const() {{dtype = float, value = float<1x3>[1.0, 2.0, 3.0]}}
      %mm = MatMul(%x, %w) {{T = float}}
      {body}
    }}
    """


def values(node: Any) -> Any:
    tensor = node.attributes["value"]
    assert isinstance(tensor, Tensor)
    return tensor.array.tolist()


def test_a_factor_goes_into_the_weights() -> None:
    module, report = run(NAME, in_graph("%y = Mul(%f, %mm) {T = float}"))
    assert lines(module.graph) == ["b = Const()", "weights = Const()", "y = MatMul(x, weights)"]
    assert values(module.graph["weights"]) == [[1.0, 20.0, 300.0], [4.0, 50.0, 600.0]]
    assert report.runs[0].report.counts == {"rewritten": 1}


def test_factor_and_shift_one_after_the_other() -> None:
    body = """
    %bias = BiasAdd(%mm, %f) {T = float}
    %half = Const() {dtype = float, value = float<>[2.0]}
    %scaled = RealDiv(%bias, %half) {T = float}
    %less = Sub(%scaled, %b) {T = float}
    %y = AddV2(%b, %less) {T = float}
    """
    module, report = run(NAME, in_graph(body))
    last = module.graph["y"]
    assert last.op == "BiasAdd"
    assert values(last.operands[1].node) == [0.5, 5.0, 50.0]
    assert values(last.operands[0].node.operands[1].node) == [[0.5, 1.0, 1.5], [2.0, 2.5, 3.0]]
    assert report.runs[0].report.counts == {"rewritten": 3}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("%c = Const() {dtype = float, value = float<1x1x3>[1.0, 2.0, 3.0]}", "not-by-channel"),
        ("%c = Const() {dtype = float, value = float<2x1>[1.0, 2.0]}", "not-by-channel"),
        (
            "%c = Const() {dtype = float, value = float<3>[inf, 1.0, 1.0]}",
            "fold-not-finite",
        ),
        (
            "%c = Const() {dtype = float, value = float<>[2.0]}\n%also = Neg(%mm) {T = float}",
            "value-escapes",
        ),
        (
            "%c = Const() {dtype = float, value = float<>[2.0]}\n%also = Neg(%w) {T = float}",
            "weights-shared",
        ),
    ],
)
def test_left_alone_with_a_reason(body: str, code: str) -> None:
    _, report = run(NAME, in_graph(f"{body}\n%y = Mul(%mm, %c) {{T = float}}"))
    assert not report.changed
    assert [remark.code for remark in report.remarks] == [code]


def test_division_by_the_product_is_not_scaling() -> None:
    _, report = run(NAME, in_graph("%y = RealDiv(%f, %mm) {T = float}"))
    assert not report.changed


def draw(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).uniform(0.5, 1.5, shape).astype(np.float32)


def linear(kind: str, x: Any) -> Any:
    import tensorflow as tf

    nn = tf.nn
    match kind:
        case "conv":
            return nn.conv2d(x, draw(3, 3, 4, 6), 2, "SAME")
        case "grouped":
            return nn.conv2d(x, draw(3, 3, 2, 6), 1, "VALID", dilations=2)
        case "depthwise":
            return nn.depthwise_conv2d(x, draw(3, 3, 4, 2), [1, 1, 1, 1], "SAME")
        case "conv1d":
            return nn.conv1d(x[:, 0], draw(3, 4, 6), 2, "SAME")
        case "matmul":
            return tf.matmul(x[:, 0, 0], draw(6, 4), transpose_b=True)
    raise AssertionError(kind)


def normalised(form: str, y: Any) -> Any:
    import tensorflow as tf

    count = y.shape[-1]
    scale, offset, mean, variance = (draw(count) * k for k in (1.0, 2.0, -3.0, 0.5))
    if form == "written-out":
        return tf.nn.batch_normalization(y, mean, variance, offset, scale, 1e-3)
    op = getattr(tf.raw_ops, form)
    return op(
        x=y,
        scale=tf.constant(scale),
        offset=tf.constant(offset),
        mean=tf.constant(mean),
        variance=tf.constant(variance),
        epsilon=1e-3,
        is_training=False,
    )[0]


KINDS = ("conv", "grouped", "depthwise", "conv1d", "matmul")
FORMS = ("written-out", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_meaning(kind: str, with_bias: bool) -> None:
    import tensorflow as tf

    forms = FORMS if kind in ("conv", "grouped", "depthwise") else FORMS[:1]
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 8, 8, 4], "x")
        for form in forms:
            y = linear(kind, x)
            if with_bias:
                y = tf.nn.bias_add(y, draw(y.shape[-1]))
            tf.nn.relu(normalised(form, y), name=form)
    feeds = {"x:0": np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype(np.float32)}
    fetches = [f"{form}:0" for form in forms]
    module, _ = check_meaning(
        f"fold-constants,{NAME},eliminate-dead-code",
        graph.as_graph_def(),
        feeds,
        fetches,
        rtol=1e-5,
        atol=1e-4,  # values are up to 200
    )
    kinds = [n.op for n in module.graph]
    assert set(kinds).isdisjoint((*FORMS, "Mul", "Rsqrt"))
    assert kinds.count("BiasAdd") + kinds.count("AddV2") == len(forms)


def test_a_mean_of_zeros_is_no_obstacle() -> None:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], "x")
        ones, zeros = tf.ones([3]), tf.zeros([3])
        y = tf.nn.batch_normalization(x @ tf.constant(draw(4, 3)), zeros, ones, zeros, ones, 1e-3)
        tf.nn.relu(y, name="y")
    module, _ = check_meaning(
        f"fold-constants,{NAME},eliminate-dead-code",
        graph.as_graph_def(),
        {"x:0": draw(2, 4)},
        ["y:0"],
    )
    kinds = {n.op for n in module.graph} - {"Const", "Placeholder", "_Retval"}
    assert kinds == {"MatMul", "AddV2", "Relu"}


def test_training_mode_stays_with_a_remark() -> None:
    import tensorflow as tf

    from hintc.graphdef import lift
    from hintc.pipeline import PassPipeline

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 8, 8, 4], "x")
        y = linear("conv", x)
        empty = tf.zeros([0])
        tf.raw_ops.FusedBatchNormV3(
            x=y, scale=draw(6), offset=draw(6), mean=empty, variance=empty, is_training=True
        )
    report = PassPipeline.parse(NAME).run(lift(graph.as_graph_def()))
    assert [remark.code for remark in report.remarks] == ["batch-norm-training"]


def test_channels_in_front_and_behind_do_not_mix() -> None:
    conv = """
    graph {
      %x = Placeholder() {dtype = float, shape = <1x2x3x3>}
      %w = Const() {dtype = float, value = float<1x1x2x2>[1.0, 2.0, 3.0, 4.0]}
      %c = Const() {dtype = float, value = float<2>[1.0, 2.0]}
      %first = Const() {dtype = float, value = float<2x1x1>[1.0, 2.0]}
      %y = Conv2D(%x, %w) {T = float, data_format = "NCHW", padding = "SAME", strides = [1,1,1,1]}
      """
    norm = "%z:6 = FusedBatchNormV3(%y, %c, %c, %c, %c) {T = float, U = float, is_training = false"
    _, report = run(NAME, conv + norm + ', data_format = "NHWC"}\n}')
    assert [remark.code for remark in report.remarks] == ["not-by-channel"]
    module, report = run(NAME, conv + norm + ', data_format = "NCHW"}\n}')
    assert report.changed
    assert module.graph["z"].attributes["data_format"] == b"NCHW"
    module, report = run(NAME, conv + "%z = Mul(%y, %first) {T = float}\n}")
    assert values(module.graph["weights"]) == [[[[1.0, 4.0], [3.0, 8.0]]]]
    assert not run(NAME, conv + "%z = Mul(%y, %c) {T = float}\n}")[1].changed
