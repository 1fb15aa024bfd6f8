"""Recognition is by maths: random spellings of an LSTM all fuse, cells a little off never do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import hintc
from hintc.graphdef import lower
from hintc.ir import Scan
from hintc.ops.sequence_lstm import reference
from hintc.pipeline import PassPipeline
from hintc.remark import PassReport
from hintc.runtime import session
from hintc.runtime.interpreter import Interpreter
from hintc_passes.cells import fuse
from hintc_passes.choose_form import ChooseForm
from hintc_passes.fuse_lstm import FuseLstm
from lstm_spellings import CELLS, CHOICES, INPUTS, Cell, Change, Choice, step_of
from scan_builder import scan_module

OUTPUTS = ["out0", "out1", "out2"]
PLAIN = {name: values[0] for name, values in CHOICES.items()}
choices = st.fixed_dictionaries({name: st.sampled_from(v) for name, v in CHOICES.items()})
cells = st.builds(
    Cell,
    coupled=st.booleans(),
    peephole=st.booleans(),
    projected=st.booleans(),
    biased=st.booleans(),
    cell_clip=st.sampled_from((0.0, 0.25)),
    activation=st.sampled_from(("tanh", "tanh", "relu", "relu6")),
    forget_bias=st.sampled_from((0.0, 1.0, -0.3)),
)


def scan(cell: Cell, choice: Choice, change: Change | None = None) -> tuple[Any, Any]:
    states = (CELLS, cell.outputs) if choice["cell_first"] else (cell.outputs, CELLS)
    return scan_module(step_of(cell, choice, change), x=(INPUTS,), states=states, steps=4)


def random_feeds(module: Any, batch: int) -> dict[str, Any]:
    random = np.random.default_rng(batch)
    shapes = {arg.name: arg.attributes["shape"].dims for arg in module.graph.args}
    return {
        name: random.standard_normal([batch if d < 0 else d for d in dims]).astype(np.float32)
        for name, dims in shapes.items()
    }


def by_kernel(found: Scan, feeds: dict[str, Any]) -> list[Any]:
    """The fused op's reference on what recognition gave it."""
    assert found.fusion is not None
    operands = {}
    for slot, port in found.fusion.operands.items():
        value: Any = port.node.attributes.get("value")
        operands[slot] = feeds[port.node.name] if value is None else value.array
    results = reference(operands, found.fusion.attributes)
    return [results[name] for name in found.fusion.results if name is not None]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(cells, choices)
@example(Cell(projected=True), {**PLAIN, "sigmoid": "tanh", "product": "halves"})
@example(Cell(coupled=True, peephole=True), {**PLAIN, "sigmoid": "tanh", "swapped": True})
def test_every_spelling_is_fused(cell: Cell, choice: dict[str, Any]) -> None:
    if cell.projected and cell.cell_clip:
        cell = replace(cell, proj_clip=0.2)
    module, node = scan(cell, choice)
    feeds = random_feeds(module, 2)
    wanted = session.run(lower(module), feeds, OUTPUTS)
    report = FuseLstm().run(module)
    assert Scan.of(node).fusion is not None, report.remarks
    for got, name in zip(by_kernel(Scan.of(node), feeds), wanted, strict=True):
        np.testing.assert_allclose(got, wanted[name], rtol=0, atol=1e-5)


KERNELS = {
    "coupled": (Cell(coupled=True), PLAIN),
    "coupled_all": (
        Cell(coupled=True, peephole=True, projected=True, cell_clip=0.25, proj_clip=0.2),
        {**PLAIN, "sigmoid": "tanh", "product": "halves"},
    ),
    "relu": (Cell(activation="relu", cell_clip=0.25), {**PLAIN, "product": "einsum"}),
    "relu6_peephole": (Cell(activation="relu6", peephole=True, biased=False), PLAIN),
}


@pytest.mark.parametrize("name", KERNELS)
def test_the_kernel_gives_the_numbers(name: str) -> None:
    cell, choice = KERNELS[name]
    module, _ = scan(cell, choice)
    graph_def, inputs = lower(module), [arg.name for arg in module.graph.args]
    assert FuseLstm().run(module).changed
    (call,) = ChooseForm(form="fused").run(module).counts
    assert call == "fused"
    result = hintc.convert(lower(module), inputs, OUTPUTS, pipeline=PassPipeline.EMPTY)
    interpreter = Interpreter(result.tflite)
    for batch in (1, 3):
        feeds = random_feeds(module, batch)
        wanted = session.run(graph_def, feeds, OUTPUTS)
        for _ in range(2):
            got = interpreter.run(feeds)
            for output in OUTPUTS:
                np.testing.assert_allclose(got[output], wanted[output], rtol=0, atol=2e-6)


class _Gates(Change):
    def __init__(self, function: Callable[..., Any]) -> None:
        self.gates = function  # type: ignore[method-assign]


class _Activated(Change):
    def __init__(self, function: Callable[..., Any]) -> None:
        self.activated = function  # type: ignore[method-assign]


class _Update(Change):
    def __init__(self, function: Callable[..., Any]) -> None:
        self.update = function  # type: ignore[method-assign]


class _Hidden(Change):
    def __init__(self, function: Callable[..., Any]) -> None:
        self.hidden = function  # type: ignore[method-assign]


class _Results(Change):
    def __init__(self, function: Callable[..., Any]) -> None:
        self.results = function  # type: ignore[method-assign]


class _CarriedUnclipped(Change):
    def carried(self, c: Any, raw: Any) -> Any:
        return raw


