"""remove-training-nodes: what goes, what stays, and that the values do not change."""

from typing import Any

import numpy as np
import pytest

from pass_cases import check_meaning, lines, run

NAME = "remove-training-nodes"
X = np.array([[1.0, -2.0], [3.0, 4.0]], np.float32)


def in_graph(body: str, head: str = "(%x)") -> str:
    return f"""
    graph {head} {{
      %x = Placeholder() {{dtype = float, shape = <?x2>}}
      {body}
    }}
    """


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Identity", "T = float"),
        ("StopGradient", "T = float"),
        ("PreventGradient", 'T = float, message = "no"'),
        ("CheckNumerics", 'T = float, message = "no"'),
    ],
)
def test_ops_that_hand_on_their_operand_go(op: str, attributes: str) -> None:
    text = in_graph(f"%i = {op}(%x) {{{attributes}}}\n%y = Neg(%i) {{T = float}}")
    module, report = run(NAME, text)
    assert lines(module.graph) == ["y = Neg(x)"]
    assert report.runs[0].report.counts == {op: 1}


def test_hints_stay() -> None:
    text = in_graph(
        '%i = Identity(%x) {T = float, _tflite_function_uuid = "u"}\n%y = Neg(%i) {T = float}'
    )
    _, report = run(NAME, text)
    assert not report.changed


def test_outputs_keep_their_names() -> None:
    chain = "%a = Identity(%x) {T = float}\n%out = StopGradient(%a) {T = float}"
    for end in ("", '\nreturn "out:0" = %out'):
        module, _ = run(NAME, in_graph(chain + end))
        assert lines(module.graph)[0] == "out = Identity(x)"


def test_protected_nodes_stay() -> None:
    text = in_graph("%a = Identity(%x) {T = float}\n%y = Neg(%a) {T = float}")
    _, report = run(f"{NAME}{{protected=[a]}}", text)
    assert not report.changed


def test_control_edges_that_matter_move() -> None:
    module, _ = run(
        NAME,
        in_graph(
            """
            %p = Print(%x, %x) {T = float, U = [float]}
            %i = Identity(%x) {T = float} after (%p)
            %y = Neg(%i) {T = float}
            %j = Identity(%p) {T = float}
            %n = Neg(%x) {T = float} after (%j)
            """
        ),
    )
    assert lines(module.graph) == ["p = Print(x, x)", "y = Neg(x, ^p)", "n = Neg(x, ^p)"]


def test_control_edges_that_cannot_move_stay() -> None:
    text = in_graph(
        """
        %p = Print(%x, %x) {T = float, U = [float]}
        %i = Identity(%x) {T = float} after (%p)
        %y = Neg(%i) {T = float}
        %z = Neg(%i) {T = float}
        """
    )
    _, report = run(NAME, text)
    assert not report.changed


def test_assertions_and_idle_noops_go() -> None:
    module, report = run(
        NAME,
        in_graph(
            """
            %t = Const() {dtype = bool, value = bool<>[true]}
            %all = All(%ok, %axis) {Tidx = int32, keep_dims = false}
            %axis = Const() {dtype = int32, value = int32<0>[]}
            %ok = Equal(%x, %x) {T = float}
            %assert = Assert(%all, %x) {T = [float], summarize = 3}
            %group = NoOp() after (%assert, %all)
            %y = Neg(%x) {T = float} after (%group)
            %told = Print(%x, %x) {T = float, U = [float]}
            %both = NoOp() after (%told, %assert)
            %z = Neg(%x) {T = float} after (%both)
            """
        ),
    )
    assert lines(module.graph) == [
        "t = Const()",
        "y = Neg(x)",
        "told = Print(x, x)",
        "both = NoOp(^told)",
        "z = Neg(x, ^both)",
    ]
    assert report.runs[0].report.counts == {"control edges": 4, "checks": 2}


def test_a_noop_nobody_waited_for_is_an_output() -> None:
    _, report = run(NAME, in_graph("%y = Neg(%x) {T = float}\n%all = NoOp() after (%y)"))
    assert report.runs[0].report.counts == {"control edges": 1}


