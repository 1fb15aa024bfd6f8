"""The options of the drivers: which values they take, and which passes they reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from hintc.convert.samples import ArrayDataset
from hintc.errors import HintcError
from hintc.instrument import Instrument
from hintc.near import check_choice
from hintc.ops import TARGETS, Quantize
from hintc.pipeline import PassPipeline, Step
from hintc.tflite.state import StateMode

Form = Literal["auto", "fused", "unroll", "while"]
OptimizeFor = Literal["size", "latency"]

QUANTIZE: tuple[str | None, ...] = (None, "dynamic", "float16", "int8")
FORMS: tuple[Form, ...] = ("auto", "fused", "unroll", "while")
OPTIMIZE_FOR: tuple[OptimizeFor, ...] = ("size", "latency")
STATES: tuple[StateMode, ...] = ("reset", "persist")


def check_options(form: object, optimize_for: object, target: object, state: object) -> None:
    """Refuses values that these options do not take.

    Raises:
        HintcError: names the option and what was probably meant.
    """
    check_choice("form", form, FORMS)
    check_choice("optimize_for", optimize_for, OPTIMIZE_FOR)
    check_choice("target", target, TARGETS)
    check_choice("state", state, STATES)


def check_quantization(
    quantize: object, keep_float: Sequence[str], io_dtype: object, dataset: object
) -> Quantize | None:
    """How the weights are to be stored.

    Raises:
        HintcError: a value that is not known, or options that do not go together.
    """
    if isinstance(quantize, str) and "16x8" in quantize:
        raise HintcError(
            f"quantize is {quantize!r}",
            why="TensorFlow's quantiser has no LSTM with int16 activations",
            remedy="quantize='int8'; layers that need more than 8 bits stay float32 with "
            "keep_float.",
        )
    check_choice("quantize", quantize, QUANTIZE)
    check_choice("io_dtype", io_dtype, ("float32", "int8"))
    if quantize == "int8":
        _check_integers(keep_float, dataset)
        return "int8"
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


def _check_integers(keep_float: object, dataset: object) -> None:
    if dataset is None:
        raise HintcError(
            "quantize='int8' needs a representative_dataset",
            why="the ranges of all values come from sample inputs",
            remedy="Give a function that yields some; quantize='dynamic' needs no data.",
        )
    if not callable(dataset) and not isinstance(dataset, ArrayDataset):
        raise HintcError(
            f"representative_dataset is a {type(dataset).__name__}",
            remedy="Give a function that yields lists of arrays in input order, or dicts by input "
            "name: lambda: samples.",
        )
    names = isinstance(keep_float, (list, tuple)) and all(isinstance(n, str) for n in keep_float)
    if not names:
        raise HintcError(
            f"keep_float is {keep_float!r}", remedy="Give a list of names of layers or nodes."
        )


def check_instruments(instruments: object) -> None:
    """Refuses what is no sequence of instruments.

    Raises:
        HintcError: names what was given.
    """
    if isinstance(instruments, (list, tuple)):
        odd = next((i for i in instruments if not isinstance(i, Instrument)), None)
        if odd is None:
            return
        raise HintcError(
            f"'{odd!r}' is no instrument",
            remedy="Give an instance of a subclass of hintc.instrument.Instrument.",
        )
    is_one = isinstance(instruments, Instrument)
    raise HintcError(
        f"instruments is {'a single one' if is_one else repr(instruments)}",
        remedy="Give a list of instruments, () for none.",
    )


def chosen_pipeline(given: Step | Sequence[Step] | None) -> PassPipeline:
    """The pipeline that is meant; the default one for None.

    Raises:
        HintcError: it cannot be read, or names something that is no pass.
    """
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


def with_options(pipeline: PassPipeline, options: Mapping[str, Any]) -> PassPipeline:
    """Hands each option that is not at its default to the passes that have it."""
    wanted = {name: value for name, value in options.items() if value != _DEFAULTS[name]}
    for step in pipeline:
        fields = {field.name for field in dataclasses.fields(step)}
        here = {name: value for name, value in wanted.items() if name in fields}
        if here:
            pipeline = pipeline.set_options(step.name, **here)
    return pipeline
