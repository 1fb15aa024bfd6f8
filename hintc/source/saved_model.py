"""SavedModel folders of TensorFlow 1 and 2: one signature, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hintc.errors import HintcError
from hintc.near import did_you_mean, some
from hintc.source.endpoints import short_name
from hintc.source.function import freeze_function
from hintc.source.model import SourceModel
from hintc.source.quiet import quiet
from hintc.source.session import freeze_session

SERVING = "serving_default"
_HIDDEN = ("__saved_model_init_op", "__saved_model_train_op")


def read_saved_model(folder: Path, signature: str | None = None) -> SourceModel:
    """One signature of a SavedModel.

    Args:
        folder: holds ``saved_model.pb``.
        signature: its name; default: ``serving_default``, or the only one.

    Raises:
        HintcError: no SavedModel, a damaged one, no such signature, or variables that cannot be
            loaded.
    """
    meta_graph = _serving_graph(folder)
    name = _choose(dict(meta_graph.signature_def), signature, folder)
    description = f"SavedModel '{folder}', signature '{name}'"
    import tensorflow as tf

    # TF1 writers leave no object graph. In graph mode the v2 loader cannot restore values.
    if meta_graph.HasField("object_graph_def") and _is_eager(tf):
        return _read_v2(folder, name, description)
    return _read_v1(folder, meta_graph, name, description)


def _is_eager(tf: Any) -> bool:
    return bool(tf.compat.v1.executing_eagerly_outside_functions())


def _serving_graph(folder: Path) -> Any:
    from tensorflow.python.saved_model import loader_impl

    if not (folder / "saved_model.pb").exists() and not (folder / "saved_model.pbtxt").exists():
        raise HintcError(
            f"'{folder}' is no SavedModel",
            why="it has no saved_model.pb",
            remedy="Give the folder that holds saved_model.pb.",
        )
    try:
        saved = loader_impl.parse_saved_model(str(folder))
    except (OSError, ValueError) as error:
        raise HintcError(
            f"the SavedModel '{folder}' is damaged",
            why=" ".join(str(error).split())[:300],
            remedy="Export or copy it again.",
        ) from error
    graphs = list(saved.meta_graphs)
    for meta_graph in graphs:
        if "serve" in meta_graph.meta_info_def.tags:
            return meta_graph
    if len(graphs) == 1:
        return graphs[0]
    tags = [",".join(g.meta_info_def.tags) for g in graphs]
    raise HintcError(
        f"the SavedModel '{folder}' has no graph with the tag 'serve'", why=f"tags: {some(tags)}"
    )


def _choose(signatures: Mapping[str, Any], wanted: str | None, folder: Path) -> str:
    names = [n for n in sorted(signatures) if n not in _HIDDEN]
    if wanted is not None:
        if wanted in names:
            return wanted
        raise HintcError(
            f"the SavedModel '{folder}' has no signature '{wanted}'",
            remedy=did_you_mean(wanted, names, "signatures"),
        )
    if SERVING in names:
        return SERVING
    if len(names) == 1:
        return names[0]
    raise HintcError(
        f"the SavedModel '{folder}' has "
        + (f"{len(names)} signatures: {some(names)}" if names else "no signature"),
        remedy="Name one as signature." if names else "Export it with signatures=.",
    )


def _read_v2(folder: Path, name: str, description: str) -> SourceModel:
    import tensorflow as tf

    try:
        with quiet():
            loaded = tf.saved_model.load(str(folder))
            function = loaded.signatures[name]
    except Exception as error:
        raise _cannot_load(folder, error) from error
    return freeze_function(function, description)


def _read_v1(folder: Path, meta_graph: Any, name: str, description: str) -> SourceModel:
    import tensorflow as tf

    signature = meta_graph.signature_def[name]
    inputs = _tensors(signature.inputs, description)
    outputs = _tensors(signature.outputs, description)
    if not outputs:
        raise HintcError(f"the {description} has no outputs", remedy="Choose another signature.")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        try:
            with quiet():
                tags = list(meta_graph.meta_info_def.tags)
                tf.compat.v1.saved_model.load(session, tags, str(folder))
        except Exception as error:
            raise _cannot_load(folder, error) from error
        frozen = freeze_session(session, list(outputs.values()))
    return replace(
        frozen,
        inputs=tuple(inputs.values()),
        input_keys={tensor: key for key, tensor in inputs.items()},
        output_keys={tensor: key for key, tensor in outputs.items()},
        description=description,
    )


def _tensors(named: Any, description: str) -> dict[str, str]:
    """Signature key -> tensor name, sorted by key as the interpreter's signatures are."""
    for key in named:
        if named[key].WhichOneof("encoding") != "name":
            raise HintcError(
                f"'{key}' of the {description} is no dense tensor",
                remedy="Choose a signature of dense tensors.",
            )
    return {key: short_name(named[key].name) for key in sorted(named)}


def _cannot_load(folder: Path, error: Exception) -> HintcError:
    return HintcError(
        f"the SavedModel '{folder}' cannot be loaded",
        why=f"{type(error).__name__}: " + " ".join(str(error).split())[:400],
        remedy="Is its folder 'variables' whole? Export or copy it again.",
    )
