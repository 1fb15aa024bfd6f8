"""inline-functions, and the inlining and outlining it stands on."""

from typing import Any

import numpy as np
import pytest

from hintc.errors import HintcError
from hintc.inlining import inline_call
from hintc.ir import DType, Function, FunctionRef, Module, Port
from hintc.outlining import outline
from hintc.text import parse_module
from hintc.verify import verify
from pass_cases import check_meaning, lines, run
from work import calls_made

CALL = """
graph (%x) {
  %x = Placeholder() {dtype = float, shape = <2>}
  %before = NoOp()
  %"s/call":2 = PartitionedCall(%x) {Tin = [float], Tout = [float, float], f = @f} after (%before)
  %after = NoOp() after (%"s/call")
  %out = AddV2(%"s/call", %"s/call":1) {T = float} after (%after)
  return out = %out
}
"""
BODY = """
func @f(%a: float) {
  %one = Const() {dtype = float, value = float<>[1.0]}
  %sum = AddV2(%a, %one) {T = float}
  return first = %sum, second = %a
}
"""


def test_body_takes_the_place_of_the_call() -> None:
    module, report = run("inline-functions", CALL + BODY)
    assert lines(module.graph) == [
        "before = NoOp()",
        "after = NoOp(^s/call/sum, ^s/call/held)",
        "out = AddV2(s/call/sum, s/call/held, ^after)",
        "_Retval(out)",
        "s/call/one = Const(^before)",
        "s/call/sum = AddV2(x, s/call/one)",
        "s/call/held = Identity(x, ^before)",
    ]
    assert module.graph["s/call/sum"].origin == ("s/call",)
    assert module.functions == {}
    assert report.runs[0].report.counts == {"inlined": 1, "functions removed": 1}


@pytest.mark.parametrize(
    "attribute", ['_implements = "x.y"', '_hintc_hint = "{}"', "_noinline = true"]
)
def test_functions_that_mean_something_stay(attribute: str) -> None:
    body = BODY.replace("(%a: float)", f"(%a: float) attributes {{{attribute}}}")
    module, report = run("inline-functions", CALL + body)
    assert not report.changed
    assert "f" in module.functions


def test_recursion_stays_with_a_remark() -> None:
    text = CALL + BODY.replace(
        "return first = %sum",
        "%again = PartitionedCall(%sum) {Tin = [float], Tout = [float, float], f = @f}\n"
        "return first = %again",
    )
    _, report = run("inline-functions", text)
    assert [r.code for r in report.remarks] == ["recursive", "recursive"]
    assert not report.changed


def test_calls_by_name_bind_the_attributes_of_the_function() -> None:
    module = parse_module(
        """
        graph {
          %x = Placeholder() {dtype = float, shape = <2>}
          %call = Twice(%x) {T = float}
          %y = Neg(%call) {T = float}
        }
        func @Twice(%a: float) {
          %sum = AddV2(%a, %a) {T = $T}
          return sum = %sum
        }
        """
    )
    inline_call(module, module.graph, module.graph["call"])
    assert module.graph["call/sum"].attributes["T"] is DType.FLOAT
    verify(module)


def test_an_output_nobody_reads_keeps_its_name() -> None:
    text = """
    graph {
      %x = Placeholder() {dtype = float, shape = <2>}
      %call = PartitionedCall(%x) {Tin = [float], Tout = [float, float], f = @f}
    }
    """
    module, _ = run("inline-functions", text + BODY)
    assert "call = IdentityN(call/sum, x)" in lines(module.graph)


def test_hints_and_frames_get_names_of_their_own() -> None:
    module, _ = run(
        "inline-functions",
        """
        graph {
          %x = Placeholder() {dtype = float, shape = <2>}
          %a = PartitionedCall(%x) {Tin = [float], Tout = [float], f = @f}
          %b = PartitionedCall(%a) {Tin = [float], Tout = [float], f = @f}
        }
        func @f(%x: float) {
          %h = Identity(%x) {T = float, _tflite_function_uuid = "u"}
          return y = %h
        }
        """,
    )
    hints = [n.attributes.get("_tflite_function_uuid") for n in module.graph]
    assert [h for h in hints if h] == [b"a/u", b"b/u"]


def test_a_call_in_a_v1_branch_runs_there() -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        v1.disable_control_flow_v2()
        x = v1.placeholder(tf.float32, [2], "x")

        triple = tf.function(lambda value: value * 3.0 + tf.constant([1.0, 2.0]))
        y = v1.cond(tf.reduce_sum(x) > 0, lambda: triple(x), lambda: x)
        _, z = v1.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, triple(v)), [0, y])
        tf.identity(z, name="out")
        v1.enable_control_flow_v2()
    for sign in (1.0, -1.0):
        feeds = {"x:0": np.array([1.0, 2.0], np.float32) * sign}
        module, _ = check_meaning("inline-functions", graph.as_graph_def(), feeds, ["out:0"])
        assert module.functions == {}


