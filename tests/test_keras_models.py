"""Keras 2 and 3 models without hints: each row of the table becomes what it says, and is right."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras

import hintc
import keras_models
from hintc.convert import Converted
from hintc.runtime.interpreter import Interpreter
from hintc.tflite.inspect import op_counts
from keras_models import CASES, STEPS, TOLERANCE, WORDS, Case

KERAS = {2: tf_keras, 3: keras}
PAGE = Path(__file__).parent.parent / "docs" / "keras-models.md"


def build(case: Case, version: ModuleType) -> Any:
    """A functional model with a dynamic batch and no weight zero."""
    given = [version.layers.Input(shape, dtype=case.dtype) for shape in case.inputs]
    model = version.Model(given, case.make(version.layers)(*given))
    random = np.random.default_rng(7)
    values = []
    for weight in model.weights:
        value = np.asarray(weight)
        if value.dtype == np.float32:  # others are seeds
            value = random.uniform(-0.5, 0.5, value.shape).astype(np.float32)
        values.append(value + 1 if "variance" in weight.name else value)
    model.set_weights(values)
    return model


def feeds(case: Case, batch: int) -> list[Any]:
    """Values of the inputs; some steps are what a mask leaves out."""
    random = np.random.default_rng(batch)
    found = []
    for shape in case.inputs:
        full = (batch, *(size or STEPS + 1 for size in shape))
        if case.dtype == "int32":
            value: Any = random.integers(0, WORDS, full).astype(np.int32)
        else:
            value = random.standard_normal(full).astype(np.float32)
        value[0, -1] = value[-1, :2] = 0
        found.append(value)
    return found


def check_equal(case: Case, model: Any, converted: Converted) -> None:
    """Equal to Keras at two batch sizes, on two invokes each."""
    runner = Interpreter(converted.tflite)
    for batch in (1, 3):
        values = feeds(case, batch)
        wanted = model(values if len(values) > 1 else values[0], training=False)
        wanted = wanted if isinstance(wanted, (list, tuple)) else [wanted]
        for _ in range(2):
            got = list(runner.run(dict(zip(converted.inputs, values, strict=True))).values())
            for one, other in zip(got, wanted, strict=True):
                np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("version", KERAS)
@pytest.mark.parametrize("name", CASES)
def test_model(name: str, version: int) -> None:
    case = CASES[name]
    model = build(case, KERAS[version])
    converted = hintc.convert(model)
    ops = op_counts(converted.tflite)
    found = {op: ops[op] for op in keras_models.NAMES if ops[op]}
    remarks = [str(remark) for remark in converted.report.remarks]
    assert found == case.expected(version), (ops, remarks)
    unwanted = ("CUSTOM", "Flex", "TensorList")
    assert not [op for op in ops if op.startswith(unwanted)], ops
    codes = {remark.code for remark in converted.report.not_fused}
    assert codes == ({case.code} if case.code else set()), remarks
    check_equal(case, model, converted)


def test_page_is_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == keras_models.page(), "run make tables"
