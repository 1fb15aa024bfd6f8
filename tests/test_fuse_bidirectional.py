"""fuse-bidirectional: which pairs become one kernel, which stay two, and that all stay equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tf_keras.src.layers.rnn.legacy_cells import BasicRNNCell, LSTMCell, LSTMStateTuple

import hintc
from hintc.ir import DType, Module, Port, Tensor
from hintc.runtime import session
from hintc.runtime.interpreter import Interpreter
from hintc.tflite.inspect import op_counts
from hintc_passes.directions.precedence import Precedence
from hintc_passes.directions.view import View
from hinted_graphs import INPUTS, PROJECTED, STEPS, UNITS, HintedModel, freeze, placeholder

v1 = tf.compat.v1
KERNELS = {
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "lstm",
    "UNIDIRECTIONAL_SEQUENCE_RNN": "rnn",
    "BIDIRECTIONAL_SEQUENCE_LSTM": "both lstm",
    "BIDIRECTIONAL_SEQUENCE_RNN": "both rnn",
}
ONE, TWO = {"both lstm": 1}, {"lstm": 2}


def run(cell: Any, x: Any, scope: str, state: Any = None) -> tuple[Any, Any]:
    """A forward layer over a time-major sequence."""
    found: tuple[Any, Any] = v1.nn.dynamic_rnn(
        cell, x, initial_state=state, dtype=tf.float32, time_major=True, scope=scope
    )
    return found


def run_back(cell: Any, x: Any, scope: str, state: Any = None) -> tuple[Any, Any]:
    """A layer that starts at the sequence's end; its output in the sequence's order."""
    y, state = run(cell, tf.reverse(x, [0]), scope, state)
    return tf.reverse(y, [0]), state


def lstm(**options: Any) -> Any:
    return LSTMCell(options.pop("units", UNITS), **options)


def sequence() -> Any:
    return placeholder([STEPS, None, INPUTS])


def both(cell: Callable[[], Any], time_major: bool = True, **options: Any) -> tuple[Any, Any]:
    x = placeholder([STEPS, None, INPUTS] if time_major else [None, STEPS, INPUTS])
    found: tuple[Any, Any] = v1.nn.bidirectional_dynamic_rnn(
        cell(), cell(), x, dtype=tf.float32, time_major=time_major, **options
    )
    return found


def named(*values: Any) -> list[Any]:
    return [tf.identity(value, name=f"out{at}") for at, value in enumerate(values)]


def outputs_and_states(time_major: bool) -> list[Any]:
    (forward, backward), (one, other) = both(lstm, time_major)
    return named(forward, backward, one.c, one.h, other.c, other.h)


def with_lengths() -> list[Any]:
    lengths = v1.placeholder(tf.int32, [None], "lengths")
    return named(*both(lstm, time_major=False, sequence_length=lengths)[0])


def merged_and_states() -> list[Any]:
    outputs, (one, other) = both(lambda: lstm(num_proj=PROJECTED, use_peepholes=True))
    return named(tf.concat(outputs, -1), one.h, other.h, other.c)


def given_states() -> list[Any]:
    states = [
        LSTMStateTuple(placeholder([None, UNITS], f"c{n}"), placeholder([None, UNITS], f"h{n}"))
        for n in range(2)
    ]
    outputs, _ = both(lstm, initial_state_fw=states[0], initial_state_bw=states[1])
    return named(tf.concat(outputs, -1))


def both_orders() -> list[Any]:
    """The backward layer's output is read in both orders, and by its last step."""
    x = sequence()
    forward, _ = run(lstm(), x, "fw")
    back, _ = run(lstm(), tf.reverse(x, [0]), "bw")
    return named(forward + tf.reverse(back, [0]), back * 2.0, back[-1])


def backward_first() -> list[Any]:
    """Both read a reversed sequence, one of them reversed again; concatenated the other way."""
    x = tf.reverse(sequence(), [0])
    back, _ = run(lstm(), x, "bw")
    forward, _ = run(lstm(), tf.reverse(x, [0]), "fw")
    return named(tf.concat([tf.reverse(back, [0]), forward], 2))


def two_pairs() -> list[Any]:
    x = sequence()
    layers = [f(lstm(), x, f"l{n}")[0] for n, f in enumerate([run, run, run_back, run_back])]
    return named(tf.concat([layers[0], layers[2]], 2), tf.concat([layers[1], layers[3]], 2))


