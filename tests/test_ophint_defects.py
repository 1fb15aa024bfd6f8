"""Each defect of TensorFlow's own hint code that hintc does not share: one test or more a row."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import hintc
from hint_cases import (
    build,
    bytes_of,
    calls,
    check_equal,
    conv_chain,
    fused_specs,
    passes,
    random,
    run,
    stubs,
    x_placeholder,
)
from hintc.compat import HintWarning
from hintc.graphdef import lower
from hinted_graphs import (
    CELLS,
    batch_major_static,
    dynamic,
    fed_state,
    final_states,
    freeze,
    lengths_dynamic,
    static,
)
from work import calls_made

v1 = tf.compat.v1


def _stacked_call(order: list[int], unpack: int, pack: int, extra: bool = False) -> Any:
    """x unpacked, its elements hinted as a stack in `order`, the results packed."""

    def make() -> None:
        x = x_placeholder((3, 3, 2) if not extra else (4, 3, 2))
        parts = tf.unstack(x, axis=unpack)
        hint = hintc.OpHint("my_double")
        outs = []
        for at in order:
            part = hint.add_input(parts[at], "x", None, "stack")
            outs.append(hint.add_output(part * 2.0, "y", None, "stack"))
        tf.identity(tf.stack(outs, axis=pack), name="y")

    return build(make)


@pytest.mark.parametrize(
    ("order", "unpack", "pack", "extra", "merged"),
    [
        ([0, 1, 2], 0, 0, False, 2),
        ([2, 1, 0], 0, 0, False, 1),
        ([0, 1, 2], 1, 1, False, 2),
        ([0, 1, 2], 0, 1, False, 2),
        ([0, 1, 2], 0, 0, True, 1),
        ([0, 0, 1], 0, 0, False, 1),
    ],
)
def test_only_a_pack_that_is_provably_the_identity_goes(
    order: list[int], unpack: int, pack: int, extra: bool, merged: int
) -> None:
    graph_def = _stacked_call(order, unpack, pack, extra)
    module, report = passes(graph_def, "collect-hints", ["y"])
    assert report.runs[0].report.counts["stacks merged"] == merged
    check_equal(graph_def, module, ["y"], {"x": random(4 if extra else 3, 3, 2)})


def test_a_users_own_pack_and_unpack_stay() -> None:
    def make() -> None:
        x = x_placeholder((3, 4))
        tf.stack(tf.unstack(x)[::-1], name="mine")
        hint = hintc.OpHint("f")
        tf.identity(hint.add_output(hint.add_input(x) + 1.0), name="y")

    graph_def = build(make)
    module, _ = passes(graph_def, "collect-hints", ["y", "mine"])
    assert module.graph["mine"].op == "Pack"
    check_equal(graph_def, module, ["y", "mine"], {"x": random(3, 4)})


def test_static_rnn_with_a_fixed_batch_gets_the_right_major() -> None:
    model = freeze(batch_major_static)
    stub_graph = hintc.convert_op_hints_to_stubs(graph_def=model.graph_def)
    (stub,) = stubs(stub_graph)
    module, _ = passes(stub_graph, "import-stubs", model.outputs)
    check_equal(model.graph_def, module, model.outputs, model.feeds(2))
    shape = [d.size for d in stub.attr["_output_shapes"].list.shape[2].dim]
    assert shape[0] == 7, "the sequence is time-major"


def _leaking(outside: str) -> Any:
    def make() -> None:
        x = x_placeholder()
        hint = hintc.OpHint("leaky")
        inside = tf.sin(hint.add_input(x), name="inside")
        y = hint.add_output(tf.nn.relu(inside))
        if outside == "data":
            tf.identity(inside + 1.0, name="other")
        else:
            with tf.control_dependencies([inside.op]):
                tf.identity(x + 1.0, name="other")
        tf.identity(y, name="y")

    return build(make)


@pytest.mark.parametrize("outside", ["data", "control"])
def test_an_interior_value_used_outside_is_refused_naming_both_nodes(outside: str) -> None:
    graph_def = _leaking(outside)
    module, report = passes(graph_def, "collect-hints", ["y", "other"])
    (remark,) = report.remarks
    assert remark.code == "hint-not-closed"
    reader = "add" if outside == "data" else "add/y"
    assert "'inside'" in remark.reason
    assert f"'{reader}" in remark.reason
    check_equal(graph_def, module, ["y", "other"], {"x": random(2, 4)})


def test_an_interior_value_that_only_dead_nodes_read_is_no_leak() -> None:
    module, report = passes(_leaking("data"), "collect-hints", ["y"])
    assert not report.remarks
    assert len(calls(module)) == 1


def test_a_leaking_hint_stays_when_stubbing_and_says_so() -> None:
    graph_def = _leaking("data")
    with pytest.warns(HintWarning, match="'inside'"):
        converted = hintc.convert_op_hints_to_stubs(graph_def=graph_def)
    feeds = {"x": random(2, 4)}
    for got, want in zip(
        run(converted, ["y", "other"], feeds), run(graph_def, ["y", "other"], feeds), strict=True
    ):
        np.testing.assert_array_equal(got, want)


def test_names_of_loop_bodies_and_of_the_user_do_not_collide() -> None:
    def make() -> list[Any]:
        outputs = dynamic(CELLS["plain"])()
        # the names that nodes have inside the loop's body
        taken = [tf.identity(outputs[0], name=n) for n in ("add", "add/y", "Sigmoid", "Select_1")]
        return [tf.add_n(taken, name="y_all")]

    model = freeze(make)
    converted = hintc.convert_op_hints_to_stubs(graph_def=model.graph_def)
    names = [n.name for n in converted.node]
    assert len(set(names)) == len(names)
    module, _ = passes(converted, "import-stubs", model.outputs)
    check_equal(model.graph_def, module, model.outputs, model.feeds(2))


@pytest.mark.parametrize("model", [fed_state, final_states(False), dynamic(CELLS["clips"])])
def test_states_and_clips_are_carried_through(model: Any) -> None:
    frozen = freeze(model)
    converted = hintc.convert_op_hints_to_stubs(graph_def=frozen.graph_def)
    assert len(stubs(converted)) == 1
    del converted.library.function[:]
    module, _ = passes(converted, "import-stubs", frozen.outputs)
    check_equal(frozen.graph_def, module, frozen.outputs, frozen.feeds(3))


def test_sequence_lengths_stay_right() -> None:
    model = freeze(lengths_dynamic(CELLS["plain"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HintWarning)
        converted = hintc.convert_op_hints_to_stubs(graph_def=model.graph_def)
    module, _ = passes(converted, "import-stubs", model.outputs)
    check_equal(model.graph_def, module, model.outputs, model.feeds(3))


_CONSTANTS: dict[str, Any] = {
    "stride": 2,
    "alpha": 0.5,
    "same": True,
    "mode": "fast",
    "sizes": [1, 2],
}


def _with_constants() -> Any:
    def make() -> None:
        hint = hintc.OpHint("my_op", **_CONSTANTS)
        tf.identity(hint.add_output(hint.add_input(x_placeholder()) * 2.0), name="y")

    return build(make)


def test_constants_arrive_typed_on_the_stub() -> None:
    (stub,) = stubs(hintc.convert_op_hints_to_stubs(graph_def=_with_constants()))
    at = stub.attr
    assert at["_tflite_attr_stride"].i == 2
    assert at["_tflite_attr_alpha"].f == 0.5
    assert at["_tflite_attr_same"].WhichOneof("value") == "b"
    assert at["_tflite_attr_mode"].s == b"fast"
    np.testing.assert_array_equal(tf.make_ndarray(at["_tflite_attr_sizes"].tensor), [1, 2])


def test_constants_arrive_under_their_own_names_on_the_fused_op() -> None:
    module, _ = passes(_with_constants(), "collect-hints,fuse-hints", ["y"])
    (spec,) = fused_specs(module)
    assert spec["attributes"] == _CONSTANTS


def test_types_are_right_and_a_const_stands_only_where_an_operand_is_missing() -> None:
    def make() -> None:
        x = x_placeholder()
        z = v1.placeholder(tf.int32, [None], "z")
        hint = hintc.OpHint("with_gap")
        a = hint.add_input(x, index_override=0)
        b = hint.add_input(z, index_override=2)
        both = tf.cast(a, tf.int64) + tf.cast(b[:, None], tf.int64)
        hint.add_output(both)
        hint = hintc.OpHint("without_gap")
        hint.add_output(hint.add_input(x) + 1.0)

    converted = hintc.convert_op_hints_to_stubs(graph_def=build(make))
    gap, whole = sorted(stubs(converted), key=lambda s: str(s.op))
    assert list(gap.attr["_tflite_input_indices"].list.i) == [0, 2]
    assert list(gap.attr["_output_types"].list.type) == [tf.int64.as_datatype_enum]
    constants = {n.name for n in converted.node if n.op == "Const"}
    assert gap.input[1] in constants
    assert not constants & set(whole.input)
    assert len([n for n in constants if gap.name in n or whole.name in n]) == 1


def test_the_input_is_untouched_and_the_output_a_function_of_it() -> None:
    model = freeze(dynamic(CELLS["plain"]))
    before = bytes_of(model.graph_def)
    first = hintc.convert_op_hints_to_stubs(graph_def=model.graph_def)
    second = hintc.convert_op_hints_to_stubs(graph_def=model.graph_def)
    assert bytes_of(model.graph_def) == before
    assert bytes_of(first) == bytes_of(second)


def test_what_is_inside_a_hint_is_recognised_not_trusted() -> None:
    def wrong() -> list[Any]:
        cell = hintc.TFLiteLSTMCell(8, activation=tf.nn.softsign)
        y, _ = hintc.dynamic_rnn(cell, x_placeholder((7, None, 5)), dtype=tf.float32)
        return [tf.identity(y, name="y")]

    model = freeze(wrong)
    pipeline = "collect-hints,raise-loops,split-scans,fuse-lstm,fuse-hints"
    module, report = passes(model.graph_def, pipeline, ["y"])
    codes = {r.code for r in report.remarks if r.pass_name in ("fuse-lstm", "fuse-hints")}
    assert "cell-not-fused" in codes
    assert len(codes) > 1, "fuse-lstm says what differs"
    check_equal(model.graph_def, module, ["y"], model.feeds(2))
    converted = hintc.convert_op_hints_to_stubs(graph_def=model.graph_def)
    del converted.library.function[:]
    with pytest.raises(hintc.HintcError, match="not recognised"):
        passes(converted, "import-stubs", ["y"])


def test_is_ophint_converted_is_true_exactly_with_stubs_and_no_open_hints() -> None:
    graph_def = _with_constants()
    assert not hintc.is_ophint_converted(graph_def)
    converted = hintc.convert_op_hints_to_stubs(graph_def=graph_def)
    assert hintc.is_ophint_converted(converted)
    both = type(converted)()
    both.CopyFrom(converted)
    other = build(
        lambda: hintc.OpHint("open").add_output(
            hintc.OpHint("open").add_input(x_placeholder(name="z"))
        )
    )
    both.node.extend(other.node)
    assert not hintc.is_ophint_converted(both)
    assert not hintc.is_ophint_converted(build(x_placeholder))
    with pytest.raises(ValueError, match="None"):
        hintc.is_ophint_converted(None)


@pytest.mark.parametrize("model", [dynamic(CELLS["plain"]), static(CELLS["rnn"])])
def test_converting_twice_changes_nothing(model: Any) -> None:
    once = hintc.convert_op_hints_to_stubs(graph_def=freeze(model).graph_def)
    assert bytes_of(hintc.convert_op_hints_to_stubs(graph_def=once)) == bytes_of(once)


def _hinted(x: Any) -> Any:
    hint = hintc.OpHint("inner")
    return hint.add_output(tf.tanh(hint.add_input(x)))


def test_hints_in_called_functions_branches_and_bare_loops_are_collected() -> None:
    def make() -> None:
        x = x_placeholder()
        called = tf.function(_hinted)(x)
        branch = tf.cond(tf.reduce_sum(x) > 0, lambda: _hinted(called), lambda: called)
        loop = tf.while_loop(lambda n, _: n < 3, lambda n, a: (n + 1, _hinted(a)), (0, branch))
        tf.identity(loop[1], name="y")

    graph_def = build(make)
    module, report = passes(graph_def, "collect-hints", ["y"])
    assert report.runs[0].report.counts["calls"] == 3
    assert not report.remarks
    check_equal(graph_def, module, ["y"], {"x": random(2, 4)})
    with pytest.warns(HintWarning, match="did not become a stub"):
        hintc.convert_op_hints_to_stubs(graph_def=graph_def)


def test_hints_and_library_survive_remove_training_nodes() -> None:
    model = freeze(dynamic(CELLS["plain"]))
    cleaned = hintc.remove_training_nodes(model.graph_def, model.outputs)
    assert len(cleaned.library.function) == len(model.graph_def.library.function)
    assert hintc.find_all_hinted_output_nodes(graph_def=cleaned) == model.hinted
    converted = hintc.convert_op_hints_to_stubs(graph_def=cleaned)
    assert len(stubs(converted)) == 1
    again = hintc.remove_training_nodes(converted, model.outputs)
    assert len(again.library.function) == len(converted.library.function)
    module, _ = passes(again, "import-stubs", model.outputs)
    check_equal(model.graph_def, module, model.outputs, model.feeds(2))


def _without(graph_def: Any, doomed: str) -> Any:
    cut = type(graph_def)()
    cut.CopyFrom(graph_def)
    kept = [n for n in cut.node if doomed not in n.name]
    del cut.node[:]
    cut.node.extend(kept)
    return cut


def test_a_pruned_member_of_a_stack_is_one_clear_error() -> None:
    def make() -> None:
        hint = hintc.OpHint("my_stack")
        for at, part in enumerate(tf.unstack(x_placeholder((3, 2)))):
            hint.add_output(hint.add_input(part, "x", "x", "stack") * 2.0, "y", f"y{at}", "stack")

    cut = _without(build(make), "-y1")
    with pytest.raises(ValueError, match=r"my_stack.*output 0.*find_all_hinted") as e:
        hintc.convert_op_hints_to_stubs(graph_def=cut)
    assert isinstance(e.value, hintc.HintcError)


@pytest.mark.parametrize(("side", "says"), [("Output", "no outputs"), ("Input", "no inputs")])
def test_a_missing_side_is_one_clear_error(side: str, says: str) -> None:
    def make() -> None:
        hint = hintc.OpHint("half")
        x = x_placeholder()
        if side == "Output":
            hint.add_input(x)
        else:
            hint.add_output(x)

    with pytest.raises(hintc.HintcError, match=f"hint 'half'.*{says}.*add_"):
        hintc.convert_op_hints_to_stubs(graph_def=build(make))


def test_collecting_is_linear() -> None:
    def work(count: int) -> int:
        graph_def = conv_chain(count)

        def run() -> None:
            module, _ = passes(graph_def, "collect-hints", ["y"])
            assert len(calls(module)) == count

        return calls_made(run)

    work(10)  # TensorFlow's registry is asked on first use
    assert work(400) < 4 * work(100) * 1.1


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ({"tag": "t", "aggregate": "last"}, "aggregate"),
        ({"tag": "u", "aggregate": "middle"}, "unknown aggregate"),
        ({"tag": "t", "aggregate": "stack", "index_override": 0}, "index"),
    ],
)
def test_contradictory_tags_are_refused_when_added(second: dict[str, Any], says: str) -> None:
    with tf.Graph().as_default():
        x = x_placeholder()
        hint = hintc.OpHint("tagged")
        hint.add_input(x, tag="t", aggregate="stack", index_override=1)
        with pytest.raises(ValueError, match=f"tagged.*{says}"):
            hint.add_input(x, **second)


def test_contradictory_tags_in_an_old_graph_are_an_error() -> None:
    def make() -> None:
        hint = hintc.OpHint("tagged")
        a = hint.add_input(x_placeholder(), tag="t", aggregate="stack")
        b = hint.add_input(a, tag="t", aggregate="stack")
        hint.add_output(b)

    graph_def = build(make)
    members = [n for n in graph_def.node if "_tflite_function_sort_index" in n.attr]
    members[1].attr["_tflite_function_aggregate"].s = b"first"
    with pytest.raises(hintc.HintcError, match=r"tagged.*input 0.*aggregates"):
        hintc.convert_op_hints_to_stubs(graph_def=graph_def)


@pytest.mark.parametrize("docstring", [True, False])
def test_both_spellings_of_the_mapping_keys_are_accepted(docstring: bool) -> None:
    keys = (
        ("parent_input_index", "child_input_index")
        if docstring
        else (
            "parent_ophint_input_index",
            "first_child_ophint_input_index",
        )
    )
    mappings = {
        "parent_first_child_input": [dict.fromkeys(keys, 0)],
        "parent_last_child_output": [{"parent_output_index": 0, "child_output_index": 0}],
        "internal_children_input_output": [],
    }

    def make() -> None:
        hint = hintc.OpHint("outer", level=2, children_inputs_mappings=mappings)
        tf.identity(hint.add_output(_hinted(hint.add_input(x_placeholder()))), name="y")

    graph_def = build(make)
    module, report = passes(graph_def, "collect-hints", ["y"])
    assert [r.code for r in report.remarks] == ["wrapper-dissolved"]
    assert [record.function for _, record in calls(module)] == ["inner"]
    check_equal(graph_def, module, ["y"], {"x": random(2, 4)})


def test_errors_of_the_drop_in_names_are_what_upstream_raises() -> None:
    both: dict[str, Any] = {"session": object(), "graph_def": object()}
    for arguments in ({}, both):
        with pytest.raises(ValueError, match="convert_op_hints_to_stubs needs one"):
            hintc.convert_op_hints_to_stubs(**arguments)


def test_lowered_stub_graphs_are_not_changed_by_a_round_trip() -> None:
    converted = hintc.convert_op_hints_to_stubs(graph_def=_with_constants())
    assert bytes_of(lower(hintc.lift(converted))) == bytes_of(converted)
