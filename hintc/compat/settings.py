"""What the attributes of `TFLiteConverter` mean to hintc, and which values it cannot follow."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hintc.errors import HintError

_ALIASES = ("post_training_quantize", "target_ops")

# attribute -> (the only value that hintc follows, what to do instead)
_FIXED: Mapping[str, tuple[Any, str]] = {
    "quantized_input_stats": ({}, "Quantise after training with optimizations"),
    "default_ranges_stats": (None, "Quantise after training with optimizations"),
    "drop_control_dependency": (True, "TFLite has no control dependencies"),
    "reorder_across_fake_quant": (False, "Leave it as it is"),
    "change_concat_input_ranges": (False, "Leave it as it is"),
    "dump_graphviz_video": (False, "Set dump_graphviz_dir for a dump after each pass"),
    "conversion_summary_dir": (None, "Read converter.report after convert()"),
    "exclude_conversion_metadata": (False, "Leave it as it is"),
    "experimental_new_converter": (True, "The old converter is gone"),
    "experimental_new_quantizer": (True, "The old quantiser is gone"),
}


@dataclass(frozen=True)
class Plan:
    """What `hintc.convert` is to do.

    Attributes:
        quantize: see `hintc.convert`.
        io_dtype: see `hintc.convert`.
        representative_dataset: see `hintc.convert`.
        allow_custom_ops: whether the model may have custom operators.
        dump_dir: folder for dumps, "" for none.
    """

    quantize: Literal["dynamic", "float16", "int8"] | None
    io_dtype: Literal["float32", "int8"]
    representative_dataset: Callable[[], Any] | None
    allow_custom_ops: bool
    dump_dir: str

    def instruments(self) -> Sequence[Any]:
        """Instruments for the pipeline."""
        if not self.dump_dir:
            return ()
        from hintc.viz import Dump

        return (Dump(self.dump_dir),)


def defaults() -> dict[str, Any]:
    """All attributes of a new converter."""
    import tensorflow as tf

    return {
        "optimizations": [],
        "representative_dataset": None,
        "target_spec": tf.lite.TargetSpec(),
        "inference_type": tf.float32,
        "inference_input_type": None,
        "inference_output_type": None,
        "output_format": tf.compat.v1.lite.constants.TFLITE,
        "allow_custom_ops": False,
        "dump_graphviz_dir": None,
        **{name: value for name, (value, _) in _FIXED.items()},
    }


def check_name(name: str) -> None:
    """Refuse to set an attribute that a converter does not have.

    Raises:
        HintError: there is no such attribute; offers near ones (also a ValueError).
    """
    names = [*defaults(), *_ALIASES]
    if name in names:
        return
    near = difflib.get_close_matches(name, names, 2)
    raise HintError(
        f"TFLiteConverter has no attribute '{name}'",
        remedy=f"Did you mean {' or '.join(map(repr, near))}" if near else None,
    )


def plan(values: Mapping[str, Any]) -> Plan:
    """Read the attributes of a converter.

    Raises:
        HintError: a value that hintc cannot follow; says which, and what to do.
    """
    for name, (only, remedy) in _FIXED.items():
        if values[name] != only and not (not only and not values[name]):
            raise _refusal(name, values[name], remedy)
    _check_format(values["output_format"])
    _check_ops(values["target_spec"])
    quantize = _quantize(values)
    return Plan(
        quantize,
        _io_dtype(values, quantize),
        _dataset(values["representative_dataset"]),
        bool(values["allow_custom_ops"]),
        str(values["dump_graphviz_dir"] or ""),
    )


def _quantize(values: Mapping[str, Any]) -> Literal["dynamic", "float16", "int8"] | None:
    import tensorflow as tf

    if values["inference_type"] not in (tf.float32, None):
        raise _refusal(
            "inference_type",
            values["inference_type"],
            "Leave it float32 and set optimizations = [tf.lite.Optimize.DEFAULT]",
        )
    known = {
        tf.lite.Optimize.DEFAULT,
        tf.lite.Optimize.OPTIMIZE_FOR_SIZE,
        tf.lite.Optimize.OPTIMIZE_FOR_LATENCY,
    }
    asked = list(values["optimizations"] or ())
    for optimization in asked:
        if optimization not in known:
            raise _refusal("optimizations", optimization, "Use tf.lite.Optimize.DEFAULT")
    types = set(values["target_spec"].supported_types or ()) - {tf.float32}
    dataset = values["representative_dataset"]
    if not asked:
        for name, value in (
            ("representative_dataset", dataset),
            ("target_spec.supported_types", types),
        ):
            if value:
                raise _refusal(name, value, "Set optimizations = [tf.lite.Optimize.DEFAULT] too")
        return None
    if types - {tf.float16, tf.int8} or len(types) > 1:
        raise _refusal("target_spec.supported_types", types, "Use tf.float16 or tf.int8")
    if types == {tf.float16}:
        if dataset is not None:
            raise _refusal("representative_dataset", dataset, "float16 needs no data")
        return "float16"
    if types == {tf.int8} and dataset is None:
        raise _refusal("target_spec.supported_types", types, "Set representative_dataset too")
    return "dynamic" if dataset is None else "int8"


def _io_dtype(values: Mapping[str, Any], quantize: str | None) -> Literal["float32", "int8"]:
    import tensorflow as tf

    names = ("inference_input_type", "inference_output_type")
    kinds = [values[name] or tf.float32 for name in names]
    if kinds == [tf.int8, tf.int8] and quantize == "int8":
        return "int8"
    for name, kind in zip(names, kinds, strict=True):
        if kind != tf.float32:
            raise _refusal(
                name,
                kind,
                "tf.int8 for both needs optimizations and representative_dataset; else float32",
            )
    return "float32"


def _dataset(given: Any) -> Callable[[], Any] | None:
    """The samples as hintc takes them.

    TensorFlow also takes a `tf.lite.RepresentativeDataset`, and samples that are pairs of a
    signature's key and a dict.
    """
    if given is None:
        return None
    generate = getattr(given, "input_gen", given)
    if not callable(generate):
        raise _refusal("representative_dataset", given, "Set a function that yields samples")
    return lambda: (
        sample[1]
        if isinstance(sample, tuple) and len(sample) == 2 and isinstance(sample[1], Mapping)
        else sample
        for sample in generate()
    )


def _check_format(output_format: Any) -> None:
    import tensorflow as tf

    if output_format != tf.compat.v1.lite.constants.TFLITE:
        raise _refusal(
            "output_format", output_format, "`hintc viz` draws graphs, dump_graphviz_dir dumps them"
        )


def _check_ops(spec: Any) -> None:
    import tensorflow as tf

    ops = tf.lite.OpsSet
    for chosen in spec.supported_ops or ():
        if chosen not in (ops.TFLITE_BUILTINS, ops.TFLITE_BUILTINS_INT8):
            raise _refusal(
                "target_spec.supported_ops",
                chosen,
                "hintc makes models of TFLite's built-in and your custom ops only",
            )


def _refusal(name: str, value: Any, remedy: str) -> HintError:
    return HintError(f"TFLiteConverter.{name} = {value!r} is not supported", remedy=remedy)
