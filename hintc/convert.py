"""compile and convert: a source through the pipeline, to a GraphDef or on to a .tflite model."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from hintc.equivalence import ATOL, RTOL, EquivalenceReport, check_equivalence
from hintc.errors import HintcError
from hintc.files import write_atomically
from hintc.graphdef import lower
from hintc.instrument import Instrument
from hintc.ir import Module
from hintc.near import check_choice, some
from hintc.ops import TARGETS, Quantize, Target
from hintc.pipeline import PassPipeline, Step
from hintc.report import Report, count_graph_def_ops
from hintc.source import SourceModel, read_source
from hintc.tflite.handoff import to_tflite_model
from hintc.tflite.inspect import op_counts
from hintc.tflite.legalize import legalize
from hintc.tflite.state import StateMode

__all__ = ["TOLERANCES", "Compiled", "Converted", "compile", "convert", "legalize"]

Form = Literal["auto", "fused", "unroll", "while"]
OptimizeFor = Literal["size", "latency"]
Check = bool | Mapping[str, Any] | Sequence[Mapping[str, Any]] | None

QUANTIZE: tuple[str | None, ...] = (None, "dynamic", "float16", "int8")
FORMS: tuple[Form, ...] = ("auto", "fused", "unroll", "while")
OPTIMIZE_FOR: tuple[OptimizeFor, ...] = ("size", "latency")
STATES: tuple[StateMode, ...] = ("reset", "persist")

TOLERANCES: Mapping[str | None, tuple[float, float]] = {
    None: (RTOL, ATOL),
    "float16": (5e-3, 5e-3),
    "dynamic": (5e-2, 5e-2),
}
"""quantize -> the (rtol, atol) that `check` allows. float16 weights carry a relative rounding error
of 2**-11; a hybrid kernel was measured off by up to 1.2e-2 (LSTM) and 7e-2 (RNN) at outputs of
order 1."""


@dataclass(frozen=True)
class Compiled:
    """What `compile` gives.

    Attributes:
        graph_def: the lowered GraphDef; runs in TensorFlow, fused ops are calls with a body.
        module: the same before lowering: recurrences are still `Scan` nodes.
        report: what was done, and why no more.
        inputs: tensor names in order, without ``:0``.
        outputs: tensor names in order, without ``:0``.
        source: the frozen source.
    """

    graph_def: Any
    module: Module
    report: Report
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    source: SourceModel


@dataclass(frozen=True)
class Converted:
    """What `convert` gives.

    Attributes:
        tflite: the model's bytes.
        graph_def: the lowered GraphDef it was made from; runs in TensorFlow.
        report: what was done, and why no more.
        inputs: tensor names in order, without ``:0``; the model's inputs carry them.
        outputs: tensor names in order, likewise.
    """

    tflite: bytes
    graph_def: Any
    report: Report
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to `path`, whole or not at all.

        Raises:
            HintcError: it cannot be written.
        """
        return write_atomically(path, self.tflite)


def compile(
    source: Any,
    inputs: Any = None,
    outputs: Any = None,
    *,
    signature: str | None = None,
    pipeline: Step | Sequence[Step] | None = None,
    form: Form = "auto",
    optimize_for: OptimizeFor = "size",
    target: Target = "tflite",
    state: StateMode = "reset",
    check: Check = None,
    instruments: Sequence[Instrument] = (),
    verify_each: bool = True,
) -> Compiled:
    """Read a model, run the pipeline on it, and lower the result to a GraphDef.

    Args:
        source: see `hintc.source.read_source`.
        inputs: tensors or names, ``:0`` optional; guessed when there is no doubt.
        outputs: likewise.
        signature: of a SavedModel.
        pipeline: what to run: a `PassPipeline`, its text, a pass, or a sequence of these.
            Default: `PassPipeline.DEFAULT`.
        form: of recurrences: ``"fused"``, ``"unroll"``, ``"while"``, or ``"auto"``: chosen by
            `optimize_for`. Other values than the default override the option of that name of
            the passes that have it; so do the next three.
        optimize_for: ``"size"`` or ``"latency"``.
        target: what shall run the model: ``"tflite"``, ``"litert"`` or ``"tflm"``.
        state: ``"reset"``: each run starts from the model's initial state, as in TensorFlow;
            ``"persist"``: from where the last one ended.
        check: True, or feeds by input name: compare the result with the source in TensorFlow.
        instruments: watch the pipeline.
        verify_each: verify the module after each pass that changed it.

    Raises:
        HintcError: something is wrong with the source, the names or the options.
        VerifyError: a pass broke the module.
        EquivalenceError: `check` found an error above the tolerance (`TOLERANCES`).
    """
    _check_options(form, optimize_for, target, state)
    feeds = _feeds(check)
    options = {"form": form, "optimize_for": optimize_for, "target": target, "state": state}
    steps = _with_options(_pipeline(pipeline), options)
    compiled = _compile(
        lambda: read_source(source, inputs, outputs, signature), steps, instruments, verify_each
    )
    if feeds:
        with _timed(compiled.report, "check"):
            _compare(compiled.source, compiled.graph_def, feeds, compiled.report, None, state)
    return compiled


