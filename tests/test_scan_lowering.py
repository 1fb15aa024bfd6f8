"""Every lowered form of a Scan computes the recurrence, in TensorFlow and as TFLite."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hintc.graphdef import lower
from hintc.graphdef.scan_lowering import (
    has_scans,
    scan_to_while,
    unroll_scan,
)
from hintc.ir import Graph, Module, Node
from recurrences import (
    DEPTH,
    STEPS,
    Array,
    convert,
    rnn_model,
    run,
    run_graph_def,
    run_rnn,
    run_tflite,
)

TOLERANCE = 1e-6


def sequence(batch: int, steps: int = STEPS) -> Array:
    return np.random.default_rng(batch).standard_normal((steps, batch, DEPTH)).astype(np.float32)


@pytest.mark.parametrize("form", ["while", "unroll"])
@pytest.mark.parametrize("reverse_x", [False, True])
@pytest.mark.parametrize("reverse_y", [False, True])
def test_forms_agree_with_numpy(form: str, reverse_x: bool, reverse_y: bool) -> None:
    module, scan = rnn_model(reverse_x=reverse_x, reverse_y=reverse_y)
    lowering: Callable[[Module, Graph, Node], object] = (
        scan_to_while if form == "while" else unroll_scan
    )
    lowering(module, module.graph, scan)
    assert not has_scans(module)
    graph_def = lower(module)
    model = convert(graph_def, ["x"], ["y", "h"])
    for batch in (1, 4):
        x = sequence(batch)
        wanted = run_rnn(x, reverse_x=reverse_x, reverse_y=reverse_y)
        for got, want in zip(run_graph_def(graph_def, {"x": x}, ["y", "h"]), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE)
        for got, want in zip(run_tflite(model, {"x": x}), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("steps", [1, 3, 9])
def test_dynamic_time(steps: int) -> None:
    module, _ = rnn_model(steps=None)
    graph_def = lower(module)
    assert has_scans(module)  # lower works on a copy
    model = convert(graph_def, ["x"], ["y", "h"])
    x = sequence(2, steps)
    for got, want in zip(run_graph_def(graph_def, {"x": x}, ["y", "h"]), run_rnn(x), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE)
    for got, want in zip(run_tflite(model, {"x": x}), run_rnn(x), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE)


def test_no_steps_give_no_rows_and_the_initial_state() -> None:
    module, _ = rnn_model(steps=None)
    y, h = run(module, {"x": sequence(2, 0)}, ["y", "h"])
    assert y.shape == (0, 2, 4)
    assert not h.any()
