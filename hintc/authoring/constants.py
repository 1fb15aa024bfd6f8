"""Python values as typed attributes of a hint: what `OpHint(..., stride=2)` stores on its nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hintc.errors import HintError

CONSTANT_PREFIX = "_tflite_attr_"

_INT64 = range(-(2**63), 2**63)


def constant_attributes(function_name: str, constants: Mapping[str, object]) -> dict[str, Any]:
    """Encode the constant arguments of a hinted call.

    Args:
        function_name: name of the hinted function, for messages.
        constants: argument name -> value. bool becomes a `b` attribute, int an `i` (64 bits),
            float an `f` (32 bits), str and bytes an `s`; NumPy scalars the same as their Python
            kinds; lists, tuples and NumPy arrays a `tensor`.

    Returns:
        Attribute name (`_tflite_attr_<name>`) -> `AttrValue`, in the order given.

    Raises:
        HintError: a value has no such form.
    """
    return {
        CONSTANT_PREFIX + name: _attr_value(function_name, name, value)
        for name, value in constants.items()
    }


def _attr_value(function_name: str, name: str, value: object) -> Any:
    import numpy as np
    from tensorflow.core.framework import attr_value_pb2

    # bool is an int in Python, so it has to be asked for first.
    if isinstance(value, bool | np.bool_):
        return attr_value_pb2.AttrValue(b=bool(value))
    if isinstance(value, int | np.integer):
        if int(value) not in _INT64:
            raise _unusable(function_name, name, value, "it does not fit 64 bits")
        return attr_value_pb2.AttrValue(i=int(value))
    if isinstance(value, float | np.floating):
        if math.isfinite(value) and abs(float(value)) > float(np.finfo(np.float32).max):
            raise _unusable(function_name, name, value, "it does not fit a 32-bit float")
        return attr_value_pb2.AttrValue(f=float(value))
    if isinstance(value, str):
        return attr_value_pb2.AttrValue(s=value.encode())
    if isinstance(value, bytes):
        return attr_value_pb2.AttrValue(s=value)
    if isinstance(value, list | tuple | np.ndarray):
        return attr_value_pb2.AttrValue(tensor=_tensor_proto(function_name, name, value))
    raise _unusable(function_name, name, value, f"its type is {type(value).__name__}")


def _tensor_proto(function_name: str, name: str, value: object) -> Any:
    import tensorflow as tf

    try:
        return tf.make_tensor_proto(value)
    except (TypeError, ValueError) as error:
        raise _unusable(function_name, name, value, f"no tensor holds it: {error}") from error


def _unusable(function_name: str, name: str, value: object, why: str) -> HintError:
    return HintError(
        f"hint '{function_name}': constant argument '{name}' = {value!r} cannot be stored",
        why=why,
        remedy="Pass a bool, int, float, str, bytes, or a list or NumPy array of them; "
        "pass a tensor with add_input instead",
    )
