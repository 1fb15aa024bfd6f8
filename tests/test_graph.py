"""The IR itself: graphs in networkx, attributes decoded on demand, constants read once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hintc.errors import HintcError, VerifyError
from hintc.ir import (
    CONTROL,
    Attributes,
    DType,
    Function,
    Graph,
    Module,
    Node,
    Port,
    Scan,
    Shape,
    Tensor,
    Use,
)
from hintc.ir.opdefs import result_dtypes
from hintc.verify import problems


@pytest.fixture
def diamond() -> Graph:
    """a feeds b and c, both feed d, twice; e waits for a and d."""
    graph = Graph()
    a = graph.add("A", name="a")
    b, c = graph.add("B", [a], name="b"), graph.add("C", [a.port(1)], name="c")
    d = graph.add("D", [b, c, b], name="d")
    graph.add("E", [d], name="e", controls=[a, d])
    return graph


def names(nodes: Any) -> list[str]:
    return [node.name for node in nodes]


def assert_sound(graph: Graph) -> None:
    found = [p for p in problems(Module(graph)) if p.rule in ("unique-names", "acyclic")]
    found += [p for p in problems(Module(graph)) if "edges" in p.rule]
    assert not found


# -- reading -------------------------------------------------------------------------------


def test_uses(diamond: Graph) -> None:
    a, b, c, d, e = diamond
    assert diamond.uses(a) == [Use(b, 0), Use(c, 0)]
    assert diamond.uses(a.port()) == [Use(b, 0)]
    assert diamond.uses(a.port(1)) == [Use(c, 0)]
    assert diamond.uses(b) == [Use(d, 0), Use(d, 2)]
    assert diamond.control_uses(a) == [e]
    assert diamond.is_used(d)
    assert not diamond.is_used(e)
    diamond.control_results["done"] = e
    assert diamond.is_used(e)


def test_networkx_sees_the_live_graph(diamond: Graph) -> None:
    view = diamond.nx
    before = nx.number_of_nodes(view)
    late = diamond.add("Late", [diamond["e"]])
    assert nx.number_of_nodes(view) == before + 1
    assert nx.has_path(view, diamond["a"], late)
    assert nx.is_directed_acyclic_graph(view)
    assert view.has_edge(diamond["b"], diamond["d"], (2, 0))
    assert view.has_edge(diamond["a"], diamond["e"], (0, CONTROL))
    with pytest.raises(nx.NetworkXError):
        view.add_node(late)


def test_topological_order_follows_edges_then_insertion(diamond: Graph) -> None:
    assert names(diamond.topological()) == ["a", "b", "c", "d", "e"]
    late = diamond.add("Late", name="late")
    diamond.set_controls(diamond["a"], [late])
    assert names(diamond.topological()) == ["late", "a", "b", "c", "d", "e"]


def test_only_next_iteration_closes_a_loop() -> None:
    graph = Graph()
    enter = graph.add("Enter")
    merge = graph.add("Merge", [enter, enter])
    body = graph.add("Body", [merge])
    last = graph.add("NextIteration", [body])
    graph.set_operand(merge, 1, last)
    assert names(graph.topological()) == ["Enter", "Merge", "Body", "NextIteration"]
    after = graph.add("After", [body])
    graph.set_operands(body, [merge, after])
    with pytest.raises(VerifyError, match=r"node '(Body|After)': the graph has a cycle"):
        graph.topological()


def test_long_chain_needs_no_recursion() -> None:
    graph = Graph()
    node = graph.add("A")
    for _ in range(5000):
        node = graph.add("A", [node])
    assert len(graph.topological()) == 5001
    assert len(graph.copy()) == 5001


# -- writing -------------------------------------------------------------------------------


def test_names_are_unique(diamond: Graph) -> None:
    assert diamond.add("B", name="b").name == "b_1"
    assert diamond.add("B", name="b").name == "b_2"
    assert diamond.add("B_1", name="b_1").name == "b_1_1"
    with pytest.raises(HintcError, match="node 'b': two nodes have this name"):
        diamond.append("b", "B", Attributes())
    with pytest.raises(HintcError, match="node 'zz': the graph has no such node"):
        diamond["zz"]


def test_rename(diamond: Graph) -> None:
    b = diamond["b"]
    diamond.rename(b, "z")
    assert "b" not in diamond
    assert diamond["z"] is b
    assert diamond["d"].operands[0].node.name == "z"
    diamond.rename(b, "z")
    with pytest.raises(HintcError, match="the name 'a' is taken"):
        diamond.rename(b, "a")
    assert_sound(diamond)


def test_removed_node_cannot_be_renamed_over_its_heir(diamond: Graph) -> None:
    e = diamond["e"]
    diamond.remove(e)
    heir = diamond.add("E", name="e")
    with pytest.raises(HintcError, match="was removed"):
        diamond.rename(e, "f")
    assert diamond["e"] is heir
    with pytest.raises(HintcError, match="was removed"):
        diamond.add("F", [e])
    with pytest.raises(HintcError, match="was removed"):
        diamond.remove(e)


def test_replace_uses(diamond: Graph) -> None:
    a, b, c, d, _ = diamond
    assert diamond.replace_uses(b.port(), c.port(3)) == 2
    assert d.operands == (c.port(3), c.port(), c.port(3))
    assert diamond.uses(b) == []
    assert diamond.replace_uses(a.port(), c.port(), where=lambda use: use.node is not b) == 0
    assert diamond.replace_uses(b.port(), c.port()) == 0
    assert_sound(diamond)


def test_replace_control_uses(diamond: Graph) -> None:
    a, b, c, d, e = diamond
    diamond.replace_control_uses(a, [b, d, c])
    assert e.controls == (b, d, c)
    diamond.replace_control_uses(d, [])
    assert list(e.controls) == [b, c]
    assert_sound(diamond)


def test_remove(diamond: Graph) -> None:
    a, _, c, d, e = diamond
    with pytest.raises(HintcError, match="node 'd': cannot remove the node, 'e' still reads it"):
        diamond.remove([c, d])
    assert len(diamond) == 5
    diamond.args, diamond.control_results = [a, d], {"x": d, "y": a}
    result = diamond.add_result("r", e.port())
    diamond.remove({e, d, result})
    assert names(diamond) == ["a", "b", "c"]
    assert diamond.args == [a]
    assert diamond.results == []
    assert diamond.control_results == {"y": a}
    assert d not in diamond
    assert_sound(diamond)


@pytest.mark.parametrize(
    "change",
    [
        lambda g, foreign: g.set_operands(g["d"], [g["a"], foreign]),
        lambda g, foreign: g.set_operand(g["d"], 1, foreign),
        lambda g, foreign: g.set_controls(g["e"], [foreign]),
    ],
)
def test_a_foreign_operand_changes_nothing(
    diamond: Graph, change: Callable[[Graph, Node], None]
) -> None:
    before = [(n.operands, n.controls) for n in diamond]
    with pytest.raises(HintcError, match="operand 'foreign' is a node of another graph"):
        change(diamond, Graph().add("F", name="foreign"))
    assert [(n.operands, n.controls) for n in diamond] == before
    assert_sound(diamond)


def test_copy_is_independent(diamond: Graph) -> None:
    diamond.args = [diamond["a"]]
    diamond.add_result("r", diamond["e"].port())
    diamond["b"].device, diamond["b"].origin = "/gpu:0", ("was",)
    diamond["b"].attributes["k"] = 1
    twin = diamond.copy()
    assert names(twin) == names(diamond)
    assert twin["b"].device == "/gpu:0"
    assert twin["b"].origin == ("was",)
    assert twin.args == [twin["a"]]
    assert twin.results[0].operands == (twin["e"].port(),)
    assert twin["e"].controls == (twin["a"], twin["d"])
    twin.set_operands(twin["d"], [])
    twin["b"].attributes["k"] = 2
    twin.rename(twin["c"], "cc")
    assert len(diamond["d"].operands) == 3
    assert diamond["b"].attributes["k"] == 1
    assert "cc" not in diamond
    assert_sound(twin)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9), st.integers(0, 9)), max_size=40))
def test_any_edits_keep_edges_and_operands_together(edits: list[tuple[int, int, int]]) -> None:
    graph = Graph()
    graph.add("N")
    for kind, i, j in edits:
        nodes = list(graph)
        a, b = sorted((nodes[i % len(nodes)], nodes[j % len(nodes)]), key=nodes.index)
        match kind:
            case 0:
                graph.add("N", [a, b.port(1)], controls=[a])
            case 1:
                graph.set_operands(b, [a.port(j)] * (a is not b))
            case 2 if b.operands and a is not b:
                graph.set_operand(b, len(b.operands) - 1, a.port(i))
            case 3:
                graph.replace_uses(b.port(), a.port(2))
            case 4:
                graph.rename(a, graph.unique_name(f"x{i}"))
            case 5 if not graph.is_used(b) and len(nodes) > 1:
                graph.remove(b)
            case _:
                graph.replace_control_uses(b, [a])
        assert_sound(graph)
    assert_sound(graph.copy())


def test_unique_names_take_constant_time() -> None:
    graph = Graph()
    calls = 0

    class Counting(dict[str, Node]):
        def __contains__(self, key: object) -> bool:
            nonlocal calls
            calls += 1
            return super().__contains__(key)

    graph._names = Counting()
    for _ in range(300):
        graph.add("N")
    assert calls < 300 * 5


# -- attributes and constants --------------------------------------------------------------


def test_attributes_are_decoded_once_and_on_demand() -> None:
    seen: list[str] = []

    def decode(value: str) -> bytes:
        seen.append(value)
        return value.encode()

    attributes = Attributes(encoded={"b": "B", "a": "A"}, decode=decode)
    assert list(attributes) == ["a", "b"]
    assert len(attributes) == 2
    assert "a" in attributes
    assert seen == []
    assert attributes["a"] == attributes["a"] == b"A"
    assert seen == ["A"]
    assert not attributes.touched


def test_assigned_and_deleted_attributes_are_touched() -> None:
    attributes = Attributes(encoded={"a": "A", "b": "B"}, decode=str.encode)
    twin = attributes.copy()
    attributes["b"] = 1
    del attributes["a"]
    attributes["c"] = 2
    assert dict(attributes) == {"b": 1, "c": 2}
    assert attributes.touched == {"a", "b", "c"}
    assert attributes.get("a") is None
    with pytest.raises(KeyError):
        del attributes["a"]
    attributes["a"] = 3
    assert attributes["a"] == 3
    assert dict(twin) == {"a": b"A", "b": b"B"}
    assert not twin.touched


def test_tensor_is_decoded_once_and_read_only() -> None:
    calls: list[str] = []

    def decode(wire: str) -> Any:
        calls.append(wire)
        return np.array([1.0, 2.0], np.float32)

    tensor = Tensor(DType.FLOAT, Shape((2,)), decode=decode, wire="wire")
    assert tensor.array is tensor.array
    assert calls == ["wire"]
    with pytest.raises(ValueError, match="read-only"):
        tensor.array[0] = 5


def test_tensor_is_a_snapshot_of_what_it_is_made_of() -> None:
    source = np.zeros(3)
    tensor = Tensor.of(source)
    source[0] = 1
    assert tensor.array[0] == 0


def test_tensors_are_equal_bit_for_bit() -> None:
    assert Tensor.of([np.nan]) == Tensor.of([np.nan])
    assert Tensor.of([0.0]) != Tensor.of([-0.0])
    assert Tensor.of([0.0]) != Tensor.of([0.0], DType.FLOAT)
    assert Tensor.of([[0.0]]) != Tensor.of([0.0])
    assert Tensor.of(["ä", "b"]) == Tensor.of(["ä".encode(), b"b"])
    assert Tensor.of([b"b\x00"]).array[0] == b"b\x00"
    assert hash(Tensor.of([np.nan])) == hash(Tensor.of([np.nan]))


def test_shapes() -> None:
    assert str(Shape(None)) == "<*>"
    assert str(Shape((-1,))) == "<?>"
    assert Shape((2, 3)).is_static
    assert not Shape((2, -1)).is_static
    assert Shape(None).rank is None


def test_defaults_that_a_saved_model_leaves_out_give_types_too() -> None:
    graph = Graph()
    x = graph.add("Placeholder", (), {"dtype": DType.FLOAT})
    assert result_dtypes(graph.add("ArgMax", [x, x], {"T": DType.FLOAT})) == (DType.INT64,)


# -- modules -------------------------------------------------------------------------------


def test_bodies_and_sources_are_made_on_demand() -> None:
    made: list[str] = []

    def body() -> Graph:
        made.append("body")
        return Graph()

    def source() -> str:
        made.append("source")
        return "the source"

    function = Function("f", lift_body=body, make_source=source)
    twin = function.copy()
    assert not function.is_lifted
    assert made == []
    assert function.graph is function.graph
    assert function.source == function.source == "the source"
    assert made == ["body", "source"]
    assert not twin.is_lifted
    assert twin.graph is not function.graph


def test_functions_get_unique_names() -> None:
    module = Module()
    module.add_function(Function("f"))
    assert module.add_function(Function("f")).name == "f_1"
    assert module.copy().functions.keys() == {"f", "f_1"}
    with pytest.raises(HintcError, match="node 'call': the library has no function 'g'"):
        module.function("g", node=module.graph.add("PartitionedCall", name="call"))


def test_damaged_scan_is_an_error_not_a_crash() -> None:
    graph = Graph()
    n = graph.add("Const")
    with pytest.raises(VerifyError, match="expected a Scan, found a Const"):
        Scan.of(n)
    scan = graph.add("Scan", [Port(n)], {"xs": 0, "states": 0, "invariants": 0, "form": 3})
    with pytest.raises(VerifyError, match="operands and attributes of the Scan disagree"):
        Scan.of(scan)
