"""Constants in the text form: ``float<2>[1.0, 2.0]``, ``float<9> splat 0.0``, ``float<64>#1f3a``.

Up to 16 elements are written out, equal elements as a splat, the rest as a blob: its key stands
here, its bytes in the section ``blobs``. Each way is exact, bit for bit.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hintc.errors import HintcError
from hintc.ir import Array, DType, Shape, Tensor
from hintc.ir.wire import decode
from hintc.text.names import quote

_WRITTEN_OUT = 16
_FLOATS = (DType.FLOAT, DType.DOUBLE, DType.HALF)
_INTEGERS = (
    DType.INT8, DType.INT16, DType.INT32, DType.INT64,
    DType.UINT8, DType.UINT16, DType.UINT32, DType.UINT64,
)  # fmt: skip
_LITERAL = frozenset((*_FLOATS, *_INTEGERS, DType.BOOL, DType.STRING))


class Blobs:
    """Bytes by the digest of their content, so that equal constants are written once.

    Args:
        elide: write ``elided`` in place of every blob; such a text is for reading only.
    """

    def __init__(self, *, elide: bool = False) -> None:
        self.elide = elide
        self.content: dict[str, bytes] = {}

    def put(self, content: bytes) -> str:
        """What to write in place of `content`."""
        if self.elide:
            return " elided"
        key = digest(content)
        self.content[key] = content
        return f" #{key}"


def digest(content: bytes) -> str:
    """The key of a blob."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def encode_blob(content: bytes) -> str:
    """A blob as the text of a string literal."""
    return base64.b64encode(content).decode()


def print_shape(shape: Shape) -> str:
    """``<2x?>``; ``<>`` for a scalar, ``<*>`` if the rank is unknown."""
    if shape.dims is None:
        return "<*>"
    return "<" + "x".join("?" if d == -1 else str(d) for d in shape.dims) + ">"


def parse_shape(text: str) -> Shape:
    """The shape that a shape token says."""
    inside = text[1:-1]
    if inside == "*":
        return Shape(None)
    return Shape(tuple(-1 if d == "?" else int(d) for d in inside.split("x") if d))


def print_tensor(tensor: Tensor, blobs: Blobs) -> str:
    """A constant, its long elements put into `blobs`."""
    head = tensor.dtype.name.lower() + print_shape(tensor.shape)
    try:
        array = np.ascontiguousarray(tensor.array).reshape(-1)
    except HintcError:
        if tensor.wire is None:
            raise
        # a resource, a variant or a damaged constant: kept as it came
        return f"{head} proto{blobs.put(tensor.wire.SerializeToString())}"
    if tensor.dtype in _LITERAL:
        body = _print_elements(tensor.dtype, array)
        if body is not None:
            return head + body
    return head + blobs.put(array.tobytes())


def _print_elements(dtype: DType, array: Array) -> str | None:
    if array.size > 1 and _is_splat(dtype, array):
        elements = _spell(dtype, array[:1])
        return None if elements is None else f" splat {elements[0]}"
    if array.size > _WRITTEN_OUT and dtype is not DType.STRING:
        return None
    elements = _spell(dtype, array)
    return None if elements is None else "[" + ", ".join(elements) + "]"


def _is_splat(dtype: DType, array: Array) -> bool:
    if dtype is DType.STRING:
        return all(element == array[0] for element in array)
    bits = array.view(np.uint8).reshape(array.size, -1)
    # the last one first: most constants differ there, and the whole need not be read
    return bool((bits[-1] == bits[0]).all() and (bits == bits[0]).all())


def _spell(dtype: DType, array: Array) -> list[str] | None:
    if dtype is DType.STRING:
        return [quote(bytes(element)) for element in array]
    if dtype is DType.BOOL:
        return ["true" if element else "false" for element in array]
    elements = [str(element) for element in array]
    if dtype in _FLOATS and parse_elements(dtype, elements).tobytes() != array.tobytes():
        return None  # a NaN with a payload
    return elements


def parse_elements(dtype: DType, elements: Sequence[str]) -> Array:
    """A flat array of numbers and booleans.

    Raises:
        ValueError: one of them is no such number.
    """
    if dtype is DType.BOOL:
        return np.array([{"true": True, "false": False}[e] for e in elements], np.bool_)
    if dtype in _FLOATS:
        parse: Callable[[str], Any] = dtype.numpy.type
        with np.errstate(over="ignore"):
            return np.array([parse(e) for e in elements], dtype.numpy)
    return np.array([int(e) for e in elements], dtype.numpy)


def splat(dtype: DType, shape: Shape, element: Array) -> Tensor:
    """A constant whose elements all are `element` (one of them, in an array)."""
    return literal(dtype, shape, np.repeat(element, size(shape)))


def literal(dtype: DType, shape: Shape, array: Array) -> Tensor:
    """A constant of these elements.

    Raises:
        ValueError: their number is not that of `shape`.
    """
    array = array.reshape(shape.dims or ())
    array.setflags(write=False)
    return Tensor(dtype, shape, array=array)


def size(shape: Shape) -> int:
    """Number of elements of a static shape.

    Raises:
        ValueError: the shape is not static.
    """
    if not shape.is_static or shape.dims is None:
        raise ValueError(f"a constant cannot have the shape {print_shape(shape)}")
    return int(np.prod(shape.dims, dtype=np.int64))


def from_bytes(dtype: DType, shape: Shape, content: bytes) -> Tensor:
    """A constant from its bytes; for types that NumPy lacks they are read on demand, with TF.

    Raises:
        ValueError: there are too many bytes or too few.
    """
    try:
        numpy = dtype.numpy
    except HintcError:
        return Tensor(dtype, shape, decode=lambda _: _read_with_tensorflow(dtype, shape, content))
    return literal(dtype, shape, np.frombuffer(content, numpy))


def _read_with_tensorflow(dtype: DType, shape: Shape, content: bytes) -> Array:
    import tensorflow as tf

    numpy = np.dtype(tf.dtypes.as_dtype(int(dtype)).as_numpy_dtype)
    elements: Array = np.frombuffer(content, numpy).reshape(shape.dims or ())
    return elements


def from_proto(content: bytes) -> Tensor:
    """A constant from a serialised `TensorProto` (needs TensorFlow)."""
    from tensorflow.core.framework import attr_value_pb2

    value = attr_value_pb2.AttrValue()
    value.tensor.ParseFromString(content)
    tensor = decode(value)
    assert isinstance(tensor, Tensor)
    return tensor