def test_placeholder_with_default() -> None:
    body = """
    %d = Const() {dtype = float, value = float<>[2.0]}
    %p = PlaceholderWithDefault(%d) {dtype = float, shape = <>}
    %y = Mul(%x, %p) {T = float}
    """
    module, _ = run(NAME, in_graph(body))
    assert lines(module.graph)[1:] == ["y = Mul(x, d)"]
    _, report = run(NAME, in_graph(body, "(%x, %p)"))
    assert not report.changed
    _, report = run(NAME, in_graph(body, ""))
    assert [r.code for r in report.remarks] == ["inputs-not-declared"]


def test_bodies_are_cleaned_and_the_library_stays() -> None:
    module, _ = run(
        NAME,
        in_graph("%y = PartitionedCall(%x) {Tin = [float], Tout = [float], f = @f}")
        + """
        func @f(%x: float) {
          %i = Identity(%x) {T = float}
          return y = %i
        }
        func @stranger(%x: float) {
          return y = %x
        }
        """,
    )
    assert lines(module.functions["f"].graph) == ["_Retval(x)"]
    assert list(module.functions) == ["f", "stranger"]


def test_colocations_follow() -> None:
    module, _ = run(
        NAME,
        in_graph(
            """
            %a = Neg(%x) {T = float}
            %b = Identity(%a) {T = float}
            %c = Identity(%b) {T = float}
            %d = Neg(%c) {T = float, _class = ["loc:@c"]}
            """
        ),
    )
    assert module.graph["d"].attributes["_class"] == (b"loc:@a",)


def test_in_v1_branches_pivots_stay() -> None:
    module, _ = run(
        NAME,
        in_graph(
            """
            %p = Const() {dtype = bool, value = bool<>[true]}
            %s:2 = Switch(%x, %p) {T = float}
            %pivot = Identity(%s:1) {T = float}
            %c = Const() {dtype = float, value = float<>[1.0]} after (%pivot)
            %live = Identity(%s:1) {T = float}
            %sum = AddV2(%live, %c) {T = float}
            %m:2 = Merge(%sum, %s) {T = float, N = 2}
            """
        ),
    )
    assert "pivot = Identity(s:1)" in lines(module.graph)
    assert "c = Const(^pivot)" in lines(module.graph)
    assert "sum = AddV2(s:1, c)" in lines(module.graph)


def dropout(kind: str, x: Any, rate: float) -> Any:
    import tensorflow as tf

    if kind == "select":
        return tf.nn.dropout(x, rate=tf.constant(rate))
    noise = tf.random.uniform(tf.shape(x))
    scaled = x * (1.0 / tf.constant(1.0 - rate)) if rate else x * tf.constant(1.0)
    if kind == "cast":
        return scaled * tf.cast(noise >= tf.constant(rate), tf.float32)
    return scaled * tf.floor(tf.constant(1.0 - rate) + noise)


@pytest.mark.parametrize("kind", ["select", "cast", "floor"])
def test_dropout_that_keeps_everything_goes(kind: str) -> None:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 2], "x")
        tf.negative(dropout(kind, x, 0.0), name="out")
    module, _ = check_meaning(NAME, graph.as_graph_def(), {"x:0": X}, ["out:0"])
    assert lines(module.graph)[:1] == ["out = Neg(x)"]


@pytest.mark.parametrize("kind", ["select", "cast", "floor"])
def test_dropout_that_drops_stays_with_a_remark(kind: str) -> None:
    import tensorflow as tf

    from hintc.graphdef import lift
    from hintc.pipeline import PassPipeline

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 2], "x")
        tf.negative(dropout(kind, x, 0.25), name="out")
    report = PassPipeline.parse(NAME).run(lift(graph.as_graph_def()))
    assert [r.code for r in report.remarks] == ["dropout-active"]


