"""Patterns: what fits, what does not, and what is said about it."""

from collections.abc import Callable
from typing import Any

import pytest

from hintc.errors import HintcError
from hintc.pattern import Match, Matcher, NearMiss, trace
from hintc.text import parse_module

GRAPH = """
graph (%x, %y) {
  %x = Placeholder() {dtype = float, shape = <?x2>}
  %y = Placeholder() {dtype = float, shape = <?x2>}
  %w = Const() {dtype = float, value = float<2x2>[1.0, 2.0, 3.0, 4.0]}
  %one = Const() {dtype = float, value = float<>[1.0]}
  %one_read = Identity(%one) {T = float}
  %axis = Const() {dtype = int32, value = int32<>[1]}
  %mm = MatMul(%x, %w) {T = float, transpose_a = false}
  %add = AddV2(%y, %mm) {T = float}
  %copy = Identity(%add) {T = float}
  %copy2 = Identity(%copy) {T = float}
  %relu = Relu(%copy2) {T = float}
  %square = Mul(%relu, %relu) {T = float}
  %plus = AddV2(%square, %one_read) {T = float}
  %split:2 = Split(%axis, %plus) {T = float, num_split = 2}
  %sub = Sub(%split:1, %split) {T = float}
  %cat = ConcatV2(%sub, %split, %split:1, %axis) {N = 3, T = float, Tidx = int32}
  %hint = Identity(%x) {T = float, _tflite_function_uuid = "u"}
  %tanh = Tanh(%hint) {T = float}
  %sigmoid = Sigmoid(%tanh) {T = float}
  %relu6 = Relu6(%tanh) {T = float}
}
"""


def match(node: str, pattern: Callable[..., Any]) -> Match | NearMiss:
    graph = parse_module(GRAPH).graph
    return Matcher(trace(pattern), graph).match(graph[node])


def names(found: Match | NearMiss) -> list[str]:
    assert isinstance(found, Match), found
    return [node.name for node in found.interior]


def twice(op: Any, value: Any) -> Any:
    return op.Mul(value, value)


def second_less_first(op: Any, both: Any) -> Any:
    return op.Sub(both[1], both[0])


FITS: list[tuple[str, Callable[..., Any], list[str]]] = [
    ("mm", lambda op, x, w: op.MatMul(x, w), ["mm"]),
    ("add", lambda op, x, w, b: op.AddV2(op.MatMul(x, w), b), ["add", "mm"]),
    ("add", lambda op, a, b: op["Add", "AddV2"](a, b), ["add"]),
    ("square", lambda op, x: op.Mul(x, x), ["square"]),
    ("square", lambda op, x: twice(op, op.Relu(x)), ["square", "relu"]),
    ("square", lambda op, x: op.Mul(op.Relu(x), op.Relu(x)), ["square", "relu"]),
    (
        "relu",
        lambda op, x, b: op.Relu(op.through(op.AddV2(x, b))),
        ["relu", "add", "copy2", "copy"],
    ),
    ("plus", lambda op, x: op.AddV2(op.constant(1), x), ["plus"]),
    ("plus", lambda op, x: op.any_of(op.Relu(x), op.AddV2(x, op.constant())), ["plus"]),
    ("square", lambda op, x: op.Mul(op.optional(op.Relu, x), x), ["square"]),
    ("mm", lambda op, x, w: op.MatMul(x, w, transpose_a=False), ["mm"]),
    ("mm", lambda op, x, w: op.MatMul(x, w, transpose_b=False), ["mm"]),  # by default
    ("mm", lambda op, x: op.MatMul(x, op.constant(where=lambda a: a.shape == (2, 2))), ["mm"]),
    ("cat", lambda op, a: op.ConcatV2(op.rest("xs"), a), ["cat"]),
    ("cat", lambda op, x, y: op.ConcatV2(x, op.rest("xs"), y), ["cat"]),
    ("split", lambda op, a, x: op.Split(a, x, num_split=lambda n: n > 1), ["split"]),
    (
        "sub",
        lambda op, a, x: second_less_first(op, op.Split(a, x)),
        ["sub", "split"],
    ),
]


@pytest.mark.parametrize(("node", "pattern", "interior"), FITS)
def test_fits(node: str, pattern: Callable[..., Any], interior: list[str]) -> None:
    assert names(match(node, pattern)) == interior


