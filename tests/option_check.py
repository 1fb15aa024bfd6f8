"""Recurrent models with the options of `hintc.convert`: each equal to TensorFlow, or refused.

A float model agrees to `TOLERANCE`. Of a quantised one its float shadow is compared (see
`float_shadow`): its weights are such that the file holds them exactly, so wrong wiring shows. Then
it runs as it is, and may be off by what rounding explains.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import hintc
from float_shadow import float_shadow
from hintc.convert.options import with_options
from hintc.convert.quantization_cost import Scales
from hintc.pipeline import PassPipeline
from hintc.runtime.interpreter import Interpreter
from hintc.runtime.micro import MicroInterpreter
from hintc.tflite.flatbuffer import Model as File
from model_check import TOLERANCE, Array, Model, Outcome, named
from recurrent_models import DEPTH, STEPS, Cell, Recipe, recipe

Runner = Callable[[dict[str, Array]], list[Array]]
SAMPLES = 12
WIDER = 9
PIECES = 3
"""Of a stream, each of `STEPS` steps."""
BATCHES = (1, 3, 2, 1)
"""On one instance, where the batch is dynamic."""


@dataclass(frozen=True)
class Choice:
    """Options of a conversion, and how exact its result is, of the largest value, or of 1.

    Attributes:
        options: of `hintc.convert`.
        wiring: largest error of the float shadow; None: the model itself is float.
        largest, mean: errors of the model.
        micro, stream, kept: it runs in TFLite Micro; it goes on from invoke to invoke; it keeps a
            layer in float.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    wiring: float | None = None
    largest: float = TOLERANCE
    mean: float = TOLERANCE
    micro: bool = False
    stream: bool = False
    kept: bool = False

    def also(self, **options: Any) -> Choice:
        """With more options."""
        return replace(self, options={**self.options, **options})

    @property
    def integers(self) -> bool:
        return self.options.get("quantize") == "int8"


FLOAT = Choice()
HYBRID = Choice({"quantize": "dynamic"}, wiring=1e-3, largest=0.3, mean=0.05)
HALF = Choice({"quantize": "float16"}, largest=1e-3, mean=1e-3)
INTEGER = Choice({"quantize": "int8"}, wiring=0.03, largest=0.3, mean=0.1)
MICRO = Choice({"target": "tflm"}, micro=True)
STREAM = Choice({"state": "persist"}, stream=True)

CHOICES: Mapping[str, Choice] = {
    "latency": FLOAT.also(optimize_for="latency"),
    "while": FLOAT.also(form="while"),
    "while latency": FLOAT.also(form="while", optimize_for="latency"),
    "unroll": FLOAT.also(form="unroll"),
    "litert": FLOAT.also(target="litert"),
    "dynamic": HYBRID,
    "dynamic latency": HYBRID.also(optimize_for="latency"),
    "dynamic while": HYBRID.also(form="while"),
    "dynamic unroll": HYBRID.also(form="unroll"),
    "float16": HALF,
    "float16 latency": HALF.also(optimize_for="latency"),
    "int8": INTEGER,
    "int8 latency": INTEGER.also(optimize_for="latency"),
    "int8 ends": INTEGER.also(io_dtype="int8"),
    "int8 kept": replace(INTEGER, kept=True),
    "int8 while": INTEGER.also(form="while"),
    "int8 unroll": INTEGER.also(form="unroll"),
    "tflm": MICRO,
    "tflm unroll": MICRO.also(form="unroll"),
    "tflm int8": replace(INTEGER, micro=True).also(target="tflm"),
    "persist": STREAM,
    "persist dynamic": replace(HYBRID, stream=True).also(state="persist"),
    "persist int8": replace(INTEGER, stream=True).also(state="persist"),
}
EXPECTED: Mapping[str, str] = {
    "TFLite Micro needs every size": "tflm",
    "TFLite Micro has no kernel": "tflm",
    "its state cannot persist": "persist",
    "it cannot be quantised to integers here": "int8",
}
"""What an error may say -> in which choices."""


def chosen(seed: int, count: int, only: str | None = None) -> list[str]:
    """Names of choices that go with the model of a seed, always the same; or `only`, if it does."""
    made = recipe(seed)
    among = [name for name, choice in CHOICES.items() if not choice.stream or is_stream(made)]
    if only is not None:
        return [only] if only in among else []
    return random.Random(f"options of {seed}").sample(among, min(count, len(among)))


