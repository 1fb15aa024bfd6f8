"""A recurrent model through hintc.convert: equal to TensorFlow, fused or refused with a reason."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

import hintc
from hintc.convert import Converted
from hintc.remark import Remark
from hintc.runtime.interpreter import Interpreter, RuntimeName
from hintc.runtime.session import Session
from hintc.tflite.inspect import op_counts

v1 = tf.compat.v1
Array = npt.NDArray[Any]
BATCHES, INVOKES = (1, 3), 2
TOLERANCE = 1e-5
"""Of the largest value, or of 1: what a chain of some ten float32 steps may lose."""
KERNELS = {
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 1,
    "UNIDIRECTIONAL_SEQUENCE_RNN": 1,
    "BIDIRECTIONAL_SEQUENCE_LSTM": 2,
    "BIDIRECTIONAL_SEQUENCE_RNN": 2,
}
"""Operator -> how many recurrences it runs."""
ILLEGAL = ("CUSTOM", "Flex", "TensorList")

GOOD = ("fused", "refused", "noise", "right")
"""What may happen to a model; everything else is a bug."""


@dataclass(frozen=True)
class Model:
    """What hintc converts, and what it must give.

    Attributes:
        source: GraphDef, ConcreteFunction, or Keras model.
        feeds: batch size -> input name -> value.
        wanted: feeds -> outputs in order.
        inputs, outputs: names, None for all of a function or Keras model.
        kernels: how many recurrences are exactly a kernel's maths.
        possible: how many a kernel may run; default: `kernels`.
        loops: how many surely are not.
        batches: sizes to try.
        noisy: the outputs are random, so nothing can be compared.
        runtimes: what runs the model.
    """

    source: Any
    feeds: Callable[[int], dict[str, Array]]
    wanted: Callable[[dict[str, Array]], Sequence[Array]]
    inputs: Sequence[str] | None = None
    outputs: Sequence[str] | None = None
    kernels: int = 1
    possible: int | None = None
    loops: int = 0
    batches: tuple[int, ...] = BATCHES
    noisy: bool = False
    runtimes: tuple[RuntimeName, ...] = ("litert",)


@dataclass(frozen=True)
class Outcome:
    """What became of a model.

    Attributes:
        status: "fused": all that is exactly a kernel's, and nothing is wrong; "refused": not all
            of it, with a reason; "noise": random, so not compared; "right": with options of
            `option_check`, which does not count what is fused; bugs: "wrong", "failed"
            (an exception), "silent" (not fused and no reason), "illegal" (Flex, custom or list
            ops), "too much" (more fused than is exact).
        detail: one line.
        error: largest difference.
        kernels: how many recurrences are fused.
        codes: of the refusals.
    """

    status: str
    detail: str = ""
    error: float = 0.0
    kernels: int = 0
    codes: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)

    @property
    def good(self) -> bool:
        """Right, and fused or refused with a reason."""
        return self.status in GOOD


def check(model: Model) -> Outcome:
    """Convert `model` and compare it, at two batch sizes, on two invokes each."""
    start = time.perf_counter()
    try:
        converted = hintc.convert(model.source, model.inputs, model.outputs)
    except hintc.HintcError as error:
        status = "noise" if model.noisy else "failed"
        return Outcome(status, f"{type(error).__name__}: {_line(error)}")
    except Exception as error:  # noqa: BLE001 - a crash is what is looked for
        return Outcome("failed", f"crash: {type(error).__name__}: {_line(error)}")
    ops = op_counts(converted.tflite)
    kernels = sum(number * ops[op] for op, number in KERNELS.items())
    refusals = converted.report.not_fused
    codes = tuple(sorted({r.code for r in refusals}))

    def outcome(status: str, detail: str = "", error: float = 0.0) -> Outcome:
        return Outcome(status, detail, error, kernels, codes, time.perf_counter() - start)

    if any(op.startswith(ILLEGAL) for op in ops):
        return outcome("illegal", str([op for op in ops if op.startswith(ILLEGAL)]))
    if model.noisy:
        return outcome("noise" if refusals else "silent", "converted")
    largest, problem = _difference(model, converted)
    if problem:
        return outcome("wrong" if largest else "failed", problem, largest)
    return outcome(*_judged(model, kernels, refusals), largest)


def _judged(model: Model, kernels: int, refusals: Sequence[Remark]) -> tuple[str, str]:
    """Status and detail of a model that is right."""
    most = model.kernels if model.possible is None else model.possible
    reasons = "; ".join(dict.fromkeys(f"{r.code}: {r.reason}" for r in refusals))
    found = f"{kernels} of {model.kernels} fused"
    if kernels > most:
        return "too much", f"{kernels} fused, {most} are exact"
    if (kernels < model.kernels or model.loops) and not refusals:
        return "silent", f"{found}, no reason given"
    if kernels < model.kernels or not kernels:
        return "refused", f"{found}: {reasons}"
    return "fused", reasons


def _difference(model: Model, converted: Converted) -> tuple[float, str]:
    """The largest difference, and what is wrong, if anything is."""
    largest = 0.0
    for runtime in model.runtimes:
        error, problem = _difference_in(model, Interpreter(converted.tflite, runtime=runtime))
        largest = max(largest, error)
        if problem:
            return largest, f"{runtime}: {problem}"
    return largest, ""


def _difference_in(model: Model, runner: Interpreter) -> tuple[float, str]:
    largest = 0.0
    for batch in model.batches:
        feeds = model.feeds(batch)
        wanted = [np.asarray(value) for value in model.wanted(feeds)]
        for invoke in range(INVOKES):
            try:
                found = list(runner.run(named(runner, feeds)).values())
            except hintc.HintcError as error:
                return 0.0, f"invoke {invoke + 1}, batch {batch}: {_line(error)}"
            for at, (one, other) in enumerate(zip(found, wanted, strict=True)):
                where = f"output {at}, batch {batch}, invoke {invoke + 1}"
                if one.shape != other.shape:
                    return float("inf"), f"{where}: shape {one.shape}, wanted {other.shape}"
                off = float(np.max(np.abs(one - other), initial=0.0))
                off = float("inf") if math.isnan(off) else off
                largest = max(largest, off)
                if off > TOLERANCE * max(1.0, float(np.max(np.abs(other), initial=0.0))):
                    return largest, f"{where}: off by {off:.3g}"
    return largest, ""


def named(runner: Interpreter, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The feeds by the model's names, in its order."""
    names = [info.name for info in runner.inputs]
    if set(names) == set(feeds):
        return {name: feeds[name] for name in names}
    return dict(zip(names, feeds.values(), strict=True))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def drawn(random: np.random.Generator, shape: Sequence[int], coarse: bool = False) -> Array:
    """Weights: spread over ±0.5, or coarse: -0.5, 0 or 0.5, which int8 and float16 hold exactly."""
    values = random.integers(-1, 2, shape) / 2 if coarse else random.uniform(-0.5, 0.5, shape)
    return np.asarray(values, np.float32)


