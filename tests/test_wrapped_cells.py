"""Cells in wrappers and shared cells: what is the kernel's maths is fused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tf_keras.src.layers.rnn.legacy_cell_wrappers import (
    DeviceWrapper,
    DropoutWrapper,
    ResidualWrapper,
)
from tf_keras.src.layers.rnn.legacy_cells import LSTMCell, MultiRNNCell

import hintc
from hintc.runtime import session
from hintc.runtime.interpreter import Interpreter
from recurrences import graph_and_outputs

v1 = tf.compat.v1
UNITS, STEPS = 4, 5


def lstm(**options: Any) -> Any:
    return LSTMCell(UNITS, **options)


def rnn(cell: Any, x: Any) -> Any:
    return v1.nn.dynamic_rnn(cell, x, dtype=tf.float32, time_major=True)


def wrapped_stack() -> Any:
    first = ResidualWrapper(DeviceWrapper(lstm(), "/cpu:0"))
    return MultiRNNCell([first, ResidualWrapper(lstm()), DropoutWrapper(lstm())])


def shared(x: Any) -> list[Any]:
    """One cell in two layers of one loop: equal weights, own states."""
    cell = lstm()
    y, (one, two) = rnn(MultiRNNCell([cell, cell]), x)
    return [y, one.c, two.h]


MODELS: dict[str, tuple[Callable[[Any], list[Any]], int]] = {
    "stack": (lambda x: [rnn(wrapped_stack(), x)[0]], 3),
    "residual_function": (
        lambda x: [rnn(ResidualWrapper(lstm(), residual_fn=lambda i, o: 2.0 * i + o), x)[0]],
        1,
    ),
    "residual_packed": (lambda x: list(rnn(ResidualWrapper(lstm(state_is_tuple=False)), x)), 1),
    "shared": (shared, 2),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", MODELS)
def test_wrapped_cells_are_fused(name: str) -> None:
    build, count = MODELS[name]
    graph_def, outputs = graph_and_outputs(build, [STEPS, None, UNITS])
    result = hintc.convert(graph_def, ["x"], outputs)
    assert len(result.report.fused) == count, result.report.not_fused
    model = Interpreter(result.tflite)
    for batch in (1, 3):
        x = np.random.default_rng(batch).standard_normal((STEPS, batch, UNITS))
        feeds = {"x": x.astype(np.float32)}
        wanted = session.run(graph_def, feeds, outputs)
        for _ in range(2):
            got = model.run(feeds)
            for output in outputs:
                np.testing.assert_allclose(got[output], wanted[output], rtol=0, atol=1e-6)
