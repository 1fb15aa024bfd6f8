"""What a model's author uses: hints, the hinted recurrent cells, and the loops around them.

Names load on first use, so importing the package loads no TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hintc.authoring.cells import TFLiteLSTMCell, TfLiteRNNCell
    from hintc.authoring.find_outputs import find_all_hinted_output_nodes
    from hintc.authoring.hint import OpHint
    from hintc.authoring.rnn import bidirectional_dynamic_rnn, dynamic_rnn

_HOME = {
    "OpHint": "hint",
    "TFLiteLSTMCell": "cells",
    "TfLiteRNNCell": "cells",
    "dynamic_rnn": "rnn",
    "bidirectional_dynamic_rnn": "rnn",
    "find_all_hinted_output_nodes": "find_outputs",
}

__all__ = [
    "OpHint",
    "TFLiteLSTMCell",
    "TfLiteRNNCell",
    "bidirectional_dynamic_rnn",
    "dynamic_rnn",
    "find_all_hinted_output_nodes",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
