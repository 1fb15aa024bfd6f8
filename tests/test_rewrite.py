"""The rewrite engine: names, control edges, provenance, what escapes, ends and scales."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from bench_patterns import Calls, Dense, Nowhere, blocks
from hintc.errors import HintcError
from hintc.ir import DType, Graph, Module, Node, Port
from hintc.pattern import Match, OpBuilder
from hintc.remark import PassReport
from hintc.rewrite import Emitter, Refused, RewritePass
from hintc.text import parse_module
from hintc.verify import verify
from work import calls_made


@dataclass(frozen=True)
class FuseTanh(RewritePass):
    """``tanh(x) * y`` becomes one node."""

    name: ClassVar[str] = "fuse-tanh"

    def pattern(self, op: OpBuilder, x: Any, y: Any) -> Any:
        return op.Mul(op.Tanh(x), y)

    def rewrite(self, match: Match, new: Emitter) -> Node:
        return new.add("AddV2", [match["x"], match["y"]], {"T": match.root.attributes["T"]})


@dataclass(frozen=True)
class Keeping(FuseTanh):
    keep_escaping: ClassVar[bool] = True


@dataclass(frozen=True)
class Refusing(FuseTanh):
    def accept(self, match: Match) -> Refused | None:
        return Refused("not-today", "it rains", "Wait.")


@dataclass(frozen=True)
class Swap(RewritePass):
    """Its output fits its pattern."""

    name: ClassVar[str] = "swap"

    def pattern(self, op: OpBuilder, x: Any, y: Any) -> Any:
        return op.AddV2(x, y)

    def rewrite(self, match: Match, new: Emitter) -> Node:
        return new.add("AddV2", [match["y"], match["x"]], {"T": match.root.attributes["T"]})


@dataclass(frozen=True)
class DropNeg(RewritePass):
    """``-(-x)`` is `x`."""

    name: ClassVar[str] = "drop-neg"

    def pattern(self, op: OpBuilder, x: Any) -> Any:
        return op.Neg(op.Neg(x))

    def rewrite(self, match: Match, new: Emitter) -> Port:
        return match["x"]


@dataclass(frozen=True)
class Pair(RewritePass):
    """Two roots that share a value."""

    name: ClassVar[str] = "pair"

    def pattern(self, op: OpBuilder, x: Any) -> Any:
        shared = op.Tanh(x)
        return op.Neg(shared), op.Exp(shared)

    def rewrite(self, match: Match, new: Emitter) -> Sequence[Port]:
        zero = new.constant([0.0, 1.0], DType.FLOAT)
        both = new.add("IdentityN", [match["x"], zero], {"T": (DType.FLOAT, DType.FLOAT)})
        return [Port(both, 0), Port(both, 0)]


def parse(body: str, head: str = "") -> Module:
    module = parse_module(
        f"""
        graph {head} {{
          %x = Placeholder() {{dtype = float, shape = <2>}}
          %y = Placeholder() {{dtype = float, shape = <2>}}
          {body}
        }}
        """
    )
    verify(module)
    return module


def run(rule: RewritePass, module: Module) -> PassReport:
    report = rule.run(module)
    verify(module)
    return report


def lines(graph: Graph) -> list[str]:
    found = []
    for node in graph:
        if node.op not in ("Placeholder", "NoOp", "_Retval"):
            read = [*map(str, node.operands), *(f"^{c.name}" for c in node.controls)]
            found.append(f"{node.name} = {node.op}({', '.join(read)})")
    return found


TANH = """
%t = Tanh(%x) {T = float}
%"a/m" = Mul(%y, %t) {T = float}
%out = Neg(%"a/m") {T = float}
"""


def test_the_replacement_takes_the_name_device_and_origin() -> None:
    module = parse(TANH)
    module.graph["a/m"].device = "/cpu:0"
    report = run(FuseTanh(), module)
    assert lines(module.graph) == ["out = Neg(a/m)", "a/m = AddV2(x, y)"]
    node = module.graph["a/m"]
    assert node.origin == ("a/m", "t")
    assert node.device == "/cpu:0"
    assert report.counts == {"rewritten": 1}


def test_an_inner_value_that_escapes_is_a_refusal_with_both_names() -> None:
    module = parse(TANH + "%again = Exp(%t) {T = float}")
    report = run(FuseTanh(), module)
    assert not report.changed
    (remark,) = report.remarks
    assert (remark.code, remark.node) == ("value-escapes", "a/m")
    assert remark.reason == "the inner value 't' is also read by 'again'"


def test_an_inner_value_that_is_a_result_escapes() -> None:
    report = run(FuseTanh(), parse(TANH + "return t = %t, out = %out"))
    assert report.remarks[0].reason == "the inner value 't' is a result"


def test_escaping_values_may_be_kept() -> None:
    module = parse(TANH + "%again = Exp(%t) {T = float}")
    assert run(Keeping(), module).counts == {"rewritten": 1}
    assert "t = Tanh(x)" in lines(module.graph)
    assert "a/m = AddV2(x, y)" in lines(module.graph)


def test_refusal_is_a_remark() -> None:
    report = run(Refusing(), parse(TANH))
    assert [(r.code, r.node, r.reason, r.remedy) for r in report.remarks] == [
        ("not-today", "a/m", "it rains", "Wait.")
    ]


def test_control_edges_move() -> None:
    module = parse(
        """
        %first = NoOp()
        %t = Tanh(%x) {T = float} after (%first)
        %m = Mul(%y, %t) {T = float}
        %out = Neg(%m) {T = float} after (%t)
        """
    )
    run(FuseTanh(), module)
    assert lines(module.graph) == ["out = Neg(m, ^m)", "m = AddV2(x, y, ^first)"]


def test_control_edges_of_what_vanishes_are_held_by_an_identity() -> None:
    module = parse(
        """
        %first = NoOp()
        %a = Neg(%x) {T = float} after (%first)
        %b = Neg(%a) {T = float}
        %out = Exp(%b) {T = float}
        """
    )
    run(DropNeg(), module)
    assert lines(module.graph) == ["out = Exp(b)", "b = Identity(x, ^first)"]


def test_a_path_through_the_outside_is_a_refusal() -> None:
    module = parse(
        """
        %t = Tanh(%x) {T = float}
        %wait = NoOp() after (%t)
        %z = Exp(%y) {T = float} after (%wait)
        %m = Mul(%z, %t) {T = float}
        """
    )
    module.graph.set_controls(module.graph["m"], [module.graph["wait"]])
    report = run(FuseTanh(), module)
    assert [(r.code, r.node) for r in report.remarks] == [("not-convex", "m")]


def test_an_output_nobody_reads_keeps_its_name() -> None:
    module = parse("%a = Neg(%x) {T = float}\n%out = Neg(%a) {T = float}")
    run(DropNeg(), module)
    assert lines(module.graph) == ["out = Identity(x)"]


def test_a_declared_result_may_read_the_input() -> None:
    module = parse("%a = Neg(%x) {T = float}\n%b = Neg(%a) {T = float}\nreturn b = %b")
    run(DropNeg(), module)
    assert lines(module.graph) == []
    assert str(module.graph.results[0].operands[0]) == "x"


def test_what_one_rewrite_makes_another_may_use() -> None:
    chain = "\n".join(f"%n{i} = Neg(%n{i - 1}) {{T = float}}" for i in range(2, 8))
    module = parse(f"%n1 = Neg(%x) {{T = float}}\n{chain}\nreturn out = %n7")
    assert run(DropNeg(), module).counts == {"rewritten": 3}
    assert len(lines(module.graph)) == 1


def test_a_rewrite_does_not_feed_on_its_own_output() -> None:
    module = parse("%a = AddV2(%x, %y) {T = float}\n%b = AddV2(%a, %y) {T = float}")
    assert run(Swap(), module).counts == {"rewritten": 2}
    assert lines(module.graph) == ["b = AddV2(y, a)", "a = AddV2(y, x)"]


def test_several_roots() -> None:
    module = parse(
        """
        %t = Tanh(%x) {T = float}
        %a = Neg(%t) {T = float}
        %b = Exp(%t) {T = float}
        return a = %a, b = %b
        """
    )
    assert run(Pair(), module).counts == {"rewritten": 1}
    assert lines(module.graph) == ["Const = Const()", "a = IdentityN(x, Const)"]


def test_function_bodies_are_rewritten_too() -> None:
    module = parse_module(
        """
        graph {
          %x = Placeholder() {dtype = float, shape = <2>}
          %c = PartitionedCall(%x) {Tin = [float], Tout = [float], f = @f}
        }
        func @f(%x: float) {
          %a = Neg(%x) {T = float}
          %b = Neg(%a) {T = float}
          return y = %b
        }
        """
    )
    assert run(DropNeg(), module).counts == {"rewritten": 1}
    assert [n.op for n in module.functions["f"].graph] == ["_Arg", "_Retval"]


def test_near_misses_are_data() -> None:
    report = run(FuseTanh(), parse("%s = Sigmoid(%x) {T = float}\n%m = Mul(%s, %y) {T = float}"))
    (miss,) = report.near_misses
    assert (miss.anchor, miss.node, miss.reason) == ("m", "s", "the op is Sigmoid, not Tanh")


def test_a_wrong_number_of_values_is_an_error() -> None:
    @dataclass(frozen=True)
    class Wrong(DropNeg):
        def rewrite(self, match: Match, new: Emitter) -> Any:
            return [match["x"], match["x"]]

    module = parse("%a = Neg(%x) {T = float}\n%b = Neg(%a) {T = float}\nreturn b = %b")
    with pytest.raises(HintcError, match="the rewrite returned 2 values for 1 roots"):
        Wrong().run(module)


def chain(length: int) -> Module:
    module = parse("")
    value = Port(module.graph["x"])
    for _ in range(length):
        t = module.graph.add("Tanh", [value], {"T": module.graph["x"].attributes["dtype"]})
        value = Port(module.graph.add("Mul", [t, module.graph["y"]], {"T": t.attributes["T"]}))
    return module


def test_cost_is_linear_in_the_graph() -> None:
    def work(length: int) -> int:
        module = chain(length)

        def run() -> None:
            assert FuseTanh().run(module).counts == {"rewritten": length}

        return calls_made(run)

    work(100)  # definitions are looked up on first use
    assert work(2000) < 4 * work(500) * 1.1


@pytest.mark.parametrize("rule", [Nowhere(), Dense(), Calls()], ids=lambda rule: str(rule.name))
def test_cost_of_a_fixed_pattern_is_linear(rule: RewritePass) -> None:
    def work(nodes: int) -> int:
        module = blocks(nodes)
        return calls_made(lambda: rule.run(module))

    work(100)  # definitions are looked up on first use
    assert work(4000) < 4 * work(1000) * 1.1