def test_multiplication_by_ones_goes_where_it_cannot_broadcast() -> None:
    module, _ = run(
        NAME,
        in_graph(
            """
            %one = Const() {dtype = float, value = float<>[1.0]}
            %row = Const() {dtype = float, value = float<1x2>[1.0, 1.0]}
            %ones = OnesLike(%x) {T = float}
            %a = Mul(%x, %one) {T = float}
            %b = Mul(%ones, %a) {T = float}
            %c = Mul(%b, %row) {T = float}
            """
        ),
    )
    assert lines(module.graph) == ["row = Const()", "c = Mul(x, row)"]


def test_ones_may_be_shared() -> None:
    module, outcome = run(
        NAME,
        in_graph(
            """
            %ones = OnesLike(%x) {T = float}
            %a = Mul(%x, %ones) {T = float}
            %b = Mul(%x, %ones) {T = float}
            %c = Sub(%a, %b) {T = float}
            """
        ),
    )
    assert lines(module.graph) == ["c = Sub(x, x)"]
    assert not outcome.remarks


def test_ones_like_another_element_of_the_same_tensor_go() -> None:
    module, outcome = run(
        NAME,
        in_graph(
            """
            %rows:2 = Unpack(%x) {T = float, num = 2, axis = 1}
            %ones = OnesLike(%rows:0) {T = float}
            %a = Mul(%rows:1, %ones) {T = float}
            %more = OnesLike(%x) {T = float}
            %b = Mul(%rows:0, %more) {T = float}
            %c = Sub(%a, %b) {T = float}
            """
        ),
    )
    assert lines(module.graph) == [
        "rows = Unpack(x)",
        "more = OnesLike(x)",
        "b = Mul(rows, more)",
        "c = Sub(rows:1, b)",
    ]
    assert not outcome.remarks


def test_meaning_with_everything_in_it() -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 2], "x")
        y = v1.nn.dropout(x, keep_prob=tf.constant(1.0))
        with tf.control_dependencies([v1.assert_greater(tf.reduce_sum(x), -9.0)]):
            y = tf.identity(tf.stop_gradient(y))
        y = tf.cond(tf.reduce_sum(y) > 0, lambda: tf.identity(y) * 2.0, lambda: y)
        y = tf.while_loop(lambda v: tf.reduce_sum(v) < 99.0, lambda v: tf.identity(v) * 2.0, [y])
        tf.identity(tf.debugging.check_numerics(y[0], "bad"), name="out")
    for declare in (True, False):
        module, _ = check_meaning(
            NAME, graph.as_graph_def(), {"x:0": X}, ["out:0"], declare=declare
        )
        kinds = {node.op for g in module.graphs() for node in g}
        assert kinds.isdisjoint(("Assert", "CheckNumerics", "StopGradient", "RandomUniform"))


@pytest.mark.parametrize("version", [1, 2])
def test_assertions_in_a_loop_go(version: int) -> None:
    import tensorflow as tf

    import hintc
    from hinted_graphs import control_flow

    v1 = tf.compat.v1

    def step(t: Any, h: Any) -> Any:
        with tf.control_dependencies([v1.debugging.assert_less(tf.reduce_max(h), 9.0)]):
            return t + 1, tf.tanh(x[:, t] + h @ tf.fill([3, 3], 0.1))

    with control_flow(version), tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 5, 3], "x")
        _, h = tf.while_loop(lambda t, h: t < 5, step, [0, tf.zeros_like(x[:, 0])])
        tf.identity(h, "y")
    compiled = hintc.compile(graph.as_graph_def(), ["x"], ["y"], check=True)
    assert compiled.report.fused_ops == {"UNIDIRECTIONAL_SEQUENCE_RNN": 1}, compiled.report


