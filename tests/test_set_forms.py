"""set-forms: single layers get another form than the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest

import hintc
from hintc.cli import main
from hintc.errors import HintcError
from hintc.ir import Scan
from hintc.tflite.inspect import op_counts
from hintc_passes.set_forms import SetForms
from recurrences import rnn_model


def two_layers() -> Any:
    keras.utils.set_random_seed(1)
    x = keras.Input((6, 4))
    first = keras.layers.LSTM(5, return_sequences=True, name="first")
    second = keras.layers.LSTM(3, name="second")
    return keras.Model(x, second(first(x)), name="both")


def forms(report: Any) -> list[str]:
    return [r.code for r in report.remarks if r.code.startswith("form-")]


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ({"first": "while"}, ["form-while", "form-fused"]),
        ({"first": "unroll", "second_1": "while"}, ["form-unroll", "form-while"]),
        ({"both": "while", "second": "auto"}, ["form-while", "form-fused"]),
    ],
)
def test_layers_by_name(form: Any, wanted: list[str]) -> None:
    assert forms(hintc.convert(two_layers(), form=form, check=True).report) == wanted


def test_auto_follows_what_all_others_get() -> None:
    report = hintc.convert(two_layers(), form={"first": "fused"}, optimize_for="latency").report
    assert forms(report) == ["form-fused", "form-unroll"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": {"frist": "while"}}, "'set-forms'.*'frist', which is no recurrence.*'first'"),
        ({"form": {"first": "loop"}}, "form is 'loop'.*'while'"),
        ({"form": {"first": "while"}, "state": "persist"}, "'persist' does not go with .*'while'"),
        (
            {"form": {"first": "while"}, "pipeline": "raise-loops,choose-form"},
            "no pass of this pipeline takes them.*set-forms",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HintcError, match=message):
        hintc.compile(two_layers(), **options)


def test_on_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, made = tmp_path / "model.keras", tmp_path / "model.tflite"
    two_layers().save(source)
    command = ["convert", str(source), "-o", str(made), "--form", "first=while"]
    assert main(command) == 0
    assert "form=while" in capfd.readouterr().out
    assert {"WHILE", "UNIDIRECTIONAL_SEQUENCE_LSTM"} <= set(op_counts(made.read_bytes()))
    made.unlink()
    assert main([*command, "--form", "fused"]) == 1
    assert "give one form, or LAYER=FORM" in capfd.readouterr().err
    assert not made.exists()


def test_the_wish_is_noted_on_the_scan_and_taken_back() -> None:
    module, node = rnn_model()
    for form, noted in (("unroll", "unroll"), ("auto", "")):
        report = SetForms(forms=((node.name, form),)).run(module)  # type: ignore[arg-type]
        assert Scan.of(node).form == noted
        assert report.counts == {"set": 1}
    assert not SetForms().run(module).changed
