"""Loops and unrolled steps, packed and tiled: what they compute, what is chosen, and why."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest

import fit_forms
import hintc
from hintc.graphdef import lower
from hintc.ir import SCAN, DType, Module, Node, Scan
from hintc.runtime import session
from hintc.runtime.interpreter import Interpreter
from hintc.tflite.flatbuffer import Model
from hintc.tflite.handoff import to_tflite
from hintc_passes.choose_form import ChooseForm
from hintc_passes.fuse_lstm import FuseLstm
from hintc_passes.scans.form_cost import (
    MOST_STEPS,
    PRECISIONS,
    Precision,
    Work,
    nanoseconds,
    prices,
    tiles,
)
from hintc_passes.scans.packed_cell import spell_packed
from hintc_passes.scans.tiling import tile_scan
from lstm_spellings import CELLS, CHOICES, INPUTS, Cell, step_of
from recurrences import DEPTH, STEPS, rnn_model, run, run_rnn, run_tflite
from scan_builder import scan_module

Array = Any
PLAIN = {name: values[0] for name, values in CHOICES.items()}


def sequence(batch: int, steps: int) -> Array:
    return np.random.default_rng(batch).standard_normal((steps, batch, DEPTH)).astype("f4")


# -- tiling ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("steps", [STEPS, None])
def test_tiles_compute_the_same(steps: int | None, reverse: tuple[bool, bool]) -> None:
    """5 steps by 2 and any number of steps: the last tile is padded, h and y are both read."""
    module, scan = rnn_model(steps=steps, reverse_x=reverse[0], reverse_y=reverse[1])
    tiled = tile_scan(module, module.graph, scan, 2)
    assert tiled is not None and tiled.name == "rnn/scan"
    model = to_tflite(lower(module), ["x"], ["y", "h"])
    for batch, length in ((1, STEPS), (3, STEPS), *(() if steps else ((2, 1), (2, 4), (1, 7)))):
        x = sequence(batch, length)
        wanted = run_rnn(x, reverse_x=reverse[0], reverse_y=reverse[1])
        for found in (run(module, {"x": x}, ["y", "h"]), run_tflite(model, {"x": x})):
            for one, want in zip(found, wanted, strict=True):
                np.testing.assert_allclose(one, want, rtol=0, atol=1e-6)


def test_nothing_is_padded_where_tiles_fit() -> None:
    module, scan = rnn_model(steps=6)
    assert tile_scan(module, module.graph, scan, 3) is not None
    assert "Pad" not in {node.op for node in module.graph}
    (tiled,) = (Scan.of(n) for n in module.graph if n.op == SCAN)
    ops = [n.op for n in tiled.body_function(module).graph]
    assert ops.count("Tanh") == 3 and "GatherV2" not in ops
    x = sequence(2, 6)
    for found, want in zip(run(module, {"x": x}, ["y", "h"]), run_rnn(x), strict=True):
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-6)


def reads_t(emit: Any, arg: Any) -> Any:
    t = emit.node("Cast", [arg["t"]], {"SrcT": DType.INT32, "DstT": DType.FLOAT})
    h = emit.add(arg["h"], t)
    return [h], [h]


def could_fail(emit: Any, arg: Any) -> Any:
    kind = {"T": DType.FLOAT}
    checked = emit.node("CheckNumerics", [arg["h"]], {**kind, "message": b"no number"})
    return [checked], [checked]


@pytest.mark.parametrize("step", [reads_t, could_fail])
def test_what_is_not_tiled(step: Any) -> None:
    module, scan = rnn_model(step=step)
    assert tile_scan(module, module.graph, scan, 2) is None
    assert scan in module.graph and Scan.of(scan).body == "rnn_step"


# -- the packed spelling ---------------------------------------------------------------------------


def lstm(cell: Cell, steps: int) -> tuple[Module, Node]:
    states = (cell.outputs, CELLS)
    module, node = scan_module(step_of(cell, PLAIN), x=(INPUTS,), states=states, steps=steps)
    return module, node


def lstm_feeds(module: Module, batch: int) -> dict[str, Array]:
    random = np.random.default_rng(batch)
    shapes: Any = {arg.name: arg.attributes["shape"] for arg in module.graph.args}
    return {
        name: random.standard_normal([batch if d < 0 else d for d in shape.dims]).astype("f4")
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize(
    "cell",
    [
        Cell(),
        Cell(coupled=True, biased=False),
        Cell(projected=True, proj_clip=0.2),
        Cell(cell_clip=0.25, activation="relu6"),
        Cell(peephole=True),  # is not packed, but becomes a loop all the same
    ],
    ids=str,
)
@pytest.mark.parametrize(("form", "steps"), [("while", 1), ("while", 3), ("unroll", 0)])
def test_every_variant_of_an_lstm(cell: Cell, form: Any, steps: int) -> None:
    module, node = lstm(cell, steps=4)
    outputs = ["out0", "out1", "out2"]
    wanted = {
        batch: session.run(lower(module), lstm_feeds(module, batch), outputs) for batch in (1, 3)
    }
    FuseLstm().run(module)
    assert Scan.of(node).fusion is not None
    ChooseForm(form=form, steps=steps).run(module)
    names = [arg.name for arg in module.graph.args]
    model = Interpreter(to_tflite(lower(module), names, outputs))
    for batch, want in wanted.items():
        for _ in range(2):
            found = model.run(lstm_feeds(module, batch))
            for name in outputs:
                np.testing.assert_allclose(found[name], want[name], rtol=0, atol=1e-5)


def test_the_packed_step_has_one_product_for_all_gates() -> None:
    module, node = lstm(Cell(), steps=4)
    FuseLstm().run(module)
    packed = spell_packed(module, module.graph, node)
    assert packed is not None and Scan.of(packed).fusion is None
    ops = [n.op for n in Scan.of(packed).body_function(module).graph]
    assert ops.count("MatMul") == 2 and ops.count("Split") == 1
    assert ops.count("Sigmoid") == 3 and ops.count("Tanh") == 2


# -- whole models ----------------------------------------------------------------------------------


def layer(kind: str, units: int, **options: Any) -> Any:
    return getattr(keras.layers, kind)(units, return_sequences=True, return_state=True, **options)


def small(kind: str, steps: int | None, **options: Any) -> Any:
    """Outputs: the sequence and every final state."""
    keras.utils.set_random_seed(1)
    x = keras.Input((steps, 3))
    return keras.Model(x, layer(kind, 5, **options)(x))


def difference(model: Any, tflite: bytes, shapes: list[tuple[int, ...]]) -> float:
    """The largest over all outputs, batches, and two runs each."""
    interpreter, worst = Interpreter(tflite), 0.0
    (name,) = (t.name for t in interpreter.inputs)
    for shape in shapes:
        x = np.random.default_rng(shape[0]).standard_normal(shape).astype("f4")
        wanted = [np.asarray(value) for value in keras.tree.flatten(model(x))]
        for _ in range(2):
            found = list(interpreter.run({name: x}).values())
            worst = max(
                worst, *(float(abs(f - w).max()) for f, w in zip(found, wanted, strict=True))
            )
    return worst


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
@pytest.mark.parametrize(
    ("steps", "options"), [(7, {"go_backwards": True}), (None, {})], ids=["static", "dynamic"]
)
def test_fast_loops_equal_keras(kind: str, steps: int | None, options: dict[str, Any]) -> None:
    model = small(kind, steps, **options)
    result = hintc.convert(model, form="while", optimize_for="latency")
    remark = next(r for r in result.report.remarks if r.code == "form-while")
    assert "steps in each iteration" in remark.reason
    assert "unknown batch, 1 assumed" in remark.reason
    assert ("unknown steps" in remark.reason) == (steps is None)
    lengths = [steps] if steps else [1, 6, 9]
    assert difference(model, result.tflite, [(b, t, 3) for b in (1, 3) for t in lengths]) < 1e-5


@pytest.mark.parametrize("form", ["while", "unroll", "fused"])
def test_int8_weights_in_every_form(form: Any) -> None:
    """Weights and activations are rounded to 1/127 of their range: a few thousandths of 1."""
    keras.utils.set_random_seed(2)
    x = keras.Input((6, 20))
    model = keras.Model(x, layer("LSTM", 32)(x))
    result = hintc.convert(model, quantize="dynamic", form=form, optimize_for="latency")
    plain = hintc.convert(model, form=form, optimize_for="latency")
    assert len(result.tflite) < 0.7 * len(plain.tflite)
    assert 1e-6 < difference(model, result.tflite, [(1, 6, 20), (2, 6, 20)]) < 2e-2


# -- integers --------------------------------------------------------------------------------------


def integer_model(kind: str) -> tuple[Any, Any]:
    """Two layers, whose loops have nodes of the same names; and samples."""
    keras.utils.set_random_seed(5)
    x = keras.Input((12, 20), batch_size=1)
    first, second = (getattr(keras.layers, kind)(48, return_sequences=True) for _ in range(2))
    model = keras.Model(x, second(first(x)))
    random = np.random.default_rng(5)
    samples = [[random.standard_normal((1, 12, 20)).astype("f4")] for _ in range(20)]
    return model, lambda: samples


def mean_error(result: Any) -> float:
    (error,) = result.report.cost.outputs.values()
    return float(error.mean)


def float_states(tflite: bytes) -> int:
    """How many sums the model computes in float32."""
    model = Model.read(tflite)
    sums = [(s, op) for s, op in model.operators() if model.op_name(op) == "ADD"]
    return sum(s.dtype(op.outputs[0]) == np.float32 for s, op in sums)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("form", ["while", "unroll"])
def test_states_of_integer_models_stay_float_between_fast_steps(kind: str, form: Any) -> None:
    model, samples = integer_model(kind)
    convert = partial(
        hintc.convert, model, quantize="int8", representative_dataset=samples, form=form
    )
    small, fast = convert(), convert(optimize_for="latency")
    assert float_states(small.tflite) == 0
    steps = 12 if form == "unroll" else 6  # in an iteration
    # of unrolled steps the first, which starts from zeros, adds nothing
    assert 2 * (steps - 1) <= float_states(fast.tflite) <= 2 * steps
    assert mean_error(fast) < 0.95 * mean_error(small)


def test_integers_run_fastest_as_steps() -> None:
    """The integer kernel takes many times as long; TFLite Micro gets it all the same."""
    model, samples = integer_model("LSTM")
    convert = partial(hintc.convert, model, quantize="int8", representative_dataset=samples)
    assert chosen(convert().report) == ["form-fused"] * 2
    assert "form-fused" not in chosen(convert(optimize_for="latency", check=True).report)
    assert chosen(convert(optimize_for="latency", target="tflm").report) == ["form-fused"] * 2


# -- the choice ------------------------------------------------------------------------------------


def work(**changes: int) -> Work:
    plain = Work(
        steps=50, batch=8, operations=12, elements=17 * 256, weights=4 * 256 * 256,
        inputs=4 * 128 * 256, outputs=256,
    )  # fmt: skip
    return replace(plain, **changes)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_more_work_takes_longer(precision: Precision) -> None:
    for form in ("fused", "unroll", "while"):
        for change in ({"steps": 100}, {"batch": 16}, {"weights": 8 * 256 * 256}):
            more = nanoseconds(work(**change), form, precision)
            assert more > nanoseconds(work(), form, precision)


def test_recurrences_share_the_cache() -> None:
    alone = work(steps=100, batch=4, weights=4 * 128 * 128)
    beside = replace(alone, recurrences=2)
    time = partial(nanoseconds, precision="int8 weights")
    assert time(beside, "unroll") > time(alone, "unroll")
    for tile in (1, 10):  # so few copies fit beside those of another
        assert time(beside, "while", tile=tile) == time(alone, "while", tile=tile)


def test_tiles_divide_or_are_padded() -> None:
    assert tiles(None) == [1, 4, 8]
    assert tiles(12) == [1, 2, 3, 4, 6]
    assert tiles(13) == tiles(17) == [1, 4, 8] and tiles(3) == [1, 3]
    assert all(max(tiles(steps)) <= MOST_STEPS for steps in range(1, 200))


def chosen(report: Any) -> list[str]:
    return [r.code for r in report.remarks if r.code.startswith("form-")]


def test_what_is_chosen_and_what_is_said() -> None:
    """Far from where estimates are close: a big batch with int8 weights; targets and states."""
    keras.utils.set_random_seed(3)
    x = keras.Input((40, 64), batch_size=16)
    model = keras.Model(x, keras.layers.LSTM(128)(x))
    choose: Any = lambda **options: hintc.convert(model, quantize="dynamic", **options).report  # noqa: E731
    fast = choose(optimize_for="latency")
    assert chosen(fast) == ["form-while"] or chosen(fast) == ["form-unroll"]
    (remark,) = (r for r in fast.remarks if r.code in ("form-while", "form-unroll"))
    assert "an estimated 0." in remark.reason and "of the fused kernel's time" in remark.reason
    assert "(batch 16)" in remark.reason
    assert chosen(choose()) == ["form-fused"]
    assert chosen(choose(optimize_for="latency", state="persist")) == ["form-fused"]


def test_micro_always_gets_the_kernel() -> None:
    x = keras.Input((40, 64), batch_size=16)
    model = keras.Model(x, keras.layers.LSTM(128)(x))
    report = hintc.convert(model, optimize_for="latency", target="tflm").report
    assert chosen(report) == ["form-fused"]


def test_a_hinted_op_of_ones_own_stays_one() -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as running:
        x = v1.placeholder(tf.float32, [6, None, 3], "x")
        h = tf.zeros([tf.shape(x)[1], 3])
        for row in tf.unstack(x):
            hint = hintc.OpHint("my_cell")
            a, b = hint.add_inputs(row, h)
            (h,) = hint.add_outputs(tf.tanh(a + b))
        y = tf.identity(h, "y")
        result = hintc.compile(running, [x], [y], optimize_for="latency")
    assert "form-while" not in chosen(result.report)


def test_zeros_that_outputs_are_written_into_are_not_stored() -> None:
    keras.utils.set_random_seed(4)
    x = keras.Input((50, 3), batch_size=8)
    model = keras.Model(x, keras.layers.GRU(20, return_sequences=True)(x))
    result = hintc.convert(model)
    assert result.report.operators["FILL"] >= 1 and result.report.operators["WHILE"] == 1
    assert len(result.tflite) < 50 * 8 * 20 * 4
    assert difference(model, result.tflite, [(8, 50, 3)]) < 1e-5


# -- the prices ------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
def test_prices_are_those_fitted_to_the_data_kept(precision: Precision) -> None:
    rows = fit_forms.measured()[precision]
    kept = prices(precision)
    assert fit_forms.fitted(rows) == pytest.approx(dict(kept), rel=1e-2)
    choices = fit_forms.chosen_and_fastest(rows, dict(kept))
    assert len(choices) >= 20
    assert max(loss for _, _, loss in choices.values()) <= 1.2


def test_a_final_state_that_the_kernel_does_not_give_is_not_spelled() -> None:
    module, node = lstm(Cell(), steps=4)
    FuseLstm().run(module)
    found = Scan.of(node)
    assert found.fusion is not None
    lost = replace(found.fusion, results=(None, *found.fusion.results[1:]))
    found.with_fusion(lost).write_to(module, node)
    assert spell_packed(module, module.graph, node) is None
