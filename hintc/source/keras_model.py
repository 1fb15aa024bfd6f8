"""Keras models, version 2 and 3, as frozen graphs. A dynamic batch stays dynamic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hintc.errors import HintcError
from hintc.source.function import freeze_function, trace
from hintc.source.model import SourceModel
from hintc.source.quiet import quiet


def is_keras_model(source: Any) -> bool:
    """True for a Keras model of either version; imports neither."""
    return any(
        c.__name__ == "Model" and c.__module__.split(".")[0] in ("keras", "tf_keras")
        for c in type(source).__mro__
    )


def read_keras_model(model: Any) -> SourceModel:
    """The inference function of a model (``training=False``), frozen.

    Raises:
        HintcError: the model has no inputs yet, runs on another backend than TensorFlow, or
            cannot be traced.
    """
    import tensorflow as tf

    name = getattr(model, "name", type(model).__name__)
    description = f"Keras model '{name}'"
    _check_backend(model, description)
    tensors = _inputs(model, description)
    specs = [tf.TensorSpec(t.shape, t.dtype, _spec_name(t, at)) for at, t in enumerate(tensors)]

    def infer(*inputs: Any) -> Any:
        values = list(inputs) if len(inputs) > 1 else inputs[0]
        return tf.nest.flatten(model(values, training=False))

    traced = trace(tf.function(infer, autograph=False), specs, description)
    source = freeze_function(traced, description)
    names = _output_names(model)
    keys = dict(source.keys)
    if len(names) == len(source.outputs):
        keys |= dict(zip(source.outputs, names, strict=True))
    return replace(source, keys=keys)


def _check_backend(model: Any, description: str) -> None:
    if type(model).__module__.startswith("tf_keras"):
        return
    import keras

    if keras.__version__.startswith("3.") and keras.config.backend() != "tensorflow":
        raise HintcError(
            f"the {description} runs on the backend '{keras.config.backend()}'",
            remedy="Set KERAS_BACKEND=tensorflow and load the model again.",
        )


def _inputs(model: Any, description: str) -> Sequence[Any]:
    """The model's symbolic inputs, or the specs it was called with."""
    try:
        tensors = model.inputs
    except (AttributeError, ValueError):
        tensors = None
    if not tensors and hasattr(model, "save_spec"):
        spec = model.save_spec()
        if spec is not None:
            import tensorflow as tf

            tensors = tf.nest.flatten(spec[0])
    if not tensors:
        raise HintcError(
            f"the {description} has no inputs yet",
            remedy="Begin it with keras.Input, build it, or pass a tf.function that calls it "
            "and has an input signature.",
        )
    return list(tensors)


def _output_names(model: Any) -> list[str]:
    """The model's names for its outputs; Keras 3's Sequential has none but its last layer's."""
    names = getattr(model, "output_names", None)
    if names is None and any(c.__name__ == "Sequential" for c in type(model).__mro__):
        names = [layer.name for layer in model.layers[-1:]]
    return [str(name) for name in names or ()]


def _spec_name(tensor: Any, at: int) -> str:
    name = str(getattr(tensor, "name", "") or f"input_{at + 1}")
    return name.partition(":")[0].rpartition("/")[2]


def load_keras_file(path: Path) -> SourceModel:
    """A ``.keras`` or ``.h5`` file.

    Raises:
        HintcError: Keras cannot load it.
    """
    import tensorflow as tf

    try:
        with quiet():
            model = tf.keras.models.load_model(str(path), compile=False)
    except Exception as error:
        raise HintcError(
            f"Keras cannot load '{path}'",
            why=f"{type(error).__name__}: " + " ".join(str(error).split())[:400],
            remedy="Load it yourself (custom_objects=, or TF_USE_LEGACY_KERAS=1 for a Keras 2 "
            "file) and pass the model.",
        ) from error
    return read_keras_model(model)
