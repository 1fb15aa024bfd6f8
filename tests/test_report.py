"""Report: sums, order, JSON and sentences."""

from __future__ import annotations

import json
from math import inf, nan

from hintc.remark import NearMiss, PassReport
from hintc.report import OutputError, QuantizationCost, Report


def filled() -> Report:
    report = Report(source="GraphDef 'g.pb'", pipeline="a,b,a")
    first, second = PassReport(), PassReport()
    first.count("fused", 2)
    first.fused("lstm", "rnn/while", "an LSTM of 64 units")
    second.count("fused")
    second.refused("gates", "rnn_1/while", "the gates are hard sigmoids", "Use sigmoid.")
    second.note("seen", "x", "was seen")
    for name, outcome in (("a", first), ("b", PassReport()), ("a", second)):
        report.add_pass(name, outcome)
    report.sizes = {"source": 1000, "tflite": 10}
    report.ops_before, report.ops_after = {"While": 2, "MatMul": 8}, {"PartitionedCall": 1}
    report.fused_ops = {"LSTM": 2}
    report.operators = {f"OP_{n}": 20 - n for n in range(10)}
    report.errors = {"y": 1.5e-7, "z": float("inf")}
    report.tolerance = (1e-5, 1e-6)
    report.timings = {"read": 0.5, "convert": 1.0}
    return report


def test_counts_are_summed_over_runs_of_a_pass() -> None:
    assert filled().counts == {"a": {"fused": 3}}


def test_remarks_by_kind_carry_the_pass() -> None:
    report = filled()
    assert [r.node for r in report.fused] == ["rnn/while"]
    assert [r.node for r in report.not_fused] == ["rnn_1/while"]
    assert [r.pass_name for r in report.remarks] == ["a", "a", "a"]


def test_json_is_standard_and_complete() -> None:
    data = json.loads(filled().to_json())
    assert data["fused"][0]["reason"] == "an LSTM of 64 units"
    assert data["not_fused"][0]["remedy"] == "Use sigmoid."
    assert [p["name"] for p in data["passes"]] == ["a", "b", "a"]
    assert data["errors"] == {"y": 1.5e-7, "z": "inf"}
    assert data["tolerance"] == {"rtol": 1e-5, "atol": 1e-6}
    assert json.loads(Report().to_json())["tolerance"] is None


def test_text_says_what_and_why() -> None:
    text = str(filled())
    assert "fused: 2 × LSTM\n" in text
    assert "'rnn/while': an LSTM of 64 units" in text
    assert "'rnn_1/while': the gates are hard sigmoids [gates]\n    Use sigmoid." in text
    assert "nodes: 10 -> 1" in text
    assert "20 × OP_0" in text
    assert "and 23 others" in text
    assert "tflite 10" in text
    assert "largest error of 'y': 1.5e-07 (tolerance: 1e-06 + 1e-05 of the value)" in text
    assert "seconds: 1.50 (convert 1.00, read 0.50)" in text


def test_text_says_forms_and_what_is_felt() -> None:
    report, made = Report(source="x"), PassReport()
    made.note("form-while", "gru", "becomes a loop")
    made.note("re-rolled", "gru", "is one recurrence")
    made.note("batch-fixed", "x", "its batch is fixed")
    report.add_pass("p", made)
    report.add_notes("stays-float", [(f"n{k}", "stays float") for k in range(9)])
    text = str(report)
    assert "loops and unrolled steps: 1\n  'gru': becomes a loop\nnotes: 10\n" in text
    assert "  'x': its batch is fixed [batch-fixed]\n" in text
    assert "  'n6': stays float [stays-float]\n  and 2 more\n" in text
    assert "re-rolled" not in text


def test_what_is_not_finite_is_text_in_json() -> None:
    report = Report(cost=QuantizationCost("given feeds", 1, {"y": OutputError(inf, nan, 1.0)}))
    cost = json.loads(report.to_json())["cost"]
    assert cost["outputs"]["y"] == {
        "largest": "inf",
        "mean": "nan",
        "span": 1.0,
        "top_1": None,
        "step": 0.0,
    }
    assert "cost of quantisation, on 1 given feed:\n" in str(report)


def test_an_empty_report_is_readable() -> None:
    assert "fused: nothing" in str(Report(source="GraphDef"))


def test_the_last_word_on_a_node_counts() -> None:
    report, recognised, decided = Report(), PassReport(), PassReport()
    for node in ("a", "b"):
        recognised.fused("cell", node, "an LSTM")
    decided.fused("form-fused", "a", "becomes one LSTM")
    decided.note("form-unroll", "b", "unrolled")
    report.add_pass("fuse-lstm", recognised)
    report.add_pass("choose-form", decided)
    assert [(r.node, r.code) for r in report.fused] == [("a", "form-fused")]


def test_one_outcome_for_each_node() -> None:
    report, passes = Report(), [PassReport() for _ in range(3)]
    first, second, third = passes
    first.note("split", "a", "was split")
    first.refused("chain", "kept", "the steps differ", "Make them equal.")
    second.fused("cell", "a", "LSTM of 4 cells")
    second.refused("lengths", "b", "lengths vary", "Fix them.")
    second.refused("opaque", "b", "a Select")
    third.fused("form-fused", "a", "becomes one LSTM")
    third.note("form-while", "b", "becomes a loop")
    third.note("form-while", "c", "becomes a loop: no recurrence")
    second.fused("cell", "d", "LSTM of 5 cells")
    third.note("form-unroll", "d", "unrolled")
    for made in passes:
        report.add_pass("p", made)
    found = {o.node: (o.is_fused, o.became, o.why, o.remedy, o.code) for o in report.outcomes}
    assert found == {
        "kept": (False, "stays as it is", "the steps differ", "Make them equal.", "chain"),
        "a": (True, "becomes one LSTM", "LSTM of 4 cells", "", "form-fused"),
        "b": (False, "becomes a loop", "lengths vary", "Fix them.", "lengths"),
        "c": (False, "becomes a loop: no recurrence", "", "", "form-while"),
        "d": (False, "unrolled", "LSTM of 5 cells", "", "form-unroll"),
    }
    assert [o["node"] for o in json.loads(report.to_json())["outcomes"]] == list(found)


def test_the_closest_near_misses_are_kept() -> None:
    report, made = Report(), PassReport()
    made.near_misses = [NearMiss(f"n{k}", "x", "the op is Neg", k % 25) for k in range(50)]
    report.add_pass("p", made)
    assert len(report.near_misses) == 20
    assert report.near_misses[0][1].matched == 24
