"""What a module's or function's `source` says beyond the graphs: versions, argument attributes.

The rest of the `GraphDef` (without nodes and functions) or `FunctionDef` (without body) that a
module was lifted from. It is written as a blob, and read back only when lowering asks for it.
"""

from __future__ import annotations

from typing import Any


def rest_of_module(source: Any) -> bytes:
    """A serialised `GraphDef` without nodes and functions; empty if there is no source."""
    if source is None:
        return b""
    rest = type(source)()
    for field, value in source.ListFields():
        if field.name == "library":
            rest.library.gradient.extend(value.gradient)
            rest.library.registered_gradients.extend(value.registered_gradients)
        elif field.name != "node":
            _copy(field, value, rest)
    return _bytes(rest)


def rest_of_function(source: Any) -> bytes:
    """A serialised `FunctionDef` without body, results, attributes; empty if there is no source."""
    if source is None:
        return b""
    rest = type(source)()
    for field, value in source.ListFields():
        if field.name not in ("node_def", "ret", "control_ret", "attr"):
            _copy(field, value, rest)
    return _bytes(rest)


def _copy(field: Any, value: Any, rest: Any) -> None:
    if field.type == field.TYPE_MESSAGE:
        getattr(rest, field.name).MergeFrom(value)
    else:
        setattr(rest, field.name, value)


def _bytes(message: Any) -> bytes:
    content: bytes = message.SerializeToString(deterministic=True)
    return content


def read_module(content: bytes) -> Any:
    """The `GraphDef` that `rest_of_module` wrote (needs TensorFlow)."""
    from tensorflow.core.framework import graph_pb2

    return graph_pb2.GraphDef.FromString(content)


def read_function(content: bytes) -> Any:
    """The `FunctionDef` that `rest_of_function` wrote (needs TensorFlow)."""
    from tensorflow.core.framework import function_pb2

    return function_pb2.FunctionDef.FromString(content)
