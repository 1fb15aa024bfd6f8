"""Keras models, version 2 and 3, as frozen graphs. A dynamic batch stays dynamic."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hintc.errors import HintcError
from hintc.source.function import freeze_function, trace
from hintc.source.model import SourceModel
from hintc.source.quiet import quiet

_HDF5 = b"\x89HDF\r\n\x1a\n"
"""How the files of Keras 2 begin."""


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
    given = _inputs(model, description)
    tensors = tf.nest.flatten(given)
    names = _keys(given) or [_spec_name(tensor, at) for at, tensor in enumerate(tensors)]
    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name)
        for tensor, name in zip(tensors, names, strict=True)
    ]
    output_names = _output_names(model)

    def infer(*inputs: Any) -> Any:
        results = model(tf.nest.pack_sequence_as(given, inputs), training=False)
        output_names[:] = _keys(results) or output_names
        return tf.nest.flatten(results)

    traced = trace(tf.function(infer, autograph=False), specs, description)
    source = freeze_function(traced, description)
    if len(output_names) != len(source.outputs):
        return source
    return replace(source, output_keys=dict(zip(source.outputs, output_names, strict=True)))


def _keys(values: Any) -> list[str]:
    """The keys of a flat dict in the order in which it is flattened; none for other structures."""
    is_flat = isinstance(values, Mapping) and not any(
        isinstance(value, (Mapping, list, tuple)) for value in values.values()
    )
    return sorted(str(key) for key in values) if is_flat else []


def _check_backend(model: Any, description: str) -> None:
    if type(model).__module__.startswith("tf_keras"):
        return
    import keras

    if keras.__version__.startswith("3.") and keras.config.backend() != "tensorflow":
        raise HintcError(
            f"the {description} runs on the backend '{keras.config.backend()}'",
            remedy="Set KERAS_BACKEND=tensorflow and load the model again.",
        )


def _inputs(model: Any, description: str) -> Any:
    """The model's symbolic inputs as it takes them, or the specs it was called with."""
    given = _symbolic_inputs(model)
    if given is None and hasattr(model, "save_spec"):
        spec = model.save_spec()
        given = None if spec is None else spec[0]
    elif given is None:
        given = _built_inputs(model)
    if given is None:
        raise HintcError(
            f"the {description} has no inputs yet",
            remedy="Begin it with keras.Input, call it once, or pass a tf.function that calls it "
            "and has an input signature.",
        )
    return given


def _symbolic_inputs(model: Any) -> Any:
    """A tensor, or a list or dict of them; None for a model that is not made of layers."""
    import tensorflow as tf

    try:
        tensors, given = model.inputs, model.input
    except (AttributeError, ValueError):
        return None
    if not tensors:
        return None
    flat = tf.nest.flatten(given)
    same = len(flat) == len(tensors) and all(a is b for a, b in zip(flat, tensors, strict=True))
    if same and not (isinstance(given, (list, tuple)) and len(given) == 1):
        return given
    return list(tensors) if len(tensors) > 1 else tensors[0]


def _built_inputs(model: Any) -> Any:
    """What a Keras 3 model was built for; None if not built.

    A Sequential says its batch; that of a subclass, which was built by a call, is dynamic.
    """
    import tensorflow as tf

    shapes = model.get_build_config() if hasattr(model, "get_build_config") else None
    if not shapes or "input_shape" not in shapes:
        return None
    shape = shapes["input_shape"]
    if isinstance(shape, Mapping) or any(not isinstance(n, (int, type(None))) for n in shape):
        return None
    declared = getattr(model, "inputs", None)
    batch, name = (declared[0].shape[0], declared[0].name) if declared else (None, "input_1")
    return tf.TensorSpec([batch, *shape[1:]], model.input_dtype, name)


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
    """A ``.keras`` or ``.h5`` file, loaded by the version of Keras that wrote it.

    Raises:
        HintcError: Keras cannot load it.
    """
    _check_file(path)
    try:
        with quiet():
            model = _keras_for(path).models.load_model(str(path), compile=False)
    except Exception as error:
        raise HintcError(
            f"Keras cannot load '{path}'",
            why=f"{type(error).__name__}: " + " ".join(str(error).split())[:400],
            remedy="Load it yourself (custom_objects=; with tf_keras, if Keras 2 wrote it) and "
            "pass the model.",
        ) from error
    source = read_keras_model(model)
    return replace(source, description=f"{source.description} in '{path}'")


def _check_file(path: Path) -> None:
    """Refuses what is neither kind of file, and an archive whose ending Keras does not know.

    Raises:
        HintcError: it is damaged, or has the wrong name.
    """
    if zipfile.is_zipfile(path):
        if path.suffix.lower() != ".keras":
            raise HintcError(
                f"'{path}' is a Keras archive by another name",
                remedy="Give it the ending .keras.",
            )
        return
    try:
        with path.open("rb") as file:
            start = file.read(len(_HDF5))
    except OSError as error:
        raise HintcError(f"cannot read '{path}'", why=error.strerror or str(error)) from error
    if start != _HDF5:
        raise HintcError(
            f"'{path}' is no whole Keras file",
            why="empty" if not start else "neither a whole archive nor HDF5",
            remedy="Save or copy it again.",
        )


def _keras_for(path: Path) -> Any:
    """The package of the version that wrote the file, if it is installed; else TensorFlow's.

    TensorFlow's is Keras 2 in a process with ``TF_USE_LEGACY_KERAS=1``.
    """
    import tensorflow as tf

    package = {"2": "tf_keras", "3": "keras"}.get(_written_by(path)[:1])
    if package is not None and find_spec(package) is not None:
        return import_module(package)
    return tf.keras


def _written_by(path: Path) -> str:
    """The version of Keras that wrote a file, "" if it does not say."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            metadata = json.loads(archive.read("metadata.json"))
        return str(metadata.get("keras_version", ""))
    import h5py

    with h5py.File(path) as file:
        return str(file.attrs.get("keras_version", ""))