def is_stream(made: Recipe) -> bool:
    """Whether a long sequence is the same as its pieces one after the other."""
    groups = made.groups
    return (
        made.beside in ("nothing", "residual", "shared")
        and not made.front.endswith("static")
        and not made.lengths
        and all(g.direction == "forward" and g.walks_forward for g in groups)
        and all(g.initial == "zeros" for g in groups)
        and not any(g.walk and g.walk.literal for g in groups)
        and not any(cell.options.get("unroll") for g in groups for cell in g.cells)
        and not any(cell.trap == "time" for g in groups for cell in g.cells)
    )


def adapted(made: Recipe, choice: Choice) -> Recipe:
    """The recipe as the choice needs it."""
    made = replace(made, coarse="quantize" in choice.options)
    if choice.options.get("quantize") == "dynamic":
        made = widened(made)
    if choice.micro:
        free = made.dynamic_batch and not made.time_major
        made = replace(made, dynamic_time=False, dynamic_batch=free)
    return replace(made, dynamic_batch=False, dynamic_time=False) if choice.stream else made


def widened(made: Recipe) -> Recipe:
    """The recipe with cells so wide that TensorFlow quantises their matrices in loops, too."""
    cells = [cell for group in made.groups for cell in group.cells]
    if made.beside == "nested" or any(cell.wrapper == "residual" for cell in cells):
        return made  # their output is as wide as their input
    groups = (
        replace(group, cells=tuple(_wide(cell) for cell in group.cells)) for group in made.groups
    )
    return replace(made, groups=tuple(groups))


def _wide(cell: Cell) -> Cell:
    options = dict(cell.options)
    if "num_proj" in options:
        options["num_proj"] *= WIDER
    return replace(cell, units=cell.units * WIDER, options=options)


def _built(made: Recipe) -> Model:
    from recurrent_fronts import build

    key = repr(made)
    if key not in _MODELS:
        for old in list(_MODELS)[:-3]:
            del _MODELS[old]
        _MODELS[key] = build(made)
    return _MODELS[key]


_MODELS: dict[str, Model] = {}
"""The last ones that were built, by the text of their recipes: it takes as long as converting."""


def check_option(case: tuple[int, str]) -> Outcome:
    """Build the model of a seed, convert it with the options of this name, compare it."""
    seed, name = case
    choice = CHOICES[name]
    made = adapted(recipe(seed), choice)
    try:
        model = _built(made)
    except Exception as error:  # noqa: BLE001 - the recipe is wrong
        return Outcome("failed", f"cannot be built: {type(error).__name__}: {error}"[:300])
    runs = list(_stream(model, made) if choice.stream else _batches(model, choice))
    return check_choice(model, name, choice, runs)


Runs = Sequence[tuple[dict[str, Array], Sequence[Array]]]
"""Feeds of each invoke, and what it must give."""


def check_choice(model: Model, name: str, choice: Choice, runs: Runs) -> Outcome:
    """Convert a model with the options of a choice and compare it on each of `runs`."""
    start = time.perf_counter()
    options = dict(choice.options)
    if choice.integers:
        options["representative_dataset"] = lambda: _samples(choice, runs)
    if choice.kept:
        options["keep_float"] = [_some_layer(model)]
    try:
        converted = hintc.convert(model.source, model.inputs, model.outputs, **options)
        status, detail, error = _compared(converted.tflite, choice, runs)
    except hintc.HintcError as failure:
        text = " ".join(str(failure).split())[:300]
        fine = model.noisy or any(p in text and w in name for p, w in EXPECTED.items())
        return Outcome("refused" if fine else "failed", text)
    except Exception as failure:  # noqa: BLE001 - a crash is what is looked for
        text = " ".join(str(failure).split())[:300]
        return Outcome("failed", f"crash: {type(failure).__name__}: {text}")
    codes = tuple(sorted({r.code for r in converted.report.not_fused}))
    return Outcome(status, detail, error, codes=codes, seconds=time.perf_counter() - start)


def _batches(model: Model, choice: Choice) -> Iterator[tuple[dict[str, Array], Sequence[Array]]]:
    """Several batch sizes in changing order, each twice."""
    dynamic = len(model.batches) > 1
    for batch in (1,) if dynamic and choice.micro else BATCHES if dynamic else model.batches:
        feeds = model.feeds(batch)
        wanted = [np.asarray(value) for value in model.wanted(feeds)]
        yield feeds, wanted
        yield feeds, wanted


