"""expand-block-cells: one-op cells and layers become formulas that fuse, run and convert."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tf_keras.src.layers.rnn import legacy_cells

import hintc
from hintc.graphdef import lift, lower
from hintc.ir import SCAN, Scan
from hintc.runtime import session
from hintc.runtime.interpreter import Interpreter
from hintc_passes.expand_block_cells import ExpandBlockCells

v1 = tf.compat.v1
INPUTS, CELLS, STEPS = 3, 4, 5
RESULTS = ("i", "cs", "f", "o", "ci", "co", "h")


def weight(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).uniform(-0.7, 0.7, shape).astype(np.float32)


def operands(x: Any, cs: Any, h: Any) -> dict[str, Any]:
    names = ("wci", "wcf", "wco")
    diagonals = {name: weight(2 + n, CELLS) for n, name in enumerate(names)}
    w, b = weight(0, INPUTS + CELLS, 4 * CELLS), weight(1, 4 * CELLS)
    return {"x": x, "cs_prev": cs, "h_prev": h, "w": w, "b": b, **diagonals}


def model(build: Callable[[Any, Any, Any], Mapping[str, Any]], steps: int | None = STEPS) -> Any:
    """x [steps, ?, 3], c and h [?, 4] -> what `build` gives, by name."""
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [steps, None, INPUTS], "x")
        c, h = (v1.placeholder(tf.float32, [None, CELLS], name) for name in ("c", "h"))
        names = [tf.identity(value, f"out_{key}") for key, value in build(x, c, h).items()]
        assert names
    return graph.as_graph_def()


def feeds(batch: int) -> dict[str, Any]:
    random = np.random.default_rng(batch)
    shapes = {"x": (STEPS, batch, INPUTS), "c": (batch, CELLS), "h": (batch, CELLS)}
    return {k: random.standard_normal(s).astype(np.float32) for k, s in shapes.items()}


@contextmanager
def functional_control_flow() -> Iterator[None]:
    """Loops become While, whatever mode the process is in."""
    from tensorflow.python.ops import control_flow_util

    before = control_flow_util.ENABLE_CONTROL_FLOW_V2
    control_flow_util.ENABLE_CONTROL_FLOW_V2 = True
    try:
        yield
    finally:
        control_flow_util.ENABLE_CONTROL_FLOW_V2 = before


def outputs_of(graph_def: Any) -> list[str]:
    return [n.name for n in graph_def.node if n.name.startswith("out_")]


def converted(graph_def: Any, outputs: list[str] | None = None) -> Any:
    """Converted; the numbers at two batch sizes and two invokes are TensorFlow's."""
    outputs = outputs or outputs_of(graph_def)
    used = {i for n in graph_def.node for i in n.input}
    inputs = [name for name in ("x", "c", "h") if name in used]
    result = hintc.convert(graph_def, inputs, outputs)
    interpreter = Interpreter(result.tflite)
    for batch in (1, 3):
        values = {k: v for k, v in feeds(batch).items() if k in inputs}
        wanted = session.run(graph_def, values, outputs)
        for _ in range(2):
            got = interpreter.run(values)
            for name in outputs:
                np.testing.assert_allclose(got[name], wanted[name], rtol=0, atol=1e-6)
    return result


OPTIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "first": (tf.raw_ops.BlockLSTM, {"forget_bias": 0.5}),
    "first_peephole": (tf.raw_ops.BlockLSTM, {"use_peephole": True, "cell_clip": 0.3}),
    "first_unclipped": (tf.raw_ops.BlockLSTM, {"cell_clip": -1.0}),
    "second": (tf.raw_ops.BlockLSTMV2, {}),
    "second_peephole": (tf.raw_ops.BlockLSTMV2, {"use_peephole": True, "cell_clip": 0.3}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_block_layer_fuses_with_its_states(name: str) -> None:
    op, options = OPTIONS[name]

    def build(x: Any, c: Any, h: Any) -> Mapping[str, Any]:
        made = op(seq_len_max=STEPS, **operands(x, c, h), **options)
        return {"y": made.h, "c": made.cs[-1]}

    result = converted(model(build))
    assert len(result.report.fused) == 1, result.report.not_fused


def test_a_length_read_off_the_input_and_results_as_outputs() -> None:
    def build(x: Any, c: Any, h: Any) -> Mapping[str, Any]:
        length = tf.cast(tf.shape(x)[0], tf.int64)
        made = tf.raw_ops.BlockLSTMV2(seq_len_max=length, **operands(x, c, h), name="layer")
        return {"last": made.h[-1]}

    graph_def = model(build, steps=None)
    result = converted(graph_def, ["layer:6"])
    assert len(result.report.fused) == 1, result.report.not_fused


def test_every_result_of_a_layer_is_computed() -> None:
    def build(x: Any, c: Any, h: Any) -> Mapping[str, Any]:
        made = tf.raw_ops.BlockLSTM(seq_len_max=STEPS, **operands(x, c, h), use_peephole=True)
        return dict(zip(RESULTS, made, strict=True))

    result = converted(model(build))
    assert {r.code for r in result.report.not_fused} == {"output-is-not-h"}


def test_a_loop_of_block_cells_fuses() -> None:
    class Cell(legacy_cells.RNNCell):  # type: ignore[misc]
        state_size = (CELLS, CELLS)
        output_size = CELLS

        def __call__(self, row: Any, state: Any, scope: Any = None) -> Any:
            made = tf.raw_ops.LSTMBlockCell(**operands(row, *state), forget_bias=0.5)
            return made.h, (made.cs, made.h)

    def build(x: Any, c: Any, h: Any) -> Mapping[str, Any]:
        y, state = v1.nn.dynamic_rnn(Cell(), x, initial_state=(c, h), time_major=True)
        return {"y": y, "c": state[0]}

    with functional_control_flow():
        result = converted(model(build))
    assert len(result.report.fused) == 1, result.report.not_fused


def test_every_result_of_a_cell_is_computed() -> None:
    def build(x: Any, c: Any, h: Any) -> Mapping[str, Any]:
        options = {"use_peephole": True, "cell_clip": 0.3}
        lstm = tf.raw_ops.LSTMBlockCell(**operands(x[0], c, h), **options)
        w, b = weight(8, INPUTS + CELLS, 2 * CELLS), weight(9, 2 * CELLS)
        w_c, b_c = weight(10, INPUTS + CELLS, CELLS), weight(11, CELLS)
        gru = tf.raw_ops.GRUBlockCell(x=x[1], h_prev=h, w_ru=w, w_c=w_c, b_ru=b, b_c=b_c)
        named = {f"lstm_{name}": value for name, value in zip(RESULTS, lstm, strict=True)}
        return named | {f"gru_{name}": value for name, value in zip("ruch", gru, strict=True)}

    converted(model(build))


def _stops_early(x: Any, c: Any, h: Any) -> Mapping[str, Any]:
    return {"y": tf.raw_ops.BlockLSTM(seq_len_max=STEPS - 1, **operands(x, c, h)).h}


def _half(x: Any, c: Any, h: Any) -> Mapping[str, Any]:
    given = {k: tf.cast(v, tf.half) for k, v in operands(x, c, h).items()}
    return {"y": tf.raw_ops.BlockLSTM(seq_len_max=STEPS, **given).h}


@pytest.mark.parametrize(("build", "code"), [(_stops_early, "block-length"), (_half, "block-type")])
def test_what_cannot_be_expanded_stays(build: Any, code: str) -> None:
    module = lift(model(build))
    report = ExpandBlockCells().run(module)
    assert not report.changed
    assert [r.code for r in report.remarks if r.kind.value == "refused"] == [code]


def test_controls_and_device_go_along() -> None:
    def build(x: Any, c: Any, h: Any) -> Mapping[str, Any]:
        before = tf.raw_ops.Print(input=x, data=[x], message="before")
        given = {k: tf.convert_to_tensor(v) for k, v in operands(x, c, h).items()}
        steps = tf.constant(STEPS, tf.int64)
        with tf.control_dependencies([before]), tf.device("/cpu:0"):
            made = tf.raw_ops.BlockLSTM(seq_len_max=steps, **given)
        with tf.control_dependencies([made.h]):
            return {"y": made.h, "after": tf.identity(x)}

    module = lift(model(build))
    graph = module.graph
    for name in ("out_y", "out_after"):
        graph.add_result(f"{name}_result", graph[name].port())
    assert ExpandBlockCells().run(module).counts == {"expanded": 1}
    (scan,) = (n for n in graph if n.op == SCAN)
    assert "cpu:0" in scan.device.lower()
    assert [n.op for n in Scan.of(scan).trip_count.node.controls] == ["Print"]
    assert session.run(lower(module), feeds(2), ["out_y"])["out_y"].shape == (STEPS, 2, CELLS)