def stacked() -> list[Any]:
    value = sequence()
    for layer in range(3):
        pair = [f(lstm(), value, f"{f.__name__}{layer}")[0] for f in (run, run_back)]
        value = tf.concat(pair, 2)
    return named(value)


def simple() -> list[Any]:
    outputs, _ = both(lambda: BasicRNNCell(UNITS), time_major=False)
    return named(tf.concat(outputs, 2))


def other_units() -> list[Any]:
    x = sequence()
    return named(run(lstm(), x, "fw")[0], run_back(lstm(units=UNITS + 1), x, "bw")[0])


def other_clip() -> list[Any]:
    x = sequence()
    return named(run(lstm(), x, "fw")[0], run_back(lstm(cell_clip=0.1), x, "bw")[0])


def one_after_the_other() -> list[Any]:
    x = sequence()
    forward, state = run(lstm(), x, "fw")
    return named(forward, run_back(lstm(), x, "bw", state)[0])


def crossed() -> list[Any]:
    """Either pair could be joined, but not both: each would need the other."""
    x = sequence()
    f1, end1 = run(lstm(), x, "f1")
    z = tf.tanh(x)
    f2, end2 = run(lstm(), z, "f2")
    b1, _ = run_back(lstm(), x, "b1", end2)
    b2, _ = run_back(lstm(), z, "b2", end1)
    return named(f1, f2, b1, b2)


def other_axis() -> list[Any]:
    """Reversed along the batch, which is no backward layer."""
    x = sequence()
    return named(run(lstm(), x, "fw")[0], run(lstm(), tf.reverse(x, [1]), "bw")[0])


CASES: dict[str, tuple[Callable[[], list[Any]], dict[str, int], int]] = {
    "outputs and states": (lambda: outputs_and_states(True), ONE, 0),
    "batch-major": (lambda: outputs_and_states(False), ONE, 0),
    "merged and states": (merged_and_states, ONE, 0),
    "given states": (given_states, ONE, 0),
    "both orders": (both_orders, ONE, 1),
    "backward first": (backward_first, ONE, 0),
    "two pairs": (two_pairs, {"both lstm": 2}, 0),
    "stacked": (stacked, {"both lstm": 3}, 0),
    "simple": (simple, {"both rnn": 1}, 0),
    "other units": (other_units, TWO, 2),
    "other clip": (other_clip, TWO, 2),
    "one after the other": (one_after_the_other, TWO, 2),
    "other axis": (other_axis, TWO, 1),
}


def kernels(tflite: bytes) -> dict[str, int]:
    return {KERNELS[op]: n for op, n in op_counts(tflite).items() if op in KERNELS}


def converted(model: HintedModel, **options: Any) -> Any:
    return hintc.convert(
        model.graph_def, inputs=list(model.inputs), outputs=model.outputs, **options
    )


def check(model: HintedModel, result: Any, tolerance: float = 1e-5) -> None:
    """Equal to TensorFlow at two batch sizes on two invokes, in both runtimes and lowered."""
    for batch in (1, 3):
        feeds = model.feeds(batch)
        wanted = session.run(model.graph_def, feeds, model.outputs)
        runs = [session.run(result.graph_def, feeds, model.outputs)]
        for runtime in ("litert", "tensorflow"):
            instance = Interpreter(result.tflite, runtime=runtime)
            runs += [instance.run(feeds), instance.run(feeds)]
        for found in runs:
            for name, value in wanted.items():
                np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_pairs(name: str) -> None:
    build, wanted, reversals = CASES[name]
    model = freeze(build)
    result = converted(model)
    remarks = [str(remark) for remark in result.report.remarks]
    assert kernels(result.tflite) == wanted, remarks
    assert op_counts(result.tflite)["REVERSE_V2"] == reversals
    check(model, result)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (other_units, "differ in sizes"),
        (other_clip, "differ in sizes, options"),
        (one_after_the_other, "one needs a result of the other"),
        (with_lengths, "from its length: the kernel reverses whole rows"),
    ],
)
def test_a_pair_that_stays_two_says_why(build: Callable[[], list[Any]], reason: str) -> None:
    remarks = converted(freeze(build)).report.remarks
    (note,) = [r for r in remarks if r.code == "bidirectional-not-joined"]
    assert reason in note.reason


