"""Each rule of verify is broken once, alone; and no graph that TensorFlow makes breaks any."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator

import pytest

from hintc.errors import VerifyError
from hintc.graphdef import lift
from hintc.ir import DType, Function, FunctionRef, Graph, Module, Node
from hintc.text import parse_module
from hintc.verify import RULES, Scope, Sound, problems, verify
from tensorflow_graphs import NAMES, graph_def

SOUND = """
graph (%x) {
  %x = Placeholder() {dtype = float, shape = <?x4>}
  %n = Const() {dtype = int32, value = int32<>[3]}
  %xs = Placeholder() {dtype = float, shape = <3x?x4>}
  %y = Relu(%x) {T = float, _free = 1}
  %z = AddV2(%x, %y) {T = float} after (%n)
  %halves:2 = Split(%axis, %z) {T = float, num_split = 2}
  %axis = Const() {dtype = int32, value = int32<>[0]}
  %bias = BiasAdd(%y, %x) {T = float, data_format = "NHWC"}
  %unknown = NobodyKnowsThis(%halves:1) {a = 1}
  %call:2 = PartitionedCall(%x, %n) {Tin = [float, int32], Tout = [float, int32], f = @f}
  %while:2 = StatelessWhile(%n, %x) {T = [int32, float], body = @body, cond = @cond}
  %if = StatelessIf(%flag, %x) \
{Tcond = bool, Tin = [float], Tout = [float], then_branch = @one, else_branch = @one}
  %flag = Const() {dtype = bool, value = bool<>[true]}
  %case = Case(%n, %x) {Tin = [float], Tout = [float], branches = [@one, @one]}
  %direct:2 = f(%x, %n)
  %scan:2 = Scan(%n, %xs, %x, %y) {Tin = [float, float, float], Tout = [float, float], \
body = @step, invariants = 1, reverse_xs = [false], reverse_ys = [true], states = 1, xs = 1, ys = 1}
  return out = %z, second = %call:1
}
func @f(%a: float, %b: int32) {
  return p = %a, q = %b
}
func @body(%i: int32, %v: float) {
  return i = %i, v = %v
}
func @cond(%i: int32, %v: float) {
  %limit = Const() {dtype = int32, value = int32<>[5]}
  %less = Less(%i, %limit) {T = int32}
  return less = %less
}
func @one(%v: float) {
  return v = %v
}
func @step(%t: int32, %x: float, %s: float, %k: float) {
  %sum = AddV2(%x, %s) {T = float}
  %next = Mul(%sum, %k) {T = float}
  return next = %next, y = %sum
}
func @polymorphic(%a: $T, %b: $T) {
  %sum = AddV2(%a, %b) {T = $T}
  %many:2 = Split(%axis, %sum) {T = $T, num_split = $N}
  %axis = Const() {dtype = int32, value = int32<>[0]}
  %list = IdentityN(%many, %many:1) {T = $L}
  return sum = %list:1
}
"""

Break = Callable[[Module], object]


def sound() -> Module:
    return parse_module(SOUND)


def node(name: str, function: str = "") -> Callable[[Module], Node]:
    return lambda m: (m.functions[function].graph if function else m.graph)[name]


def put(name: str, attribute: str, value: object, function: str = "") -> Break:
    def change(module: Module) -> None:
        attributes = node(name, function)(module).attributes
        parsed = parse_module(f"graph {{ %a = A() {{v = {value}}} }}")
        attributes[attribute] = parsed.graph["a"].attributes["v"]

    return change


def drop(name: str, attribute: str) -> Break:
    return lambda m: m.graph[name].attributes.__delitem__(attribute)


def operands(name: str, *new: str, function: str = "") -> Break:
    def change(module: Module) -> None:
        graph = module.functions[function].graph if function else module.graph
        parts = [text.partition(":") for text in new]
        graph.set_operands(graph[name], [graph[n].port(int(at or 0)) for n, _, at in parts])

    return change


def rename_behind_the_table(module: Module) -> None:
    module.graph["y"]._name = "x"


def lose_an_edge(module: Module) -> None:
    module.graph._nx.remove_edge(module.graph["x"], module.graph["y"], (0, 0))


def gain_an_edge(module: Module) -> None:
    module.graph._nx.add_edge(module.graph["n"], module.graph["y"], (0, -1))


def foreign_argument(module: Module) -> None:
    module.graph.args.append(Graph().add("Placeholder", name="foreign"))


def unlisted_argument(module: Module) -> None:
    graph = module.functions["one"].graph
    graph.add("_Arg", (), {"T": DType.FLOAT, "index": 1}, name="late")


def same_result_twice(module: Module) -> None:
    module.graph.add_result("out", module.graph["x"].port())


def rename_arg_index(module: Module) -> None:
    module.functions["f"].graph["b"].attributes["index"] = 5


def no_function(module: Module) -> None:
    del module.functions["one"]


def mark_wrongly(module: Module) -> None:
    marking = FunctionRef("hintc.CONV_2D", (("spec", b"{}"),))
    module.functions["f"].attributes["_implements"] = marking


BREAKS: list[tuple[str, Break, str]] = [
    ("unique-names", rename_behind_the_table, "another node has this name"),
    ("operands-agree-with-edges", gain_an_edge, "control operand 0, 'n', has no operand"),
    ("acyclic", operands("y", "z"), "the graph has a cycle"),
    ("arguments-and-results", foreign_argument, "the argument is not in the graph"),
    ("arguments-and-results", unlisted_argument, "the _Arg is not listed as the function's"),
    ("arguments-and-results", same_result_twice, "two results are called 'out'"),
    ("arguments-and-results", rename_arg_index, "argument 1 says it has the index 5"),
    ("arguments-and-results", drop("ret/out", "result"), "the result has no name"),
    ("ports-exist", operands("unknown", "halves:2"), "reads result 2 of 'halves' (Split), which"),
    ("ports-exist", operands("unknown", "direct:2"), "reads result 2 of 'direct' (f), which has 2"),
    ("operands-match-definition", operands("y"), "there are 0 operands, Relu takes 1"),
    ("operands-match-definition", operands("z", "x", "n"), "operand 1 is int32, AddV2 takes float"),
    ("attributes-match-definition", drop("y", "T"), "attribute 'T' (type) of Relu is missing"),
    ("attributes-match-definition", put("x", "dtype", "1"), "must be a type, it is 1"),
    ("attributes-match-definition", put("y", "colour", "1"), "Relu has no attribute 'colour'"),
    ("attributes-match-definition", put("x", "shape", "[<?>]"), "'shape' of Placeholder must be a"),
    ("attributes-match-definition", put("bias", "data_format", '"X"'), "cannot be b'X'"),
    ("functions-exist", no_function, "there is no function 'one'"),
    ("calls-match-signatures", put("call", "f", "@one"), "there are 2 operands, 'one' takes 1"),
    ("calls-match-signatures", put("call", "Tout", "[float, half]"), "result 1 is half"),
    ("calls-match-signatures", put("while", "cond", "@f"), "there are 1 results, 'f' returns 2"),
    ("calls-match-signatures", put("while", "body", "@cond"), "there are 2 results, 'cond' return"),
    ("calls-match-signatures", put("if", "else_branch", "@f"), "there are 1 operands, 'f' takes 2"),
    ("calls-match-signatures", put("case", "branches", "[@one, @f]"), "'f' takes 2"),
    ("calls-match-signatures", operands("direct", "x"), "there are 1 operands, 'f' takes 2"),
    ("fused-calls-match-declarations", mark_wrongly, "it does not fit its op: the spec of a fus"),
    ("scans-are-consistent", put("scan", "states", "2"), "operands and attributes of the Scan dis"),
    ("scans-are-consistent", put("scan", "form", "1"), "operands and attributes of the Scan dis"),
    ("scans-are-consistent", put("scan", "body", "@one"), "there are 4 operands, 'one' takes 1"),
    ("scans-are-consistent", put("scan", "reverse_xs", "[]"), "there are 1 xs, 0 flags"),
    ("scans-are-consistent", put("scan", "reverse_ys", "[]"), "there are 1 ys, 0 flags"),
    ("scans-are-consistent", put("scan", "Tout", "[float]"), "there are 1 results, not one"),
]  # fmt: skip


def test_sound_module_is_sound() -> None:
    verify(sound(), bodies=True)


@pytest.mark.parametrize(("rule", "breaking", "what"), BREAKS)
def test_rule(rule: str, breaking: Break, what: str) -> None:
    module = sound()
    breaking(module)
    found = problems(module)
    assert {p.rule for p in found} == {rule}, "\n".join(map(str, found))
    assert any(what in p.what for p in found), "\n".join(map(str, found))


PAST_THE_GRAPH = ("unique-names", "operands-agree-with-edges")
"""Rules that only who edits past the methods of Graph can break."""


@pytest.mark.parametrize(
    ("rule", "breaking"), [(r, b) for r, b, _ in BREAKS if r not in PAST_THE_GRAPH]
)
def test_what_was_edited_since_is_verified_again(rule: str, breaking: Break) -> None:
    module, known = sound(), Sound()
    assert not problems(module, sound=known)
    breaking(module)
    assert problems(module, sound=known) == problems(module)


def test_what_was_not_edited_is_not_verified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    module, known = sound(), Sound()
    verify(module, sound=known)
    module.functions["one"].graph.add("NoOp")
    verified: list[str] = []

    def rule(scope: Scope) -> Iterator[tuple[str, str]]:
        verified.append("" if scope.function is None else scope.function.name)
        yield from ()

    package = importlib.import_module("hintc.verify")  # `hintc.verify` is the function
    monkeypatch.setattr(package, "RULES", (rule,))
    verify(module, sound=known)
    assert verified == ["", "one"]  # the main graph calls it
    verified.clear()
    verify(module, sound=known)
    assert not verified


def test_lost_edge() -> None:
    module = sound()
    lose_an_edge(module)
    first = problems(module)[0]
    assert str(first) == "[operands-agree-with-edges] node 'y': operand 0, 'x:0', has no edge"


def test_every_rule_is_broken_by_a_test() -> None:
    assert {rule for rule, _, _ in BREAKS} == {r.__name__.replace("_", "-") for r in RULES}


def test_error_lists_every_problem() -> None:
    module = sound()
    put("y", "colour", "1")(module)
    put("sum", "colour", "1", "step")(module)
    operands("unknown", "halves:7")(module)
    with pytest.raises(VerifyError) as caught:
        verify(module)
    text = str(caught.value)
    assert text.startswith("node 'unknown': operand 0 reads result 7 of 'halves' (Split), which")
    assert "and 2 more:" in text
    assert "[attributes-match-definition] node 'y': Relu has no attribute 'colour'" in text
    assert "function 'step', node 'sum': AddV2 has no attribute 'colour'" in text
    assert caught.value.exit_code == 2


def test_a_reference_may_be_read_as_a_value() -> None:
    text = """graph {
      %v = VariableV2() {dtype = float, shape = <2>}
      %x = Identity(%v) {T = float}
    }"""
    verify(parse_module(text))


def test_bodies_that_nobody_lifted_stay_so() -> None:
    def broken() -> Graph:
        raise AssertionError("lifted")

    module = Module()
    module.functions["f"] = Function("f", lift_body=broken)
    verify(module)
    with pytest.raises(AssertionError, match="lifted"):
        verify(module, bodies=True)


def test_bodies_that_are_called_are_verified() -> None:
    def body() -> Graph:
        graph = Graph()
        graph.add("Relu", ())
        return graph

    module = parse_module("graph { %c = PartitionedCall() {Tin = [], Tout = [], f = @f} }")
    module.functions["f"] = Function("f", lift_body=body)
    assert {p.function for p in problems(module)} == {"f"}


@pytest.mark.parametrize("name", NAMES)
def test_graphs_of_tensorflow_are_sound(name: str) -> None:
    assert problems(lift(graph_def(name)), bodies=True) == []