def _stream(model: Model, made: Recipe) -> Iterator[tuple[dict[str, Array], Sequence[Array]]]:
    """The pieces of a long sequence: what the source gives on all up to the end of each."""
    source = _built(replace(made, dynamic_time=True))
    axis = 0 if made.time_major else 1
    shape = [2, PIECES * STEPS, DEPTH]
    x = np.random.default_rng(made.seed).uniform(-1, 1, shape).astype(np.float32)
    x = x.swapaxes(0, 1).copy() if made.time_major else x
    (name,) = model.feeds(2)
    for begin in range(0, PIECES * STEPS, STEPS):
        piece = range(begin, begin + STEPS)
        found = source.wanted({name: np.take(x, range(begin + STEPS), axis)})
        wanted = [
            np.take(value, piece, axis) if what == "sequence" else value
            for what, value in zip((*made.read, *made.taps), found, strict=True)
        ]
        yield {name: np.take(x, piece, axis)}, wanted


def _samples(choice: Choice, runs: Runs) -> Iterator[list[Array]]:
    """The feeds themselves, and more like them: a mask of zeros stays one."""
    yield from (list(feeds.values()) for feeds, _ in runs)
    chance = np.random.default_rng(0)
    for number in range(0 if choice.stream else SAMPLES):
        feeds = runs[number % len(runs)][0]
        yield [
            value * chance.choice([-1, 1], value.shape).astype(value.dtype)
            if value.dtype.kind == "f"
            else value
            for value in feeds.values()
        ]


def _some_layer(model: Model) -> str:
    """The name of the operator in the middle of what becomes integers."""
    steps = with_options(PassPipeline.DEFAULT, {"quantize": "int8", "form": "auto"})
    plain = hintc.convert(model.source, model.inputs, model.outputs, pipeline=steps).tflite
    main = File.read(plain).subgraphs[0]
    name = main.tensor_name(main.operators[len(main.operators) // 2].outputs[0])
    return name.partition(";")[0]


def _compared(tflite: bytes, choice: Choice, runs: Runs) -> tuple[str, str, float]:
    """Status, detail and largest error."""
    if choice.wiring is not None:
        shadow = float_shadow(tflite)
        runner = Interpreter(shadow, runtime="litert")
        problem, error = _problem(runner, Scales(shadow), runs, choice.wiring, choice.wiring)
        if problem:
            return "wrong", f"shadow: {problem}", error
    runners: dict[str, Any] = {
        "litert": lambda: Interpreter(tflite, runtime="litert"),
        "tensorflow, 2 threads": lambda: Interpreter(tflite, runtime="tensorflow", threads=2),
        "litert without delegates": lambda: Interpreter(tflite, delegates=False),
    }
    if choice.micro:
        runners = {"tflm": lambda: MicroInterpreter(tflite), "litert": runners["litert"]}
    largest = 0.0
    for name, make in runners.items():
        problem, error = _problem(make(), Scales(tflite), runs, choice.largest, choice.mean)
        largest = max(largest, error)
        if problem:
            return "wrong", f"{name}: {problem}", error
    return "right", "", largest


def _problem(
    runner: Any, scales: Scales, runs: Runs, most: float, mean: float
) -> tuple[str, float]:
    """What is wrong, if anything is, and the largest error, of the largest value or of 1."""
    largest = 0.0
    for number, (feeds, wanted) in enumerate(runs):
        given = list(named(runner, feeds).values())
        found = scales.real(list(runner.run(scales.stored(given)).values()))
        for at, (one, other) in enumerate(zip(found, wanted, strict=True)):
            where = f"output {at}, invoke {number}"
            if one.shape != other.shape:
                return f"{where}: shape {one.shape}, wanted {other.shape}", float("inf")
            unit = max(1.0, float(np.max(np.abs(other), initial=0.0)))
            off = np.abs(one.astype(np.float64) - other) / unit
            if not np.isfinite(off).all():
                return f"{where}: not finite", float("inf")
            error = float(off.max(initial=0.0))
            largest = max(largest, error)
            if error > most or (off.size and float(off.mean()) > mean):
                return f"{where}: off by {error:.3g}, {float(off.mean()):.3g} on average", largest
    return "", largest
