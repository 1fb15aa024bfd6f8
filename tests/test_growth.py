"""The work of the default pipeline grows linearly with the number of loops and of steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

import hintc
import recurrent_graphs
from hintc.graphdef.shapes import infer_shapes
from hintc.ir import DType, Graph, Module, Port, Shape, Tensor
from hintc_passes.fold_constants import FoldConstants
from hintc_passes.remove_training_nodes import RemoveTrainingNodes
from work import calls_made, instructions_run

MOST = 1.1
"""The largest exponent of growth that is allowed."""


def exponent(work: Callable[[int], int], small: int, large: int) -> float:
    """Slope of work over size between two sizes, both logarithmic."""
    return math.log(work(large) / work(small)) / math.log(large / small)


@pytest.mark.parametrize(
    ("build", "multiplied", "small", "large"),
    [
        (recurrent_graphs.hinted_loop, recurrent_graphs.in_a_row, 2, 6),
        (recurrent_graphs.loop, recurrent_graphs.in_a_row, 2, 6),
        (recurrent_graphs.frames_loop, recurrent_graphs.in_a_row, 2, 6),
        (recurrent_graphs.hinted_steps, recurrent_graphs.with_steps, 10, 40),
        (recurrent_graphs.steps, recurrent_graphs.with_steps, 20, 80),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_compile(
    build: Callable[[], Any], multiplied: Callable[[Any, int], Any], small: int, large: int
) -> None:
    seed = recurrent_graphs.frozen(build)

    def work(size: int) -> int:
        graph_def, fused = multiplied(seed, size), []

        def run() -> None:
            compiled = hintc.compile(graph_def, ["x"], ["y"])
            fused.extend(compiled.report.fused)

        made = calls_made(run)
        assert len(fused) == (size if multiplied is recurrent_graphs.in_a_row else 1)
        return made

    work(3)  # definitions are looked up on first use
    assert exponent(work, small, large) < MOST


def with_input() -> tuple[Module, Port]:
    """A module with one placeholder, and its value."""
    module = Module()
    x = module.graph.add("Placeholder", (), {"dtype": DType.FLOAT, "shape": Shape((2,))}, name="x")
    return module, Port(x)


def test_shapes_cost_what_they_depend_on() -> None:
    def work(others: int) -> int:
        module, x = with_input()
        value = Port(module.graph.add("Tanh", [x], {"T": DType.FLOAT}))
        for _ in range(others):
            module.graph.add("NoOp")

        def run() -> None:
            assert infer_shapes(module, module.graph, [value])[value] == Shape((2,))

        return instructions_run(run)

    work(1)
    assert work(20_000) < 1.1 * work(20)


def test_ones_of_a_value_with_many_readers_are_not_walked_for_each() -> None:
    def work(count: int) -> int:
        module, x = with_input()
        graph = module.graph
        ones = graph.add("OnesLike", [x], {"T": DType.FLOAT})
        for at in range(count):
            product = graph.add("Mul", [x, ones], {"T": DType.FLOAT})
            graph.add_result(f"y{at}", Port(graph.add("Tanh", [product], {"T": DType.FLOAT})))
        made = instructions_run(lambda: RemoveTrainingNodes().run(module))
        assert not any(node.op == "Mul" for node in graph)
        return made

    work(2)
    assert exponent(work, 30, 240) < MOST


def constant(graph: Graph, value: float, dtype: DType) -> Port:
    return Port(graph.add("Const", (), {"dtype": dtype, "value": Tensor.of(value, dtype)}))


def test_a_value_that_cannot_be_computed_is_found_in_few_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import tensorflow as tf

    module, runs = Module(), list[int]()
    for at in range(64):  # 7 // 0 is one of them
        parts = [constant(module.graph, value, DType.INT32) for value in (7, at)]
        quotient = module.graph.add("FloorDiv", parts, {"T": DType.INT32})
        module.graph.add_result(f"y{at}", Port(quotient))
    original = tf.compat.v1.Session.run

    def counted(session: Any, fetches: Any, *args: Any, **options: Any) -> Any:
        runs.append(len(fetches))
        return original(session, fetches, *args, **options)

    monkeypatch.setattr(tf.compat.v1.Session, "run", counted)
    report = FoldConstants().run(module)
    assert report.counts == {"folded": 63}
    assert [r.code for r in report.remarks] == ["not-evaluated"]
    assert len(runs) == 1 + 2 * 6
