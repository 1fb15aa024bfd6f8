"""OpHint: the wire format against TensorFlow's own, constants, and every refusal."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python.op_hint import OpHint as StockHint

from hintc.authoring import OpHint, find_all_hinted_output_nodes
from hintc.errors import HintAssertionError, HintAttributeError, HintcError, HintError

v1 = tf.compat.v1

MAPPINGS = {
    "parent_first_child_input": [
        {"parent_ophint_input_index": 0, "first_child_ophint_input_index": 0}
    ],
    "parent_last_child_output": [{"parent_output_index": 0, "child_output_index": -1}],
    "internal_children_input_output": [{"child_input_index": 0, "child_output_index": -1}],
}


def plain(hint_class: Any) -> None:
    x = v1.placeholder(tf.float32, [2, 3], "x")
    hint = hint_class("fn")
    a, b = hint.add_inputs(x, tf.constant(1.0))
    c = hint.add_input(v1.get_variable("w", [3]), name="w", index_override=5)
    (d,) = hint.add_inputs(x, names=["last"])
    hint.add_outputs(a * b + c, d, names=["sum", "copy"])


def in_a_scope(hint_class: Any) -> None:
    with v1.name_scope("outer/inner"):
        hint = hint_class("fn")
        hint.add_output(hint.add_input(tf.constant(1.0), name="x"), name="y", index_override=3)


def tagged(hint_class: Any) -> None:
    hint = hint_class("fn")
    total = hint.add_input(tf.zeros([2]), tag="s", aggregate="first", index_override=1)
    for step in tf.unstack(tf.ones([3, 2])):
        step = hint.add_input(step, tag="x", name="step", aggregate="stack", index_override=0)
        total = total + step
        hint.add_output(total, tag="y", name="y", aggregate="stack")
        hint.add_output(total, tag="end", name="end", aggregate="last")


def level_two(hint_class: Any) -> None:
    hint = hint_class("loop", level=2, children_inputs_mappings=MAPPINGS)
    hint.add_output(hint.add_input(tf.ones([2]), name="in", index_override=0), name="out")


def nodes(build: Callable[[Any], None], hint_class: Any) -> list[bytes]:
    """The graph's nodes, serialised, with the call id replaced."""
    with tf.Graph().as_default() as graph:
        build(hint_class)
    return [
        re.sub(rb"[0-9a-f]{32}", b"ID", node.SerializeToString(deterministic=True))
        for node in graph.as_graph_def().node
    ]


@pytest.mark.parametrize("build", [plain, in_a_scope, tagged, level_two])
def test_nodes_are_those_of_tensorflow_byte_for_byte(build: Callable[[Any], None]) -> None:
    ours = nodes(build, OpHint)
    assert any(b"Hint-" in node for node in ours)
    assert ours == nodes(build, StockHint)


def test_class_constants_are_those_of_tensorflow() -> None:
    for name in dir(StockHint):
        if name.isupper():
            assert getattr(OpHint, name) == getattr(StockHint, name)


@pytest.mark.parametrize("build", [plain, tagged, level_two])
def test_outputs_found_are_those_of_tensorflow(build: Callable[[Any], None]) -> None:
    from tensorflow.lite.python.op_hint import find_all_hinted_output_nodes as stock_find

    with tf.Graph().as_default() as graph:
        build(OpHint)
    graph_def = graph.as_graph_def()
    found = find_all_hinted_output_nodes(graph_def=graph_def)
    assert found
    assert sorted(found) == sorted(stock_find(graph_def=graph.as_graph_def()))


def test_inside_a_traced_function() -> None:
    def double(x: Any) -> Any:
        hint = OpHint("double", by=2)
        (x,) = hint.add_inputs(x)
        (y,) = hint.add_outputs(x * 2.0)
        return y

    traced = tf.function(double)
    concrete = traced.get_concrete_function(tf.TensorSpec([None], tf.float32))
    np.testing.assert_array_equal(traced(tf.constant([1.0, 2.0])), [2.0, 4.0])
    hinted = [n for n in concrete.graph.as_graph_def().node if "_tflite_attr_by" in n.attr]
    assert [n.op for n in hinted] == ["Identity", "Identity"]


def test_a_traced_function_captures_eager_tensors() -> None:
    outside = tf.constant([3.0])

    def read() -> Any:
        return OpHint("read").add_input(outside)

    np.testing.assert_array_equal(tf.function(read)(), [3.0])


