"""functionalise-control-flow: v1 loops, conditions and arrays compute the same as functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import hintc
from hintc.call_graph import CONTROL_FLOW_V1
from hintc.graphdef import lift, lower
from hintc.ir import SCAN, Module
from hintc.pipeline import PassPipeline
from hintc.remark import PassReport
from hintc_passes.functionalise_control_flow import FunctionaliseControlFlow
from recurrences import Array, run_graph_def, run_tflite
from tensorflow_graphs import control_flow
from work import calls_made

tf = pytest.importorskip("tensorflow")
v1 = tf.compat.v1
DEPTH, UNITS, STEPS = 3, 4, 5
Results = Mapping[str, Any]
X = (None, DEPTH)
SEQUENCE = (STEPS, None, DEPTH)


def frozen(build: Callable[..., Results], **inputs: Any) -> tuple[Any, list[str]]:
    """The GraphDef in control flow v1, frozen with seeded weights, and its outputs.

    Args:
        build: takes the inputs by name, gives the outputs by name.
        inputs: shapes of float inputs, or (shape, dtype).
    """
    with control_flow(v2=False), tf.Graph().as_default() as graph:
        tensors = {}
        for name, spec in inputs.items():
            shape, dtype = spec if isinstance(spec[-1], tf.DType) else (spec, tf.float32)
            tensors[name] = v1.placeholder(dtype, shape, name)
        results = build(**tensors)
        for name, tensor in results.items():
            tf.identity(tensor, name=name)
        random = np.random.default_rng(7)
        with v1.Session() as session:
            for variable in v1.global_variables():
                value = random.uniform(-0.5, 0.5, variable.shape.as_list())
                session.run(variable.initializer, {variable.initializer.inputs[1]: value})
            names = list(results)
            return v1.graph_util.convert_variables_to_constants(
                session, graph.as_graph_def(), names
            ), names


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def functional(graph_def: Any) -> tuple[Module, PassReport]:
    module = lift(graph_def)
    report = PassPipeline((FunctionaliseControlFlow(),)).run(module)
    return module, report.runs[0].report


def check_functional(
    graph_def: Any, names: Sequence[str], *feeds: Mapping[str, Array]
) -> tuple[Module, PassReport]:
    """Nothing of control flow v1 is left, and TensorFlow computes the same."""
    module, report = functional(graph_def)
    assert not report.remarks
    left = {n.op for graph in module.graphs() for n in graph}
    assert not left & CONTROL_FLOW_V1
    assert not [op for op in left if op.startswith("TensorArray")]
    check_equal(graph_def, lower(module), names, *feeds)
    return module, report


def check_equal(before: Any, after: Any, names: Sequence[str], *feeds: Mapping[str, Array]) -> None:
    for case in feeds:
        expected = run_graph_def(before, case, names)
        found = run_graph_def(after, case, names)
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_allclose(other, one, rtol=0, atol=1e-6)


def check_converted(graph_def: Any, names: Sequence[str], *feeds: Mapping[str, Array]) -> Any:
    """The .tflite is right for each case, twice."""
    result = hintc.convert(graph_def, list(feeds[0]), names)
    for case in (*feeds, *feeds):
        expected = run_graph_def(graph_def, case, names)
        for one, other in zip(expected, run_tflite(result.tflite, case), strict=True):
            np.testing.assert_allclose(other, one, rtol=0, atol=1e-5)
    return result.report


# -- loops and conditions by hand ----------------------------------------------------------------


def array_loop(x: Any) -> Results:
    rows = tf.TensorArray(tf.float32, STEPS).unstack(x)
    out = tf.TensorArray(tf.float32, STEPS, element_shape=[None, DEPTH])
    _, h, out, _ = v1.while_loop(
        lambda t, h, out, unused: t < STEPS,
        lambda t, h, out, unused: (t + 1, tf.tanh(h + rows.read(t)), out.write(t, h), unused * 2.0),
        [0, tf.zeros([tf.shape(x)[1], DEPTH]), out, 1.0],
    )
    return {"y": out.stack(), "h": h}


def growing_array(x: Any) -> Results:
    out = tf.TensorArray(tf.float32, 0, dynamic_size=True, element_shape=[None, DEPTH])
    out = v1.while_loop(
        lambda t, out, total: tf.reduce_sum(total) < 10.0,
        lambda t, out, total: (t + 1, out.write(t, x * total), total + 1.5),
        [0, out, tf.constant(1.0)],
    )[1]
    return {"y": out.stack(), "n": out.size()}


def nested_loops(x: Any) -> Results:
    def inner(j: Any, b: Any) -> Any:
        return j + 1, tf.cond(j > 1, lambda: b * 2.0, lambda: b + x)

    def body(i: Any, a: Any) -> Any:
        return i + 1, v1.while_loop(lambda j, b: j < i, inner, [0, a])[1]

    return {"y": v1.while_loop(lambda i, a: i < 4, body, [0, x])[1]}


def loop_in_condition(x: Any) -> Results:
    def loop() -> Any:
        return v1.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a + x), [0, x])[1]

    return {"y": tf.cond(tf.reduce_sum(x) > 0, loop, lambda: x)}


def conditions(x: Any) -> Results:
    positive = tf.reduce_sum(x) > 0
    y = tf.cond(positive, lambda: x * 2.0, lambda: tf.constant(1.0) + x)
    z = tf.cond(positive, lambda: tf.constant(3.0), lambda: tf.constant(1.0))

    def deep() -> Any:
        return tf.cond(y[0, 0] > 0, lambda: y + 1.0, lambda: y - 1.0)

    a, b = tf.cond(positive, lambda: (y * z, deep()), lambda: (y, z + y))
    return {"y": y, "z": z, "a": a, "b": b}


def growing_state(x: Any) -> Results:
    free = [tf.TensorShape([]), tf.TensorShape([None, DEPTH])]
    loop = v1.while_loop(
        lambda i, a: i < 3, lambda i, a: (i + 1, tf.concat([a, x], 0)), [0, x], free
    )
    return {"y": loop[1]}


def which_branch(x: Any) -> Results:
    positive = tf.reduce_sum(x) > 0
    no, yes = tf.raw_ops.Switch(data=x, pred=positive)
    value, index = tf.raw_ops.Merge(inputs=[yes * 2.0, no - 1.0])
    return {"y": value, "index": index}


def array_in_conditions(x: Any) -> Results:
    rows = tf.TensorArray(tf.float32, STEPS).unstack(x)
    out = tf.TensorArray(tf.float32, STEPS, element_shape=[None, DEPTH])

    def body(t: Any, out: Any) -> Any:
        row = tf.cond(t % 2 > 0, lambda: rows.read(t), lambda: rows.read(t) * 2.0)
        return t + 1, tf.cond(t > 2, lambda: out.write(t, row), lambda: out)

    return {"y": v1.while_loop(lambda t, out: t < STEPS, body, [0, out])[1].stack()}


def reads_what_it_wrote(x: Any) -> Results:
    rows = tf.TensorArray(
        tf.float32, STEPS + 1, clear_after_read=False, element_shape=[None, DEPTH]
    ).write(0, x[0])
    step = lambda t, rows: (t + 1, rows.write(t + 1, rows.read(t) * 2.0 + x[t]))  # noqa: E731
    rows = v1.while_loop(lambda t, rows: t < STEPS, step, [0, rows])[1]
    return {"y": rows.stack(), "two": rows.gather([3, 1])}


def side_effects(x: Any) -> Results:
    def body(i: Any, a: Any) -> Any:
        with tf.control_dependencies([v1.Assert(tf.reduce_all(a > -100.0), [a])]):
            return i + 1, tf.identity(a + x)

    noise = lambda: x + 0.0 * tf.random.uniform([])  # noqa: E731
    return {
        "y": v1.while_loop(lambda i, a: i < 3, body, [0, x])[1],
        "z": tf.cond(tf.reduce_sum(x) > 0, noise, lambda: x - 1.0),
    }


def states_swapped(x: Any) -> Results:
    weight = tf.constant(floats(DEPTH, DEPTH))
    shared = x @ weight
    y = v1.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a @ weight + shared), [0, x])[1]
    step = lambda i, a, b: (i + 1, b, tf.tanh(a @ weight) + shared)  # noqa: E731
    _, a, b = v1.while_loop(lambda i, a, b: i < 3, step, [0, x, y])
    return {"a": a, "b": b}


def one_predicate_twice(x: Any) -> Results:
    positive = tf.reduce_sum(x) > 0
    inner = lambda: tf.cond(positive, lambda: x * 2.0, lambda: x * 3.0)  # noqa: E731
    return {"y": tf.cond(positive, inner, lambda: x - 1.0)}


ROWS = [{"x": floats(2, DEPTH) + by} for by in (2, -2)] + [{"x": floats(3, DEPTH)}]
SEQUENCES = [{"x": floats(STEPS, batch, DEPTH)} for batch in (1, 3)]
BY_HAND: dict[str, tuple[Callable[..., Results], Any, list[dict[str, Array]], int]] = {
    "array loop": (array_loop, SEQUENCE, SEQUENCES, 1),
    "growing array": (growing_array, X, ROWS, 1),
    "nested loops": (nested_loops, X, ROWS, 3),
    "loop in condition": (loop_in_condition, X, ROWS, 2),
    "conditions": (conditions, X, ROWS, 4),
    "growing state": (growing_state, X, ROWS, 1),
    "array in conditions": (array_in_conditions, SEQUENCE, SEQUENCES, 3),
    "reads what it wrote": (reads_what_it_wrote, SEQUENCE, SEQUENCES, 1),
    "side effects": (side_effects, X, ROWS, 3),
    "states swapped": (states_swapped, X, ROWS, 2),
    "one predicate twice": (one_predicate_twice, X, ROWS, 2),
    "which branch": (which_branch, X, ROWS, 1),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_the_same_values(case: str) -> None:
    build, shape, feeds, built = BY_HAND[case]
    graph_def, names = frozen(build, x=shape)
    _, report = check_functional(graph_def, names, *feeds)
    assert report.counts["functionalised"] == built


@pytest.mark.parametrize("case", ["array loop", "nested loops", "conditions", "growing state"])
def test_converts(case: str) -> None:
    build, shape, feeds, _ = BY_HAND[case]
    check_converted(*frozen(build, x=shape), *feeds)


def test_a_loop_that_counts_becomes_a_scan() -> None:
    graph_def, _ = frozen(array_loop, x=SEQUENCE)
    module = lift(graph_def)
    PassPipeline.parse("functionalise-control-flow,raise-loops").run(module)
    assert [n.name for n in module.graph if n.op == SCAN] == ["while"]
    assert not [n for n in module.graph if n.op.startswith("TensorList")]


def test_side_effects_stay_in_order() -> None:
    graph_def, _ = frozen(side_effects, x=X)
    module, _ = functional(graph_def)
    assert {n.op for n in module.graph} >= {"While", "If"}
    body = next(f.graph for f in module.functions.values() if f.name.endswith("body"))
    holders = [n for n in body if any(c.op == "If" for c in n.controls)]
    assert holders
    with pytest.raises(tf.errors.InvalidArgumentError, match="assertion failed"):
        run_graph_def(lower(module), {"x": np.full((1, DEPTH), -60, np.float32)}, ["y"])


def test_unused_exits_and_variables() -> None:
    """Freezing deletes what nobody reads: the array that is written, the Exit of a state."""
    graph_def, _ = frozen(array_loop, x=SEQUENCE)
    only_h = v1.graph_util.extract_sub_graph(graph_def, ["h"])
    assert len([n for n in only_h.node if n.op == "Exit"]) == 1
    module, _ = check_functional(only_h, ["h"], *SEQUENCES)
    loop = module.graph["while"]
    assert len(loop.operands) == 3  # step, h, rows


def test_what_has_no_functional_form_stays() -> None:
    def build(x: Any) -> Results:
        rows = tf.TensorArray(tf.float32, STEPS).unstack(x)
        out = tf.TensorArray(tf.float32, STEPS)
        step = lambda t, out: (t + 1, out.write(t, rows.read(t)))  # noqa: E731
        return {"y": v1.while_loop(lambda t, out: t < STEPS, step, [0, out])[1].concat()}

    graph_def, names = frozen(build, x=SEQUENCE)
    module, report = functional(graph_def)
    assert [(r.code, r.node) for r in report.remarks] == [
        ("tensor-array", "TensorArray_1"),
        ("frame-resource", "while"),
    ]
    assert all(r.remedy for r in report.remarks)
    assert "TensorArrayConcatV3" in report.remarks[0].reason
    check_equal(graph_def, lower(module), names, *SEQUENCES)


def test_a_loop_that_is_not_well_formed_stays() -> None:
    graph_def, _ = frozen(array_loop, x=SEQUENCE)
    odd = type(graph_def)()
    odd.CopyFrom(graph_def)
    (name,) = [n.input[0] for n in odd.node if n.op == "LoopCond"]
    leak = odd.node.add(name="leak", op="Identity", input=[name])
    leak.attr["T"].type = tf.bool.as_datatype_enum
    odd.node.add(name="leaked", op="Identity", input=["leak", "^x"]).attr["T"].CopyFrom(
        leak.attr["T"]
    )
    module, report = functional(odd)
    (remark,) = report.remarks
    assert (remark.code, remark.node) == ("frame-malformed", "while")
    assert "'leaked'" in remark.reason
    assert lower(module).SerializeToString(deterministic=True) == odd.SerializeToString(
        deterministic=True
    )


# -- recurrent layers ----------------------------------------------------------------------------


def cell_called(name: str) -> Any:
    from tf_keras.src.layers.rnn import legacy_cells

    if name == "MultiRNNCell":
        return legacy_cells.MultiRNNCell([cell_called("LSTMCell"), cell_called("BasicLSTMCell")])
    return getattr(legacy_cells, name)(UNITS)


LENGTHS = ((None,), tf.int32)
FUSED = {"LSTMCell": 1, "BasicLSTMCell": 1, "GRUCell": 0, "MultiRNNCell": 2}
LAYERS = [
    ("LSTMCell", True, False),
    ("BasicLSTMCell", False, True),
    ("GRUCell", True, True),
    ("MultiRNNCell", False, False),
    ("MultiRNNCell", True, True),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("cell", "lengths", "time_major"), LAYERS)
def test_dynamic_rnn(cell: str, lengths: bool, time_major: bool) -> None:
    def build(x: Any, lengths: Any = None) -> Results:
        y, state = v1.nn.dynamic_rnn(
            cell_called(cell), x, lengths, dtype=tf.float32, time_major=time_major
        )
        return {"y": y, "h": tf.nest.flatten(state)[-1]}

    def case(batch: int) -> dict[str, Array]:
        shape = (STEPS, batch, DEPTH) if time_major else (batch, STEPS, DEPTH)
        sizes = {"lengths": np.array([2, STEPS, 1][:batch], np.int32)} if lengths else {}
        return {"x": floats(*shape, seed=batch), **sizes}

    shape = (STEPS, None, DEPTH) if time_major else (None, STEPS, DEPTH)
    graph_def, names = frozen(build, x=shape, **({"lengths": LENGTHS} if lengths else {}))
    check_functional(graph_def, names, case(2))
    report = check_converted(graph_def, names, case(1), case(3))
    assert len(report.fused) == FUSED[cell]


@pytest.mark.filterwarnings("ignore")
def test_static_rnn_with_lengths() -> None:
    def build(x: Any, lengths: Any) -> Results:
        y, state = v1.nn.static_rnn(
            cell_called("LSTMCell"), tf.unstack(x), None, tf.float32, lengths
        )
        return {"y": tf.stack(y), "h": state.h}

    graph_def, names = frozen(build, x=(3, None, DEPTH), lengths=LENGTHS)
    cases = [
        {"x": floats(3, len(sizes), DEPTH), "lengths": np.array(sizes, np.int32)}
        for sizes in ([1, 0, 2], [2, 3], [0])
    ]
    _, report = check_functional(graph_def, names, *cases)
    assert report.counts["functionalised"] == 6  # in each step: before the end, within all lengths
    check_converted(graph_def, names, *cases)


def raw_rnn(x: Any, lengths: Any, *, by_data: bool) -> Results:
    rows = tf.TensorArray(tf.float32, STEPS).unstack(x)
    cell = cell_called("LSTMCell")
    batch = tf.shape(x)[1]

    def step(time: Any, output: Any, state: Any, loop_state: Any) -> Any:
        ended = time >= lengths
        if by_data and output is not None:
            ended = tf.reduce_mean(output, 1) > 0.5
        state = cell.zero_state(batch, tf.float32) if state is None else state
        zeros = lambda: tf.zeros([batch, DEPTH])  # noqa: E731
        row = tf.cond(tf.reduce_all(ended), zeros, lambda: rows.read(time))
        row.set_shape([None, DEPTH])
        return ended, row, state, output, None

    outputs, state, _ = v1.nn.raw_rnn(cell, step)
    return {"y": outputs.stack(), "h": state.h}


@pytest.mark.filterwarnings("ignore")
def test_raw_rnn_that_stops_at_lengths_is_fused() -> None:
    graph_def, names = frozen(
        lambda x, lengths: raw_rnn(x, lengths, by_data=False), x=SEQUENCE, lengths=LENGTHS
    )
    case = {"x": floats(STEPS, 2, DEPTH), "lengths": np.array([3, 1], np.int32)}
    check_functional(graph_def, names, case)
    converted = hintc.convert(graph_def, list(case), names, check=case)
    assert converted.report.fused_ops == {"UNIDIRECTIONAL_SEQUENCE_LSTM": 1}


@pytest.mark.filterwarnings("ignore")
def test_raw_rnn_that_stops_by_data_is_a_clear_error() -> None:
    graph_def, names = frozen(
        lambda x, lengths: raw_rnn(x, lengths, by_data=True), x=SEQUENCE, lengths=LENGTHS
    )
    with pytest.raises(hintc.HintcError) as error:
        hintc.convert(graph_def, ["x", "lengths"], names)
    assert error.value.node == "rnn/while"
    assert "LogicalNot" in str(error.value)
    assert "counts in equal steps" in str(error.value)


@pytest.mark.parametrize(("layer", "fused"), [("LSTM", 2), ("GRU", 0)])
def test_keras_3_frozen_with_lowered_control_flow(layer: str, fused: int) -> None:
    import keras
    from tensorflow.python.framework import convert_to_constants

    make = getattr(keras.layers, layer)
    model = keras.Sequential(
        [keras.Input((STEPS, DEPTH)), make(UNITS, return_sequences=True), make(UNITS)]
    )
    with control_flow(v2=True):
        spec = tf.TensorSpec([None, STEPS, DEPTH], name="x")
        function = tf.function(model.call).get_concrete_function(spec)
        lowered = convert_to_constants.convert_variables_to_constants_v2(
            function, lower_control_flow=True
        )
    graph_def = lowered.graph.as_graph_def()
    assert [n for n in graph_def.node if n.op == "Enter"]
    names = [lowered.outputs[0].op.name]
    check_functional(graph_def, names, {"x": floats(2, STEPS, DEPTH)})
    cases = [{"x": floats(batch, STEPS, DEPTH)} for batch in (1, 3)]
    assert len(check_converted(graph_def, names, *cases).fused) == fused


def test_lowered_side_effects_stay() -> None:
    """In a lowered loop only control edges of NextIteration hold what a step does."""
    from tensorflow.python.framework import convert_to_constants

    def body(i: Any, a: Any) -> Any:
        v1.Assert(tf.reduce_all(a > -100.0), [a])
        return i + 1, a + a

    with control_flow(v2=True):
        function = tf.function(
            lambda x: tf.while_loop(lambda i, a: i < 3, body, [0, x])[1]
        ).get_concrete_function(tf.TensorSpec(X, name="x"))
        lowered = convert_to_constants.convert_variables_to_constants_v2(
            function, lower_control_flow=True
        )
    graph_def, names = lowered.graph.as_graph_def(), [lowered.outputs[0].op.name]
    module, _ = check_functional(graph_def, names, {"x": floats(2, DEPTH)})
    with pytest.raises(tf.errors.InvalidArgumentError, match="assertion failed"):
        run_graph_def(lower(module), {"x": np.full((1, DEPTH), -60, np.float32)}, names)


def test_hundreds_of_loops_cost_what_they_are() -> None:
    def build(x: Any, loops: int) -> Results:
        for _ in range(loops):
            x = array_loop(x)["y"]
        return {"y": x}

    def cost(loops: int) -> int:
        module = lift(frozen(lambda x: build(x, loops), x=SEQUENCE)[0])
        return calls_made(lambda: FunctionaliseControlFlow().run(module))

    cost(2)  # what is done once
    few, many = cost(6), cost(24)
    assert many < 4.6 * few
