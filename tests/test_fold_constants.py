"""fold-constants: what is computed, what is left, under which names."""

from typing import Any

import numpy as np
import pytest

from hintc.ir import Module, Tensor
from pass_cases import check_meaning, lines, run

NAME = "fold-constants"


def in_graph(body: str, head: str = "") -> str:
    return f"""
    graph {head} {{
      %x = Placeholder() {{dtype = float, shape = <2x3>}}
      %one = Const() {{dtype = float, value = float<>[1.0]}}
      %row = Const() {{dtype = float, value = float<3>[1.0, 2.0, 3.0]}}
      {body}
    }}
    """


def value(module: Module, name: str) -> Any:
    node = module.graph[name]
    assert node.op == "Const"
    tensor = node.attributes["value"]
    assert isinstance(tensor, Tensor)
    return tensor.array.tolist()


def test_a_chain_becomes_one_constant_under_the_last_name() -> None:
    module, report = run(
        NAME,
        in_graph(
            """
            %two = AddV2(%one, %one) {T = float}
            %scaled = Mul(%row, %two) {T = float}
            %y = Mul(%x, %scaled) {T = float}
            """
        ),
    )
    assert lines(module.graph) == ["scaled = Const()", "y = Mul(x, scaled)"]
    assert value(module, "scaled") == [2.0, 4.0, 6.0]
    assert module.graph["scaled"].origin == ("scaled",)
    assert report.runs[0].report.counts == {"folded": 1}


def test_several_results_become_several_constants() -> None:
    module, _ = run(
        NAME,
        in_graph(
            """
            %axis = Const() {dtype = int32, value = int32<>[0]}
            %s:3 = Split(%axis, %row) {T = float, num_split = 3}
            %y = Mul(%x, %s:1) {T = float}
            %z = Mul(%y, %s:2) {T = float}
            """
        ),
    )
    assert value(module, "s/1") == [2.0]
    assert value(module, "s/2") == [3.0]
    assert "s" not in module.graph


def test_written_shapes_are_constants() -> None:
    module, _ = run(
        NAME,
        in_graph(
            """
            %shape = Shape(%x) {T = float, out_type = int64}
            %size = Size(%x) {T = float, out_type = int32}
            %rank = Rank(%row) {T = float}
            %open = Placeholder() {dtype = float, shape = <?x3>}
            %unknown = Shape(%open) {T = float, out_type = int32}
            """
        ),
    )
    assert value(module, "shape") == [2, 3]
    assert value(module, "size") == 6
    assert value(module, "rank") == 1
    assert module.graph["unknown"].op == "Shape"


@pytest.mark.parametrize(
    "node",
    [
        '%y = Identity(%row) {T = float, _tflite_function_uuid = "u"}',
        "%y = PlaceholderWithDefault(%row) {dtype = float, shape = <3>}",
        "%y = FakeQuantWithMinMaxArgs(%row) {max = 6.0, min = -6.0, narrow_range = false, "
        "num_bits = 8}",
        "%y = Print(%row, %one) {T = float, U = [float]}",
        '%y = Neg(%row) {T = float} device "/device:GPU:0"',
        "%y:2 = Unique(%row) {T = float, out_idx = int32}",
        "%y = Mul(%x, %row) {T = float}",
        "%y = NoSuchOp(%row) {T = float}",
    ],
)
def test_left_alone(node: str) -> None:
    module, report = run(NAME, in_graph(node))
    assert not report.changed
    assert "y" in module.graph


def test_growth_is_limited() -> None:
    text = in_graph(
        """
        %dims = Const() {dtype = int32, value = int32<2>[100, 100]}
        %few = Const() {dtype = int32, value = int32<1>[10]}
        %big = Fill(%dims, %one) {T = float, index_type = int32}
        %small = Fill(%few, %one) {T = float, index_type = int32}
        %y = AddV2(%x, %big) {T = float}
        %z = AddV2(%x, %small) {T = float}
        """
    )
    module, _ = run(NAME, text)
    assert module.graph["big"].op == "Fill"
    assert value(module, "small") == [1.0] * 10
    module, _ = run(f"{NAME}{{max_growth=40000}}", text)
    assert module.graph["big"].op == "Const"


def test_what_cannot_be_computed_stays_with_a_remark() -> None:
    module, report = run(
        NAME,
        in_graph(
            """
            %i = Const() {dtype = int32, value = int32<>[1]}
            %zero = Const() {dtype = int32, value = int32<>[0]}
            %bad = FloorDiv(%i, %zero) {T = int32}
            %good = Neg(%row) {T = float}
            """
        ),
    )
    assert module.graph["bad"].op == "FloorDiv"
    assert value(module, "good") == [-1.0, -2.0, -3.0]
    assert [(r.code, r.node) for r in report.remarks] == [("not-evaluated", "bad")]


def test_control_edges_stay() -> None:
    module, _ = run(
        NAME,
        in_graph(
            """
            %told = Print(%x, %one) {T = float, U = [float]}
            %late = Const() {dtype = float, value = float<>[1.0]} after (%told)
            %y = Neg(%late) {T = float}
            %z = Neg(%x) {T = float} after (%y)
            """
        ),
    )
    assert "y = Const(^told)" in lines(module.graph)
    assert "z = Neg(x, ^y)" in lines(module.graph)


def test_bodies_are_folded_and_polymorphic_ones_left_alone() -> None:
    module, _ = run(
        NAME,
        """
        graph {
          %x = Placeholder() {dtype = float, shape = <2>}
          %a = PartitionedCall(%x) {Tin = [float], Tout = [float], f = @f}
          %b = PartitionedCall(%x) {Tin = [float], Tout = [float], f = @g{T = float}}
        }
        func @f(%x: float) {
          %one = Const() {dtype = float, value = float<>[1.0]}
          %two = AddV2(%one, %one) {T = float}
          %y = Mul(%x, %two) {T = float}
          return y = %y
        }
        func @g(%x: float) {
          %one = Const() {dtype = float, value = float<>[1.0]}
          %two = AddV2(%one, %one) {T = $T}
          %y = Mul(%x, %two) {T = float}
          return y = %y
        }
        """,
    )
    assert module.functions["f"].graph["two"].op == "Const"
    assert module.functions["g"].graph["two"].op == "AddV2"


def test_meaning_in_v1_loops_and_branches() -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        v1.disable_control_flow_v2()
        x = v1.placeholder(tf.float32, [2, 2], "x")
        y = v1.cond(
            tf.reduce_sum(x) > tf.constant(1.0) + tf.constant(2.0),
            lambda: x + tf.constant(1.0) * tf.constant(2.0),
            lambda: tf.transpose(tf.constant([[1.0, 2.0], [3.0, 4.0]])) + x,
        )
        _, z = v1.while_loop(
            lambda i, _: i < tf.constant(2) + tf.constant(1),
            lambda i, v: (
                i + 1,
                v * tf.constant(2.0) + tf.cast(tf.size(tf.constant([1.0, 2.0])), tf.float32),
            ),
            [0, y],
        )
        tf.identity(z, name="out")
        v1.enable_control_flow_v2()
    for sign in (1.0, -1.0):
        feeds = {"x:0": np.array([[1.0, 2.0], [3.0, 4.0]], np.float32) * sign}
        _, report = check_meaning(NAME, graph.as_graph_def(), feeds, ["out:0"])
        assert report.changed
