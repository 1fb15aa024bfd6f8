"""Stubs: upstream's format, no loss on the way back, and upstream's own stubs read too."""

from __future__ import annotations

import warnings
from collections.abc import Callable
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
    passes,
    random,
    run,
    stubs,
    x_placeholder,
)
from hintc.graphdef import lower
from hintc.ir import SCAN
from hinted_graphs import (
    CELLS,
    both_ways,
    constant_state,
    digits,
    dynamic,
    fed_state,
    final_states,
    freeze,
    lengths_dynamic,
    mixed,
    static,
    two_rnns,
    user_aggregated,
    user_chain,
    user_conv,
    user_nested,
    user_sparse_arguments,
)

v1 = tf.compat.v1

RECURRENT: dict[str, Any] = {
    **{f"dynamic {c}": dynamic(CELLS[c]) for c in CELLS if c != "shards"},
    **{f"static {c}": static(CELLS[c]) for c in CELLS},
    "mixed": dynamic(mixed),
    "static mixed": static(mixed),
    "two rnns": dynamic(two_rnns),
    "batch-major": dynamic(CELLS["plain"], time_major=False),
    "both ways": both_ways(CELLS["both"], True),
    "fed state": fed_state,
    "constant state": constant_state,
    "final states": final_states(False),
    "static final states": final_states(True),
    "digits": digits(units=8),
    "lengths": lengths_dynamic(CELLS["plain"]),
}
USERS: dict[str, Any] = {
    "conv": user_conv,
    "nested": user_nested,
    "aggregated": user_aggregated,
    "chain": user_chain,
    "sparse arguments": user_sparse_arguments,
}


def _upstream(graph_def: Any) -> Any:
    from tensorflow.lite.python import op_hint

    copy = type(graph_def)()
    copy.CopyFrom(graph_def)  # upstream changes what it is given
    return op_hint.convert_op_hints_to_stubs(graph_def=copy)


def _upstream_cleaning(graph_def: Any, outputs: list[str]) -> Any:
    from tensorflow.python.framework import graph_util_impl

    return graph_util_impl.remove_training_nodes(graph_def, protected_nodes=outputs)


@pytest.mark.parametrize("name", [*RECURRENT, *USERS])
def test_back_without_loss(name: str) -> None:
    model = freeze({**RECURRENT, **USERS}[name])
    converted = hintc.convert_op_hints_to_stubs(graph_def=model.graph_def)
    assert hintc.is_ophint_converted(converted)
    module, report = passes(converted, "import-stubs", model.outputs)
    assert report.changed
    check_equal(model.graph_def, module, model.outputs, model.feeds(3))


@pytest.mark.parametrize("name", RECURRENT)
def test_cells_need_no_body(name: str) -> None:
    model = freeze(RECURRENT[name])
    converted = hintc.convert_op_hints_to_stubs(graph_def=model.graph_def)
    cleaned = _upstream_cleaning(converted, model.outputs)
    assert not cleaned.library.function
    module, _ = passes(cleaned, "import-stubs", model.outputs)
    check_equal(model.graph_def, module, model.outputs, model.feeds(3))


@pytest.mark.parametrize("name", ["dynamic plain", "dynamic both", "dynamic rnn"])
def test_upstreams_own_stubs_are_read(name: str) -> None:
    model = freeze(RECURRENT[name])
    foreign = _upstream_cleaning(_upstream(model.graph_def), model.outputs)
    module, report = passes(foreign, "import-stubs", model.outputs)
    assert report.runs[0].report.counts == {"imported": 1}
    assert any(n.op == SCAN for n in module.graph)
    check_equal(model.graph_def, module, model.outputs, model.feeds(3))


@pytest.mark.parametrize("make", [user_conv, user_chain, dynamic(CELLS["both"])])
def test_format_is_upstreams(make: Any) -> None:
    model = freeze(make)
    ours = {s.name: s for s in stubs(hintc.convert_op_hints_to_stubs(graph_def=model.graph_def))}
    theirs = {s.name: s for s in stubs(_upstream(model.graph_def))}
    assert list(ours) == list(theirs)
    for name, stub in theirs.items():
        assert ours[name].op == stub.op
        assert ours[name].attr["_tflite_input_indices"] == stub.attr["_tflite_input_indices"]
        missing = [at for at, i in enumerate(stub.input) if i.startswith("Const")]
        assert [
            at for at, i in enumerate(ours[name].input[: len(stub.input)]) if i.startswith("Const")
        ] == missing


def test_hint_nodes_of_arguments_and_results_stay() -> None:
    model = freeze(user_conv)
    converted = hintc.convert_op_hints_to_stubs(graph_def=model.graph_def)
    names = {n.name for n in converted.node if "_tflite_function_uuid" in n.attr}
    upstream = {
        n.name for n in _upstream(model.graph_def).node if "_tflite_function_uuid" in n.attr
    }
    assert names == upstream


def test_types_and_shapes_are_on_the_stub() -> None:
    model = freeze(dynamic(CELLS["projection"]))
    (stub,) = stubs(hintc.convert_op_hints_to_stubs(graph_def=model.graph_def))
    float32 = tf.float32.as_datatype_enum
    assert list(stub.attr["_output_types"].list.type) == [0, float32, float32]
    shapes = [[d.size for d in s.dim] for s in stub.attr["_output_shapes"].list.shape]
    assert shapes[1:] == [[-1, 8], [7, -1, 6]]