BRANCHES = """
func @double(%x: float) {
  %y = AddV2(%x, %x) {T = float}
  return y = %y
}
func @same(%x: float) {
  return y = %x
}
"""


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("%c = PlaceholderWithDefault(%no) {dtype = bool, shape = <>}", "out = Neg(x)"),
        ("%c = LogicalNot(%no) {}", "out = Neg(y/y)"),
        ("%c = LogicalAnd(%open, %no) {}", "out = Neg(x)"),
        ("%c = LogicalOr(%no, %no) {}", "out = Neg(x)"),
        ("%c = LogicalOr(%open, %no) {}", "out = Neg(y)"),
        ("%c = Identity(%open) {T = bool}", "out = Neg(y)"),
    ],
)
def test_training_switches(choice: str, expected: str) -> None:
    body = f"""
    %open = Placeholder() {{dtype = bool, shape = <>}}
    %no = Const() {{dtype = bool, value = bool<>[false]}}
    {choice}
    %y = StatelessIf(%c, %x) {{Tcond = bool, Tin = [float], Tout = [float], output_shapes = [],
      then_branch = @double, else_branch = @same}}
    %out = Neg(%y) {{T = float}}
    """
    module, report = run(NAME, in_graph(body, "(%x, %open)") + BRANCHES)
    assert expected in lines(module.graph)
    assert ("double" in module.functions) == ("StatelessIf" in str(lines(module.graph)))
    assert report.runs[0].report.counts.get("conditions", 0) == ("(y)" not in expected)


@pytest.mark.parametrize(("index", "expected"), [(0, "y/y"), (1, "x"), (7, "x"), (-1, "x")])
def test_the_branch_of_a_case(index: int, expected: str) -> None:
    body = f"""
    %i = Const() {{dtype = int32, value = int32<>[{index}]}}
    %y = StatelessCase(%i, %x) {{Tin = [float], Tout = [float], output_shapes = [],
      branches = [@double, @same]}}
    %out = Neg(%y) {{T = float}}
    """
    module, _ = run(NAME, in_graph(body) + BRANCHES)
    assert f"out = Neg({expected})" in lines(module.graph)


@pytest.mark.parametrize("version", [1, 2])
def test_dropout_behind_placeholders_with_defaults(version: int) -> None:
    """TF1's keep_prob, and Keras' learning phase around a dropout that drops."""
    import tensorflow as tf

    import hintc
    from hinted_graphs import control_flow

    v1 = tf.compat.v1
    with control_flow(version), tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 4], "x")
        keep = v1.placeholder_with_default(1.0, [], "keep_prob")
        phase = v1.placeholder_with_default(False, [], "keras_learning_phase")
        y = v1.nn.dropout(x, keep_prob=keep)
        drop = lambda: v1.nn.dropout(y, rate=0.5)  # noqa: E731
        tf.nn.relu(tf.cond(tf.logical_and(phase, True), drop, lambda: y), name="y")
    compiled = hintc.compile(graph.as_graph_def(), ["x"], ["y"], check=True)
    assert {node.op for node in compiled.graph_def.node} <= {"Placeholder", "Relu", "Identity"}
    assert not compiled.report.not_fused


def test_keep_prob_with_another_default_drops() -> None:
    import tensorflow as tf

    import hintc

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 4], "x")
        keep = v1.placeholder_with_default(0.5, [], "keep_prob")
        tf.nn.relu(v1.nn.dropout(x, keep_prob=keep), name="y")
    compiled = hintc.compile(graph.as_graph_def(), ["x"], ["y"])
    assert [remark.code for remark in compiled.report.not_fused] == ["dropout-active"]


def test_summaries_and_assertions_go_and_fake_quantisation_stays() -> None:
    import tensorflow as tf

    import hintc

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 4], "x")
        text = v1.summary.scalar("mean", tf.reduce_mean(x))
        writer = tf.raw_ops.SummaryWriter()
        told = tf.raw_ops.WriteScalarSummary(
            writer=writer, step=tf.constant(0, tf.int64), tag="mean", value=tf.reduce_sum(x)
        )
        holds = v1.assert_greater(tf.reduce_sum(x), -9.0)
        with tf.control_dependencies([text, told, holds]):
            y = tf.quantization.fake_quant_with_min_max_args(x, -6.0, 6.0)
        tf.nn.relu(y, name="y")
    compiled = hintc.compile(graph.as_graph_def(), ["x"], ["y"])  # a summary needs its file
    kinds = [node.op for node in compiled.graph_def.node]
    assert sorted(set(kinds) - {"Identity"}) == ["FakeQuantWithMinMaxArgs", "Placeholder", "Relu"]
