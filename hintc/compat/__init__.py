"""Yesterday's names: stubs, the v1 converter, and `install`, which puts them back on TensorFlow.

Names load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hintc.authoring.find_outputs import find_all_hinted_output_nodes
    from hintc.compat.converter import TFLiteConverter
    from hintc.compat.installer import install, is_installed, uninstall
    from hintc.compat.stubs import HintWarning, convert_op_hints_to_stubs, is_ophint_converted
    from hintc.compat.training_nodes import remove_training_nodes

_HOME = {
    "HintWarning": "hintc.compat.stubs",
    "TFLiteConverter": "hintc.compat.converter",
    "convert_op_hints_to_stubs": "hintc.compat.stubs",
    "find_all_hinted_output_nodes": "hintc.authoring.find_outputs",
    "install": "hintc.compat.installer",
    "is_installed": "hintc.compat.installer",
    "is_ophint_converted": "hintc.compat.stubs",
    "remove_training_nodes": "hintc.compat.training_nodes",
    "uninstall": "hintc.compat.installer",
}

__all__ = [
    "HintWarning",
    "TFLiteConverter",
    "convert_op_hints_to_stubs",
    "find_all_hinted_output_nodes",
    "install",
    "is_installed",
    "is_ophint_converted",
    "remove_training_nodes",
    "uninstall",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