def convert(
    source: Any,
    inputs: Any = None,
    outputs: Any = None,
    *,
    signature: str | None = None,
    pipeline: Step | Sequence[Step] | None = None,
    quantize: Literal["dynamic", "float16", "int8"] | None = None,
    keep_float: Sequence[str] = (),
    io_dtype: Literal["float32", "int8"] = "float32",
    representative_dataset: Callable[[], Any] | None = None,
    target: Target = "tflite",
    state: StateMode = "reset",
    form: Form = "auto",
    optimize_for: OptimizeFor = "size",
    check: Check = None,
    instruments: Sequence[Instrument] = (),
    verify_each: bool = True,
) -> Converted:
    """Convert a model to TFLite.

    Args:
        source: see `hintc.source.read_source`.
        inputs: see `compile`.
        outputs: see `compile`; an output keeps its name and position.
        signature: see `compile`.
        pipeline: see `compile`.
        quantize: None: float32. ``"dynamic"``: int8 weights, float32 arithmetic between them.
            ``"float16"``: float16 weights. ``"int8"`` is not built yet.
        keep_float: layers or nodes to leave in float; needs ``quantize="int8"``.
        io_dtype: of the model's inputs and outputs; ``"int8"`` needs ``quantize="int8"``.
        representative_dataset: yields lists of arrays in input order; needs ``quantize="int8"``.
        target: see `compile`.
        state: see `compile`.
        form: see `compile`.
        optimize_for: see `compile`.
        check: see `compile`; the .tflite model itself is compared with the source, or, if it
            has custom operators, which only their owner's kernels can run, the lowered graph.
        instruments: see `compile`.
        verify_each: see `compile`.

    Raises:
        HintcError: as `compile`; or TFLite cannot run what the model needs.
        VerifyError: see `compile`.
        EquivalenceError: see `compile`.
    """
    _check_options(form, optimize_for, target, state)
    feeds = _feeds(check)
    weights = _check_quantization(quantize, keep_float, io_dtype, representative_dataset)
    options = {
        "form": form,
        "optimize_for": optimize_for,
        "target": target,
        "state": state,
        "quantize": quantize,
    }
    steps = _with_options(_pipeline(pipeline), options)
    compiled = _compile(
        lambda: read_source(source, inputs, outputs, signature), steps, instruments, verify_each
    )
    report = compiled.report
    with _timed(report, "convert"):
        legalized = to_tflite_model(
            _without_hints(compiled.graph_def),
            compiled.inputs,
            compiled.outputs,
            quantize=weights,
            target=target,
            state=state,
        )
    report.operators = dict(op_counts(legalized.tflite).most_common())
    report.sizes["tflite"] = len(legalized.tflite)
    report.add_notes("legalize", [(note.node, note.text) for note in legalized.notes])
    if feeds:
        with _timed(report, "check"):
            _check_model(compiled, legalized.tflite, feeds, quantize, state)
    return Converted(
        legalized.tflite, compiled.graph_def, report, compiled.inputs, compiled.outputs
    )


def _compile(
    read: Callable[[], SourceModel],
    pipeline: PassPipeline,
    instruments: Sequence[Instrument],
    verify_each: bool,
) -> Compiled:
    report = Report(pipeline=str(pipeline))
    with _timed(report, "read"):
        source = read()
        module = source.lift()
    report.source = source.description
    report.ops_before = count_graph_def_ops(source.graph_def)
    report.sizes["source"] = source.graph_def.ByteSize()
    outcome = pipeline.run(module, instruments, verify_each=verify_each)
    for run in outcome.runs:
        report.add_pass(run.name, run.report)
        stage = f"pass {run.name}"
        report.timings[stage] = report.timings.get(stage, 0.0) + run.seconds
    with _timed(report, "lower"):
        graph_def = lower(module)
    report.ops_after = count_graph_def_ops(graph_def)
    report.sizes["lowered"] = graph_def.ByteSize()
    return Compiled(graph_def, module, report, source.inputs, source.outputs, source)


