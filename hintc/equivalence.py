"""Do two models compute the same? GraphDefs and .tflite models, each against each.

Both run on the same seeded inputs; equal is ``|a - b| <= atol + rtol * |a|``, where
`a` is the reference. Values that are not finite must be the same on both sides.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hintc.errors import EquivalenceError, HintcError
from hintc.ops import Target
from hintc.runtime.interpreter import Interpreter
from hintc.runtime.kernels import AnyKernel
from hintc.runtime.micro import MicroInterpreter
from hintc.runtime.session import Session
from hintc.runtime.tensor_info import TensorInfo

Array = npt.NDArray[Any]
Feed = Mapping[str, npt.ArrayLike]
Model = Any
"""A GraphDef, or the bytes of a .tflite model."""

RTOL = 1e-5
"""Default relative tolerance."""
ATOL = 1e-5
"""Default absolute tolerance: float32 models of a few layers agree to 1e-6 between TensorFlow and
TFLite; hybrid int8 weights need about 2e-2."""
DYNAMIC_SIZE = 4
"""Size taken for a dynamic dimension other than the first one that varies."""


@dataclass(frozen=True)
class Difference:
    """One output in one run.

    Args:
        output: its name in the first model.
        feed: number of the feed.
        invoke: number of the run on that feed.
        max_error: largest absolute difference; inf where shapes or non-finite values differ.
        ok: within tolerance.
        why: what differs, when it is not a matter of tolerance.
    """

    output: str
    feed: int
    invoke: int
    max_error: float
    ok: bool
    why: str = ""


@dataclass(frozen=True)
class EquivalenceReport:
    """What `check_equivalence` found: one `Difference` for each output, feed and invoke."""

    differences: tuple[Difference, ...]
    rtol: float
    atol: float

    @property
    def ok(self) -> bool:
        """All outputs agreed in all runs."""
        return all(difference.ok for difference in self.differences)

    @property
    def max_error(self) -> dict[str, float]:
        """Output -> largest absolute difference over all runs."""
        errors: dict[str, float] = {}
        for difference in self.differences:
            known = errors.get(difference.output, 0.0)
            errors[difference.output] = max(known, difference.max_error)
        return errors

    def raise_if_failed(self) -> None:
        """Raises `EquivalenceError`, which names the worst output, unless all is well."""
        failed = [difference for difference in self.differences if not difference.ok]
        if not failed:
            return
        worst = max(failed, key=lambda difference: difference.max_error)
        raise EquivalenceError(
            f"the models differ by up to {worst.max_error:.3g}",
            node=worst.output,
            why=worst.why
            or f"tolerance: atol {self.atol:g}, rtol {self.rtol:g}; "
            f"feed {worst.feed}, invoke {worst.invoke}",
        )


def check_equivalence(
    a: Model,
    b: Model,
    feeds: Feed | Sequence[Feed] | None = None,
    rtol: float = RTOL,
    atol: float = ATOL,
    seed: int = 0,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    batches: Sequence[int] = (1, 3),
    invokes: int = 2,
    target: Target = "tflite",
    kernels: Mapping[str, AnyKernel] | None = None,
) -> EquivalenceReport:
    """Compares two models.

    Args:
        a: the reference: a GraphDef or the bytes of a .tflite model.
        b: the other one, likewise.
        feeds: one feed or several, by the input names of `a`. None: seeded normal values for
            floats, 0 or 1 for bools and integers, in the shapes of `a`'s inputs; where one of
            them is dynamic, a feed for each of `batches`, else one.
        rtol: relative tolerance.
        atol: absolute tolerance.
        seed: of the generated feeds.
        inputs: input tensors of GraphDefs, in order; default: their Placeholders.
        outputs: output tensors of GraphDefs, in order; default: the nodes nobody reads.
        batches: sizes for dynamic dimensions.
        invokes: runs on each feed, on one instance: a state that leaks shows in the second.
        target: whose interpreter runs .tflite models: TFLite's for ``"tflite"`` (LiteRT's if it
            is installed), LiteRT's for ``"litert"``, TFLite Micro's for ``"tflm"``.
        kernels: for the custom ops of .tflite models; see `Interpreter`.

    Raises:
        HintcError: a model does not run, or inputs or outputs cannot be guessed or paired.
    """
    first, second = _runners((a, b), inputs, outputs, target, kernels)
    with contextlib.closing(first), contextlib.closing(second):
        names = _paired(first.input_names, second.input_names, "inputs")
        pairs = _paired(first.output_names, second.output_names, "outputs")
        found: list[Difference] = []
        used = made_feeds(first.inputs(), seed, batches) if feeds is None else _given(feeds)
        for number, feed in enumerate(used):
            for invoke in range(max(invokes, 1)):
                left = first.run(feed)
                right = second.run({names.get(name, name): feed[name] for name in feed})
                for output, other in pairs.items():
                    error, ok, why = _compare(left[output], right[other], rtol, atol)
                    found.append(Difference(output, number, invoke, error, ok, why))
    return EquivalenceReport(tuple(found), rtol, atol)


class _Runner(Protocol):
    """A model that runs. Inputs are described only when feeds must be made up."""

    input_names: list[str]
    output_names: list[str]

    def inputs(self) -> tuple[TensorInfo, ...]: ...
    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]: ...
    def close(self) -> None: ...


class _TfliteRunner:
    def __init__(
        self, model: bytes, target: Target, kernels: Mapping[str, AnyKernel] | None
    ) -> None:
        self._interpreter = _interpreter(model, target, kernels)
        self.input_names = [info.name for info in self._interpreter.inputs]
        self.output_names = [info.name for info in self._interpreter.outputs]

    def inputs(self) -> tuple[TensorInfo, ...]:
        return self._interpreter.inputs

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        return self._interpreter.run(feed)

    def close(self) -> None:
        """The interpreter needs no closing."""


def _interpreter(
    model: bytes, target: Target, kernels: Mapping[str, AnyKernel] | None
) -> Interpreter | MicroInterpreter:
    if target == "tflm":
        return MicroInterpreter(model)
    return Interpreter(model, runtime="litert" if target == "litert" else None, kernels=kernels)


class _GraphRunner:
    def __init__(self, graph_def: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self.input_names, self.output_names = list(inputs), list(outputs)
        self._session = Session(graph_def)

    def inputs(self) -> tuple[TensorInfo, ...]:
        return tuple(self._session.info(name) for name in self.input_names)

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        return self._session.run(feed, self.output_names)

    def close(self) -> None:
        self._session.close()


def _runners(
    models: tuple[Model, Model],
    inputs: Sequence[str] | None,
    outputs: Sequence[str] | None,
    target: Target,
    kernels: Mapping[str, AnyKernel] | None,
) -> list[_Runner]:
    """Both models ready to run; a .tflite model tells a GraphDef beside it the names."""
    found: dict[int, _Runner] = {
        number: _TfliteRunner(bytes(model), target, kernels)
        for number, model in enumerate(models)
        if isinstance(model, bytes | bytearray)
    }
    for number, model in enumerate(models):
        if number in found:
            continue
        if not (hasattr(model, "node") and hasattr(model, "library")):
            raise HintcError(
                f"a {type(model).__name__} cannot be compared",
                why="it is neither a GraphDef nor the bytes of a .tflite model",
            )
        beside = found.get(1 - number)
        there = {node.name for node in model.node}
        names = [_bare(name) for name in inputs or []]
        fetches = [_bare(name) for name in outputs or []]
        if beside is not None and inputs is None and _all_in(beside.input_names, there):
            names = beside.input_names
        if beside is not None and outputs is None and _all_in(beside.output_names, there):
            fetches = beside.output_names
        found[number] = _GraphRunner(model, names or _placeholders(model), fetches or _sinks(model))
    return [found[0], found[1]]


def _all_in(names: Sequence[str], nodes: set[str]) -> bool:
    return all(name.partition(":")[0] in nodes for name in names)


def _bare(name: str) -> str:
    return name.removesuffix(":0")


def _placeholders(graph_def: Any) -> list[str]:
    names = [node.name for node in graph_def.node if node.op == "Placeholder"]
    read = {_reference(name) for node in graph_def.node for name in node.input}
    used = [name for name in names if name in read]
    if not used:
        raise HintcError(
            "the graph's inputs cannot be guessed",
            why="its Placeholders that are read: none",
            remedy="Name them with inputs=.",
        )
    return used


def _sinks(graph_def: Any) -> list[str]:
    """The nodes whose values nobody reads; an error with the candidates if there is doubt."""
    read = {_reference(name) for node in graph_def.node for name in node.input if name[0] != "^"}
    silent = {"Const", "NoOp", "Placeholder", "Assert"}
    sinks = [n for n in graph_def.node if n.name not in read and n.op not in silent]
    if len(sinks) != 1:
        raise HintcError(
            "the graph's outputs cannot be guessed",
            why="candidates: " + (", ".join(node.name for node in sinks[:10]) or "none"),
            remedy="Name them with outputs=.",
        )
    return [sinks[0].name]


def _reference(name: str) -> str:
    return name.removeprefix("^").partition(":")[0]


def _paired(first: Sequence[str], second: Sequence[str], what: str) -> dict[str, str]:
    """Name in the first model -> name in the second: the same names, else the same places."""
    if len(first) != len(second):
        raise HintcError(
            f"the models have {len(first)} and {len(second)} {what}",
            why=f"{', '.join(first)} against {', '.join(second)}",
        )
    if set(first) == set(second):
        return {name: name for name in first}
    return dict(zip(first, second, strict=True))


def _given(feeds: Feed | Sequence[Feed]) -> list[dict[str, Array]]:
    listed = [feeds] if isinstance(feeds, Mapping) else list(feeds)
    return [{_bare(name): np.asarray(feed[name]) for name in feed} for feed in listed]


def made_feeds(
    infos: Sequence[TensorInfo], seed: int, batches: Sequence[int]
) -> list[dict[str, Array]]:
    """Seeded values for inputs: one feed for each of `batches`, or one if no size is dynamic."""
    random = np.random.default_rng(seed)
    sizes = list(batches) if any(-1 in info.shape for info in infos) else [1]
    return [{info.name: _random(info, size, random) for info in infos} for size in sizes]


def _random(info: TensorInfo, batch: int, random: np.random.Generator) -> Array:
    """Seeded values; the first dynamic dimension is the batch, others are `DYNAMIC_SIZE`."""
    shape = list(info.shape)
    for axis, size in enumerate(info.shape):
        if size < 0:
            shape[axis] = DYNAMIC_SIZE if -1 in info.shape[:axis] else batch
    if info.dtype.kind == "f":
        return random.standard_normal(shape).astype(info.dtype)
    if info.dtype.kind in "biu":
        return random.integers(0, 2, shape).astype(info.dtype)
    raise HintcError(
        f"no values can be made up for input '{info.name}' of type {info.dtype}",
        remedy="Give feeds.",
    )


def _compare(a: Array, b: Array, rtol: float, atol: float) -> tuple[float, bool, str]:
    if a.shape != b.shape:
        return float("inf"), False, f"shapes {list(a.shape)} and {list(b.shape)}"
    if a.dtype.kind not in "fiub" or b.dtype.kind not in "fiub":
        same = bool(np.array_equal(a, b))
        return (0.0 if same else float("inf")), same, "" if same else "values differ"
    left, right = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(left) & np.isfinite(right)
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True):
        return float("inf"), False, "NaN or infinity on one side only"
    errors = np.abs(left - right)[finite]
    largest = float(errors.max(initial=0.0))
    return largest, bool((errors <= atol + rtol * np.abs(left[finite])).all()), ""
