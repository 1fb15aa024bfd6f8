"""reroll-chains: unrolled hinted cells become Scans; steps that differ stay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hintc.graphdef.emit import Emitter
from hintc.hints.protocol import FIRST, LAST, RECORD, SINGLE, STACK, HintRecord
from hintc.ir import SCAN, DType, Function, FunctionRef, Module, Node, Port, Scan
from hintc.ir.scan import dtype_of
from hintc.remark import PassReport
from hintc_passes.reroll_chains import RerollChains
from recurrences import (
    DEPTH,
    UNITS,
    Array,
    identity,
    matmul,
    placeholder,
    run,
    unary,
    weights,
    zero_state,
)
from work import calls_made

Step = Callable[[Emitter, int, Port, tuple[Port, ...], dict[str, Port]], tuple[Port, ...]]
"""(emitter, t, x, states, parameters) -> next states; the first is the output."""


def rnn(
    emit: Emitter, t: int, x: Port, states: tuple[Port, ...], p: dict[str, Port]
) -> tuple[Port, ...]:
    joined = emit.node("Relu", [p["r"]], {"T": DType.FLOAT})  # the same in every step
    z = emit.add(matmul(emit, x, p["w"]), matmul(emit, states[0], joined))
    return (unary(emit, "Tanh", z),)


def lstm_like(
    emit: Emitter, t: int, x: Port, states: tuple[Port, ...], p: dict[str, Port]
) -> tuple[Port, ...]:
    h, c = states
    gate = unary(emit, "Sigmoid", emit.add(matmul(emit, x, p["w"]), matmul(emit, h, p["r"])))
    peephole = emit.binary("Mul", c, p["v"])  # computed from a state alone
    c = emit.add(emit.binary("Mul", gate, c), unary(emit, "Tanh", peephole))
    return emit.binary("Mul", gate, unary(emit, "Tanh", emit.add(c, gate))), c


def alternating(
    emit: Emitter, t: int, x: Port, states: tuple[Port, ...], p: dict[str, Port]
) -> tuple[Port, ...]:
    z = emit.add(matmul(emit, x, p["w"]), states[0])
    return (unary(emit, "Tanh" if t != 3 else "Sigmoid", z),)


def growing(
    emit: Emitter, t: int, x: Port, states: tuple[Port, ...], p: dict[str, Port]
) -> tuple[Port, ...]:
    factor = emit.constant(np.float32(t))
    z = emit.binary("Mul", emit.add(matmul(emit, x, p["w"]), states[0]), factor)
    return (unary(emit, "Tanh", z),)


def model(
    step: Step,
    states: int = 1,
    *,
    steps: int = 5,
    backwards: bool = False,
    skip: bool = False,
    hint: str = "UnidirectionalSequenceRnn",
) -> Module:
    """x [T, ?, 3] through a collected call that unrolls `step`: y, last output, final states."""
    module = Module()
    outer = Emitter(module.graph, "outer", ())
    x = placeholder(module.graph, "x", (steps, -1, DEPTH))
    params = {
        "w": outer.constant(weights(DEPTH, UNITS)),
        "r": outer.constant(weights(UNITS, UNITS, seed=1)),
        "v": outer.constant(weights(UNITS, seed=2)),
    }
    firsts = [zero_state(outer, x) for _ in range(states)]
    function = module.add_function(Function("unrolled"))
    operands = [x, *params.values(), *firsts]
    args = [Port(function.add_arg(f"a{k}", dtype_of(p))) for k, p in enumerate(operands)]
    emit = Emitter(function.graph, "", ())
    rows = emit.unpack(args[0], steps)
    inner = dict(zip(params, args[1:4], strict=True))
    history = [tuple(args[4:])]
    for t in range(steps):
        row = Port(rows, steps - 1 - t if backwards else t)
        before = history[max(0, len(history) - 2)] if skip else history[-1]
        history.append(step(emit, t, row, before, inner))
    outputs = [now[0] for now in history[1:]]
    results = [emit.pack(outputs[::-1] if backwards else outputs), *history[-1]]
    for k, port in enumerate(results):
        function.graph.add_result(f"r{k}", port)
    record = HintRecord(
        hint,
        "0",
        ((0, STACK), *((k, SINGLE) for k in (1, 2, 3)), *((4 + k, FIRST) for k in range(states))),
        ((0, STACK), *((1 + k, LAST) for k in range(states))),
    )
    function.attributes[RECORD] = record.to_bytes()
    call = module.graph.add(
        "PartitionedCall",
        operands,
        {
            "Tin": tuple(dtype_of(p) for p in operands),
            "Tout": (DType.FLOAT,) * len(results),
            "f": FunctionRef(function.name),
        },
        name="cell/call",
    )
    for k in range(len(results)):
        identity(module.graph, f"y_{k}", Port(call, k))
    return module


def check(module: Module, results: int, steps: int = 5) -> tuple[PassReport, Scan]:
    """Re-roll, compare, give the Scan."""
    names = [f"y_{k}" for k in range(results)]
    cases: list[dict[str, Array]] = [
        {"x": np.random.default_rng(b).standard_normal((steps, b, DEPTH)).astype(np.float32)}
        for b in (1, 3)
    ]
    before = [run(module, case, names) for case in cases]
    report = RerollChains().run(module)
    assert report.counts == {"re-rolled": 1}
    scans: list[Node] = [n for n in module.graph if n.op == SCAN]
    assert len(scans) == 1
    assert scans[0].name == "cell/call"
    for case, wanted in zip(cases, before, strict=True):
        for got, want in zip(run(module, case, names), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
    return report, Scan.of(scans[0])


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("steps", [2, 3, 5])
def test_rnn(steps: int, backwards: bool) -> None:
    _, scan = check(model(rnn, steps=steps, backwards=backwards), 2, steps)
    assert (len(scan.xs), len(scan.states), len(scan.invariants)) == (1, 1, 2)
    assert scan.reverse_xs == scan.reverse_ys == (backwards,)
    assert scan.hint == "UnidirectionalSequenceRnn"


def test_two_states_and_what_is_computed_from_one_alone() -> None:
    module = model(lstm_like, 2, hint="UnidirectionalSequenceLstm")
    _, scan = check(module, 3)
    assert (len(scan.states), len(scan.reverse_ys)) == (2, 1)
    assert "unrolled" not in module.functions
    body = scan.body_function(module).graph
    assert sum(node.op == "MatMul" for node in body) == 2


@pytest.mark.parametrize(
    ("step", "code", "says"),
    [(alternating, "chain-differs", "step 3 has the Sigmoid"), (growing, "chain-", "step")],
)
def test_steps_that_differ(step: Step, code: str, says: str) -> None:
    module = model(step)
    report = RerollChains().run(module)
    assert not report.changed
    assert [r.code[: len(code)] for r in report.remarks] == [code]
    assert says in report.remarks[0].reason
    assert "unrolled" in module.functions


def test_values_carried_over_two_steps_are_refused() -> None:
    report = RerollChains().run(model(rnn, skip=True))
    assert [r.code for r in report.remarks] == ["chain-order"]


def test_a_users_own_hint_keeps_its_call() -> None:
    report = RerollChains().run(model(rnn, hint="my_rnn"))
    assert not report.changed
    assert not report.remarks


def test_cost_grows_linearly() -> None:
    def work(steps: int) -> int:
        module = model(lstm_like, 2, steps=steps)
        return calls_made(lambda: RerollChains().run(module))

    work(5)  # definitions are looked up on first use
    assert work(400) < 4 * work(100) * 1.1
