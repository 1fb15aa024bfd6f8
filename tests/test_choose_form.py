"""choose-form: each form, what it refuses, and what the refusal says."""

from __future__ import annotations

import numpy as np
import pytest

from hintc.graphdef import lower
from hintc.graphdef.emit import Emitter
from hintc.graphdef.scan_lowering import has_scans
from hintc.ir import Fusion, Module, Node, Port, Scan
from hintc.runtime.interpreter import Interpreter
from hintc.tflite.handoff import to_tflite
from hintc_passes.choose_form import ChooseForm
from recurrences import DEPTH, STEPS, UNITS, Array, rnn_model, run_graph_def, run_rnn, weights

TOLERANCE = 1e-6


def sequence(batch: int, steps: int = STEPS) -> Array:
    return np.random.default_rng(batch).standard_normal((steps, batch, DEPTH)).astype("f4")


def recognised(module: Module, scan: Node) -> None:
    """Annotate the Scan of `rnn_model` as UNIDIRECTIONAL_SEQUENCE_RNN."""
    emit = Emitter(module.graph, "kernel", ())
    parts = Scan.of(scan)
    operands = {
        "input": parts.xs[0],
        "input_weights": emit.constant(weights(DEPTH, UNITS).T.copy()),
        "recurrent_weights": emit.constant(weights(UNITS, UNITS, seed=1).T.copy()),
        "bias": parts.invariants[2],
        "hidden_state": parts.states[0],
    }
    fusion = Fusion(
        "UNIDIRECTIONAL_SEQUENCE_RNN",
        operands,
        ("final_hidden_state", "output"),
        {"activation": "TANH", "time_major": True},
    )
    parts.with_fusion(fusion).write_to(module, scan)


@pytest.mark.parametrize(
    ("form", "op"),
    [
        ("auto", "PartitionedCall"),
        ("fused", "PartitionedCall"),
        ("while", "StatelessWhile"),
        ("unroll", "Unpack"),
    ],
)
def test_forms_of_a_recognised_scan(form: str, op: str) -> None:
    module, scan = rnn_model()
    recognised(module, scan)
    report = ChooseForm(form=form).run(module)  # type: ignore[arg-type]
    assert not has_scans(module)
    assert len(report.remarks) == 1 and report.changed
    assert any(node.op == op for node in module.graph)
    graph_def = lower(module)
    model = Interpreter(to_tflite(graph_def, ["x"], ["y", "h"]))
    for batch in (1, 3):
        x = sequence(batch)
        y, h = run_rnn(x)
        for got in (run_graph_def(graph_def, {"x": x}, ["y", "h"]), model.run({"x": x}).values()):
            for one, want in zip(got, (y, h), strict=True):
                np.testing.assert_allclose(one, want, rtol=0, atol=TOLERANCE)


def test_what_was_not_recognised_becomes_a_loop() -> None:
    module, _ = rnn_model()
    report = ChooseForm(form="fused").run(module)
    assert [r.code for r in report.remarks] == ["form-fused-unknown", "form-while"]
    assert report.counts == {"loops": 1}


def test_a_result_that_the_kernel_does_not_give_is_a_reason() -> None:
    module, scan = rnn_model()
    recognised(module, scan)
    parts = Scan.of(scan)
    assert parts.fusion is not None
    fusion = Fusion(
        parts.fusion.op, parts.fusion.operands, (None, "output"), parts.fusion.attributes
    )
    parts.with_fusion(fusion).write_to(module, scan)
    report = ChooseForm().run(module)
    assert [r.code for r in report.remarks] == ["form-fused-result", "form-while"]
    assert "'h' reads result 0" in report.remarks[0].reason


def test_unrolling_needs_few_known_steps() -> None:
    module, _ = rnn_model(steps=None)
    assert [r.code for r in ChooseForm(form="unroll").run(module).remarks] == [
        "form-unroll-unknown",
        "form-while",
    ]
    module, _ = rnn_model()
    assert [r.code for r in ChooseForm(form="unroll", max_trip=4).run(module).remarks] == [
        "form-unroll-long",
        "form-while",
    ]


def test_a_state_that_is_not_kept_is_a_remark() -> None:
    for options in ({"form": "while"}, {"form": "unroll"}, {}):
        module, _ = rnn_model()
        report = ChooseForm(state="persist", **options).run(module)  # type: ignore[arg-type]
        assert "state-not-kept" in [r.code for r in report.remarks]
    module, scan = rnn_model()
    recognised(module, scan)
    report = ChooseForm(state="persist", optimize_for="latency").run(module)
    assert [r.reason for r in report.remarks] == [
        "becomes one UNIDIRECTIONAL_SEQUENCE_RNN: only kernels keep a state"
    ]


def test_a_form_that_was_refused_is_not_said_to_be_the_wish() -> None:
    module, scan = rnn_model(steps=None)
    recognised(module, scan)
    report = ChooseForm(form="unroll").run(module)
    assert report.remarks[-1].reason == "becomes a loop without TensorLists"


def test_operands_that_both_read_are_given_once() -> None:
    module, scan = rnn_model()
    recognised(module, scan)
    ChooseForm().run(module)
    call = next(n for n in module.graph if n.op == "PartitionedCall")
    assert len(call.operands) == 7  # x, h, W, R, b of the step; the kernel's W and R
    assert Port(module.graph["x"]) in call.operands
    assert call.name == "rnn/scan"
