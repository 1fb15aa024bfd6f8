"""compile and convert: a source through the pipeline, to a GraphDef or on to a .tflite model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from hintc.convert.check import (
    Check,
    check_feed_names,
    check_kernels,
    check_model,
    chosen_feeds,
    compare,
    try_on_target,
)
from hintc.convert.count import count_fused_ops, count_ops
from hintc.convert.integers import IntegerOptions, to_integers
from hintc.convert.options import (
    Forms,
    OptimizeFor,
    check_choices,
    check_instruments,
    check_quantization,
    check_states,
    chosen_pipeline,
    with_options,
)
from hintc.convert.references import check_references
from hintc.convert.results import Compiled, Converted
from hintc.convert.signature import with_source_keys
from hintc.errors import HintcError, VerifyError
from hintc.graphdef import lower
from hintc.graphdef.shapes import body_shapes_remembered
from hintc.instrument import Instrument
from hintc.ops import Quantize, Target
from hintc.pipeline import PassPipeline, Step
from hintc.remark import PassReport
from hintc.report import Report
from hintc.runtime.kernels import AnyKernel
from hintc.source import SourceModel, read_source
from hintc.tflite.handoff import to_tflite_model
from hintc.tflite.inspect import op_counts
from hintc.tflite.state import StateMode

_LOOP_CODES = ("branch-", "frame-", "loop-", "tensor-array")
"""Beginnings of the codes of remarks on control flow that was left as it is."""
_NOT_CARRIED = (
    "the model keeps a state in this variable from one call to the next; here each run starts "
    "from the value that it has now, except in fused kernels with state='persist'"
)


def compile(
    source: Any,
    inputs: Any = None,
    outputs: Any = None,
    *,
    signature: str | None = None,
    pipeline: Step | Sequence[Step] | None = None,
    form: Forms = "auto",
    optimize_for: OptimizeFor = "size",
    target: Target = "tflite",
    state: StateMode = "reset",
    quantize: Quantize | None = None,
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
            `optimize_for`; or a mapping of layers or nodes to these, for all others ``"auto"``.
            Other values than the default override the option of that name of the passes that have
            it; so do the next four.
        optimize_for: ``"size"``: kernels where there are, else loops; ``"latency"``: the form of
            each recurrence that an estimate says is the fastest on one thread of a CPU.
        target: what shall run the model: ``"tflite"``, ``"litert"`` or ``"tflm"`` (TFLite Micro:
            batches become 1, and `convert` refuses what it cannot run).
        state: ``"reset"``: each run starts from the model's initial state, as in TensorFlow;
            ``"persist"``: from where the last one ended; all recurrences must be fused then.
        quantize: how `convert` will store the weights (see there), on which the fastest form
            depends; here nothing is quantised.
        check: True, or feeds by input name: compare the result with the source in TensorFlow.
        instruments: watch the pipeline.
        verify_each: verify the module after each pass that changed it.

    Raises:
        HintcError: something is wrong with the source, the names or the options.
        VerifyError: a pass broke the module.
        EquivalenceError: `check` found an error above the tolerance (`TOLERANCES`).
    """
    options = {
        "form": form,
        "optimize_for": optimize_for,
        "target": target,
        "state": state,
        "quantize": quantize,
    }
    check_choices(options)
    check_instruments(instruments)
    feeds = chosen_feeds(check)
    steps = with_options(chosen_pipeline(pipeline), options)
    compiled = _compile(
        lambda: read_source(source, inputs, outputs, signature), steps, instruments, verify_each
    )
    check_feed_names(feeds, compiled.source)
    if feeds:
        with _timed(compiled.report, "check"):
            compare(compiled.source, compiled.graph_def, feeds, compiled.report, None, state)
            check_references(compiled, feeds)
    return compiled


