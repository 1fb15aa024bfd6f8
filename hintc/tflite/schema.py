"""The schema of TFLite: its generated module and its names.

The module is the one that ai-edge-litert ships (light to import), else the one in TensorFlow. Its
classes are untyped.
"""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from hintc.errors import HintcError

_DTYPES: dict[str, npt.DTypeLike] = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "FLOAT64": np.float64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "BOOL": np.bool_,
}


@cache
def schema() -> ModuleType:
    """The generated schema module; `HintcError` if neither package is installed."""
    for name in ("ai_edge_litert", "tensorflow.lite.python"):
        try:
            return importlib.import_module(f"{name}.schema_py_generated")
        except ImportError:
            continue
    raise HintcError(
        "no TFLite schema is installed", remedy="Install ai-edge-litert or tensorflow."
    )


@cache
def builtin_names() -> dict[int, str]:
    """Operator code -> name in ``BuiltinOperator``."""
    table = vars(schema().BuiltinOperator)
    return {code: name for name, code in table.items() if isinstance(code, int)}


def operator_name(builtin: int, custom: str) -> str:
    """The schema's name of an operator with these codes; ``CUSTOM:<code>`` for a custom one."""
    name = builtin_names().get(builtin, "UNKNOWN")
    return f"{name}:{custom}" if name == "CUSTOM" else name


def is_builtin(name: str) -> bool:
    """Is `name` an operator of the schema?"""
    return name in builtin_names().values()


@cache
def dtype_of_type() -> dict[int, np.dtype[Any]]:
    """``TensorType`` -> numpy dtype, for the types that numpy has."""
    types = schema().TensorType
    return {getattr(types, name): np.dtype(dtype) for name, dtype in _DTYPES.items()}
