"""Every lowered form of a Scan computes the recurrence, in TensorFlow and as TFLite."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from hintc.errors import HintcError
from hintc.graphdef import lower
from hintc.graphdef.emit import Emitter
from hintc.graphdef.scan_lowering import (
    has_scans,
    scan_to_fused_call,
    scan_to_while,
    unroll_scan,
)
from hintc.ir import DType, FunctionRef, Fusion, Graph, Module, Node, Port, Scan
from recurrences import (
    DEPTH,
    RNN_ARGS,
    STEPS,
    UNITS,
    Array,
    convert,
    matmul,
    rnn_model,
    rnn_step,
    run,
    run_graph_def,
    run_rnn,
    run_tflite,
    step_function,
    weights,
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


def two_outputs(emit: Emitter, arg: Mapping[str, Port]) -> tuple[list[Port], list[Port]]:
    """h' and, as output, [h', x W]: the output has a shape that no operand has."""
    states, _ = rnn_step(emit, arg)
    joined = emit.node(
        "ConcatV2",
        [states[0], matmul(emit, arg["x"], arg["w"]), emit.constant(np.int32(1))],
        {"T": DType.FLOAT, "Tidx": DType.INT32, "N": 2},
    )
    return states, [joined]


@pytest.mark.parametrize("steps", [STEPS, None])
def test_an_output_with_a_shape_of_its_own(steps: int | None) -> None:
    module, _ = rnn_model(steps=steps, step=two_outputs)
    graph_def = lower(module)
    model = convert(graph_def, ["x"], ["y", "h"])
    for batch in (1, 3):
        x = sequence(batch)
        want, _ = run_rnn(x)
        for y, _ in (run_graph_def(graph_def, {"x": x}, ["y", "h"]), run_tflite(model, {"x": x})):
            np.testing.assert_allclose(y[..., :UNITS], want, rtol=0, atol=TOLERANCE)
            np.testing.assert_allclose(
                y[..., UNITS:], x @ weights(DEPTH, UNITS), rtol=0, atol=TOLERANCE
            )


def test_only_what_is_read_is_accumulated() -> None:
    module, scan = rnn_model()
    last = module.graph["y"]
    emit = Emitter(module.graph, "last", ())
    bounds = [emit.constant(np.array([n], np.int32)) for n in (-1, 0, 1)]
    taken = emit.node(
        "StridedSlice",
        [Port(scan, 1), *bounds],
        {"T": DType.FLOAT, "Index": DType.INT32, "shrink_axis_mask": 1},
    )
    module.graph.set_operand(last, 0, taken)
    loop = scan_to_while(module, module.graph, scan)
    assert loop.attributes["T"] == (DType.INT32, DType.FLOAT, DType.FLOAT)  # t, h, x
    y, h = run(module, {"x": sequence(2)}, ["y", "h"])
    np.testing.assert_array_equal(y, h)


def test_constants_stand_in_the_body() -> None:
    module, scan = rnn_model()
    loop = scan_to_while(module, module.graph, scan)
    ref = loop.attributes["body"]
    assert isinstance(ref, FunctionRef)
    body = module.functions[ref.name].graph
    assert sum(n.op == "Const" and n.attributes["dtype"] is DType.FLOAT for n in body) == 3
    assert loop.op == "StatelessWhile"
    assert loop.name == "rnn/scan"


def test_a_scan_inside_a_scan() -> None:
    def build(emit: Emitter, arg: Mapping[str, Port]) -> tuple[list[Port], list[Port]]:
        rows = emit.pack([arg["x"], arg["x"]])
        inner = Scan(
            "rnn_step_inner",
            emit.constant(np.int32(2)),
            (rows,),
            (arg["h"],),
            (arg["w"], arg["r"], arg["b"]),
            (False,),
            (False,),
        ).add_to(module, emit.graph, name="inner")
        return [Port(inner, 0)], [Port(inner, 0)]

    module, scan = rnn_model()
    step_function(module, "rnn_step_inner", RNN_ARGS, rnn_step)
    outer = step_function(module, "outer_step", RNN_ARGS, build)
    replace(Scan.of(scan), body=outer.name).write_to(module, scan)
    x = sequence(2)
    doubled = np.repeat(x, 2, axis=0)
    want, _ = run_rnn(doubled)
    for form in ("while", "unroll"):
        copy = module.copy()
        if form == "unroll":
            unroll_scan(copy, copy.graph, copy.graph["rnn/scan"])
        y, _ = run(copy, {"x": x}, ["y", "h"])
        np.testing.assert_allclose(y, want[1::2], rtol=0, atol=TOLERANCE)
    assert scan in module.graph


def test_a_users_op_is_called_by_its_own_name() -> None:
    module, scan = rnn_model()
    parts = Scan.of(scan)
    fusion = Fusion(
        "my_rnn", {"x": parts.xs[0], "w": parts.invariants[0]}, (None, "y"), {"gain": 2.0}
    )
    parts.with_fusion(fusion).write_to(module, scan)
    module.graph.remove(module.graph["h"])
    call = scan_to_fused_call(module, module.graph, scan)
    ref = call.attributes["f"]
    assert isinstance(ref, FunctionRef)
    implements = module.functions[ref.name].attributes["_implements"]
    assert isinstance(implements, FunctionRef)
    assert implements.name == "hintc.my_rnn"
    text = dict(implements.attributes)["spec"]
    assert isinstance(text, bytes)
    spec = json.loads(text)
    assert spec == {
        "op": "my_rnn",
        "slots": ["x", None, "w", None, None],
        "results": ["y"],
        "attributes": {"gain": 2.0},
    }
    x = sequence(2)
    np.testing.assert_allclose(run(module, {"x": x}, ["y"])[0], run_rnn(x)[0], atol=TOLERANCE)


@pytest.mark.parametrize("steps", [None, 0])
def test_unrolling_needs_steps(steps: int | None) -> None:
    module, scan = rnn_model(steps=steps)
    with pytest.raises(HintcError, match="cannot be unrolled"):
        unroll_scan(module, module.graph, scan)


def test_a_body_of_another_arity_is_an_error() -> None:
    module, scan = rnn_model()
    scan.attributes["invariants"] = 2
    module.graph.set_operands(scan, scan.operands[:-1])
    with pytest.raises(HintcError, match=r"takes 6 values.*needs 5 and 2"):
        scan_to_while(module, module.graph, scan)