def convert(
    source: Any,
    inputs: Any = None,
    outputs: Any = None,
    *,
    signature: str | None = None,
    pipeline: Step | Sequence[Step] | None = None,
    quantize: Quantize | None = None,
    keep_float: Sequence[str] = (),
    io_dtype: Literal["float32", "int8"] = "float32",
    representative_dataset: Callable[[], Any] | None = None,
    target: Target = "tflite",
    state: StateMode = "reset",
    form: Forms = "auto",
    optimize_for: OptimizeFor = "size",
    check: Check = None,
    kernels: Mapping[str, AnyKernel] | None = None,
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
            ``"float16"``: float16 weights. ``"int8"``: int8 weights and activations; what has no
            integer kernel stays float, and the report says so.
        keep_float: with ``"int8"``, layers or nodes that stay float32.
        io_dtype: with ``"int8"``, of the model's inputs and outputs that are float32 in the source.
        representative_dataset: for ``"int8"``: yields samples, each a list of arrays in input order
            or a dict by input name; each array a whole input. The ranges come from them, but for
            the last fifth (at most 100), on which `report.cost` is measured.
        target: see `compile`.
        state: see `compile`.
        form: see `compile`.
        optimize_for: see `compile`.
        check: see `compile`; the .tflite model itself is compared with the source, or, if it
            has custom operators without kernels, the lowered graph. An int8 model is compared on
            these feeds, or, if True, on held-out samples.
        kernels: custom code -> function or library that computes the op, for `check` and for the
            calibration of ``quantize="int8"``, which leaves such an op in float; they do not
            become part of the model. See `hintc.Interpreter`. An op that is declared with operands
            and a reference needs none.
        instruments: see `compile`.
        verify_each: see `compile`.

    Raises:
        HintcError: as `compile`; or TFLite cannot run what the model needs.
        VerifyError: see `compile`.
        EquivalenceError: see `compile`.
    """
    options = {
        "form": form,
        "optimize_for": optimize_for,
        "target": target,
        "state": state,
        "quantize": quantize,
    }
    check_choices({**options, "io_dtype": io_dtype})
    check_instruments(instruments)
    feeds = chosen_feeds(check)
    check_kernels(kernels, feeds, quantize)
    check_quantization(quantize, keep_float, io_dtype, representative_dataset)
    steps = with_options(chosen_pipeline(pipeline), options)
    compiled = _compile(
        lambda: read_source(source, inputs, outputs, signature), steps, instruments, verify_each
    )
    check_feed_names(feeds, compiled.source)
    report = compiled.report
    with _timed(report, "convert"), _loops_explained(report):
        legalized = to_tflite_model(
            compiled.graph_def,
            compiled.inputs,
            compiled.outputs,
            quantize=quantize,
            target=target,
            state=state,
        )
    if state == "persist":
        check_states(legalized.lowered)
    report.add_notes("legalize", [(note.node, note.text) for note in legalized.notes])
    tflite, samples = legalized.tflite, None
    if representative_dataset is not None:
        chosen = IntegerOptions(
            representative_dataset, tuple(keep_float), io_dtype, target, state, kernels or {}
        )
        with _timed(report, "quantise"):
            tflite, samples = to_integers(compiled, tflite, chosen, instruments)
    tflite = with_source_keys(tflite, compiled.source)
    report.operators = dict(op_counts(tflite).most_common())
    _count_kernels(report, legalized.lowered)
    report.sizes["tflite"] = len(tflite)
    try_on_target(compiled, tflite, target)
    if feeds or samples is not None:
        with _timed(report, "check"):
            check_references(compiled, feeds)
            check_model(compiled, tflite, feeds, samples, quantize, state, target, kernels)
    return Converted(tflite, compiled.graph_def, report, compiled.inputs, compiled.outputs)


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
    report.add_notes("state-not-carried", [(name, _NOT_CARRIED) for name in source.carried])
    report.ops_before = count_ops(source.graph_def)
    report.sizes["source"] = source.graph_def.ByteSize()
    try:
        with body_shapes_remembered():
            outcome = pipeline.run(module, instruments, verify_each=verify_each)
    except VerifyError as error:
        if error.pass_name is not None:
            raise
        raise HintcError(
            "the source is no valid graph",
            why=str(error),
            remedy="Export it again, with its function library: TensorFlow's "
            "remove_training_nodes drops it, hintc.remove_training_nodes keeps it.",
        ) from error
    for run in outcome.runs:
        report.add_pass(run.name, run.report)
        stage = f"pass {run.name}"
        report.timings[stage] = report.timings.get(stage, 0.0) + run.seconds
    _check_states_kept(report)
    with _timed(report, "lower"):
        graph_def = lower(module)
    report.ops_after = count_ops(graph_def)
    report.fused_ops = count_fused_ops(graph_def)
    report.sizes["lowered"] = graph_def.ByteSize()
    return Compiled(graph_def, module, report, source.inputs, source.outputs, source)


def _check_states_kept(report: Report) -> None:
    """Refuses to let a state that shall persist start anew at every run."""
    lost = [r for r in report.not_fused if r.code == "state-not-kept"]
    if lost:
        node = lost[0].node
        reasons = [r.reason for r in report.not_fused if r.node == node]
        raise HintcError(
            "its state cannot persist between invokes",
            node=node,
            why="; ".join([lost[0].reason, *(r for r in reasons if r != lost[0].reason)]),
            remedy=lost[0].remedy,
        )


@contextmanager
def _loops_explained(report: Report) -> Iterator[None]:
    """Where the converter fails on a list, the loops that stayed loops say why they did."""
    try:
        yield
    except HintcError as error:
        loops = [r for r in report.not_fused if r.code.startswith(_LOOP_CODES)]
        if not loops or "TensorList" not in error.what + (error.why or ""):
            raise
        reasons = "; ".join(f"'{r.node}' stays a loop: {r.reason}" for r in loops[:3])
        remedy = next((r.remedy for r in loops if r.remedy), error.remedy)
        raise HintcError(
            error.what,
            node=loops[0].node,
            why=reasons,
            remedy=remedy,
        ) from error


def _count_kernels(report: Report, kernels: Mapping[str, int]) -> None:
    """Corrects the fused ops by the kernels that the model really has, and says where they differ.

    Fused calls stay right if the converter inlines them, but they are loops then.
    """
    for op, calls in list(report.fused_ops.items()):
        found = kernels.get(op, 0)
        if found >= calls:
            continue
        report.add_pass("legalize", _lost_calls(op, calls, found))
        report.fused_ops[op] = found
    report.fused_ops = {op: calls for op, calls in report.fused_ops.items() if calls}


def _lost_calls(op: str, calls: int, found: int) -> PassReport:
    lost = PassReport()
    lost.refused(
        "fused-call-lost",
        op,
        f"the lowered graph calls it {calls} times, the model has it {found} times",
        "TensorFlow's converter removed a call as unused or equal to another, or inlined it; "
        "with an untested TensorFlow version, please report this.",
    )
    return lost


@contextmanager
def _timed(report: Report, stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    report.timings[stage] = report.timings.get(stage, 0.0) + time.perf_counter() - start