def _without_hints(graph_def: Any) -> Any:
    """The graph without the attributes of hints that no pass has replaced.

    TensorFlow's converter makes a dynamic batch 1 as soon as it sees one of them (lite.py,
    `_is_unknown_shapes_allowed`).
    """
    marks = "_tflite_"
    if not any(key.startswith(marks) for node in graph_def.node for key in node.attr):
        return graph_def
    plain = type(graph_def)()
    plain.CopyFrom(graph_def)
    for node in plain.node:
        for key in [key for key in node.attr if key.startswith(marks)]:
            del node.attr[key]
    return plain


@contextmanager
def _timed(report: Report, stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    report.timings[stage] = report.timings.get(stage, 0.0) + time.perf_counter() - start


def _check_options(form: object, optimize_for: object, target: object, state: object) -> None:
    check_choice("form", form, FORMS)
    check_choice("optimize_for", optimize_for, OPTIMIZE_FOR)
    check_choice("target", target, TARGETS)
    check_choice("state", state, STATES)


def _check_quantization(
    quantize: object, keep_float: Sequence[str], io_dtype: object, dataset: object
) -> Quantize | None:
    check_choice("quantize", quantize, QUANTIZE)
    check_choice("io_dtype", io_dtype, ("float32", "int8"))
    if quantize == "int8":
        raise HintcError(
            "quantize='int8' is not built yet",
            remedy="quantize='dynamic' makes the weights int8 and needs no data.",
        )
    for name, value in (
        ("keep_float", keep_float),
        ("io_dtype='int8'", io_dtype == "int8"),
        ("representative_dataset", dataset),
    ):
        if value:
            raise HintcError(
                f"{name} has no use here",
                why=f"it belongs to quantize='int8', and quantize is {quantize!r}",
                remedy="Leave it out.",
            )
    return cast("Quantize | None", quantize)


def _pipeline(given: Step | Sequence[Step] | None) -> PassPipeline:
    if given is None:
        return PassPipeline.DEFAULT
    if isinstance(given, (list, tuple)):
        return PassPipeline.of(*given)
    return PassPipeline.of(cast("Step", given))


_DEFAULTS = {
    "form": "auto",
    "optimize_for": "size",
    "target": "tflite",
    "state": "reset",
    "quantize": None,
}


def _with_options(pipeline: PassPipeline, options: Mapping[str, Any]) -> PassPipeline:
    """Hands each option that is not at its default to the passes that have it."""
    wanted = {name: value for name, value in options.items() if value != _DEFAULTS[name]}
    for step in pipeline:
        fields = {field.name for field in dataclasses.fields(step)}
        here = {name: value for name, value in wanted.items() if name in fields}
        if here:
            pipeline = pipeline.set_options(step.name, **here)
    return pipeline


def _feeds(check: Any) -> list[Mapping[str, Any] | None]:
    """What to compare on: nothing, made-up feeds ([None]) or the user's."""
    if check is None or check is False:
        return []
    if check is True:
        return [None]
    feeds = [check] if isinstance(check, Mapping) else check
    if not isinstance(feeds, (list, tuple)) or not all(isinstance(f, Mapping) for f in feeds):
        raise HintcError(
            f"check is a {type(check).__name__}",
            remedy="Give True, a mapping of input names to arrays, or a list of such mappings.",
        )
    return list(feeds)


def _check_model(
    compiled: Compiled,
    tflite: bytes,
    feeds: Sequence[Mapping[str, Any] | None],
    quantize: str | None,
    state: StateMode,
) -> None:
    """Compares the model, or the lowered graph where the model has ops without a kernel."""
    report = compiled.report
    custom = [name for name in report.operators if name.startswith("CUSTOM:")]
    if not custom:
        _compare(compiled.source, tflite, feeds, report, quantize, state)
        return
    codes = some(name.removeprefix("CUSTOM:") for name in custom)
    report.add_notes(
        "check", [(compiled.outputs[0], f"no kernel for {codes}: the lowered graph was compared")]
    )
    _compare(compiled.source, compiled.graph_def, feeds, report, None, state)


def _compare(
    source: SourceModel,
    result: Any,
    feeds: Sequence[Mapping[str, Any] | None],
    report: Report,
    quantize: str | None,
    state: StateMode,
) -> None:
    """Runs both and raises if they differ; the largest errors go into the report."""
    rtol, atol = TOLERANCES[quantize]
    report.tolerance = (rtol, atol)
    # A model whose state persists agrees on its first invoke only, each feed on a new instance.
    once = state == "persist" and isinstance(result, bytes)
    for feed in feeds:
        found: EquivalenceReport = check_equivalence(
            source.graph_def,
            result,
            feed,
            rtol=rtol,
            atol=atol,
            inputs=source.inputs,
            outputs=source.outputs,
            batches=(1,) if once else (1, 3),
            invokes=1 if once else 2,
        )
        for name, error in found.max_error.items():
            report.errors[name] = max(report.errors.get(name, 0.0), error)
        found.raise_if_failed()