def frozen(
    build: Callable[[], tuple[dict[str, Any], list[Any]]],
    feeds: Callable[[int], dict[str, Array]],
    *,
    control_flow: int = 2,
    seed: int = 7,
    hinted: bool = False,
    coarse: bool = False,
    **said: Any,
) -> Model:
    """A TF1 graph with seeded weights, frozen by TensorFlow.

    Args:
        build: makes the graph; gives its placeholders by name, and its outputs.
        feeds: see `Model`.
        control_flow: 1 or 2.
        seed: of the weights.
        hinted: whether there are hints, which freezing would else prune.
        coarse: see `drawn`.
        said: what the model says of itself: kernels, loops, noisy.
    """
    from hinted_graphs import control_flow as control_flow_version

    with control_flow_version(control_flow), tf.Graph().as_default() as graph:
        inputs, results = build()
        outputs = [tf.identity(r, name=f"out_{k}").op.name for k, r in enumerate(results)]
        graph_def = _with_weights(graph, outputs, seed, hinted, coarse)
    kept = {node.name for node in graph_def.node}
    names = [name for name in inputs if name in kept]

    @functools.cache
    def session() -> Session:  # one for all batches: opening it takes longer than a run
        return Session(graph_def)

    def wanted(values: dict[str, Array]) -> list[Array]:
        given = {name: values[name] for name in names}
        return list(session().run(given, outputs).values())

    def given(batch: int) -> dict[str, Array]:
        return {name: value for name, value in feeds(batch).items() if name in names}

    return Model(graph_def, given, wanted, names, outputs, **said)


def _with_weights(graph: Any, outputs: list[str], seed: int, hinted: bool, coarse: bool) -> Any:
    variables = v1.global_variables()
    random = np.random.default_rng(seed)
    with v1.Session() as session:
        if not variables:
            return v1.graph_util.extract_sub_graph(graph.as_graph_def(), outputs)
        values = {
            v.initializer.inputs[1]: drawn(random, v.shape.as_list(), coarse) for v in variables
        }
        session.run([v.initializer for v in variables], values)
        kept = outputs + (hintc.find_all_hinted_output_nodes(session=session) if hinted else [])
        return v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), kept)
