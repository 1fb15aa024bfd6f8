"""lower(lift(g)) is g, byte for byte, whatever was read in between; the source is never touched."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import tensorflow as tf

from hintc.errors import HintcError
from hintc.graphdef import lift, lower
from hintc.ir import DType, FunctionRef, Module, Tensor
from tensorflow_graphs import NAMES, graph_def

v1 = tf.compat.v1


def serialised(message: Any) -> bytes:
    content: bytes = message.SerializeToString(deterministic=True)
    return content


def read_everything(module: Module) -> None:
    for graph in module.graphs():
        for node in graph:
            for value in node.attributes.values():
                for member in value if isinstance(value, tuple) else (value,):
                    if isinstance(member, Tensor):
                        with contextlib.suppress(HintcError):
                            _ = member.array
    for function in module.functions.values():
        dict(function.attributes)


def rename_and_back(module: Module) -> None:
    for graph in module.graphs():
        for node in graph:
            name = node.name
            graph.rename(node, "somebody else")
            graph.rename(node, name)


@pytest.mark.parametrize("name", NAMES)
def test_identity(name: str) -> None:
    original = graph_def(name)
    expected = serialised(original)
    module = lift(original)
    assert serialised(lower(module)) == expected
    list(module.graphs())
    assert serialised(lower(module)) == expected, "after every body was lifted"
    read_everything(module)
    assert serialised(lower(module)) == expected, "after every attribute and tensor was read"
    rename_and_back(module)
    assert serialised(lower(module)) == expected, "after renaming and back"
    assert serialised(lower(module.copy())) == expected, "of a copy"
    assert serialised(lower(lift(lower(module)))) == expected
    assert serialised(original) == expected, "the source was changed"


@pytest.mark.parametrize("name", ["keras_2", "v1_loop"])
def test_later_changes_of_the_source_do_not_show(name: str) -> None:
    source = v1.GraphDef()
    source.CopyFrom(graph_def(name))
    expected = serialised(source)
    module = lift(source)
    del source.node[:]
    for function in source.library.function:
        function.ClearField("node_def")
        function.signature.name += "_changed"
    source.versions.producer = 1
    assert serialised(lower(module)) == expected


def test_what_is_lowered_is_not_part_of_the_module() -> None:
    module = lift(graph_def("keras_2"))
    expected = serialised(lower(module))
    lowered = lower(module)
    lowered.node[0].name = "changed"
    lowered.node[1].attr["T"].type = DType.STRING
    lowered.library.function[0].node_def[0].op = "Changed"
    lowered.versions.producer = 1
    assert serialised(lower(module)) == expected


def test_only_what_is_assigned_changes() -> None:
    original = graph_def("v1_loop")
    module = lift(original)
    node = next(n for n in module.graph if n.op == "MatMul")
    node.attributes["transpose_a"] = True
    node.device = "/gpu:7"
    lowered = lower(module)
    changed = [a.name for a, b in zip(lowered.node, original.node, strict=True) if a != b]
    assert changed == [node.name]
    ours = next(n for n in lowered.node if n.name == node.name)
    assert ours.attr["transpose_a"].b
    assert ours.device == "/gpu:7"
    node.attributes["transpose_a"], node.device = False, ""
    assert lower(module) == original


def test_a_change_in_a_body_rewrites_that_function_only() -> None:
    original = graph_def("keras_2")
    module = lift(original)
    name = next(f.signature.name for f in original.library.function if len(f.node_def) > 3)
    graph = module.functions[name].graph
    node = next(n for n in graph if n.operands)
    node.attributes["_mark"] = b"here"
    lowered = lower(module)
    pairs = zip(lowered.library.function, original.library.function, strict=True)
    changed = [(a, b) for a, b in pairs if a != b]
    assert [a.signature.name for a, _ in changed] == [name]
    ours, theirs = changed[0]
    assert ours.signature == theirs.signature
    assert dict(ours.ret) == dict(theirs.ret)
    assert [n.name for n in ours.node_def] == [n.name for n in theirs.node_def]
    with tf.Graph().as_default():
        tf.import_graph_def(lowered, name="")


def test_a_renamed_node_is_renamed_for_its_readers() -> None:
    module = lift(graph_def("v1_loop"))
    x = module.graph["s/x"]
    module.graph.rename(x, "images")
    lowered = lower(module)
    readers = [n for n in lowered.node if "images" in n.input or "^images" in n.input]
    assert readers
    assert not any(i.lstrip("^").split(":")[0] == "s/x" for n in lowered.node for i in n.input)
    with tf.Graph().as_default():
        tf.import_graph_def(lowered, name="")


def test_fields_that_tensorflow_may_add_are_kept() -> None:
    source = v1.GraphDef()
    source.CopyFrom(graph_def("constants"))
    source.node[0].experimental_debug_info.original_node_names.append("before")
    source.versions.bad_consumers.append(12)
    source.library.gradient.add(function_name="f", gradient_func="g")
    assert serialised(lower(lift(source))) == serialised(source)


def test_module_from_nothing() -> None:
    module = Module()
    x = module.graph.add("Placeholder", (), {"dtype": DType.FLOAT}, name="x")
    module.graph.add("Relu", [x], {"T": DType.FLOAT}, name="y")
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(lower(module), name="")
        with v1.Session() as session:
            assert session.run("y:0", {"x:0": [-1.0, 2.0]}).tolist() == [0, 2]
    assert graph.get_tensor_by_name("y:0").dtype == tf.float32


# -- bad input -----------------------------------------------------------------------------


def damaged(**changes: Any) -> Any:
    source = v1.GraphDef()
    for name, operands in changes.items():
        source.node.add(name=name, op="NobodyKnowsThis", input=operands)
    return source


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"abc", "expected a GraphDef, got a bytes"),
        (v1.NodeDef(), "expected a GraphDef, got a NodeDef"),
        (damaged(a=["gone"]), "node 'a': operand 'gone' names a node or result that is not"),
        (damaged(a=["^gone"]), "node 'a': operand '^gone' names a node"),
        (damaged(a=[], b=["a:x"]), "node 'b': operand 'a:x' names a node or result"),
        (damaged(a=[], b=["^a", "a"]), "operand 'a' comes after a control operand"),
    ],
)
def test_bad_input(source: Any, message: str) -> None:
    with pytest.raises(HintcError) as caught:
        lift(source)
    assert message in str(caught.value)


def test_two_nodes_or_functions_of_one_name() -> None:
    source = v1.GraphDef()
    for _ in range(2):
        source.node.add(name="a", op="NoOp")
    with pytest.raises(HintcError, match="node 'a': two nodes have this name"):
        lift(source)
    source = v1.GraphDef()
    for name in "fgg":
        source.library.function.add().signature.name = name
    with pytest.raises(HintcError, match="node 'g': two library functions have the same name"):
        lift(source)


def test_ops_that_nobody_knows_are_lifted_and_lowered() -> None:
    source = damaged(a=[], b=["a:3", "^a"])
    source.library.function.add().signature.name = "f"
    body = source.library.function[0].node_def
    body.add(name="x", op="NobodyKnowsThis")
    body.add(name="y", op="NobodyKnowsThis", input=["x:first:0", "x:second:1"])
    source.library.function[0].signature.output_arg.add(name="r", type=DType.FLOAT)
    source.library.function[0].ret["r"] = "y:out:0"
    module = lift(source)
    read_everything(module)
    assert serialised(lower(module)) == serialised(source)
    assert module.graph["b"].operands[0] == module.graph["a"].port(3)


def test_function_references_are_read() -> None:
    module = lift(graph_def("v2_loop"))
    loop = next(n for n in module.graph if n.op in ("While", "StatelessWhile"))
    body = loop.attributes["body"]
    assert isinstance(body, FunctionRef)
    assert module.functions[body.name].graph.args[0].attributes["T"] is DType.INT32
