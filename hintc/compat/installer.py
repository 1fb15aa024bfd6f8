"""`install` puts the retired names back on TensorFlow, `uninstall` takes them off again."""

from __future__ import annotations

import importlib
import os
import types
from dataclasses import dataclass
from typing import Any

from hintc.errors import HintRuntimeError

_LEGACY_KERAS = "TF_USE_LEGACY_KERAS"
_ABSENT = object()

# attribute of the `lite` module -> where hintc has it
_LITE = {
    "OpHint": "hintc.authoring",
    "find_all_hinted_output_nodes": "hintc.authoring",
}
_EXPERIMENTAL = {"convert_op_hints_to_stubs": "hintc.compat.stubs"}
_NN = {
    "TFLiteLSTMCell": "hintc.authoring",
    "TfLiteRNNCell": "hintc.authoring",
    "dynamic_rnn": "hintc.authoring",
    "bidirectional_dynamic_rnn": "hintc.authoring",
}
_OP_HINT_MODULE = {
    "OpHint": "hintc.authoring",
    "find_all_hinted_output_nodes": "hintc.authoring",
    "convert_op_hints_to_stubs": "hintc.compat.stubs",
    "is_ophint_converted": "hintc.compat.stubs",
}


@dataclass(frozen=True)
class _Change:
    """An attribute that was set, and what it was before."""

    module: Any
    name: str
    before: Any
    now: Any

    def undo(self) -> None:
        if getattr(self.module, self.name, _ABSENT) is not self.now:
            return  # somebody else has set it since
        if self.before is _ABSENT:
            delattr(self.module, self.name)
        else:
            setattr(self.module, self.name, self.before)


_changes: list[_Change] = []
_environment_set: list[str] = []


def install() -> None:
    """Put the names that TensorFlow has retired back, as hintc's own.

    Call it after importing TensorFlow and before `tf.keras` is first used. It sets

    * on `tensorflow.compat.v1` and `tensorflow`: ``lite.OpHint``,
      ``lite.find_all_hinted_output_nodes``, ``lite.experimental.convert_op_hints_to_stubs``,
      ``lite.experimental.nn`` with TFLiteLSTMCell, TfLiteRNNCell, dynamic_rnn and
      bidirectional_dynamic_rnn;
    * on `tensorflow.compat.v1` only: ``lite.TFLiteConverter``,
      ``graph_util.remove_training_nodes``;
    * the same functions on the module ``tensorflow.lite.python.op_hint``;
    * the environment variable ``TF_USE_LEGACY_KERAS`` to 1, unless it is set. If `tf.keras` is
      Keras 3 already, its StackedRNNCells refuses hinted cells, with the remedy.

    Calling it again changes nothing; `uninstall` undoes it.
    """
    if _changes:
        return
    import tensorflow as tf

    _choose_legacy_keras(tf)
    v1 = tf.compat.v1
    for lite in (v1.lite, tf.lite):
        _set_all(lite, _LITE)
        _set_all(lite.experimental, _EXPERIMENTAL)
        _set(lite.experimental, "nn", _nn_module(lite.experimental.__name__))
    _set(v1.lite, "TFLiteConverter", _load("hintc.compat.converter", "TFLiteConverter"))
    remove = _load("hintc.compat.training_nodes", "remove_training_nodes")
    _set(v1.graph_util, "remove_training_nodes", remove)
    _set_all(importlib.import_module("tensorflow.lite.python.op_hint"), _OP_HINT_MODULE)


def uninstall() -> None:
    """Undo `install`: names get back what they had, those that were absent go.

    What was set anew by somebody else in the meantime stays. Without `install` it does nothing.
    """
    while _changes:
        _changes.pop().undo()
    while _environment_set:
        os.environ.pop(_environment_set.pop(), None)


def is_installed() -> bool:
    """True between `install` and `uninstall`."""
    return bool(_changes)


def _load(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _set(module: Any, name: str, value: Any) -> None:
    _changes.append(_Change(module, name, getattr(module, name, _ABSENT), value))
    setattr(module, name, value)


def _set_all(module: Any, names: dict[str, str]) -> None:
    for name, home in names.items():
        _set(module, name, _load(home, name))


def _nn_module(parent: str) -> types.ModuleType:
    """A module whose cells load on first use: they import tf_keras."""
    module = types.ModuleType(f"{parent}.nn", "The hinted recurrent cells and loops of hintc.")

    def get(name: str) -> Any:
        if name not in _NN:
            raise AttributeError(f"module '{module.__name__}' has no attribute '{name}'")
        return _load(_NN[name], name)

    module.__getattr__ = get  # type: ignore[method-assign]
    module.__dir__ = lambda: sorted(_NN)  # type: ignore[method-assign]
    return module


def _choose_legacy_keras(tf: Any) -> None:
    """Let `tf.keras` be Keras 2, which can hold the cells; if it is too late, let it say so."""
    keras = _loaded_keras(tf)
    if keras is None:
        if _LEGACY_KERAS not in os.environ:
            os.environ[_LEGACY_KERAS] = "1"
            _environment_set.append(_LEGACY_KERAS)
    elif str(getattr(keras, "__version__", "")).startswith("3"):
        stacked = keras.layers.StackedRNNCells
        _set(keras.layers, "StackedRNNCells", _guarded(stacked))


def _loaded_keras(tf: Any) -> Any:
    """`tf.keras` if somebody has used it already, without using it ourselves."""
    for module in (tf, tf.compat.v1):
        loader = vars(module).get("keras")
        initialised = getattr(type(loader), "__name__", "") != "KerasLazyLoader" or (
            object.__getattribute__(loader, "_tfll_initialized")
        )
        if loader is not None and initialised:
            return loader
    return None


def _guarded(stacked: Any) -> Any:
    """Keras 3's StackedRNNCells, which refuses hinted cells rather than fail strangely later."""

    class StackedRNNCells(stacked):  # type: ignore[misc]
        """Keras 3's class; refuses hinted cells."""

        def __init__(self, cells: Any, **kwargs: Any) -> None:
            for cell in cells:
                if type(cell).__name__ in ("TFLiteLSTMCell", "TfLiteRNNCell"):
                    raise HintRuntimeError(
                        f"Keras 3's StackedRNNCells cannot hold a {type(cell).__name__}",
                        why="the cell is a Keras 2 layer, and tf.keras was already Keras 3 when "
                        "hintc.install() was called",
                        remedy="Call hintc.install() before tf.keras is first used, or set "
                        "TF_USE_LEGACY_KERAS=1 in the environment; or stack the cells with "
                        "tf.compat.v1.nn.rnn_cell.MultiRNNCell",
                    )
            super().__init__(cells, **kwargs)

    return StackedRNNCells
