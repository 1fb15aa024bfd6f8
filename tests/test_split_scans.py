"""split-scans: stacked cells come apart, whatever connects them; the results stay the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from hintc.graphdef.emit import Emitter
from hintc.ir import SCAN, DType, Graph, Module, Port, Scan
from hintc_passes.split_scans import SplitScans
from recurrences import (
    DEPTH,
    UNITS,
    Array,
    Body,
    identity,
    matmul,
    placeholder,
    run,
    step_function,
    unary,
    weights,
    zero_state,
)

STEPS = 4
Parts = tuple[list[Port], list[Port]]


def model(build: Body, states: int, ys: int, *, reverse: bool = False) -> Module:
    """x [4, ?, 3] through one Scan; outputs y_0.., final states h_0.."""
    module = Module()
    emit = Emitter(module.graph, "outer", ())
    x = placeholder(module.graph, "x", (STEPS, -1, DEPTH))
    names = ["x", *(f"h{k}" for k in range(states)), "w", "r"]
    args = {"t": DType.INT32, **dict.fromkeys(names, DType.FLOAT)}
    body = step_function(module, "step", args, build)
    scan = Scan(
        body.name,
        emit.constant(np.int32(STEPS)),
        (x,),
        tuple(zero_state(emit, x) for _ in range(states)),
        (emit.constant(weights(DEPTH, UNITS)), emit.constant(weights(UNITS, UNITS, seed=1))),
        (reverse,),
        (reverse,) * ys,
    ).add_to(module, module.graph, name="layers/scan")
    for k in range(states):
        identity(module.graph, f"h_{k}", Port(scan, k))
    for k in range(ys):
        identity(module.graph, f"y_{k}", Port(scan, states + k))
    return module


def cell(emit: Emitter, projected: Port, h: Port, r: Port) -> Port:
    return unary(emit, "Tanh", emit.add(projected, matmul(emit, h, r)))


def stacked(emit: Emitter, arg: Mapping[str, Port]) -> Parts:
    """Three layers; y is the last."""
    h0 = cell(emit, matmul(emit, arg["x"], arg["w"]), arg["h0"], arg["r"])
    h1 = cell(emit, matmul(emit, h0, arg["r"]), arg["h1"], arg["r"])
    h2 = cell(emit, matmul(emit, h1, arg["r"]), arg["h2"], arg["r"])
    return [h0, h1, h2], [h2]


def residual(emit: Emitter, arg: Mapping[str, Port]) -> Parts:
    """Two layers in the other order of states, a residual, and an output of the first."""
    h1 = cell(emit, matmul(emit, arg["x"], arg["w"]), arg["h1"], arg["r"])
    h0 = cell(emit, h1, arg["h0"], arg["r"])
    return [h0, h1], [emit.add(h0, h1), h1]


def delayed(emit: Emitter, arg: Mapping[str, Port]) -> Parts:
    """The second layer reads the first one's state of the step before; a state nobody feeds."""
    h0 = cell(emit, matmul(emit, arg["x"], arg["w"]), arg["h0"], arg["r"])
    h1 = cell(emit, arg["h0"], arg["h1"], arg["r"])
    return [h0, h1, h1], [arg["h2"]]


def counting(emit: Emitter, arg: Mapping[str, Port]) -> Parts:
    """Both layers read the step's index; one output reads no state."""
    t = emit.node("Cast", [arg["t"]], {"SrcT": DType.INT32, "DstT": DType.FLOAT})
    projected = emit.binary("Mul", matmul(emit, arg["x"], arg["w"]), t)
    h0 = cell(emit, projected, arg["h0"], arg["r"])
    h1 = cell(emit, emit.binary("Mul", h0, t), arg["h1"], arg["r"])
    return [h0, h1], [h1, projected]


def coupled(emit: Emitter, arg: Mapping[str, Port]) -> Parts:
    """Each state depends on the other: one recurrence."""
    projected = matmul(emit, arg["x"], arg["w"])
    return [
        cell(emit, projected, arg["h1"], arg["r"]),
        cell(emit, projected, arg["h0"], arg["r"]),
    ], [arg["h0"]]


def random(emit: Emitter, arg: Mapping[str, Port]) -> Parts:
    h0 = cell(emit, matmul(emit, arg["x"], arg["w"]), arg["h0"], arg["r"])
    noise = emit.node("RandomUniform", [emit.shape(h0)], {"T": DType.INT32, "dtype": DType.FLOAT})
    return [h0, emit.add(cell(emit, h0, arg["h1"], arg["r"]), noise)], [h0]