def test_constants_are_typed_and_on_every_node_of_the_call() -> None:
    with tf.Graph().as_default() as graph:
        hint = OpHint(
            "fn",
            flag=True,
            count=3,
            rate=0.5,
            mode="same",
            raw=b"\xff",
            pads=[1, 2],
            table=np.ones([2, 2], np.float32),
            np_int=np.int32(4),
            np_float=np.float32(0.25),
            np_bool=np.bool_(False),
        )
        hint.add_outputs(*hint.add_inputs(tf.constant(1.0)))
    hinted = [n for n in graph.as_graph_def().node if n.op == "Identity"]
    assert len(hinted) == 2
    for node in hinted:
        got = {k: v for k, v in node.attr.items() if k.startswith("_tflite_attr_")}
        kinds = {k.removeprefix("_tflite_attr_"): v.WhichOneof("value") for k, v in got.items()}
        assert kinds == {
            "flag": "b", "count": "i", "rate": "f", "mode": "s", "raw": "s", "pads": "tensor",
            "table": "tensor", "np_int": "i", "np_float": "f", "np_bool": "b",
        }  # fmt: skip
        assert got["_tflite_attr_flag"].b is True
        assert got["_tflite_attr_count"].i == 3
        assert got["_tflite_attr_raw"].s == b"\xff"
        np.testing.assert_array_equal(tf.make_ndarray(got["_tflite_attr_pads"].tensor), [1, 2])


@pytest.mark.parametrize("value", [None, object(), {"a": 1}, 2**63, [object()], 1j, 1e300])
def test_constants_of_other_types_are_refused(value: object) -> None:
    with pytest.raises(HintError, match=r"'conv'.*'bad'"):
        OpHint("conv", bad=value)


def test_the_docstring_spelling_of_mapping_keys_is_stored_as_the_graph_spells_it() -> None:
    spelled = dict(MAPPINGS) | {
        "parent_first_child_input": [{"parent_input_index": 0, "child_input_index": 0}]
    }

    def build(hint_class: Any) -> None:
        given = spelled if hint_class is OpHint else MAPPINGS
        hint = hint_class("loop", level=2, children_inputs_mappings=given)
        hint.add_input(tf.constant(1.0))

    assert nodes(build, OpHint) == nodes(build, StockHint)
    assert spelled["parent_first_child_input"] == [
        {"parent_input_index": 0, "child_input_index": 0}
    ]


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in MAPPINGS.items() if name != key}


@pytest.mark.parametrize(
    ("level", "mappings"),
    [
        (1, MAPPINGS),
        (2, None),
        (2, []),
        (0, None),
        (True, None),
        ("2", MAPPINGS),
        (2, without("parent_last_child_output")),
        (2, MAPPINGS | {"extra": []}),
        (2, MAPPINGS | {"parent_last_child_output": {}}),
        (2, MAPPINGS | {"parent_last_child_output": [3]}),
        (2, MAPPINGS | {"parent_last_child_output": [{"parent_output_index": 0}]}),
        (
            2,
            MAPPINGS
            | {
                "parent_last_child_output": [
                    {"parent_output_index": 0, "child_output_index": 0, "more": 1}
                ]
            },
        ),
        (
            2,
            MAPPINGS
            | {"parent_last_child_output": [{"parent_output_index": -2, "child_output_index": 0}]},
        ),
    ],
)
def test_levels_and_mappings_that_do_not_fit_are_refused(level: Any, mappings: Any) -> None:
    with pytest.raises(HintAssertionError, match="'loop'"):
        OpHint("loop", level=level, children_inputs_mappings=mappings)


def twice(first: dict[str, Any], second: dict[str, Any]) -> Callable[[], None]:
    def add() -> None:
        hint = OpHint("fn")
        hint.add_input(tf.constant(1.0), **first)
        hint.add_input(tf.constant(1.0), **second)

    return add


STACK = {"tag": "t", "aggregate": "stack"}


@pytest.mark.parametrize(
    ("add", "says"),
    [
        (twice({}, {"tag": "t"}), "without an aggregate"),
        (twice({}, {"aggregate": "stack"}), "without a tag"),
        (twice({}, {"tag": "t", "aggregate": "sum"}), "unknown aggregate 'sum'"),
        (twice({}, {"index_override": 0}), "index 0 is already used"),
        (twice(STACK, {"index_override": 0}), "index 0 is already used"),
        (twice({}, {"index_override": -1}), "index_override"),
        (twice({}, {"index_override": "1"}), "index_override"),
        (twice({}, {"index_override": True}), "index_override"),
        (twice(STACK, {"tag": "t", "aggregate": "last"}), "'stack' and now 'last'"),
        (twice(STACK, STACK | {"index_override": 3}), "index 0 and now 3"),
        (twice(STACK | {"index_override": 2}, STACK | {"index_override": 0}), "2 and now 0"),
        (twice({}, {"name": "not a node name"}), "cannot be hinted"),
        (lambda: OpHint("a b").add_input(tf.constant(1.0)), "'a b'"),
        (lambda: OpHint("fn").add_input([tf.constant(1.0), tf.constant(2.0)]), "one tensor"),
        (lambda: OpHint("fn").add_input(object()), "cannot be hinted"),
        (lambda: OpHint("fn").add_outputs(tf.constant(1.0), names=["a", "b"]), "2 names"),
        (lambda: OpHint("fn").add_input(tf.sparse.from_dense([[1.0]])), "one tensor"),
    ],
)
def test_wrong_arguments_are_refused_with_the_functions_name(
    add: Callable[[], Any], says: str
) -> None:
    with tf.Graph().as_default(), pytest.raises(HintError, match=says) as caught:
        add()
    assert isinstance(caught.value, ValueError)
    assert "hint '" in str(caught.value)


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_function_needs_a_name(name: Any) -> None:
    with pytest.raises(HintError, match="nonempty"):
        OpHint(name)


