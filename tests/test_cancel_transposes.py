"""cancel-transposes: pairs, regions, what must stay, and that the values do not change."""

from typing import Any

import numpy as np
import pytest

from pass_cases import check_meaning, lines, run

NAME = "cancel-transposes"
FEW = np.array([1, 2, 3], np.float32)
ROW = np.arange(5, dtype=np.float32)


def in_graph(body: str, head: str = "") -> str:
    return f"""
    graph {head} {{
      %x = Placeholder() {{dtype = float, shape = <?x2x3>}}
      %p = Const() {{dtype = int32, value = int32<3>[2, 0, 1]}}
      %q = Const() {{dtype = int32, value = int32<3>[1, 2, 0]}}
      %t = Transpose(%x, %p) {{T = float, Tperm = int32}}
      {body}
    }}
    """


def nodes(body: str) -> list[str]:
    module, _ = run(NAME, in_graph(body))
    return [line for line in lines(module.graph) if "Const" not in line]


UNDONE = "%u = Transpose(%y, %q) {T = float, Tperm = int32}\n%out = Neg(%u) {T = float}"


def test_a_pair_goes() -> None:
    assert nodes("%y = Identity(%t) {T = float}\n" + UNDONE) == ["y = Identity(x)", "out = Neg(y)"]
    pair = "%u = Transpose(%t, %q) {T = float, Tperm = int32}\n%out = Neg(%u) {T = float}"
    assert nodes(pair) == ["out = Neg(x)"]


def test_a_pair_that_is_one_becomes_one() -> None:
    module, _ = run(NAME, in_graph("%u = Transpose(%t, %p) {T = float, Tperm = int32}"))
    assert "u = Transpose(x, perm)" in lines(module.graph)
    assert "t" not in module.graph


def test_an_output_keeps_its_name() -> None:
    assert nodes("%u = Transpose(%t, %q) {T = float, Tperm = int32}") == [
        "t = Transpose(x, p)",
        "u = Transpose(t, q)",
    ]


def test_a_region_with_constants() -> None:
    body = f"""
    %c = Const() {{dtype = float, value = float<2>[1.0, 2.0]}}
    %a = Relu(%t) {{T = float}}
    %b = Mul(%c, %t) {{T = float}}
    %y = AddV2(%a, %b) {{T = float}}
    {UNDONE}
    """
    assert nodes(body) == ["a = Relu(x)", "b = Mul(c_1, x)", "y = AddV2(a, b)", "out = Neg(y)"]
    module, _ = run(NAME, in_graph(body))
    tensor: Any = module.graph["c_1"].attributes["value"]
    assert tensor.array.tolist() == [[[1.0], [2.0]]]


def test_one_transposition_may_remain_for_another_reader() -> None:
    body = f"%y = Relu(%t) {{T = float}}\n%z = Softmax(%y) {{T = float}}\n{UNDONE}"
    assert nodes(body) == [
        "y/before = Relu(x)",
        "z = Softmax(y)",
        "out = Neg(y/before)",
        "y = Transpose(y/before, y/perm)",
    ]


@pytest.mark.parametrize(
    "body",
    [
        "%y = Relu(%t) {T = float}\n%z = Softmax(%y) {T = float}",
        # the value beside it may broadcast in any way
        f"%s = Softmax(%t) {{T = float}}\n%y = AddV2(%t, %s) {{T = float}}\n{UNDONE}",
        # it is the other operand that has the rank
        "%c = Const() {dtype = float, value = float<1x1x1x1>[1.0]}\n"
        "%y = AddV2(%t, %c) {T = float}\n%out = Neg(%y) {T = float}",
        f"%y = Relu(%t) {{T = float}} after (%p)\n{UNDONE}",
        f'%y = Identity(%t) {{T = float, _tflite_function_uuid = "u"}}\n{UNDONE}',
        f"%y = Cumsum(%t, %p) {{T = float}}\n{UNDONE}",
    ],
)
def test_left_alone(body: str) -> None:
    _, report = run(NAME, in_graph(body))
    assert not report.changed


def test_a_chain_of_regions() -> None:
    body = """
    %a = Relu(%t) {T = float}
    %b = Transpose(%a, %q) {T = float, Tperm = int32}
    %c = Tanh(%b) {T = float}
    %d = Transpose(%c, %p) {T = float, Tperm = int32}
    %y = Neg(%d) {T = float}
    """
    assert nodes(body + UNDONE) == ["a = Relu(x)", "c = Tanh(a)", "y = Neg(c)", "out = Neg(y)"]


def test_meaning() -> None:
    import tensorflow as tf

    weights = np.random.default_rng(1).normal(size=(3, 3, 3, 3)).astype(np.float32)
    with tf.Graph().as_default() as graph:
        y = x = tf.compat.v1.placeholder(tf.float32, [None, 4, 5, 3], "x")
        for _ in range(3):
            first = tf.transpose(tf.nn.conv2d(y, weights, 1, "SAME"), [0, 3, 1, 2])
            first = tf.nn.bias_add(first, FEW, data_format="NCHW")
            second = tf.nn.relu(first * FEW[:, None, None]) - ROW
            both = tf.where(first > 0.5, tf.nn.bias_add(second, ROW), first)
            y = tf.transpose(tf.cast(tf.cast(both, tf.float64), tf.float32), [0, 2, 3, 1]) + 1.0
        tf.identity(tf.transpose(both, [1, 2, 3, 0]) + tf.transpose(x, [3, 1, 2, 0]), "z")
        tf.nn.relu(y, "y")
        tf.nn.softmax(second, name="inner")
    feeds = {"x:0": np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(np.float32)}
    module, _ = check_meaning(NAME, graph.as_graph_def(), feeds, ["y:0", "z:0", "inner:0"])
    assert sum(node.op == "Transpose" for node in module.graph) == 2  # z, inner