def test_pairs_that_would_need_each_other_are_not_both_joined() -> None:
    model = freeze(crossed)
    result = converted(model)
    assert kernels(result.tflite) == {"both lstm": 1, "lstm": 2}
    check(model, result)


def test_int8_weights() -> None:
    model = freeze(merged_and_states)
    result = converted(model, quantize="dynamic")
    assert kernels(result.tflite) == ONE
    check(model, result, 2e-2)
    assert converted(model).tflite != result.tflite


def test_int8_rnn_stays_two_kernels() -> None:
    model = freeze(simple)
    result = converted(model, quantize="dynamic")
    assert kernels(result.tflite) == {"rnn": 2}
    assert "int8 weights" in str(result.report.remarks)
    check(model, result, 7e-2)


def test_two_kernels_in_tflite_micro() -> None:
    result = converted(freeze(lambda: outputs_and_states(False)), target="tflm", check=True)
    assert kernels(result.tflite) == TWO


def test_two_kernels_where_one_is_not_wanted() -> None:
    model = freeze(lambda: outputs_and_states(True))
    pipeline = hintc.PassPipeline.DEFAULT.remove("fuse-bidirectional")
    result = converted(model, pipeline=pipeline)
    assert kernels(result.tflite) == TWO
    check(model, result)


@pytest.mark.parametrize("form", ["while", "unroll"])
def test_other_forms_are_kept(form: str) -> None:
    model = freeze(simple)
    result = converted(model, form=form)
    assert kernels(result.tflite) == {}
    check(model, result)


def test_the_report_names_both_layers() -> None:
    report = converted(freeze(lambda: outputs_and_states(True))).report
    assert report.fused_ops == {"BIDIRECTIONAL_SEQUENCE_LSTM": 1}
    assert Counter(r.code for r in report.fused) == {"bidirectional": 2}


def constant(module: Module, *values: int) -> Port:
    tensor = Tensor.of(np.array(values, np.int32))
    return Port(module.graph.add("Const", (), {"dtype": DType.INT32, "value": tensor}))


def test_views() -> None:
    module = Module()
    graph = module.graph
    x = Port(graph.add("Placeholder", (), {"dtype": DType.FLOAT}, name="x"))
    turned = Port(graph.add("ReverseV2", [x, constant(module, -2)], {}))
    moved = Port(graph.add("Transpose", [turned, constant(module, 1, 2, 0)], {}))
    again = Port(graph.add("ReverseV2", [moved, constant(module, 2)], {}))
    assert View.of(turned) == View(x, (0, 1, 2), frozenset({1}))
    assert View.of(moved) == View(x, (1, 2, 0), frozenset({0}))
    assert View.of(again) == View(x, (1, 2, 0), frozenset({0, 2}))
    steps = graph.add("Unpack", [x], {"num": 3, "axis": 0})
    backwards = graph.add("Pack", [Port(steps, n) for n in (2, 1, 0)], {"N": 3, "axis": 0})
    shuffled = graph.add("Pack", [Port(steps, n) for n in (2, 0, 1)], {"N": 3, "axis": 0})
    assert View.of(Port(backwards)) == View(x, (0, 1, 2), frozenset({0}))
    assert View.of(Port(shuffled)) == View(Port(shuffled))


def test_precedence_knows_what_was_joined() -> None:
    graph = Module().graph
    a, b, c, d = (graph.add("Placeholder", (), {"dtype": DType.FLOAT}) for _ in range(4))
    needs_b = graph.add("Identity", [b], {"T": DType.FLOAT}, name="needs_b")
    order = Precedence(graph)
    assert order.first(needs_b, a) == (a, needs_b)
    assert order.between(a, needs_b) == [b]
    assert order.between(b, needs_b) is None
    joint = graph.add("IdentityN", [b, c], {"T": (DType.FLOAT, DType.FLOAT)}, name="joint")
    order.join(a, [b], joint)
    late = graph.add("Identity", [joint], {"T": DType.FLOAT}, name="late")
    graph.set_operands(needs_b, [late])
    assert order.between(joint, needs_b) is None
    assert order.between(d, needs_b) == []
