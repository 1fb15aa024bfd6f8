"""Every GraphDef that TensorFlow makes survives lift → print → parse → lower."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from hintc.graphdef import lift, lower
from hintc.ir import Attributes, DType, Module, Tensor
from hintc.ir.wire import attributes_of
from hintc.text import parse_module, print_module
from tensorflow_graphs import NAMES, graph_def


def assert_same_nodes(ours: Any, theirs: Any) -> None:
    assert [n.name for n in ours] == [n.name for n in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert (a.op, a.device) == (b.op, b.device)
        assert [_spelled(i) for i in a.input] == [_spelled(i) for i in b.input]
        assert_same_attributes(attributes_of(a.attr), attributes_of(b.attr), a.name)


def _spelled(operand: str) -> str:
    """In a graph, ``a:0`` is another spelling of ``a``; in a function it has two colons."""
    return operand[:-2] if operand.count(":") == 1 and operand.endswith(":0") else operand


def assert_same_attributes(ours: Attributes, theirs: Attributes, where: str) -> None:
    assert list(ours) == list(theirs), where
    for name, value in ours.items():
        other = theirs[name]
        if isinstance(value, float) and isinstance(other, float):
            assert np.float32(value).tobytes() == np.float32(other).tobytes(), (where, name)
        else:
            assert value == other, (where, name)


def serialised(message: Any) -> bytes:
    content: bytes = message.SerializeToString(deterministic=True)
    return content


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(name: str) -> None:
    original = graph_def(name)
    text = print_module(lift(original))
    module = parse_module(text)
    assert print_module(module) == text
    lowered = lower(module)
    assert_same_nodes(lowered.node, original.node)
    assert lowered.versions == original.versions
    assert lowered.library.gradient == original.library.gradient
    for ours, theirs in zip(lowered.library.function, original.library.function, strict=True):
        assert_same_nodes(ours.node_def, theirs.node_def)
        assert ours.signature == theirs.signature
        assert dict(ours.ret) == dict(theirs.ret)
        assert dict(ours.control_ret) == dict(theirs.control_ret)
        assert_same_attributes(attributes_of(ours.attr), attributes_of(theirs.attr), name)
        assert ours.arg_attr.keys() == theirs.arg_attr.keys()
        for index in ours.arg_attr:
            assert serialised(ours.arg_attr[index]) == serialised(theirs.arg_attr[index])


@pytest.mark.parametrize("name", ["keras_2", "v1_loop", "control_and_data"])
def test_tensorflow_takes_what_was_parsed(name: str) -> None:
    lowered = lower(parse_module(print_module(lift(graph_def(name)))))
    with tf.Graph().as_default():
        tf.import_graph_def(lowered, name="")


def test_parsed_module_can_be_copied_before_its_source_was_read() -> None:
    original = graph_def("keras_2")
    module = parse_module(print_module(lift(original)))
    assert serialised(lower(module.copy())) == serialised(lower(module))


@pytest.mark.parametrize("dtype", ["qint8", "bfloat16", "int4"])
def test_types_that_numpy_lacks(dtype: str) -> None:
    proto = tf.compat.v1.AttrValue()
    proto.tensor.dtype = getattr(tf, dtype, tf.dtypes.as_dtype(dtype)).as_datatype_enum
    proto.tensor.tensor_shape.dim.add().size = 20
    proto.tensor.tensor_content = bytes(range(20 * (2 if dtype == "bfloat16" else 1)))
    value = attributes_of({"value": proto})["value"]
    assert isinstance(value, Tensor)
    module = Module()
    module.graph.add("Const", (), {"value": value})
    parsed = parse_module(print_module(module)).graph["Const"].attributes["value"]
    assert isinstance(parsed, Tensor)
    assert parsed.array.dtype == value.array.dtype
    assert parsed.array.tobytes() == value.array.tobytes()


def test_constant_that_cannot_be_read_is_kept_as_it_came() -> None:
    proto = tf.compat.v1.AttrValue()
    proto.tensor.dtype = tf.variant.as_datatype_enum
    proto.tensor.variant_val.add().type_name = "some::Type"
    module = Module()
    attributes = {"value": attributes_of({"value": proto})["value"], "dtype": DType.VARIANT}
    module.graph.add("Const", (), attributes)
    text = print_module(module)
    parsed = parse_module(text)
    assert print_module(parsed) == text
    assert lower(parsed).node[0].attr["value"] == proto
