"""Attribute values to and from TensorFlow's `AttrValue` protobuf. The only file that knows both.

Decoding reads fields and imports nothing; encoding and reading a tensor's elements import
TensorFlow when they are first used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hintc.errors import HintcError
from hintc.ir.attributes import (
    Array,
    Attributes,
    AttributeValue,
    FunctionRef,
    Scalar,
    Shape,
    Tensor,
    Unbound,
)
from hintc.ir.dtypes import DType


def decode(value: Any) -> AttributeValue:
    """The plain value of an `AttrValue`; a list becomes a tuple, an empty AttrValue ``()``."""
    kind = value.WhichOneof("value")
    if kind is None:
        return ()
    if kind != "list":
        return _DECODERS[kind](getattr(value, kind))
    members = value.list
    for listed in ("s", "i", "f", "b", "type", "shape", "tensor", "func"):
        found = getattr(members, listed)
        if found:
            decoder = _DECODERS[listed]
            return tuple(decoder(member) for member in found)
    return ()


def attributes_of(attr: Any) -> Attributes:
    """A lazily decoded view of a protobuf ``map<string, AttrValue>`` that nobody else changes."""
    return Attributes(encoded=attr, decode=decode)


def encode(value: AttributeValue) -> Any:
    """A new `AttrValue`.

    Raises:
        HintcError: the value is of no type that an attribute can have.
    """
    from tensorflow.core.framework import attr_value_pb2

    encoded = attr_value_pb2.AttrValue()
    if not isinstance(value, tuple):
        kind, wire = _encode_scalar(value)
        _assign(encoded, kind, wire)
        return encoded
    encoded.list.SetInParent()
    for member in value:
        kind, wire = _encode_scalar(member)
        field = getattr(encoded.list, kind)
        if kind in ("shape", "tensor", "func"):
            field.add().CopyFrom(wire)
        else:
            field.append(wire)
    return encoded


def _assign(message: Any, kind: str, wire: Any) -> None:
    if kind in ("shape", "tensor", "func"):
        getattr(message, kind).CopyFrom(wire)
    else:
        setattr(message, kind, wire)


def _encode_scalar(value: Scalar) -> tuple[str, Any]:
    for kind, field, spell in _ENCODERS:
        if isinstance(value, kind):
            return field, spell(value)
    raise HintcError(f"an attribute cannot be a {type(value).__name__}")


def _decode_shape(shape: Any) -> Shape:
    return Shape(None if shape.unknown_rank else tuple(d.size for d in shape.dim))


def _encode_shape(shape: Shape) -> Any:
    from tensorflow.core.framework import tensor_shape_pb2

    encoded = tensor_shape_pb2.TensorShapeProto()
    if shape.dims is None:
        encoded.unknown_rank = True
    for size in shape.dims or ():
        encoded.dim.add().size = size
    return encoded


def _decode_tensor(tensor: Any) -> Tensor:
    return Tensor(
        DType(tensor.dtype),
        _decode_shape(tensor.tensor_shape),
        decode=_read_elements,
        wire=tensor,
    )


def _read_elements(tensor: Any) -> Array:
    from tensorflow.python.framework import tensor_util

    try:
        elements: Array = tensor_util.MakeNdarray(tensor)
    except (TypeError, ValueError, KeyError) as error:  # KeyError: variant
        raise HintcError(
            "a constant cannot be read", why=str(error), remedy="Is the file whole?"
        ) from error
    return elements


def encode_tensor(tensor: Tensor) -> Any:
    """A `TensorProto`: the one it was lifted from, or a new one."""
    if tensor.wire is not None:
        return tensor.wire
    from tensorflow.python.framework import tensor_util

    return tensor_util.make_tensor_proto(tensor.array, dtype=int(tensor.dtype))


def _decode_function_ref(func: Any) -> FunctionRef:
    return FunctionRef(func.name, tuple((key, decode(func.attr[key])) for key in sorted(func.attr)))


def _encode_function_ref(ref: FunctionRef) -> Any:
    from tensorflow.core.framework import attr_value_pb2

    encoded = attr_value_pb2.NameAttrList(name=ref.name)
    for key, value in ref.attributes:
        encoded.attr[key].CopyFrom(encode(value))
    return encoded


_DECODERS: dict[str, Callable[[Any], Scalar]] = {
    "s": bytes,
    "i": int,
    "f": float,
    "b": bool,
    "type": DType,
    "shape": _decode_shape,
    "tensor": _decode_tensor,
    "func": _decode_function_ref,
    "placeholder": Unbound,
}
_ENCODERS: tuple[tuple[type, str, Callable[[Any], Any]], ...] = (
    (bool, "b", bool),  # before int: bool and DType are ints to Python
    (DType, "type", int),
    (int, "i", int),
    (float, "f", float),
    (bytes, "s", bytes),
    (Shape, "shape", _encode_shape),
    (Tensor, "tensor", encode_tensor),
    (FunctionRef, "func", _encode_function_ref),
    (Unbound, "placeholder", lambda value: value.name),
)