def test_without_hints_the_graph_is_returned_unchanged() -> None:
    graph_def = build(x_placeholder)
    assert bytes_of(hintc.convert_op_hints_to_stubs(graph_def=graph_def)) == bytes_of(graph_def)


def test_a_session_is_converted_frozen_or_not() -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        user_conv()
        converted = hintc.convert_op_hints_to_stubs(session=session)
    assert [s.op for s in stubs(converted)] == ["my_conv"]
    assert any(n.op in ("VarHandleOp", "VariableV2") for n in converted.node)


def test_the_callback_sees_every_step() -> None:
    model = freeze(user_chain)
    seen: list[tuple[int, str]] = []
    hintc.convert_op_hints_to_stubs(
        graph_def=model.graph_def,
        write_callback=lambda graph_def, comment: seen.append((len(stubs(graph_def)), comment)),
    )
    assert seen == [(1, "initial"), (2, "initial"), (3, "initial"), (3, "final")]


def test_a_users_stub_without_body_is_a_custom_op_that_cannot_run_in_tensorflow() -> None:
    model = freeze(user_conv)
    converted = hintc.convert_op_hints_to_stubs(graph_def=model.graph_def)
    cleaned = _upstream_cleaning(converted, model.outputs)
    module, _ = passes(cleaned, "import-stubs", model.outputs)
    ((_, record),) = calls(module)
    assert record.function == "my_conv"
    assert record.attributes == {"stride": 2, "alpha": 0.5}
    with pytest.raises(tf.errors.InvalidArgumentError, match="without its body"):
        run(lower(module), model.outputs, model.feeds(2))


def test_a_users_stub_without_body_types_and_shapes_is_an_error() -> None:
    model = freeze(user_conv)
    with pytest.raises(hintc.HintcError, match=r"my_conv.*types and shapes"):
        passes(_upstream(model.graph_def), "import-stubs", model.outputs)


def _damaged(change: Callable[[Any], None]) -> Any:
    model = freeze(dynamic(CELLS["plain"]))
    converted = hintc.convert_op_hints_to_stubs(graph_def=model.graph_def)
    del converted.library.function[:]
    change(stubs(converted)[0])
    return converted


def test_a_cell_without_a_weight_is_an_error() -> None:
    graph_def = _damaged(lambda s: s.attr["_tflite_input_indices"].list.i.remove(7))
    with pytest.raises(hintc.HintcError, match="argument 7 is missing"):
        passes(graph_def, "import-stubs", ["y"])


def test_indices_that_do_not_fit_are_an_error() -> None:
    graph_def = _damaged(lambda s: s.attr["_tflite_input_indices"].list.i.append(99))
    with pytest.raises(hintc.HintcError, match="do not fit"):
        passes(graph_def, "import-stubs", ["y"])


def test_an_activation_without_kernel_is_an_error_when_the_body_is_lost() -> None:
    def change(stub: Any) -> None:
        stub.attr.pop("_hintc_cell")
        stub.attr["_tflite_attr_activation"].s = b"swish"

    with pytest.raises(hintc.HintcError, match="swish"):
        passes(_damaged(change), "import-stubs", ["y"])


def test_two_converted_graphs_can_be_merged() -> None:
    first, second = (
        hintc.convert_op_hints_to_stubs(graph_def=freeze(user_chain).graph_def) for _ in range(2)
    )
    assert not {s.name for s in stubs(first)} & {s.name for s in stubs(second)}


def test_a_plain_loop_stays_as_it_is() -> None:
    def make() -> list[Any]:
        outputs = dynamic(CELLS["plain"])()
        loop = tf.while_loop(lambda n, _: n < 3, lambda n, a: (n + 1, a * 2.0), (0, outputs[0]))
        return [tf.identity(loop[1], name="z")]

    model = freeze(make)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        converted = hintc.convert_op_hints_to_stubs(graph_def=model.graph_def)
    before = {n.name: n for n in model.graph_def.node if "While" in n.op}
    (loop,) = [n for n in converted.node if "While" in n.op]
    assert loop.attr["body"] == before[loop.name].attr["body"]
    module, _ = passes(converted, "import-stubs", model.outputs)
    check_equal(model.graph_def, module, model.outputs, model.feeds(2))


@pytest.mark.parametrize("function", ["Relu", "Conv2D", "Split", "UnidirectionalSequenceGru"])
def test_a_hint_may_be_called_like_an_op_of_tensorflow(function: str) -> None:
    def make() -> None:
        hint = hintc.OpHint(function)
        x = hint.add_input(x_placeholder())
        tf.identity(hint.add_output(tf.nn.relu(x) * 2.0), name="y")

    graph_def = build(make)
    converted = hintc.convert_op_hints_to_stubs(graph_def=graph_def)
    assert [s.op for s in stubs(converted)] == [function]
    compiled = hintc.compile(converted, ["x"], ["y"])
    assert compiled.report.fused_ops == {function: 1}
    feeds = {"x": random(2, 4)}
    (wanted,) = run(graph_def, ["y"], feeds)
    np.testing.assert_allclose(run(compiled.graph_def, ["y"], feeds)[0], wanted)
