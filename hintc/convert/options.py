"""The options of the drivers: which values they take, and which passes they reach."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, cast

from hintc.convert.samples import ArrayDataset
from hintc.errors import HintcError
from hintc.instrument import Instrument
from hintc.near import check_choice
from hintc.ops import TARGETS, BuiltinLowering, Quantize, declared
from hintc.pipeline import PassPipeline, Step

Form = Literal["auto", "fused", "unroll", "while"]
Forms = Form | Mapping[str, Form]
"""One for all recurrences, or for those of layers or nodes by name (see `hintc.meant`)."""
OptimizeFor = Literal["size", "latency"]

CHOICES: Mapping[str, tuple[str, ...]] = {
    "form": ("auto", "fused", "unroll", "while"),
    "optimize_for": ("size", "latency"),
    "target": TARGETS,
    "state": ("reset", "persist"),
    "quantize": ("dynamic", "float16", "int8"),
    "io_dtype": ("float32", "int8"),
}
"""Option -> the values that it takes."""
_KEEPS = ("only fused kernels keep a state from one run to the next", "Leave one of them out.")
_MICRO = "Take 'int8', or leave it out for float32."
_NOT_TOGETHER: Mapping[tuple[str, str], Mapping[tuple[object, ...], tuple[str, str]]] = {
    ("state", "form"): {("persist", "unroll"): _KEEPS, ("persist", "while"): _KEEPS},
    ("target", "quantize"): {
        ("tflm", "dynamic"): (
            "with int8 weights and float inputs TFLite Micro's LSTM gives NaN, and its other "
            "kernels refuse",
            _MICRO,
        ),
        ("tflm", "float16"): ("TFLite Micro has no values of type float16", _MICRO),
    },
}
"""Two options -> two values that make no sense together: why, and what to do."""


def check_choices(options: Mapping[str, object], spelled: Callable[[str], str] = str) -> None:
    """Refuses values that options do not take, or that do not go together.

    Args:
        options: by name, those of `CHOICES` that there are; `quantize` may also be None.
        spelled: how the message is to call an option.

    Raises:
        HintcError: names the option and what was probably meant.
    """
    for name, value in options.items():
        if name != "quantize":
            for one in _values(value):
                check_choice(spelled(name), one, CHOICES[name])
        elif value is not None:
            _check_quantize(spelled(name), value, spelled("keep_float"))
    for names, pairs in _NOT_TOGETHER.items():
        for pair in itertools.product(*(_values(options.get(name)) for name in names)):
            if pair in pairs:
                first, second = (f"{spelled(n)} '{v}'" for n, v in zip(names, pair, strict=True))
                why, remedy = pairs[pair]
                raise HintcError(f"{first} does not go with {second}", why=why, remedy=remedy)


def _values(option: object) -> tuple[object, ...]:
    """Of an option; of one that is a mapping, all of its values."""
    return tuple(option.values()) if isinstance(option, Mapping) else (option,)


def _check_quantize(name: str, value: object, keep_float: str) -> None:
    if isinstance(value, str) and ("16x8" in value or value == "int16"):
        raise HintcError(
            f"{name} is {value!r}",
            why="TensorFlow's quantiser has no LSTM with int16 activations",
            remedy="Take 'int8'; layers that need more than 8 bits stay float32 with "
            f"{keep_float}.",
        )
    check_choice(name, value, CHOICES["quantize"], otherwise=("Leave it out for float32.",))


def check_quantization(
    quantize: Quantize | None, keep_float: Sequence[str], io_dtype: str, dataset: object
) -> None:
    """Refuses options that belong to another quantisation than this.

    Raises:
        HintcError: says which, and to which.
    """
    if quantize == "int8":
        _check_integers(keep_float, dataset)
        return
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


def check_states(kernels: Iterable[str]) -> None:
    """Refuses ``state="persist"`` for a model that keeps nothing.

    Args:
        kernels: the fused ops that it has.

    Raises:
        HintcError: none of them has a state.
    """
    for name in kernels:
        op = declared(name)
        if op is not None and isinstance(op.lowering, BuiltinLowering) and op.lowering.states:
            return
    raise HintcError(
        "state='persist' has no use here",
        why="only fused kernels keep a state from one run to the next, and the model has none",
        remedy="'hintc explain' says why its recurrences are not fused. Or make their states "
        "inputs and outputs of the model.",
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
    "forms": (),
    "optimize_for": "size",
    "target": "tflite",
    "state": "reset",
    "quantize": None,
}


def with_options(pipeline: PassPipeline, options: Mapping[str, Any]) -> PassPipeline:
    """Hands each option that is not at its default to the passes that have it.

    Forms by name are the option ``forms``.

    Raises:
        HintcError: forms are given by name, and no pass takes them.
    """
    form = options["form"]
    if isinstance(form, Mapping):
        options = {**options, "form": "auto", "forms": tuple(form.items())}
    wanted = {name: value for name, value in options.items() if value != _DEFAULTS[name]}
    taken = set[str]()
    for step in pipeline:
        fields = {field.name for field in dataclasses.fields(step)}
        here = {name: value for name, value in wanted.items() if name in fields}
        taken |= here.keys()
        if here:
            pipeline = pipeline.set_options(step.name, **here)
    if "forms" in wanted.keys() - taken:
        raise HintcError(
            "forms are given by name",
            why="no pass of this pipeline takes them",
            remedy="Put 'set-forms' before 'choose-form'.",
        )
    return pipeline
