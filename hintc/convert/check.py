"""The result against its source: on which feeds, with which tolerance; and on its target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hintc.convert.integers import Feeds, check_cost, measured_cost
from hintc.convert.references import reference_kernels
from hintc.convert.results import Compiled
from hintc.convert.samples import Samples
from hintc.equivalence import ATOL, RTOL, EquivalenceReport, check_equivalence
from hintc.errors import HintcError
from hintc.near import did_you_mean, some
from hintc.ops import Target
from hintc.report import Report
from hintc.runtime import kernels as runtime_kernels
from hintc.runtime.interpreter import Interpreter, RuntimeName, installed
from hintc.runtime.kernels import AnyKernel
from hintc.runtime.micro import micro_installed, tried_arena
from hintc.source import SourceModel
from hintc.tflite.flatbuffer import Model
from hintc.tflite.micro import check_micro, estimated_arena
from hintc.tflite.state import StateMode

Check = bool | Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
"""What the drivers take: nothing, True for made-up feeds, or feeds by input name."""
TOLERANCES: Mapping[str | None, tuple[float, float]] = {
    None: (RTOL, ATOL),
    "float16": (5e-3, 5e-3),
    "dynamic": (5e-2, 1.5e-1),
}
"""quantize -> the (rtol, atol) that `check` allows; for int8 models see `hintc.convert.integers`.
float16 weights carry a relative rounding error of 2**-11. Hybrid kernels were measured off by
1.2e-2 (LSTM) and 7e-2 (RNN) at outputs of order 1, and two stacked LSTMs of 64 cells with weights
spread over ±0.5 by 0.12; trained models are much nearer. So this finds wrong weights or wiring, not
a loss of accuracy: measure that on your data."""

_RUNTIMES: Mapping[Target, RuntimeName] = {"tflite": "tensorflow", "litert": "litert"}
_PACKAGES: Mapping[RuntimeName, str] = {"tensorflow": "tensorflow", "litert": "ai-edge-litert"}


def chosen_feeds(check: Any) -> Feeds:
    """What to compare on: nothing, made-up feeds ([None]) or the user's.

    Raises:
        HintcError: `check` is none of these.
    """
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


def check_kernels(kernels: object, feeds: Feeds, quantize: object) -> None:
    """Refuses kernels that cannot be used.

    Raises:
        HintcError: no mapping of functions, or nothing is compared or calibrated.
    """
    if kernels is None:
        return
    if not isinstance(kernels, Mapping):
        raise HintcError(
            f"kernels is a {type(kernels).__name__}",
            remedy="Give a mapping from custom codes to functions or libraries.",
        )
    runtime_kernels.check_kernels(kernels)
    if not feeds and quantize != "int8":
        raise HintcError(
            "kernels has no use here",
            why="they run custom ops for check and for quantize='int8', and neither is asked for",
            remedy="Give them to hintc.Interpreter, which runs the model.",
        )


def check_feed_names(feeds: Feeds, source: SourceModel) -> None:
    """Refuses feeds that leave an input out, or feed what is none.

    Raises:
        HintcError: names the input and what was probably meant.
    """
    keys = [source.input_keys.get(name, name) for name in source.inputs]
    for feed in feeds:
        if feed is None:
            continue
        for name in feed:
            if name not in keys and name.removesuffix(":0") not in source.inputs:
                raise HintcError(
                    f"check feeds '{name}', which is no input",
                    remedy=did_you_mean(name, keys, "inputs"),
                )
        fed = {name.removesuffix(":0") for name in feed}
        for key, name in zip(keys, source.inputs, strict=True):
            if not fed & {key, name}:
                raise HintcError(
                    f"check does not feed the input '{key}'",
                    remedy="Give every input an array, or check=True for made-up ones.",
                )


def try_on_target(compiled: Compiled, tflite: bytes, target: Target) -> None:
    """Loads the model in the target's interpreter, which looks for each operator and its version.

    TFLite Micro also runs it; see `_try_in_micro`. Where the interpreter is not installed, a note
    says that nothing was tried.

    Raises:
        HintcError: the target cannot run the model.
    """
    if target == "tflm":
        _try_in_micro(compiled, tflite)
        return
    runtime = _RUNTIMES[target]
    if runtime not in installed():
        text = f"not tried in {_PACKAGES[runtime]}, which is not installed"
        compiled.report.add_notes("target", [(compiled.outputs[0], text)])
        return
    try:
        Interpreter(tflite, runtime=runtime, delegates=False)
    except HintcError as error:
        raise HintcError(
            f"the {_PACKAGES[runtime]} that is installed cannot load the model",
            why=error.why,
            remedy="Install a newer one.",
        ) from error


def _try_in_micro(compiled: Compiled, tflite: bytes) -> None:
    """Runs the model once in TFLite Micro, on zeros, and reports how much memory that takes.

    Without the package tflite-micro the memory is estimated, and a note says that nothing ran.

    Raises:
        HintcError: TFLite Micro cannot run the model (see `hintc.tflite.micro.check_micro`), e.g.
            for a type that one of its kernels does not know.
    """
    report, model = compiled.report, Model.read(tflite)
    check_micro(model)
    if not micro_installed():
        report.sizes["arena"] = estimated_arena(model)
        text = "not tried in TFLite Micro, the arena is an estimate: hintc[tflm] is not installed"
        report.add_notes("target", [(compiled.outputs[0], text)])
        return
    report.sizes["arena"] = tried_arena(tflite)


def check_model(
    compiled: Compiled,
    tflite: bytes,
    feeds: Feeds,
    samples: Samples | None,
    quantize: str | None,
    state: StateMode,
    target: Target,
    kernels: Mapping[str, AnyKernel] | None = None,
) -> None:
    """Compares the model with its source, or the lowered graph if it has ops without a kernel.

    What quantisation costs goes into the report; see `measured_cost`. Kernels of custom operators
    are those given, and the references of declared ops.

    Raises:
        HintcError: `kernels` are given, but not for every custom op.
        EquivalenceError: see `compare` and `check_cost`.
    """
    report = compiled.report
    custom = report.custom_codes
    known = {**reference_kernels(custom), **(kernels or {})}
    runs = kernels is not None or known.keys() >= set(custom)
    used = known if custom else None
    if feeds and not runs:
        lacking = some(code for code in custom if code not in known)
        note = f"no kernel for {lacking}: the lowered graph was compared"
        report.add_notes("check", [(compiled.outputs[0], note)])
        compare(compiled.source, compiled.graph_def, feeds, report, None, state)
    elif quantize is not None and runs:
        report.cost = measured_cost(compiled.source, tflite, feeds, samples, state, used)
    if quantize == "int8":
        assert report.cost is not None
        if feeds:
            check_cost(report.cost)
            report.errors = {n: error.largest for n, error in report.cost.outputs.items()}
    elif feeds and runs:
        compare(compiled.source, tflite, feeds, report, quantize, state, target, used)


def compare(
    source: SourceModel,
    result: Any,
    feeds: Feeds,
    report: Report,
    quantize: str | None,
    state: StateMode,
    target: Target = "tflite",
    kernels: Mapping[str, AnyKernel] | None = None,
) -> None:
    """Runs both; the largest errors go into the report.

    Raises:
        EquivalenceError: they differ by more than `TOLERANCES` allows.
    """
    rtol, atol = TOLERANCES[quantize]
    report.tolerance = (rtol, atol)
    # A model whose state persists agrees on its first invoke only, each feed on a new instance.
    once = state == "persist" and isinstance(result, bytes)
    tensors = {key: tensor for tensor, key in source.input_keys.items()}
    for feed in feeds:
        found: EquivalenceReport = check_equivalence(
            source.graph_def,
            result,
            feed and {tensors.get(name, name): value for name, value in feed.items()},
            rtol=rtol,
            atol=atol,
            inputs=source.inputs,
            outputs=source.outputs,
            batches=(1,) if once or target == "tflm" else (1, 3),
            invokes=1 if once else 2,
            target=target,
            kernels=kernels,
        )
        for tensor, error in found.max_error.items():
            name = source.output_keys.get(tensor, tensor)
            report.errors[name] = max(report.errors.get(name, 0.0), error)
        found.raise_if_failed()
