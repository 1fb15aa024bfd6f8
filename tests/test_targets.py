"""What is converted for TFLite and LiteRT runs there, or is refused before a file is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hintc
from hintc.convert import check, drivers
from hintc.errors import HintcError
from hintc.ops import Target
from hintc.runtime.interpreter import Interpreter
from hintc.tflite.flatbuffer import Model
from hintc.tflite.legalize import legalize
from hintc.tflite.plain_integers import NEED_SCALES
from micro_recipes import PLAIN, RECIPES, one_operator
from scripts.dtypes import RUNTIMES, traced, verdict

DTYPES = ("int8", "int16", "uint8", "int64", "bool", "uint32", "float64")
DOUBTFUL = (
    *("abs", "add", "argmax", "bitwise_xor", "cast to float32", "concat", "cumsum", "equal"),
    *("floordiv", "gather int32", "less", "maximum", "multiply", "pad", "reduce_mean"),
    *("reduce_prod", "reduce_sum", "reverse", "select", "tile", "top_k", "transpose"),
)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dtype_runs_or_is_refused(dtype: str) -> None:
    """The converter's patterns know which dtypes the kernels take; the rest would stay CUSTOM."""
    verdicts = {name: verdict(name, dtype) for name in DOUBTFUL}
    assert set(verdicts.values()) <= {"right", "refused", "none"}, verdicts
    found = list(verdicts.values())
    assert "right" in found
    assert "refused" in found or dtype == "bool"


@pytest.mark.parametrize("name", ["equal", "reduce_mean"])
def test_plain_bytes_are_not_given_to_kernels_of_quantised_ones(name: str) -> None:
    with pytest.raises(HintcError, match=r"gets uint8 values wrong.*Cast to int32"):
        hintc.convert(traced(name, "uint8"))


@pytest.mark.parametrize("dtype", NEED_SCALES)
def test_integers_without_a_scale(dtype: str) -> None:
    for name in NEED_SCALES[dtype] & RECIPES.keys():
        with pytest.raises(HintcError, match=f"{name} gets {dtype} values wrong"):
            legalize(one_operator(name, PLAIN + dtype))
        assert legalize(one_operator(name, dtype))
    model = one_operator("MEAN", PLAIN + dtype)
    fed = np.full((1, 4, 4, 2), 3, dtype)
    for runtime in RUNTIMES:  # the reason
        (found,) = Interpreter(model, runtime=runtime).run([fed]).values()
        assert (found != 3).all()


@pytest.mark.parametrize("target", ["tflite", "litert"])
def test_an_operator_that_the_runtime_is_too_old_for(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def newer(tflite: bytes, source: Any) -> bytes:
        model = Model.read(tflite)
        model.root.operatorCodes[0].version = 99
        return model.write()

    monkeypatch.setattr(drivers, "with_source_keys", newer)
    with pytest.raises(HintcError, match=r"installed cannot load.*'ADD' version '99'.*newer one"):
        hintc.convert(traced("add", "float32"), target=target)


def test_without_the_runtime_a_note_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "installed", lambda: ("tensorflow",))
    report = hintc.convert(traced("add", "float32"), target="litert").report
    (note,) = [remark for remark in report.remarks if remark.code == "target"]
    assert "ai-edge-litert, which is not installed" in note.reason
