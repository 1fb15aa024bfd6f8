"""read_source: whatever people have a model in becomes one frozen graph with named ends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hintc.errors import HintcError
from hintc.graphdef import lift
from hintc.source.endpoints import (
    check_acyclic,
    check_complete,
    endpoint_names,
    find_port,
    guess_inputs,
    guess_outputs,
)
from hintc.source.frozen import check_frozen, with_placeholders
from hintc.source.graph_file import read_graph_file
from hintc.source.model import SourceModel

_OTHER_FILES = {
    ".tflite": "It is converted already: hintc.legalize takes a stock converter's result.",
    ".meta": "Restore it into a Session with tf.compat.v1.train.import_meta_graph, pass that.",
    ".index": "A checkpoint has no graph: restore it into your model and pass the model.",
    ".ckpt": "A checkpoint has no graph: restore it into your model and pass the model.",
    ".onnx": "hintc reads TensorFlow models only.",
}
_KINDS = (
    "A source is a Keras model, a SavedModel folder, a .pb, .pbtxt, .keras or .h5 path, a "
    "GraphDef, a ConcreteFunction, a tf.function with an input signature, or a v1 Session."
)


def read_source(
    source: Any, inputs: Any = None, outputs: Any = None, signature: str | None = None
) -> SourceModel:
    """Reads any source that hintc takes, and freezes it.

    Args:
        source: Keras model (2 or 3), SavedModel folder, ``.pb``/``.pbtxt``/``.keras``/``.h5``
            path, GraphDef, ConcreteFunction, tf.function with an input signature, or v1 Session.
            It is not changed.
        inputs: tensors or their names, ``:0`` optional, in the order the result shall have;
            default: those of the source, else the Placeholders that the outputs need. An input
            that is no Placeholder becomes one: the graph is cut there.
        outputs: likewise; default: those of the source, else the one tensor that nobody reads.
        signature: of a SavedModel.

    Returns:
        The frozen graph, its inputs and outputs.

    Raises:
        HintcError: one, that names the thing and the remedy, for whatever is wrong with the
            source or with the names.
    """
    wanted = endpoint_names(inputs, "input"), endpoint_names(outputs, "output")
    found = _read(source, wanted[1], signature)
    return _with_ends(found, *wanted)


def _read(source: Any, outputs: tuple[str, ...] | None, signature: str | None) -> SourceModel:
    if isinstance(source, (str, os.PathLike)):
        return _read_path(Path(source).expanduser(), signature)
    if signature is not None:
        raise HintcError(
            f"a {type(source).__name__} has no signatures",
            why=f"signature is '{signature}'",
            remedy="Only a SavedModel folder has them.",
        )
    return _read_object(source, outputs)


def _read_path(path: Path, signature: str | None) -> SourceModel:
    if not path.exists():
        raise HintcError(f"'{path}' does not exist", remedy="Check the path.")
    if path.is_file() and path.name in ("saved_model.pb", "saved_model.pbtxt"):
        path = path.parent
    if path.is_dir():
        from hintc.source.saved_model import read_saved_model

        return read_saved_model(path, signature)
    if signature is not None:
        raise HintcError(f"'{path}' has no signatures", remedy="Only a SavedModel folder has them.")
    suffix = path.suffix.lower()
    if suffix in (".pb", ".pbtxt"):
        return SourceModel(read_graph_file(path), (), (), description=f"GraphDef '{path}'")
    if suffix in (".keras", ".h5", ".hdf5"):
        from hintc.source.keras_model import load_keras_file

        return load_keras_file(path)
    raise HintcError(f"'{path}' is of no known file type", remedy=_OTHER_FILES.get(suffix, _KINDS))


def _read_object(source: Any, outputs: tuple[str, ...] | None) -> SourceModel:
    import tensorflow as tf

    from hintc.source import function, keras_model, session

    if isinstance(source, tf.compat.v1.GraphDef):
        return SourceModel(source, (), ())
    if isinstance(source, tf.Graph):
        return SourceModel(source.as_graph_def(), (), (), description="Graph")
    if isinstance(source, (tf.compat.v1.Session, tf.compat.v1.InteractiveSession)):
        return session.freeze_session(source, outputs)
    if isinstance(source, tf.types.experimental.ConcreteFunction):
        return function.freeze_function(source)
    if isinstance(source, tf.types.experimental.PolymorphicFunction):
        return function.freeze_function(function.concrete_function(source), "tf.function")
    if keras_model.is_keras_model(source):
        return keras_model.read_keras_model(source)
    if tf.is_tensor(source):
        kind = "a tensor of a graph" if hasattr(source, "graph") else "an eager tensor"
        raise HintcError(
            f"{kind} is no source",
            why="a tensor does not say how it is computed",
            remedy="Pass the model, function or Session, and name the tensor in outputs.",
        )
    raise HintcError(f"a {type(source).__name__} is no source", remedy=_KINDS)


def _with_ends(
    found: SourceModel, inputs: tuple[str, ...] | None, outputs: tuple[str, ...] | None
) -> SourceModel:
    """The model with the ends that the user wants, checked."""
    module = lift(found.graph_def)
    graph = module.graph
    check_acyclic(graph)
    outputs = _known(found.output_keys, outputs) or found.outputs or guess_outputs(graph)
    for name in outputs:
        find_port(graph, name, "output", found.output_keys.values())
    inputs = _known(found.input_keys, inputs) or found.inputs or guess_inputs(graph, outputs)
    for name in inputs:
        find_port(graph, name, "input", found.input_keys.values())
    check_frozen(graph, inputs, outputs)
    check_complete(graph, inputs, outputs)
    graph_def = with_placeholders(found.graph_def, graph, inputs)
    unused = [module] if graph_def is found.graph_def else []
    return replace(
        found, graph_def=_own(found, graph_def), inputs=inputs, outputs=outputs, _unused=unused
    )


def _own(found: SourceModel, graph_def: Any) -> Any:
    """The graph, or a copy if it is the caller's."""
    if graph_def is not found.graph_def:
        return graph_def
    copy = type(graph_def)()
    copy.CopyFrom(graph_def)
    return copy


def _known(keys: Mapping[str, str], names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The tensors that `names` mean; a name may be a key of the source's signature."""
    if names is None:
        return None
    tensors = {key: tensor for tensor, key in keys.items()}
    return tuple(tensors.get(name, name) for name in names)