class _OldPeephole(Change):
    def output_peephole(self, old: Any, new: Any) -> Any:
        return old


def _hard_sigmoid(s: dict[str, Any]) -> dict[str, Any]:
    return {g: tf.clip_by_value(0.2 * v + 0.5, 0.0, 1.0) for g, v in s.items()}


def _one_gate(name: str, function: Callable[..., Any]) -> Change:
    return _Activated(lambda s: {g: function(v) if g == name else v for g, v in s.items()})


def _shifted(name: str, by: Callable[..., Any]) -> Change:
    return _Gates(lambda z, x, h, c: {g: v + by(x, h, c) if g == name else v for g, v in z.items()})


CLIPPED = Cell(cell_clip=0.25)
NEAR_MISSES: dict[str, tuple[Cell, Change]] = {
    "gates_through_hard_sigmoid": (Cell(), _Activated(_hard_sigmoid)),
    "almost_a_sigmoid": (Cell(), _one_gate("forget", lambda v: 0.49 * tf.tanh(v) + 0.51)),
    "forget_gate_scaled": (Cell(), _one_gate("forget", lambda v: 0.999 * v)),
    "input_gate_squared": (Cell(), _one_gate("input", lambda v: v * v)),
    "forget_gate_shifted": (Cell(), _one_gate("forget", lambda v: v + 0.001)),
    "output_gate_swapped_with_its_value": (
        Cell(),
        _Hidden(lambda o, act, c, h, x: act(o) * tf.sigmoid(c)),
    ),
    "gate_adds_tanh_of_c": (Cell(), _shifted("input", lambda x, h, c: tf.tanh(c))),
    "gate_adds_a_product": (Cell(), _shifted("output", lambda x, h, c: h * c)),
    "new_value_adds_c": (Cell(), _shifted("cell", lambda x, h, c: 0.1 * c)),
    "gate_mixes_cells": (
        Cell(),
        _shifted("forget", lambda x, h, c: c @ np.full((CELLS, CELLS), 0.1, np.float32)),
    ),
    "cell_state_scaled": (Cell(), _Update(lambda f, c, i, g, new: 0.999 * new)),
    "cell_state_shifted": (Cell(), _Update(lambda f, c, i, g, new: new + 0.001)),
    "nothing_forgotten": (Cell(), _Update(lambda f, c, i, g, new: c + i * g)),
    "one_gate_for_both": (Cell(), _Update(lambda f, c, i, g, new: f * (c + g))),
    "almost_coupled": (Cell(), _Update(lambda f, c, i, g, new: f * c + (0.999 - f) * g)),
    "coupled_to_another_gate": (
        Cell(),
        _Update(lambda f, c, i, g, new: f * c + (1.0 - i) * g),
    ),
    "clip_is_carried_not_read": (CLIPPED, _CarriedUnclipped()),
    "clip_of_one_side": (Cell(), _Update(lambda f, c, i, g, new: tf.minimum(new, 0.25))),
    "clip_off_centre": (
        Cell(),
        _Update(lambda f, c, i, g, new: tf.clip_by_value(new, -0.25, 0.3)),
    ),
    "output_peephole_on_old_c": (Cell(peephole=True), _OldPeephole()),
    "hidden_residual": (Cell(), _Hidden(lambda o, act, c, h, x: o * act(c) + h)),
    "hidden_zoneout": (Cell(), _Hidden(lambda o, act, c, h, x: 0.9 * o * act(c) + 0.1 * h)),
    "hidden_of_scaled_c": (Cell(), _Hidden(lambda o, act, c, h, x: o * act(0.999 * c))),
    "hidden_of_linear_c": (Cell(), _Hidden(lambda o, act, c, h, x: o * c)),
    "hidden_of_another_activation": (
        Cell(activation="relu"),
        _Hidden(lambda o, act, c, h, x: o * tf.tanh(c)),
    ),
    "hidden_clipped": (
        Cell(),
        _Hidden(lambda o, act, c, h, x: tf.clip_by_value(o * act(c), -0.2, 0.2)),
    ),
    "states_swapped": (Cell(), _Results(lambda h, c, old: (c, h, h))),
    "old_output": (Cell(), _Results(lambda h, c, old: (h, c, old))),
    "scaled_output": (Cell(), _Results(lambda h, c, old: (h, c, 0.999 * h))),
    "cell_output": (Cell(), _Results(lambda h, c, old: (h, c, c))),
}


def near_miss(name: str, choice: Choice) -> PassReport:
    """The pass's report; it must have refused."""
    cell, change = NEAR_MISSES[name]
    module, node = scan(cell, choice, change)
    report = FuseLstm().run(module)
    assert Scan.of(node).fusion is None, name
    assert not report.changed
    return report


@pytest.fixture
def no_backstop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numeric comparison passes everything: what refuses is the proof."""
    monkeypatch.setattr(fuse, "check_step", lambda *args: None)


@pytest.mark.usefixtures("no_backstop")
@pytest.mark.parametrize("name", NEAR_MISSES)
def test_a_near_miss_is_refused_by_the_proof(name: str) -> None:
    for choice in (PLAIN, {n: values[-1] for n, values in CHOICES.items()}):
        (remark,) = near_miss(name, choice).remarks
        assert remark.kind.value == "refused"
        assert remark.reason


@pytest.mark.usefixtures("no_backstop")
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(NEAR_MISSES)), choices)
def test_a_near_miss_in_any_spelling_is_refused_by_the_proof(
    name: str, choice: dict[str, Any]
) -> None:
    near_miss(name, choice)
