"""The text form without TensorFlow: what prints, what parses, what is refused and how."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hintc.errors import HintcError
from hintc.ir import (
    ARG,
    Attributes,
    AttributeValue,
    DType,
    Function,
    FunctionRef,
    Graph,
    Module,
    Shape,
    Tensor,
    Unbound,
)
from hintc.text import (
    parse_module,
    print_attribute,
    print_graph,
    print_module,
    print_node,
)

EXAMPLE = """\
hintc.ir 1
module {
  graph (%x) {
    %x = Placeholder() {dtype = float, shape = <?x28>}
    %axis = Const() {dtype = int32, value = int32<>[1]}
    %y:2 = Split(%axis, %x) {T = float, num_split = 2} device "/cpu:0" after (%init, %axis)
    %init = NoOp()
    %"odd name" = MyOp(%y) {"odd key" = -1} results ("first", "b") origin ("p", "q/r")
    return y = %y:1, "odd:0" = %"odd name"
    return_control done = %init
  }
  func @body(%t: int32, %h: float {_shape = <*>}, %p: $T) attributes {_implements = @cell{n = 2}} {
    return h = %h
  }
}
"""


def test_example_is_what_it_says() -> None:
    module = parse_module(EXAMPLE)
    graph = module.graph
    split = graph["y"]
    assert [p.node.name for p in split.operands] == ["axis", "x"]
    assert [c.name for c in split.controls] == ["init", "axis"]
    assert split.device == "/cpu:0"
    assert graph.args == [graph["x"]]
    assert graph["x"].attributes["shape"] == Shape((-1, 28))
    assert graph["axis"].attributes["value"] == Tensor.of(1, DType.INT32)
    assert graph.results[0].operands[0] == split.port(1)
    assert graph.results[1].attributes["result"] == b"odd:0"
    assert graph.control_results == {"done": graph["init"]}
    assert graph["odd name"].result_names == ("first", "b")
    assert graph["odd name"].origin == ("p", "q/r")
    body = module.functions["body"]
    assert [a.attributes["index"] for a in body.graph.args] == [0, 1, 2]
    assert body.graph["p"].attributes["type_attr"] == b"T"
    assert body.graph["h"].attributes["_shape"] == Shape(None)
    assert body.attributes["_implements"] == FunctionRef("cell", (("n", 2),))


def test_example_prints_as_it_stands() -> None:
    assert print_module(parse_module(EXAMPLE)) == EXAMPLE


def test_by_hand_the_frame_and_counts_may_be_left_out() -> None:
    short = "graph { %a = Foo() // a comment\n %b = Bar(%a:3, %c) %c = Baz() }"
    module = parse_module(short)
    assert module.graph["b"].operands == (module.graph["a"].port(3), module.graph["c"].port())
    assert "%a:4 = Foo()" in print_module(module)


def test_cyclic_graph() -> None:
    text = "graph { %m:2 = Merge(%e, %n) %n = NextIteration(%m) %e = Enter(%m:1) }"
    module = parse_module(text)
    assert module.graph["m"].operands[1].node is module.graph["n"]
    assert print_module(parse_module(print_module(module))) == print_module(module)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"), (1, "1"), (-(2**63), str(-(2**63))), (1.0, "1.0"), (0.1, "0.1"),
        (1e-45, "1e-45"), (3.4e38, "3.4e+38"), (float("inf"), "inf"), (-float("inf"), "-inf"),
        (float("nan"), "nan"), (b'a"\\\n\x00\xff', r'"a\"\\\n\x00\xff"'), (b"", '""'),
        (DType.FLOAT, "float"), (DType.INT64_REF, "int64_ref"),
        (DType.FLOAT8_E4M3FN, "float8_e4m3fn"), (Shape(None), "<*>"), (Shape(()), "<>"),
        (Shape((2, -1)), "<2x?>"), (Shape((-1,)), "<?>"), (Shape((0, -7)), "<0x-7>"),
        (FunctionRef("f"), "@f"), (FunctionRef("a b", (("T", DType.HALF), ("l", ()))),
                                   '@"a b"{T = half, l = []}'),
        (Unbound("T"), "$T"), ((), "[]"), ((1, 2), "[1, 2]"), ((b"a",), '["a"]'),
        ((Shape(()), Shape(None)), "[<>, <*>]"), (Tensor.of(1.5), "double<>[1.5]"),
        (Tensor.of([True, False]), "bool<2>[true, false]"),
        (Tensor.of([[0.0] * 3] * 2, DType.FLOAT), "float<2x3> splat 0.0"),
        (Tensor.of([0.0, -0.0], DType.FLOAT), "float<2>[0.0, -0.0]"),
        (Tensor.of([], DType.HALF), "half<0>[]"), (Tensor.of([b"a", b"b\x00"]),
                                                   r'string<2>["a", "b\x00"]'),
        (Tensor.of([np.nan, np.inf, 1e-3], DType.FLOAT), "float<3>[nan, inf, 0.001]"),
    ],
)  # fmt: skip
def test_values(value: AttributeValue, text: str) -> None:
    assert print_attribute(value) == text
    parsed = parse_module(f"graph {{ %a = A() {{v = {text}}} }}").graph["a"].attributes["v"]
    assert type(parsed) is type(value)
    assert print_attribute(parsed) == text
    if not isinstance(value, float):
        assert parsed == value


def test_float_attributes_are_float32() -> None:
    module = parse_module("graph { %a = A() {v = 0.1} }")
    assert module.graph["a"].attributes["v"] == float(np.float32(0.1))


def test_nan_keeps_its_bits() -> None:
    bits = np.array([0x7FC00001, 0xFFC00000], np.uint32).view(np.float32)
    for value in (float(bits[0]), float(bits[1])):
        printed = print_attribute(value)
        assert printed.startswith("nan<")
        parsed = parse_module(f"graph {{ %a = A() {{v = {printed}}} }}").graph["a"].attributes["v"]
        assert print_attribute(parsed) == printed
    assert round_trip(Tensor.of(bits, DType.FLOAT)).array.tobytes() == bits.tobytes()


def round_trip(tensor: Tensor) -> Tensor:
    module = Module()
    module.graph.add("Const", (), {"value": tensor})
    parsed = parse_module(print_module(module)).graph["Const"].attributes["value"]
    assert isinstance(parsed, Tensor)
    return parsed


NUMERIC = [
    DType.FLOAT, DType.DOUBLE, DType.HALF, DType.INT8, DType.UINT8, DType.INT16, DType.UINT16,
    DType.INT32, DType.UINT32, DType.INT64, DType.UINT64, DType.COMPLEX64, DType.COMPLEX128,
]  # fmt: skip


@given(st.sampled_from(NUMERIC), st.integers(0, 20), st.binary(min_size=320, max_size=320))
def test_any_bits_of_a_constant_survive(dtype: DType, count: int, bits: bytes) -> None:
    array = np.frombuffer(bits, dtype.numpy)[:count]
    tensor = Tensor(dtype, Shape((count,)), array=array)
    parsed = round_trip(tensor)
    assert parsed == tensor
    assert parsed.array.tobytes() == array.tobytes()
    assert not parsed.array.flags.writeable


def test_long_constants_stand_once_at_the_end() -> None:
    weights = Tensor.of(np.arange(60.0).reshape(6, 10), DType.FLOAT)
    module = Module()
    for name in "ab":
        module.graph.add("Const", (), {"dtype": DType.FLOAT, "value": weights}, name=name)
    text = print_module(module)
    assert text.count('= "') == 1
    parsed = parse_module(text)
    assert parsed.graph["a"].attributes["value"] == weights
    assert parsed.graph["b"].attributes["value"] == weights


def test_elided_text_is_short_and_cannot_be_parsed() -> None:
    module = Module()
    module.graph.add("Const", (), {"value": Tensor.of(np.arange(1000.0))}, name="k")
    text = print_module(module, elide=True)
    assert len(text) < 200
    assert "double<1000> elided" in text
    assert print_graph(module.graph) in "\n".join(line[2:] for line in text.splitlines()) + "\n"
    assert print_node(module.graph["k"]) == "%k = Const() {value = double<1000> elided}"
    with pytest.raises(HintcError, match=r"left out when this was printed.*elide=False"):
        parse_module(text)


names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=8)
scalars = (
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=8)
    | st.floats(width=32, allow_nan=False) | st.sampled_from(list(DType))
    | st.builds(Shape, st.none() | st.lists(st.integers(-1, 99), max_size=4).map(tuple))
    | st.builds(Unbound, names)
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(scalars, max_size=4).map(tuple) | st.builds(
        FunctionRef, names,
        st.dictionaries(names, inner, max_size=3).map(lambda d: tuple(sorted(d.items()))),
    ),
    max_leaves=6,
)  # fmt: skip


@given(st.data())
def test_any_module_survives(data: st.DataObject) -> None:
    module = Module(_graph(data))
    for name in data.draw(st.lists(names, max_size=2, unique=True)):
        function = Function(name, Attributes(data.draw(st.dictionaries(names, values, max_size=2))))
        function.add_arg(data.draw(names), DType.FLOAT)
        _fill(data, function.graph)
        module.functions[name] = function
    text = print_module(module)
    parsed = parse_module(text)
    assert print_module(parsed) == text
    assert list(parsed.functions) == list(module.functions)
    pairs = zip(module.graphs(), parsed.graphs(), strict=True)
    for ours, theirs in itertools.chain.from_iterable(
        zip(sorted(a, key=lambda n: n.name), sorted(b, key=lambda n: n.name), strict=True)
        for a, b in pairs
    ):
        assert (ours.name, ours.op, ours.device) == (theirs.name, theirs.op, theirs.device)
        assert [str(p) for p in ours.operands] == [str(p) for p in theirs.operands]
        assert [c.name for c in ours.controls] == [c.name for c in theirs.controls]
        assert dict(ours.attributes) == dict(theirs.attributes)
        assert ours.origin == theirs.origin


def _graph(data: st.DataObject) -> Graph:
    graph = Graph()
    _fill(data, graph)
    return graph


def _fill(data: st.DataObject, graph: Graph) -> None:
    nodes = list(graph)
    for _ in range(data.draw(st.integers(0, 5))):
        attributes = data.draw(st.dictionaries(names, values, max_size=3))
        node = graph.add(data.draw(names), (), attributes, name=data.draw(names))
        node.device, node.origin = data.draw(names), tuple(data.draw(st.lists(names, max_size=2)))
        nodes.append(node)
    if not nodes:
        return
    ports = st.builds(lambda n, i: n.port(i), st.sampled_from(nodes), st.integers(0, 3))
    for node in nodes:
        if node.op != ARG:  # cycles are allowed
            graph.set_operands(node, data.draw(st.lists(ports, max_size=3)))
            graph.set_controls(node, data.draw(st.lists(st.sampled_from(nodes), max_size=2)))
    for name in data.draw(st.lists(names, max_size=2)):
        graph.add_result(name, data.draw(ports))
    graph.control_results = data.draw(st.dictionaries(names, st.sampled_from(nodes), max_size=2))


def test_unusual_arguments_and_results_survive() -> None:
    function = Function("f")
    first = function.add_arg("a", DType.FLOAT)
    first.attributes["index"] = 7
    second = function.add_arg("b", DType.FLOAT)
    second.device = "/gpu:0"
    result = function.graph.add_result("r", second.port())
    function.graph.rename(result, "elsewhere")
    module = Module()
    module.functions["f"] = function
    text = print_module(module)
    parsed = parse_module(text).functions["f"].graph
    assert print_module(parse_module(text)) == text
    assert [a.name for a in parsed.args] == ["a", "b"]
    assert parsed.args[0].attributes["index"] == 7
    assert parsed.args[1].device == "/gpu:0"
    assert [r.name for r in parsed.results] == ["elsewhere"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grph {}", "line 1, column 1: expected 'graph', 'func' or the end of the text"),
        ("graph {\n  %a = Foo(\n}", "line 3, column 1: expected a node such as %name, found '}'"),
        ("graph {\n  %a = Foo(%b)\n}", "line 2, column 12: there is no node '%b' in this graph"),
        ("graph { %a:1 = Foo() %b = Bar(%a:1) }", "'%a' has 1 results, this reads number 2"),
        ("graph { %a = Foo() %a = Foo() }", "line 1, column 20: there already is a node '%a'"),
        ("graph {} graph {}", "one main graph, this is the second"),
        ("func @f() {} func @f() {}", "there already is a function '@f'"),
        ("func @f(%a: 1) {}", "expected an element type such as float, found '1'"),
        ("graph { %a = Foo() {x = 1, x = 2} }", "attribute 'x' is given twice"),
        ("graph { %a = Foo() {x 1} }", "line 1, column 23: expected '=', found '1'"),
        ("graph { %a = Foo() {x = foo} }", "expected a value, found 'foo'"),
        ("graph { %a = Foo() {x = ;} }", "line 1, column 25: what starts here is no token"),
        ('graph { %a = Foo() {x = "b} }', "what starts here is no token"),
        (r'graph { %a = Foo() {x = "\q"} }', r"there is no escape '\\q'"),
        ("graph { %a = F() {x = float<2>[1.0]} }", "wrong elements for a constant float<2>"),
        ("graph { %a = F() {x = float<?> splat 1.0} }", "cannot have the shape <?>"),
        ("graph { %a = F() {x = bool<1>[1]} }", "wrong elements for a constant bool<1>: '1'"),
        ("graph { %a = F() {x = int8<1>[300]} }", "wrong elements for a constant int8<1>"),
        ("graph { %a = F() {x = int8<1>[1.5]} }", "wrong elements for a constant int8<1>"),
        ("graph { %a = F() {x = string<1>[1]} }", "expected a string, found '1'"),
        ("graph { %a = F() {x = resource<1>[1]} }", "cannot be read as an array"),
        ("graph { %a = F() {x = float<1>#ab} }", "there is no blob '#ab'"),
        ('graph {} blobs { #ab = "AA=="}', "the blob '#ab' is damaged"),
        ('graph {} blobs { #ab = "A"}', "is no base64"),
        ("graph {", "expected a node, 'return' or '}', found the end of the text"),
        ("hintc.ir 2 graph {}", "the text has version 2, expected 1"),
        ("graph (%x) {}", "there is no node '%x' in this graph"),
        ("graph { return y = %x }", "there is no node '%x' in this graph"),
    ],
)
def test_errors_say_where_and_what(text: str, message: str) -> None:
    with pytest.raises(HintcError) as caught:
        parse_module(text)
    assert message.replace("\\\\", "\\") in str(caught.value)


@given(st.integers(0, len(EXAMPLE)), st.integers(0, 12), st.text(max_size=3))
def test_damaged_text_is_parsed_or_refused(at: int, gap: int, put: str) -> None:
    try:
        parse_module(EXAMPLE[:at] + put + EXAMPLE[at + gap :])
    except HintcError as error:
        assert "line" in str(error)


def test_tensorflow_is_not_imported() -> None:
    code = (
        "import sys; from hintc.text import parse_module, print_module\n"
        f"print_module(parse_module({EXAMPLE!r})); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
