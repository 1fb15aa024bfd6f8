"""eliminate-dead-code: what is kept, what goes."""

import numpy as np

from pass_cases import check_meaning, lines, run

GRAPH = """
graph (%x) {{
  %x = Placeholder() {{dtype = float, shape = <2>}}
  %unused = Placeholder() {{dtype = float, shape = <2>}}
  %a = Neg(%x) {{T = float}}
  %dead = Exp(%a) {{T = float}}
  %deader = Exp(%dead) {{T = float}} after (%a)
  %noise = RandomUniform(%s) {{T = int32, dtype = float}}
  %s = Const() {{dtype = int32, value = int32<1>[2]}}
  %waits = NoOp() after (%a)
  %c = Neg(%a) {{T = float, _class = ["loc:@dead", "loc:@a"]}}
  {end}
}}
func @unneeded(%x: float) {{
  return y = %x
}}
"""


def test_only_what_results_need_stays() -> None:
    module, report = run("eliminate-dead-code", GRAPH.format(end="return c = %c"))
    assert lines(module.graph) == ["a = Neg(x)", "c = Neg(a)", "_Retval(c)"]
    assert module.graph["c"].attributes["_class"] == (b"loc:@a",)
    assert "unused" not in module.graph
    assert module.functions == {}
    assert report.runs[0].report.counts == {"nodes removed": 6, "functions removed": 1}


def test_control_results_stay() -> None:
    end = "return c = %c\n  return_control done = %waits"
    module, _ = run("eliminate-dead-code", GRAPH.format(end=end))
    assert "waits = NoOp(^a)" in lines(module.graph)


def test_without_results_every_sink_may_be_an_output() -> None:
    _, report = run("eliminate-dead-code", GRAPH.format(end=""))
    assert report.runs[0].report.counts == {"functions removed": 1}


def test_without_results_what_a_pass_left_behind_goes() -> None:
    from hintc.pipeline import PassPipeline
    from hintc.text import parse_module

    module = parse_module(GRAPH.format(end=""))
    module.graph["deader"].origin = ("something",)
    PassPipeline.parse("eliminate-dead-code").run(module)
    assert "deader" not in module.graph
    assert "dead" in module.graph


def test_in_a_body_side_effects_stay_and_arguments_too() -> None:
    module, _ = run(
        "eliminate-dead-code",
        """
        graph (%x) {
          %x = Placeholder() {dtype = float, shape = <2>}
          %c = StatefulPartitionedCall(%x, %x) {Tin = [float, float], Tout = [float], f = @f}
          return c = %c
        }
        func @f(%x: float, %unused: float) {
          %p = Print(%x, %x) {T = float, U = [float]}
          %dead = Neg(%x) {T = float}
          %loop = While(%x) {T = [float], cond = @yes, body = @same}
          return y = %x
        }
        func @yes(%x: float) {
          %t = Const() {dtype = bool, value = bool<>[true]}
          return y = %t
        }
        func @same(%x: float) {
          return y = %x
        }
        """,
    )
    body = module.functions["f"].graph
    assert lines(body) == ["p = Print(x, x)", "_Retval(x)"]
    assert len(body.args) == 2
    assert list(module.functions) == ["f"]


def test_v1_loops_live_and_die_whole() -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        v1.disable_control_flow_v2()
        x = v1.placeholder(tf.float32, [2], "x")
        for name in ("out", "dead"):
            _, y = v1.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, v * 2.0), [0, x])
            tf.identity(y, name=name)
        v1.enable_control_flow_v2()
    feeds = {"x:0": np.ones(2, np.float32)}
    module, _ = check_meaning("eliminate-dead-code", graph.as_graph_def(), feeds, ["out:0"])
    assert sum(n.op == "LoopCond" for n in module.graph) == 1
