"""collect-hints: what becomes one call, what it says, and what it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf
from tf_keras.src.layers.rnn.legacy_cells import LSTMStateTuple

import hintc
from hint_cases import build, calls, check_equal, passes, random, x_placeholder
from hintc.hints.protocol import HintRecord, called_function, is_hint
from hinted_graphs import (
    CELLS,
    both_ways_static,
    dynamic,
    freeze,
    mixed,
    static,
    user_aggregated,
    user_chain,
    user_conv,
    user_nested,
    user_sparse_arguments,
)

v1 = tf.compat.v1


def static_in_a_hint() -> list[Any]:
    hint = hintc.OpHint("my_outer")
    x = hint.add_input(v1.placeholder(tf.float32, [3, None, 4], "x"))
    ys, _ = v1.nn.static_rnn(CELLS["plain"](), tf.unstack(x), dtype=tf.float32)
    return [tf.identity(hint.add_output(tf.stack(ys) * 2.0), name="y")]


def static_of_constants() -> list[Any]:
    """The steps are constants, so their stack is one."""
    cell = CELLS["plain"]()
    state = LSTMStateTuple(*(v1.placeholder(tf.float32, [2, 8], n) for n in "ch"))
    steps = [tf.constant(random(2, 4)) for _ in range(3)]
    ys, _ = v1.nn.static_rnn(cell, steps, initial_state=state)
    return [tf.stack(ys, name="y")]


def stacked_weights() -> list[Any]:
    hint, y = hintc.OpHint("my_layers"), x_placeholder()
    for step in range(3):
        kernel = v1.get_variable(f"kernel{step}", [4, 4])
        kernel = hint.add_input(kernel, tag="kernel", aggregate="stack")
        y = tf.matmul(hint.add_input(y, tag="x", aggregate="first"), kernel)
        y = hint.add_output(y, tag="y", aggregate="last")
    return [tf.identity(y, name="y")]


LSTM_INPUTS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 14, 15, 18, 19)


@pytest.mark.parametrize(
    ("model", "functions"),
    [
        (user_conv, ["my_conv"]),
        (user_chain, ["my_square"] * 3),
        (user_nested, ["my_inner", "my_outer"]),
        (user_aggregated, ["my_cumsum"]),
        (user_sparse_arguments, None),
        (static_of_constants, ["UnidirectionalSequenceLstm"]),
        (stacked_weights, ["my_layers"]),
        (dynamic(CELLS["both"]), ["UnidirectionalSequenceLstm"]),
        (static(CELLS["peephole"]), ["UnidirectionalSequenceLstm"]),
        (dynamic(mixed), ["UnidirectionalSequenceLstm"] * 3),
        (both_ways_static(CELLS["plain"]), ["UnidirectionalSequenceLstm"] * 2),
    ],
)
@pytest.mark.parametrize("declared", [True, False])
def test_every_call_is_collected_and_the_values_stay(
    model: Any, functions: list[str] | None, declared: bool
) -> None:
    frozen = freeze(model)
    module, report = passes(frozen.graph_def, "collect-hints", frozen.outputs if declared else ())
    found = sorted(record.function for _, record in calls(module))
    assert functions is None or found == functions
    assert not any(r.kind.value == "refused" for r in report.remarks)
    assert not any(is_hint(n) for g in module.graphs() for n in g)
    check_equal(frozen.graph_def, module, frozen.outputs, frozen.feeds(2))


def test_a_static_chain_inside_a_hint() -> None:
    frozen = freeze(static_in_a_hint)
    module, _ = passes(frozen.graph_def, "collect-hints", frozen.outputs)
    found = sorted(record.function for _, record in calls(module))
    assert found == ["UnidirectionalSequenceLstm", "my_outer"]
    check_equal(frozen.graph_def, module, frozen.outputs, frozen.feeds(2))


def test_a_second_run_changes_nothing() -> None:
    frozen = freeze(static(CELLS["plain"]))
    _, report = passes(frozen.graph_def, "collect-hints,collect-hints", frozen.outputs)
    assert [run.changed for run in report.runs] == [True, False]


def test_the_record_says_what_the_hint_said() -> None:
    frozen = freeze(dynamic(CELLS["plain"]))
    module, _ = passes(frozen.graph_def, "collect-hints", frozen.outputs)
    ((node, record),) = calls(module)
    assert tuple(index for index, _ in record.inputs) == LSTM_INPUTS
    assert dict(record.inputs)[0] == "stack"
    assert dict(record.inputs)[18] == dict(record.inputs)[19] == "first"
    assert record.outputs == ((1, "last"), (2, "stack"))
    assert record.attributes == {"activation": "tanh"}
    assert record.is_cell
    assert record.is_sequence
    assert len(node.operands) == len(record.inputs)
    assert HintRecord.from_bytes(record.to_bytes()) == record


def test_a_static_chain_reads_the_sequence_itself() -> None:
    frozen = freeze(static(CELLS["plain"]))
    module, _ = passes(frozen.graph_def, "collect-hints", frozen.outputs)
    ((node, _),) = calls(module)
    assert node.operands[0].node.name == "x"
    assert module.graph["y"].op == "Identity"


def _collect(make: Callable[[], None], *outputs: str) -> Any:
    graph_def = build(make)
    return graph_def, *passes(graph_def, "collect-hints", outputs or ["y"])


def test_undeclared_constants_go_into_the_function_and_stay_for_others() -> None:
    def make() -> None:
        shared = tf.identity(tf.constant([1.0, 2.0, 3.0, 4.0], name="shared"))
        hint = hintc.OpHint("f")
        y = hint.add_output(hint.add_input(x_placeholder()) * shared)
        tf.add(y, shared, name="y")

    graph_def, module, _ = _collect(make)
    ((node, record),) = calls(module)
    assert record.inputs == ((0, ""),)
    function = called_function(module, node)
    assert function is not None
    assert any(n.op == "Const" for n in function.graph)
    check_equal(graph_def, module, ["y"], {"x": random(2, 4)})


def test_undeclared_values_become_further_operands() -> None:
    def make() -> None:
        z = x_placeholder(name="z")
        hint = hintc.OpHint("f")
        tf.identity(hint.add_output(hint.add_input(x_placeholder()) * z), name="y")

    graph_def, module, _ = _collect(make)
    ((node, record),) = calls(module)
    assert record.inputs == ((0, ""), (-1, ""))
    assert node.operands[1].node.name == "z"
    check_equal(graph_def, module, ["y"], {"x": random(2, 4), "z": random(2, 4)})


def test_a_variable_that_is_not_frozen_is_read_outside() -> None:
    def make() -> None:
        kernel = v1.get_variable("kernel", [4, 4], use_resource=True)
        hint = hintc.OpHint("f")
        a, k = hint.add_inputs(x_placeholder(), kernel)
        tf.identity(hint.add_output(tf.matmul(a, k)), name="y")

    _, module, _ = _collect(make)
    ((node, _),) = calls(module)
    assert module.graph["kernel"].op == "VarHandleOp"
    assert node.operands[1].node.op in ("ReadVariableOp", "Identity")


def test_an_argument_that_depends_on_a_result_is_refused() -> None:
    def make() -> None:
        hint = hintc.OpHint("loopy")
        value = x_placeholder()
        for _ in range(2):
            value = hint.add_input(value, "x", None, "stack")
            value = hint.add_output(tf.tanh(value), "y", None, "stack")
            value = tf.sin(value)
        tf.identity(value, name="y")

    graph_def, module, report = _collect(make)
    assert [r.code for r in report.remarks] == ["hint-entangled"]
    check_equal(graph_def, module, ["y"], {"x": random(2, 4)})


def test_calls_that_need_each_other_are_refused_together() -> None:
    def make() -> None:
        x = x_placeholder()
        a, b = hintc.OpHint("first"), hintc.OpHint("second")

        def step(hint: Any, value: Any) -> Any:
            hinted = hint.add_input(value, "x", None, "stack")
            return hint.add_output(tf.tanh(hinted), "y", None, "stack")

        late = step(b, step(a, x))
        tf.add(step(a, step(b, tf.sin(x))), late, name="y")

    graph_def, module, report = _collect(make)
    assert [r.code for r in report.remarks] == ["hint-entangled"] * 2
    assert all("first" in r.reason and "second" in r.reason for r in report.remarks)
    check_equal(graph_def, module, ["y"], {"x": random(2, 4)})


def test_random_numbers_inside_a_hint_are_refused() -> None:
    def make() -> None:
        hint = hintc.OpHint("noisy")
        a = hint.add_input(x_placeholder())
        tf.identity(hint.add_output(a + v1.random.uniform(tf.shape(a))), name="y")

    _, _, report = _collect(make)
    assert [r.code for r in report.remarks] == ["hint-stateful"]


def test_three_levels_of_nesting() -> None:
    def make() -> None:
        value, hints = x_placeholder(), [hintc.OpHint(f"f{at}") for at in range(3)]
        for hint in hints:
            value = tf.tanh(hint.add_input(value))
        for hint in reversed(hints):
            value = hint.add_output(tf.sin(value))
        tf.identity(value, name="y")

    graph_def, module, _ = _collect(make)
    assert {r.function for _, r in calls(module)} == {"f0", "f1", "f2"}
    (outer,) = [n for n in module.graph if n.op == "PartitionedCall"]
    assert outer.name == "f0"
    check_equal(graph_def, module, ["y"], {"x": random(2, 4)})


def test_a_result_that_is_an_argument_passes_through() -> None:
    def make() -> None:
        hint = hintc.OpHint("f")
        a = hint.add_input(x_placeholder())
        tf.add(hint.add_output(a), hint.add_output(tf.tanh(a)), name="y")

    graph_def, module, _ = _collect(make)
    check_equal(graph_def, module, ["y"], {"x": random(2, 4)})


def test_two_results_may_be_one_value() -> None:
    def make() -> None:
        hint = hintc.OpHint("f")
        a = tf.tanh(hint.add_input(x_placeholder()))
        tf.subtract(hint.add_output(a), 2.0 * hint.add_output(a), name="y")

    graph_def, module, _ = _collect(make)
    ((node, record),) = calls(module)
    assert record.outputs == ((0, ""), (1, ""))
    assert len(module.graph.uses(node)) == 2
    check_equal(graph_def, module, ["y"], {"x": random(2, 4)})


def test_a_reader_of_the_declared_value_itself_reads_the_call() -> None:
    def make() -> None:
        hint = hintc.OpHint("f")
        inside = tf.tanh(hint.add_input(x_placeholder()), name="inside")
        tf.add(hint.add_output(inside), inside, name="y")

    graph_def, module, report = _collect(make)
    assert not report.remarks
    assert len(calls(module)) == 1
    check_equal(graph_def, module, ["y"], {"x": random(2, 4)})


def test_hints_in_a_loop_of_v1_control_flow() -> None:
    def make() -> None:
        def body(n: Any, a: Any) -> Any:
            hint = hintc.OpHint("f")
            return n + 1, hint.add_output(tf.tanh(hint.add_input(a)) * 0.5)

        was = v1.control_flow_v2_enabled()
        v1.disable_control_flow_v2()
        try:
            _, y = tf.while_loop(lambda n, _: n < 3, body, (0, x_placeholder()))
        finally:
            (v1.enable_control_flow_v2 if was else v1.disable_control_flow_v2)()
        tf.identity(y, name="y")

    graph_def, module, _ = _collect(make)
    assert len(calls(module)) == 1
    check_equal(graph_def, module, ["y"], {"x": random(2, 4)})


def test_a_wrapper_that_maps_to_nothing_is_remarked() -> None:
    mappings: dict[str, Any] = {
        "parent_first_child_input": [
            {"parent_ophint_input_index": 0, "first_child_ophint_input_index": 5}
        ],
        "parent_last_child_output": [],
        "internal_children_input_output": [],
    }

    def make() -> None:
        outer = hintc.OpHint("outer", level=2, children_inputs_mappings=mappings)
        inner = hintc.OpHint("inner")
        a = inner.add_input(outer.add_input(x_placeholder()))
        tf.identity(outer.add_output(inner.add_output(tf.tanh(a))), name="y")

    _, _, report = _collect(make)
    assert [r.code for r in report.remarks] == ["wrapper-dissolved", "wrapper-mapping"]


def test_a_transpose_stands_where_axes_differ_and_the_rank_is_unknown() -> None:
    def make() -> None:
        x = v1.placeholder(tf.float32, None, "x")
        hint = hintc.OpHint("f")
        outs = []
        for part in tf.unstack(x, num=2, axis=1):
            part = hint.add_input(part, "x", None, "stack")
            outs.append(hint.add_output(part * 2.0, "y", None, "stack"))
        tf.identity(tf.stack(outs, axis=1), name="y")

    graph_def, module, _ = _collect(make)
    ((node, _),) = calls(module)
    assert node.operands[0].node.op == "Transpose"
    check_equal(graph_def, module, ["y"], {"x": random(3, 2, 4)})