def scans(graph: Graph) -> list[Scan]:
    return [Scan.of(node) for node in graph if node.op == SCAN]


def sequence(batch: int) -> dict[str, Array]:
    x = np.random.default_rng(batch).standard_normal((STEPS, batch, DEPTH))
    return {"x": x.astype(np.float32)}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("build", "states", "ys", "parts"),
    [(stacked, 3, 1, 3), (residual, 2, 2, 2), (delayed, 3, 1, 3), (counting, 2, 2, 2)],
)
def test_split(build: Body, states: int, ys: int, parts: int, reverse: bool) -> None:
    module = model(build, states, ys, reverse=reverse)
    names = [*(f"h_{k}" for k in range(states)), *(f"y_{k}" for k in range(ys))]
    before = [run(module, sequence(batch), names) for batch in (1, 3)]
    report = SplitScans().run(module)
    assert report.counts["split"] == 1
    found = scans(module.graph)
    assert len(found) == parts
    assert all(len(scan.states) == 1 for scan in found)
    assert "step" not in module.functions
    for batch, wanted in zip((1, 3), before, strict=True):
        for got, want in zip(run(module, sequence(batch), names), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def test_each_part_reads_only_what_it_needs() -> None:
    module = model(stacked, 3, 1)
    SplitScans().run(module)
    first, second, _ = scans(module.graph)
    assert [p.node.op for p in first.xs] == ["Placeholder"]
    assert [p.node.name for p in second.xs] == ["layers/scan/part_0"]
    assert (len(first.invariants), len(second.invariants)) == (2, 1)


def test_one_recurrence_stays() -> None:
    module = model(coupled, 2, 1)
    report = SplitScans().run(module)
    assert not report.changed
    assert not report.remarks
    assert len(scans(module.graph)) == 1


def elementwise(emit: Emitter, arg: Mapping[str, Port]) -> Parts:
    """A map: no states."""
    return [], [unary(emit, "Tanh", emit.add(arg["x"], arg["x"]))]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_map_of_elementwise_ops_is_no_loop(reverse: bool) -> None:
    module = model(elementwise, 0, 1, reverse=reverse)
    before = [run(module, sequence(batch), ["y_0"]) for batch in (1, 3)]
    report = SplitScans().run(module)
    assert [r.code for r in report.remarks] == ["outputs-hoisted"]
    assert not scans(module.graph)
    for batch, wanted in zip((1, 3), before, strict=True):
        np.testing.assert_array_equal(run(module, sequence(batch), ["y_0"]), wanted)


def test_side_effects_keep_their_order() -> None:
    module = model(random, 2, 1)
    report = SplitScans().run(module)
    assert not report.changed
    assert [r.code for r in report.remarks] == ["split-side-effects"]


def test_again_changes_nothing() -> None:
    module = model(stacked, 3, 1)
    SplitScans().run(module)
    assert not SplitScans().run(module).changed


def residual_cell(emit: Emitter, arg: Mapping[str, Port]) -> Parts:
    """One layer; y = 2 (h + x W), where x W is the cell's own."""
    projected = matmul(emit, arg["x"], arg["w"])
    h = cell(emit, projected, arg["h0"], arg["r"])
    total = emit.add(h, projected)
    return [h], [emit.binary("Mul", total, emit.constant(np.float32(2))), h]


def scaled_by_time(emit: Emitter, arg: Mapping[str, Port]) -> Parts:
    h = cell(emit, matmul(emit, arg["x"], arg["w"]), arg["h0"], arg["r"])
    t = emit.node("Cast", [arg["t"]], {"SrcT": DType.INT32, "DstT": DType.FLOAT})
    return [h], [emit.binary("Mul", h, t)]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_residual_follows_the_scan(reverse: bool) -> None:
    module = model(residual_cell, 1, 2, reverse=reverse)
    names = ["h_0", "y_0", "y_1"]
    before = run(module, sequence(3), names)
    report = SplitScans().run(module)
    assert report.counts == {"outputs hoisted": 1}
    (scan,) = scans(module.graph)
    assert sum(n.op == "Mul" for n in scan.body_function(module).graph) == 0
    for got, want in zip(run(module, sequence(3), names), before, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
    assert not SplitScans().run(module).changed


def test_what_depends_on_the_index_stays() -> None:
    module = model(scaled_by_time, 1, 1)
    assert not SplitScans().run(module).changed
