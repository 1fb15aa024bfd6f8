"""fuse-hints: people's own ops become fused calls, with slots, results and attributes."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf

import hintc
import hintc.ops
from hint_cases import build, calls, check_equal, fused_specs, passes, random, x_placeholder
from hintc.ir import SCAN, Scan
from hintc.ops import AttributeSpec, FusedOp, OperandSlot
from hintc.ops.fused_op import CustomLowering
from hinted_graphs import (
    CELLS,
    freeze,
    static,
    user_aggregated,
    user_chain,
    user_conv,
    user_nested,
    user_sparse_arguments,
)

PIPELINE = "collect-hints,fuse-hints"


@pytest.mark.parametrize(
    ("model", "op", "slots", "results"),
    [
        (user_conv, "my_conv", ["input_0", "input_1", "input_2"], ["output_0"]),
        (user_aggregated, "my_cumsum", ["input_0", "input_1"], ["output_0", "output_1"]),
        (user_sparse_arguments, "my_sparse_args", ["input_0", "input_2"], ["output_1"]),
    ],
)
def test_slots_follow_the_hints_indices(
    model: Any, op: str, slots: list[str], results: list[str]
) -> None:
    frozen = freeze(model)
    module, report = passes(frozen.graph_def, PIPELINE, frozen.outputs)
    (spec,) = fused_specs(module)
    assert (spec["op"], spec["slots"], spec["results"]) == (op, slots, results)
    assert [r.code for r in report.remarks] == ["hint"]
    check_equal(frozen.graph_def, module, frozen.outputs, frozen.feeds(2))


def test_a_nested_hint_stays_in_the_outer_ones_body() -> None:
    frozen = freeze(user_nested)
    module, _ = passes(frozen.graph_def, PIPELINE, frozen.outputs)
    assert [s["op"] for s in fused_specs(module)] == ["my_outer"]
    check_equal(frozen.graph_def, module, frozen.outputs, frozen.feeds(2))


def test_each_call_has_its_own_attributes() -> None:
    frozen = freeze(user_chain)
    module, _ = passes(frozen.graph_def, PIPELINE, frozen.outputs)
    assert [s["attributes"] for s in fused_specs(module)] == [{"n": n} for n in range(3)]


def test_a_second_run_changes_nothing() -> None:
    frozen = freeze(user_conv)
    _, report = passes(frozen.graph_def, f"{PIPELINE},fuse-hints", frozen.outputs)
    assert not report.runs[-1].changed


def test_a_value_that_was_not_declared_is_refused() -> None:
    def make() -> None:
        z = x_placeholder(name="z")
        hint = hintc.OpHint("f")
        tf.identity(hint.add_output(hint.add_input(x_placeholder()) * z), name="y")

    graph_def = build(make)
    module, report = passes(graph_def, PIPELINE, ["y"])
    (remark,) = report.remarks
    assert remark.code == "hint-undeclared-input"
    assert "'z'" in remark.reason
    assert not calls(module)
    check_equal(graph_def, module, ["y"], {"x": random(2, 4), "z": random(2, 4)})


def test_a_cell_that_nobody_fused_is_put_back_with_a_remark() -> None:
    frozen = freeze(static(CELLS["plain"]))
    module, report = passes(frozen.graph_def, PIPELINE, frozen.outputs)
    assert [r.code for r in report.remarks] == ["cell-not-fused"]
    assert not calls(module)
    check_equal(frozen.graph_def, module, frozen.outputs, frozen.feeds(2))


def _loop(final: bool = False) -> Any:
    """A running sum over a sequence, hinted as one call on sequences."""

    def make() -> None:
        x = x_placeholder((5, None, 4))
        gain = tf.constant([2.0])
        steps = tf.TensorArray(tf.float32, 5).unstack(x)

        def body(t: Any, total: Any, out: Any) -> Any:
            hint = hintc.OpHint("my_scan", bias=0.5)
            step = hint.add_input(steps.read(t), "x", None, "stack")
            state = hint.add_input(total, "state", None, "first")
            scale = hint.add_input(gain)
            new = state + step * scale
            y = hint.add_output(new, "y", None, "stack")
            last = y if final else hint.add_output(new, "last", None, "last")
            return t + 1, last, out.write(t, y)

        loop = tf.while_loop(
            lambda t, *_: t < 5, body, (0, tf.zeros_like(x[0]), tf.TensorArray(tf.float32, 5))
        )
        tf.identity(loop[2].stack(), name="y")
        tf.identity(loop[1], name="end")

    return build(make)


@pytest.mark.parametrize("final", [True, False])
def test_a_loop_that_is_one_call_on_sequences(final: bool) -> None:
    graph_def = _loop(final)
    module, report = passes(graph_def, "collect-hints,raise-loops,fuse-hints", ["y", "end"])
    scans = [Scan.of(n) for n in module.graph if n.op == SCAN]
    assert scans, [str(r) for r in report.remarks]
    (scan,) = scans
    assert scan.fusion is not None, [str(r) for r in report.remarks]
    assert scan.fusion.op == "my_scan"
    assert list(scan.fusion.operands) == ["input_0", "input_1", "input_2"]
    assert dict(scan.fusion.attributes) == {"bias": 0.5}
    check_equal(graph_def, module, ["y", "end"], {"x": random(5, 2, 4)})


def _declare(monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    op = FusedOp(
        "my_conv",
        (OperandSlot("image"), OperandSlot("kernel", "weight"), OperandSlot("bias", "bias")),
        ("output",),
        {"stride": AttributeSpec(int, 1), "alpha": AttributeSpec(float, 0.0)},
        CustomLowering("my_conv"),
        **options,
    )
    monkeypatch.setitem(hintc.ops._DECLARED, "my_conv", op)


def test_a_declared_op_names_its_operands(monkeypatch: pytest.MonkeyPatch) -> None:
    _declare(monkeypatch)
    frozen = freeze(user_conv)
    module, _ = passes(frozen.graph_def, PIPELINE, frozen.outputs)
    (spec,) = fused_specs(module)
    assert spec["slots"] == ["image", "kernel", "bias"]
    assert spec["results"] == ["output"]


def test_a_declaration_that_the_hint_does_not_fit_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    op = FusedOp("my_conv", (OperandSlot("image"),), ("output",), {}, CustomLowering("my_conv"))
    monkeypatch.setitem(hintc.ops._DECLARED, "my_conv", op)
    frozen = freeze(user_conv)
    with pytest.raises(hintc.HintcError, match="declared with 1 inputs"):
        passes(frozen.graph_def, PIPELINE, frozen.outputs)


def test_a_constraint_of_the_declaration_is_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    from hintc.ops import Constraint

    _declare(monkeypatch, constraints=(Constraint("too big", lambda use: False),))
    frozen = freeze(user_conv)
    module, report = passes(frozen.graph_def, PIPELINE, frozen.outputs)
    assert [r.code for r in report.remarks] == ["hint-constraint"]
    assert "too big" in report.remarks[0].reason
    check_equal(frozen.graph_def, module, frozen.outputs, frozen.feeds(2))
