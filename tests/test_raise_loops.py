"""raise-loops: which loops become Scans, that they compute the same, and why others stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from hintc.graphdef import lift, lower
from hintc.ir import SCAN, Module, Scan
from hintc.remark import PassReport
from hintc_passes.raise_loops import RaiseLoops
from recurrences import Array, run_graph_def, traced, weights

tf = pytest.importorskip("tensorflow")
DEPTH, UNITS = 3, 4
SEQUENCE = tf.TensorSpec([None, None, DEPTH], tf.float32)
FIXED = tf.TensorSpec([5, None, DEPTH], tf.float32)


def cell(x: Any, h: Any) -> Any:
    return tf.tanh(x @ weights(DEPTH, UNITS) + h @ weights(UNITS, UNITS, seed=1))


def loop(
    x: Any,
    *,
    bound: Any = None,
    step: Callable[[Any, Any, Any], tuple[Any, Any]] | None = None,
    first: Any = None,
    **options: Any,
) -> list[Any]:
    """[y, h, number of steps] of a loop over the rows of `x`."""
    length = tf.shape(x)[0]
    rows = tf.TensorArray(tf.float32, length, element_shape=[None, DEPTH]).unstack(x)
    out = tf.TensorArray(tf.float32, length, element_shape=[None, UNITS])
    h = tf.zeros([tf.shape(x)[1], UNITS]) if first is None else first(x)
    plain = lambda t, row, h: (cell(row, h),) * 2  # noqa: E731

    def body(t: Any, h: Any, out: Any) -> Any:
        y, following = (step or plain)(t, rows.read(t), h)
        return t + 1, following, out.write(t, y)

    steps, h, out = tf.while_loop(
        lambda t, h, out: t < (length if bound is None else bound(x)),
        body,
        [tf.constant(0), h, out],
        **options,
    )
    return [out.stack(), h, steps]


def feeds(batch: int = 2, steps: int = 5) -> dict[str, Array]:
    x = np.random.default_rng(batch).standard_normal((steps, batch, DEPTH))
    return {"x": x.astype(np.float32)}


def raised(graph_def: Any) -> tuple[Module, PassReport]:
    module = lift(graph_def)
    return module, RaiseLoops().run(module)


def check_same(graph_def: Any, module: Module, results: int, *cases: Mapping[str, Array]) -> None:
    names = [f"y_{n}" for n in range(results)]
    lowered = lower(module)
    for case in cases:
        before = run_graph_def(graph_def, case, names)
        after = run_graph_def(lowered, case, names)
        for one, other in zip(before, after, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def only_scan(module: Module) -> Scan:
    scans = [node for node in module.graph if node.op == SCAN]
    assert len(scans) == 1
    return Scan.of(scans[0])


def remaining(module: Module) -> set[str]:
    return {
        n.op
        for n in module.graph
        if ("While" in n.op or n.op.startswith("TensorList")) and module.graph.is_used(n)
    }


@pytest.mark.parametrize("spec", [SEQUENCE, FIXED])
def test_a_loop_over_rows(spec: Any) -> None:
    graph_def = traced(loop, x=spec)
    module, report = raised(graph_def)
    assert report.counts == {"raised": 1}
    assert not remaining(module)
    scan = only_scan(module)
    assert (len(scan.xs), len(scan.states), len(scan.reverse_ys)) == (1, 1, 1)
    assert (scan.trip_count.node.op == "Const") == (spec is FIXED)
    cases = [feeds(1), feeds(3)] + ([feeds(2, 9)] if spec is SEQUENCE else [])
    check_same(graph_def, module, 3, *cases)


def test_bounds_that_are_provably_the_length() -> None:
    def bound(x: Any) -> Any:
        return tf.minimum(tf.shape(x)[0], tf.maximum(1, tf.shape(x)[0]))

    graph_def = traced(lambda x: loop(x, bound=bound), x=SEQUENCE)
    module, report = raised(graph_def)
    assert report.changed
    check_same(graph_def, module, 3, feeds(2, 3))


def test_fewer_steps_than_rows_cut_the_sequence() -> None:
    graph_def = traced(lambda x: loop(x, maximum_iterations=3), x=FIXED)
    module, report = raised(graph_def)
    assert report.changed
    assert only_scan(module).xs[0].node.op == "StridedSlice"
    check_same(graph_def, module, 3, feeds(2))


def test_a_bound_that_the_condition_computes() -> None:
    graph_def = traced(lambda x: loop(x, bound=lambda x: tf.shape(x)[0] // 2), x=SEQUENCE)
    module, report = raised(graph_def)
    assert report.changed
    check_same(graph_def, module, 3, feeds(2, 5), feeds(1, 2))


def test_the_index_and_invariants_are_usable_in_a_step() -> None:
    def step(t: Any, row: Any, h: Any) -> tuple[Any, Any]:
        h = cell(row, h) * tf.cast(t, tf.float32)
        return h + 1.0, h

    graph_def = traced(lambda x: loop(x, step=step), x=SEQUENCE)
    module, report = raised(graph_def)
    assert report.changed
    check_same(graph_def, module, 3, feeds(2, 3))


def test_a_loop_inside_a_loop() -> None:
    def step(t: Any, row: Any, h: Any) -> tuple[Any, Any]:
        h = tf.while_loop(lambda k, h: k < 3, lambda k, h: (k + 1, cell(row, h)), [0, h])[1]
        return h, h

    graph_def = traced(lambda x: loop(x, step=step), x=SEQUENCE)
    module, report = raised(graph_def)
    assert report.counts == {"raised": 2}
    check_same(graph_def, module, 3, feeds(2, 4))


def last_loop(
    x: Any, *, rows: int = 1, batch: int | None = None, shift: bool = False, at: int = 0
) -> list[Any]:
    """[the stacked list, its row -1, h]: each step writes the same row of a list; h starts as 1."""
    length = tf.shape(x)[0]
    items = tf.TensorArray(tf.float32, length, element_shape=[None, DEPTH]).unstack(x)
    out = tf.TensorArray(tf.float32, rows, element_shape=[batch, UNITS])
    h = tf.ones([tf.shape(x)[1], UNITS])
    if batch is not None:
        h = tf.ensure_shape(h, [batch, UNITS])

    def body(t: Any, h: Any, out: Any) -> Any:
        following = cell(items.read(t), h)
        return t + 1, following, out.write(at, following * 2.0 if shift else following)

    _, h, out = tf.while_loop(lambda t, h, out: t < length, body, [0, h, out])
    stacked = out.stack()
    return [stacked, stacked[-1], stacked[0], h]


@pytest.mark.parametrize("spec", [SEQUENCE, FIXED])
@pytest.mark.parametrize("shift", [False, True])
def test_a_list_of_the_last_row_only(spec: Any, shift: bool) -> None:
    graph_def = traced(lambda x: last_loop(x, shift=shift), x=spec)
    module, report = raised(graph_def)
    assert report.counts == {"raised": 1}
    assert not remaining(module)
    assert len(only_scan(module).reverse_ys) == (1 if shift else 0)
    cases = [feeds(1), feeds(3)] + ([feeds(2, 1)] if spec is SEQUENCE else [])
    check_same(graph_def, module, 4, *cases)


@pytest.mark.parametrize("shift", [False, True])
def test_no_steps_leave_a_row_of_zeros(shift: bool) -> None:
    spec = tf.TensorSpec([None, 2, DEPTH], tf.float32)
    graph_def = traced(lambda x: last_loop(x, batch=2, shift=shift), x=spec)
    module, report = raised(graph_def)
    assert report.changed
    check_same(graph_def, module, 4, feeds(2, 0), feeds(2, 1), feeds(2, 4))


def masked_loop(x: Any, *, first: float | None = None) -> list[Any]:
    """[y, h] of a loop that carries its last output beside h; both keep where x[0] < 0."""
    length = tf.shape(x)[0]
    items = tf.TensorArray(tf.float32, length, element_shape=[None, DEPTH]).unstack(x)
    h = tf.zeros([tf.shape(x)[1], UNITS])
    y = tf.zeros_like(cell(x[0], h))
    y = y if first is None else y + first

    def body(t: Any, y: Any, h: Any) -> Any:
        row = items.read(t)
        new = cell(row, h)
        return t + 1, tf.where(row[:, :1] >= 0.0, new, y), tf.where(row[:, :1] >= 0.0, new, h)

    return list(tf.while_loop(lambda t, y, h: t < length, body, [0, y, h])[1:])


@pytest.mark.parametrize("spec", [SEQUENCE, FIXED])
def test_equal_states_are_carried_once(spec: Any) -> None:
    graph_def = traced(masked_loop, x=spec)
    module, report = raised(graph_def)
    assert report.changed
    assert len(only_scan(module).states) == 1
    assert not [n for n in module.graph if n.op == "ZerosLike"]
    check_same(graph_def, module, 2, feeds(1), feeds(3))


def test_a_state_that_nobody_needs_is_not_carried() -> None:
    def build(x: Any) -> list[Any]:
        h = tf.zeros([tf.shape(x)[1], UNITS])
        return [tf.scan(lambda past, row: (cell(row, past[1]),) * 2, x, (h + 1.0, h))[0]]

    graph_def = tf.compat.v1.graph_util.extract_sub_graph(traced(build, x=SEQUENCE), ["y_0"])
    module, report = raised(graph_def)
    assert report.changed
    assert len(only_scan(module).states) == 1
    check_same(graph_def, module, 1, feeds(1), feeds(3))


def test_states_that_start_different_stay_two() -> None:
    graph_def = traced(lambda x: masked_loop(x, first=1.0), x=SEQUENCE)
    module, report = raised(graph_def)
    assert report.changed
    assert len(only_scan(module).states) == 2
    check_same(graph_def, module, 2, feeds(3))


def test_states_of_perhaps_different_shapes_stay_two() -> None:
    def build(x: Any, z: Any) -> list[Any]:
        start = [0, tf.zeros_like(z), tf.zeros([tf.shape(x)[1], DEPTH])]
        body = lambda t, a, b: (t + 1, a * x[t], b * x[t])  # noqa: E731
        kept = [tf.TensorShape([]), tf.TensorShape([None, DEPTH]), tf.TensorShape([None, DEPTH])]
        return list(tf.while_loop(lambda t, a, b: t < 3, body, start, shape_invariants=kept)[1:])

    graph_def = traced(build, x=SEQUENCE, z=tf.TensorSpec([None, DEPTH], tf.float32))
    module, report = raised(graph_def)
    assert [n for n in module.graph if n.op == "ZerosLike"]
    assert not report.changed or len(only_scan(module).states) == 2


def stops_early(x: Any) -> list[Any]:
    """Keeps h beyond the longest length, but the row that was written last is read."""
    lengths = tf.constant([1, 2])
    items = tf.TensorArray(tf.float32, 5, element_shape=[None, DEPTH]).unstack(x)
    out = tf.TensorArray(tf.float32, 1, element_shape=[None, UNITS])
    h = tf.zeros([2, UNITS])
    bound = tf.minimum(tf.shape(x)[0], tf.maximum(1, tf.reduce_max(lengths)))

    def body(t: Any, h: Any, out: Any) -> Any:
        ended = t >= lengths
        new = cell(items.read(t), h)
        y = tf.raw_ops.Select(condition=ended, x=tf.zeros([2, UNITS]), y=new)
        h = tf.raw_ops.Select(condition=ended, x=h, y=new)
        return t + 1, h, out.write(0, y)

    return [tf.while_loop(lambda t, h, out: t < bound, body, [0, h, out])[2].stack()]


def random_step(t: Any, row: Any, h: Any) -> tuple[Any, Any]:
    return (cell(row, h) + tf.random.uniform(tf.shape(h)),) * 2


def dropped_step(t: Any, row: Any, h: Any) -> tuple[Any, Any]:
    return (tf.nn.dropout(cell(row, h), rate=0.5),) * 2


def printed_step(t: Any, row: Any, h: Any) -> tuple[Any, Any]:
    with tf.control_dependencies([tf.print(t)]):
        return (cell(row, h),) * 2


REFUSED: dict[str, tuple[str, Callable[[Any], list[Any]]]] = {
    "unknown bound": (
        "loop-length",
        lambda x: loop(x, bound=lambda x: tf.shape(x)[0], maximum_iterations=4),
    ),
    "random": ("loop-has-side-effects", lambda x: loop(x, step=random_step)),
    "dropout": ("loop-has-side-effects", lambda x: loop(x, step=dropped_step)),
    "print": ("loop-has-side-effects", lambda x: loop(x, step=printed_step)),
    "grows": (
        "state-changes-shape",
        lambda x: loop(
            x,
            first=lambda x: tf.zeros([1, UNITS]),
            shape_invariants=[
                tf.TensorShape([]),
                tf.TensorShape([None, UNITS]),
                tf.TensorShape(None),
            ],
        )[1:],
    ),
    "last row of early stop": ("loop-length", stops_early),
    "second row": ("loop-list", lambda x: last_loop(x, rows=2, at=1)),
    "first of two rows": ("loop-list", lambda x: last_loop(x, rows=2)),
    "data dependent": (
        "loop-condition",
        lambda x: tf.while_loop(
            lambda t, h: tf.reduce_sum(h) < 10.0, lambda t, h: (t + 1, h + x[0]), [0, x[0]]
        ),
    ),
    "doubling": (
        "loop-condition",
        lambda x: tf.while_loop(lambda t, h: t < 9, lambda t, h: (t * 2, h + x[0]), [1, x[0]]),
    ),
    "away from the bound": (
        "loop-condition",
        lambda x: tf.while_loop(lambda t, h: t < 9, lambda t, h: (t - 1, h + x[0]), [3, x[0]]),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_stays_a_loop(case: str) -> None:
    code, build = REFUSED[case]
    graph_def = traced(build, x=SEQUENCE)
    module, report = raised(graph_def)
    assert not report.changed
    assert [r.code for r in report.remarks] == [code]
    assert lower(module).SerializeToString(deterministic=True) == graph_def.SerializeToString(
        deterministic=True
    )


@pytest.mark.parametrize(
    ("step", "reason", "remedy"),
    [
        (dropped_step, "the dropout '", "rate 0"),
        (random_step, "draws new numbers", "before the loop"),
        (printed_step, "the PrintV2 '", "Remove it"),
    ],
)
def test_what_must_run_once_a_step_is_named(step: Any, reason: str, remedy: str) -> None:
    _, report = raised(traced(lambda x: loop(x, step=step), x=SEQUENCE))
    (remark,) = report.remarks
    assert reason in remark.reason
    assert remedy in remark.remedy


def test_reading_what_was_written_is_refused() -> None:
    def build(x: Any) -> list[Any]:
        out = tf.TensorArray(tf.float32, 6, element_shape=[None, DEPTH], clear_after_read=False)
        out = out.write(0, x[0])
        _, out = tf.while_loop(
            lambda t, out: t < 5,
            lambda t, out: (t + 1, out.write(t + 1, out.read(t) + 1.0)),
            [0, out],
        )
        return [out.stack()]

    module, report = raised(traced(build, x=SEQUENCE))
    assert [r.code for r in report.remarks] == ["loop-list"]
    assert remaining(module)


def test_hinted_models(hinted_sequences: Callable[..., Any]) -> None:
    graph_def, names = hinted_sequences()
    module, report = raised(graph_def)
    assert report.counts == {"raised": 1}
    assert not remaining(module)
    lowered = lower(module)
    for lengths in ([5, 3, 0], [2, 1, -4], [9, 5, 1]):
        case = {**feeds(3), "lengths": np.array(lengths, np.int32)}
        before, after = (run_graph_def(g, case, names) for g in (graph_def, lowered))
        for one, other in zip(before, after, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


@pytest.fixture
def hinted_sequences() -> Callable[..., Any]:
    return lambda: lengths_model(final_cell_state=True)


def lengths_model(*, final_cell_state: bool = False) -> tuple[Any, list[str]]:
    """A hinted LSTM with sequence lengths: y, h (and c); frozen."""
    from recurrences import dynamic_rnn_model

    return dynamic_rnn_model(final_cell_state=final_cell_state)