def test_a_refused_argument_takes_no_number() -> None:
    with tf.Graph().as_default():
        hint = OpHint("fn")
        with pytest.raises(HintError):
            hint.add_input(tf.constant(1.0), name="not a node name")
        with pytest.raises(HintError):
            hint.add_input(tf.constant(1.0), tag="t", name="not a node name", aggregate="stack")
        assert "-0-None-" in hint.add_input(tf.constant(1.0)).op.name
        assert "-1-0-" in hint.add_input(tf.constant(1.0), tag="t", aggregate="stack").op.name


@pytest.mark.parametrize("make", [lambda: tf.constant(1.0), lambda: tf.Variable(1.0), lambda: 1.0])
def test_eager_tensors_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(HintAttributeError, match=r"'conv'.*eager.*tf\.Graph") as caught:
        OpHint("conv").add_input(make())
    assert isinstance(caught.value, AttributeError)


def test_an_eager_tensor_in_a_plain_graph_is_refused() -> None:
    eager = tf.constant(1.0)
    with tf.Graph().as_default(), pytest.raises(HintAttributeError, match="eager"):
        OpHint("conv").add_input(eager)


def test_an_eager_variable_in_a_plain_graph_is_refused() -> None:
    variable = tf.Variable(1.0)
    with tf.Graph().as_default(), pytest.raises(HintError, match=r"'conv'.*EagerTensor"):
        OpHint("conv").add_input(variable)


def test_keras_tensors_are_refused() -> None:
    import keras
    import tf_keras

    for library in (keras, tf_keras):
        with pytest.raises(HintAttributeError, match=r"'conv'.*KerasTensor.*layer"):
            OpHint("conv").add_input(library.Input([3]))


def test_calls_have_unique_ids() -> None:
    ids = {OpHint("fn").call_id for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{32}", call_id) for call_id in ids)


def test_many_arguments_cost_linear_time() -> None:
    with tf.Graph().as_default():
        hint, x = OpHint("fn"), tf.constant(1.0)
        hinted = [hint.add_input(x) for _ in range(500)]
    assert "-499-None-" in hinted[-1].op.name


def test_found_outputs_are_in_order_and_the_graph_is_not_touched() -> None:
    with tf.Graph().as_default() as graph:
        first, second = OpHint("a"), OpHint("b")
        x = first.add_input(second.add_input(tf.constant(1.0)))
        for tag, aggregate in (("l", "last"), ("f", "first"), ("s", "stack")):
            for _ in range(12):
                second.add_output(x, tag=tag, aggregate=aggregate, name=tag)
        first.add_output(x, index_override=4, name="late")
        first.add_output(x, index_override=1, name="early")
    graph_def = graph.as_graph_def()
    before = graph_def.SerializeToString(deterministic=True)
    found = find_all_hinted_output_nodes(graph_def=graph_def)
    assert graph_def.SerializeToString(deterministic=True) == before
    expected = [f"b-{second.call_id}-0-11-l", f"b-{second.call_id}-1-0-f"]
    expected += [f"b-{second.call_id}-2-{member}-s" for member in range(12)]
    expected += [f"a-{first.call_id}-1-None-early", f"a-{first.call_id}-4-None-late"]
    assert found == [f"OutputHint-{name}" for name in expected]
    with v1.Session(graph=graph) as session:
        assert find_all_hinted_output_nodes(session) == found


def test_no_hints_means_no_outputs() -> None:
    assert find_all_hinted_output_nodes(graph_def=tf.Graph().as_graph_def()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"session": object(), "graph_def": tf.Graph().as_graph_def()},
        {"session": object()},
        {"graph_def": b"bytes"},
    ],
)
def test_finding_outputs_needs_one_source(arguments: dict[str, Any]) -> None:
    with pytest.raises(HintError, match="find_all_hinted_output_nodes"):
        find_all_hinted_output_nodes(**arguments)


def test_importing_the_package_loads_no_tensorflow() -> None:
    import subprocess
    import sys

    code = "import sys, hintc.authoring; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_tf_keras_the_cells_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    import hintc.authoring

    for module in [name for name in sys.modules if name.split(".")[0] == "tf_keras"]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    monkeypatch.delitem(sys.modules, "hintc.authoring.cells", raising=False)
    monkeypatch.delitem(vars(hintc.authoring), "TFLiteLSTMCell", raising=False)
    with pytest.raises(HintcError, match=r"tf_keras.*pip install hintc\[cells\]"):
        _ = hintc.authoring.TFLiteLSTMCell
    with pytest.raises(AttributeError, match="no attribute 'NoSuchCell'"):
        _ = hintc.authoring.NoSuchCell
