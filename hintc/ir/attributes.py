"""Attribute values as plain Python, decoded from their wire form when first read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, overload

import numpy as np
import numpy.typing as npt

from hintc.ir.dtypes import DType

_Default = TypeVar("_Default")
Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True)
class Shape:
    """A tensor shape: `dims` is None when the rank is unknown; -1 is a dimension not known.

    As text ``<2x?>``, ``<>`` for a scalar, ``<*>`` for an unknown rank.
    """

    dims: tuple[int, ...] | None

    @property
    def rank(self) -> int | None:
        """Number of dimensions, None when unknown."""
        return None if self.dims is None else len(self.dims)

    @property
    def is_static(self) -> bool:
        """True when every dimension is known."""
        return self.dims is not None and all(d >= 0 for d in self.dims)

    def __str__(self) -> str:
        if self.dims is None:
            return "<*>"
        return "<" + "x".join("?" if d < 0 else str(d) for d in self.dims) + ">"


@dataclass(frozen=True)
class FunctionRef:
    """The name of a library function with the attributes it is instantiated with."""

    name: str
    attributes: tuple[tuple[str, AttributeValue], ...] = ()


@dataclass(frozen=True)
class Unbound:
    """A reference to an attribute of the enclosing function (`AttrValue.placeholder`)."""

    name: str


_HASHED_ELEMENTS = 64
"""Larger tensors are hashed by type and shape alone: graphs have few of one shape."""


class Tensor:
    """A constant. Its elements are decoded once, when `array` is first read; never writable.

    Equality is identity of type, shape and elements (bit for bit, so NaN equals itself).
    """

    __slots__ = ("_array", "_decode", "dtype", "shape", "wire")

    def __init__(
        self,
        dtype: DType,
        shape: Shape,
        *,
        array: Array | None = None,
        decode: Callable[[Any], Array] | None = None,
        wire: Any = None,
    ) -> None:
        self.dtype = dtype
        self.shape = shape
        self.wire = wire
        self._array = array
        self._decode = decode

    @classmethod
    def of(cls, value: Any, dtype: DType | None = None) -> Tensor:
        """A tensor of `value` (anything NumPy takes); float64 is kept unless `dtype` says else."""
        array = np.array(value, dtype=None if dtype is None else dtype.numpy)
        if array.dtype.kind in "SUO":
            array = _bytes_elements(np.array(value, dtype=object))  # S and U drop NULs
        array.setflags(write=False)
        return cls(dtype or DType.of(array.dtype), Shape(tuple(array.shape)), array=array)

    @property
    def array(self) -> Array:
        """The elements, as a read-only array of `shape`."""
        if self._array is None:
            assert self._decode is not None
            array = np.asarray(self._decode(self.wire))
            array.setflags(write=False)
            self._array = array
        return self._array

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tensor):
            return NotImplemented
        if self is other:
            return True
        if self.dtype != other.dtype or self.shape != other.shape:
            return False
        if self.dtype is DType.STRING:
            return bool(np.array_equal(self.array, other.array))
        return self.array.tobytes() == other.array.tobytes()

    def __hash__(self) -> int:
        if self.dtype is DType.STRING or self.array.size > _HASHED_ELEMENTS:
            return hash((self.dtype, self.shape))
        return hash((self.dtype, self.shape, self.array.tobytes()))

    def __repr__(self) -> str:
        return f"Tensor({self.dtype.name}, {self.shape})"


def _bytes_elements(array: Array) -> Array:
    """Strings as TensorFlow has them: an object array of bytes."""
    elements = np.empty(array.shape, object)
    for at, element in np.ndenumerate(array):
        elements[at] = element.encode() if isinstance(element, str) else bytes(element)
    return elements


Scalar: TypeAlias = bytes | bool | int | float | DType | Shape | Tensor | FunctionRef | Unbound
AttributeValue: TypeAlias = Scalar | tuple[Scalar, ...]


def _names_in(ref: FunctionRef) -> list[str]:
    inner = [v for _, v in ref.attributes if isinstance(v, FunctionRef)]
    return [ref.name, *(name for r in inner for name in _names_in(r))]


_UNTOUCHED: frozenset[str] = frozenset()


class Attributes(MutableMapping[str, AttributeValue]):
    """Attributes of a node: read from the wire form on demand, overlaid by what was assigned.

    Lists are tuples, so a value cannot change behind the mapping's back. Only what was assigned
    or deleted is re-encoded on lowering: see `touched`.
    """

    __slots__ = ("_decode", "_encoded", "_functions", "_names", "_read", "touched")

    def __init__(
        self,
        values: Mapping[str, AttributeValue] | None = None,
        *,
        encoded: Mapping[str, Any] | None = None,
        decode: Callable[[Any], AttributeValue] | None = None,
    ) -> None:
        self._encoded = encoded
        self._decode = decode
        self._names: tuple[str, ...] | None = None  # of the wire form, which never changes
        self._functions: tuple[str, ...] | None = None
        self._read: dict[str, AttributeValue] = dict(values) if values else {}
        self.touched = frozenset(self._read) if values else _UNTOUCHED
        """Names assigned or deleted since the lift."""

    def __getitem__(self, name: str) -> AttributeValue:
        if name in self._read:
            return self._read[name]
        if self._decode is None or not self._is_encoded(name):
            raise KeyError(name)
        value = self._decode((self._encoded or {})[name])
        self._read[name] = value
        return value

    @overload
    def get(self, name: str, /) -> AttributeValue | None: ...

    @overload
    def get(self, name: str, /, default: AttributeValue) -> AttributeValue: ...

    @overload
    def get(self, name: str, /, default: _Default) -> AttributeValue | _Default: ...

    def get(self, name: str, /, default: Any = None) -> Any:
        """The value, or `default`; most of what is asked for is not there, so nothing is raised."""
        if name in self._read:
            return self._read[name]
        return self[name] if self._is_encoded(name) else default

    def _is_encoded(self, name: object) -> bool:
        encoded = self._encoded
        return encoded is not None and name in encoded and name not in self.touched

    @property
    def functions(self) -> tuple[str, ...]:
        """Names of the functions that the values refer to, in order; looked for once."""
        if self._functions is None:
            found: list[str] = []
            for name in self:
                value = self[name]
                for member in value if isinstance(value, tuple) else (value,):
                    if isinstance(member, FunctionRef):
                        found += _names_in(member)
            self._functions = tuple(found)
        return self._functions

    def __setitem__(self, name: str, value: AttributeValue) -> None:
        self._functions = None
        self._read[name] = value
        self.touched |= {name}

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self._functions = None
        self._read.pop(name, None)
        self.touched |= {name}

    def __contains__(self, name: object) -> bool:
        return name in self._read or self._is_encoded(name)

    def __iter__(self) -> Iterator[str]:
        if self._names is None:
            self._names = tuple(sorted(self._encoded or ()))
        if not self.touched:
            yield from self._names
            return
        yield from (n for n in self._names if n not in self.touched)
        yield from sorted(n for n in self.touched if n in self._read)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Attributes({dict(self)!r})"

    def copy(self) -> Attributes:
        """An independent copy that shares the encoded form."""
        twin = Attributes(encoded=self._encoded, decode=self._decode)
        twin._read = dict(self._read)
        twin._names = self._names
        twin._functions = self._functions
        twin.touched = self.touched
        return twin