def test_side_effects_are_held_by_the_results() -> None:
    module, _ = run(
        "inline-functions",
        """
        graph {
          %x = Placeholder() {dtype = float, shape = <2>}
          %call = StatefulPartitionedCall(%x) {Tin = [float], Tout = [float], f = @f}
          %out = Neg(%call) {T = float}
        }
        func @f(%x: float) {
          %p = Print(%x, %x) {T = float, U = [float]}
          %y = Neg(%x) {T = float}
          return y = %y
        }
        """,
    )
    assert "call/held = Identity(call/y, ^call/p)" in lines(module.graph)
    assert "out = Neg(call/held)" in lines(module.graph)


def test_nested_calls_in_bodies() -> None:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        inner = tf.function(lambda value: tf.nn.relu(value) + 1.0)

        def repeat(value: Any) -> Any:
            for _ in tf.range(3):
                value = inner(value) * inner(value)
            return value

        outer = tf.function(repeat)
        x = tf.compat.v1.placeholder(tf.float32, [2], "x")
        tf.add(outer(x), inner(x), name="out")
    feeds = {"x:0": np.array([-1.0, 0.5], np.float32)}
    module, _ = check_meaning("inline-functions", graph.as_graph_def(), feeds, ["out:0"])
    assert not any("inner" in name or "outer" in name for name in module.functions)


def test_a_call_that_does_not_fit_is_an_error() -> None:
    module = parse_module(CALL + BODY)
    call = module.graph["s/call"]
    module.graph.set_operands(call, [*call.operands, Port(module.graph["x"])])
    with pytest.raises(HintcError, match=r"'s/call': the call has 2 operands \(function 'f' takes"):
        inline_call(module, module.graph, call)
    module.functions.clear()
    with pytest.raises(HintcError, match="the library has no function 'f'"):
        inline_call(module, module.graph, call)


OUTLINED = """
graph (%x) {
  %x = Placeholder() {dtype = float, shape = <2>}
  %w = Const() {dtype = float, value = float<2>[1.0, 2.0]}
  %first = NoOp()
  %"s/mul" = Mul(%x, %w) {T = float} after (%first)
  %"s/add" = AddV2(%"s/mul", %w) {T = float} after (%"s/mul")
  %after = NoOp() after (%"s/mul")
  %out = Neg(%"s/add") {T = float}
  return out = %out
}
"""


def test_outline_and_back() -> None:
    module = parse_module(OUTLINED)
    graph = module.graph
    call = outline(
        module,
        graph,
        [graph["s/mul"], graph["s/add"]],
        [Port(graph["x"])],
        [Port(graph["s/add"])],
        name="S/Part",
    )
    verify(module)
    assert "S/Part = PartitionedCall(x, w, ^first)" in lines(graph)
    assert "after = NoOp(^S/Part)" in lines(graph)
    assert call.origin == ("s/mul", "s/add")
    assert call.attributes["f"] == FunctionRef("s_part")
    assert lines(module.functions["s_part"].graph) == [
        "s/mul = Mul(x, w)",
        "s/add = AddV2(s/mul, w, ^s/mul)",
        "_Retval(s/add)",
    ]
    inline_call(module, graph, call, prefix="back")
    verify(module)
    assert "back/s/add = AddV2(back/s/mul, w, ^back/s/mul)" in lines(graph)
    assert "back/s/mul = Mul(x, w, ^first)" in lines(graph)


def test_outline_refuses_what_is_not_closed() -> None:
    module = parse_module(OUTLINED)
    graph = module.graph
    with pytest.raises(HintcError, match=r"'s/mul': the value is read outside .* by 's/add'"):
        outline(module, graph, [graph["s/mul"]], [], [], name="part")
    with pytest.raises(HintcError, match="an input of the outlined part is computed inside"):
        outline(module, graph, [graph["s/mul"]], [Port(graph["s/mul"])], [], name="part")


def test_outline_takes_repeated_and_passed_through_values() -> None:
    module = parse_module(OUTLINED)
    graph = module.graph
    x, add = Port(graph["x"]), Port(graph["s/add"])
    call = outline(
        module, graph, [graph["s/mul"], graph["s/add"]], [x, x], [x, add, add], name="part"
    )
    verify(module)
    assert [str(port) for port in call.operands] == ["x", "x", "w"]
    assert str(graph["out"].operands[0]) == "part:2" or str(graph["out"].operands[0]) == "part:1"


def many_calls(count: int) -> Module:
    module = parse_module(BODY)
    module.add_function(Function("unused"))
    value = Port(module.graph.add("Placeholder", (), {"dtype": DType.FLOAT}, name="x"))
    for _ in range(count):
        call = module.graph.add(
            "PartitionedCall",
            [value],
            {"f": FunctionRef("f"), "Tin": (DType.FLOAT,), "Tout": (DType.FLOAT, DType.FLOAT)},
        )
        value = Port(call, 0)
    return module


def test_cost_is_linear() -> None:
    from hintc.pipeline import PassPipeline

    def work(count: int) -> int:
        module = many_calls(count)
        step = PassPipeline.parse("inline-functions")
        return calls_made(lambda: step.run(module, verify_each=False))

    work(50)  # definitions are looked up on first use
    assert work(1000) < 4 * work(250) * 1.1