DIFFERS: list[tuple[str, Callable[..., Any], str, str, int]] = [
    ("mm", lambda op, x: op.Relu(x), "mm", "the op is MatMul, not Relu", 0),
    ("add", lambda op, x: op.AddV2(x, x), "mm", "'x' is 'y' in another place", 1),
    (
        "relu",
        lambda op, x: op.Relu(op.AddV2(op.MatMul(x, x), x)),
        "copy2",
        "the op is Identity, not AddV2",
        1,
    ),
    (
        "sub",
        lambda op, a, x: op.Sub(op.Split(a, x), op.Split(a, x)[1]),
        "split",
        "result 1 is used, not 0",
        1,
    ),
    ("cat", lambda op, a, b: op.ConcatV2(a, b), "cat", "it has 4 operands, not 2", 1),
    ("plus", lambda op, x: op.AddV2(x, op.constant(2)), "one_read", "the constant is not 2", 1),
    ("mm", lambda op, x, w: op.MatMul(x, w, T="half"), "mm", "attribute 'T' is", 0),
    (
        "tanh",
        lambda op, x: op.Tanh(op.through(op.Placeholder())),
        "hint",
        "the op is Identity, not Placeholder",
        1,
    ),
    (
        "add",
        lambda op, x, w, b: op.AddV2(op.MatMul(x, w), b, ordered_=True),
        "y",
        "the op is Placeholder, not MatMul",
        1,
    ),
]


@pytest.mark.parametrize(("anchor", "pattern", "node", "reason", "matched"), DIFFERS)
def test_says_what_differs(
    anchor: str, pattern: Callable[..., Any], node: str, reason: str, matched: int
) -> None:
    found = match(anchor, pattern)
    assert isinstance(found, NearMiss)
    assert (found.anchor, found.node, found.matched) == (anchor, node, matched)
    assert found.reason.startswith(reason)


def test_what_a_match_knows() -> None:
    def pattern(op: Any, x: Any, b: Any) -> Any:
        product = op.MatMul(x, op.constant(as_="w"), transpose_a=op.attribute("t"), as_="product")
        return op.AddV2(op.any_of(product, op.Relu(b, as_="never")), b)

    found = match("add", pattern)
    assert isinstance(found, Match)
    assert found.root.name == "add"
    assert str(found["x"]) == "x"
    assert str(found["b"]) == "y"
    assert found.node("product").name == "mm"
    assert found.has_node("product")
    assert not found.has_node("never")
    assert found.attribute("t") is False
    weights = found.constant("w")
    assert weights is not None
    assert weights.tolist() == [[1, 2], [3, 4]]
    assert found.constant("x") is None
    assert found.get("nothing") is None


def test_open_number_of_operands() -> None:
    found = match("cat", lambda op, first, axis: op.ConcatV2(first, op.rest("more"), axis))
    assert isinstance(found, Match)
    assert [str(port) for port in found.rest("more")] == ["split", "split:1"]


def test_an_attribute_captured_twice_is_the_same() -> None:
    def pattern(op: Any, x: Any, y: Any) -> Any:
        kind = op.attribute("kind")
        return op.Sub(op.Split(x, y, T=kind)[1], op.Split(x, y, num_split=kind))

    assert isinstance(match("sub", pattern), NearMiss)


def test_several_roots() -> None:
    def pattern(op: Any, x: Any) -> Any:
        shared = op.Tanh(x)
        return op.Sigmoid(shared), op.Relu6(shared), shared

    found = match("sigmoid", pattern)
    assert isinstance(found, Match)
    assert [str(port) for port in found.roots] == ["sigmoid", "relu6", "tanh"]
    assert names(found) == ["sigmoid", "tanh", "relu6"]


def test_roots_that_meet_only_in_an_open_value() -> None:
    found = match("sub", lambda op, a, b: (op.Sub(a, b), op.ConcatV2(op.rest("r"), a, op.any())))
    assert isinstance(found, NearMiss)
    found = match("sub", lambda op, a, b, c: (op.Sub(a, b), op.ConcatV2(op.rest("r"), b, a, c)))
    assert isinstance(found, Match)
    assert [str(port) for port in found.roots] == ["sub", "cat"]


def test_a_pattern_without_a_node_is_an_error() -> None:
    with pytest.raises(HintcError, match="must return results of nodes"):
        trace(lambda op, x: x)
    with pytest.raises(HintcError, match="two open numbers of operands"):
        trace(lambda op: op.AddN(op.rest("a"), op.rest("b")))
