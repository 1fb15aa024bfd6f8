"""hintc: hinted and plain TensorFlow graphs become fused, quantised TFLite models.

The names below are the public API. They load on first use: importing the package loads neither
TensorFlow nor networkx.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hintc.authoring import (
        OpHint,
        TFLiteLSTMCell,
        TfLiteRNNCell,
        bidirectional_dynamic_rnn,
        dynamic_rnn,
        find_all_hinted_output_nodes,
    )
    from hintc.compat import (
        TFLiteConverter,
        convert_op_hints_to_stubs,
        install,
        is_ophint_converted,
        remove_training_nodes,
        uninstall,
    )
    from hintc.convert import compile as compile
    from hintc.convert import convert
    from hintc.equivalence import check_equivalence
    from hintc.errors import HintcError
    from hintc.graphdef import lift, lower
    from hintc.instrument import Timing
    from hintc.ops import FusedOp
    from hintc.pipeline import PassPipeline
    from hintc.registry import register
    from hintc.rewrite import Pass, RewritePass
    from hintc.runtime.interpreter import Interpreter
    from hintc.tflite.legalize import legalize
    from hintc.verify import verify
    from hintc.viz import Dump

__version__ = "0.1.0"

# `compile` is left out: `from hintc import *` must not hide the built-in function.
__all__ = [
    "Dump",
    "FusedOp",
    "HintcError",
    "Interpreter",
    "OpHint",
    "Pass",
    "PassPipeline",
    "RewritePass",
    "TFLiteConverter",
    "TFLiteLSTMCell",
    "TfLiteRNNCell",
    "Timing",
    "bidirectional_dynamic_rnn",
    "check_equivalence",
    "convert",
    "convert_op_hints_to_stubs",
    "dynamic_rnn",
    "find_all_hinted_output_nodes",
    "install",
    "is_ophint_converted",
    "legalize",
    "lift",
    "lower",
    "register",
    "remove_training_nodes",
    "uninstall",
    "verify",
]

_HOME = {
    name: f"{__name__}.{module}"
    for module, names in {
        "authoring": (
            "OpHint",
            "TFLiteLSTMCell",
            "TfLiteRNNCell",
            "bidirectional_dynamic_rnn",
            "dynamic_rnn",
            "find_all_hinted_output_nodes",
        ),
        "compat": (
            "TFLiteConverter",
            "convert_op_hints_to_stubs",
            "install",
            "is_ophint_converted",
            "remove_training_nodes",
            "uninstall",
        ),
        "convert": ("compile", "convert"),
        "equivalence": ("check_equivalence",),
        "errors": ("HintcError",),
        "graphdef": ("lift", "lower"),
        "instrument": ("Timing",),
        "ops": ("FusedOp",),
        "pipeline": ("PassPipeline",),
        "registry": ("register",),
        "rewrite": ("Pass", "RewritePass"),
        "runtime.interpreter": ("Interpreter",),
        "tflite.legalize": ("legalize",),
        "verify": ("verify",),
        "viz": ("Dump",),
    }.items()
    for name in names
}


class _Package(ModuleType):
    """Keeps `hintc.convert` and `hintc.verify` the functions.

    Importing a submodule sets it as an attribute of its package, which would hide the function
    of the same name; ``from hintc.convert import ...`` does not need that attribute.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name in _HOME and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
