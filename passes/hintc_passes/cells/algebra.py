"""Normal form of what a cell computes: sums of atoms times constants.

A value of shape ``[batch, n]`` is a row of `Affine` blocks side by side. An `Affine` is
``sum_k atom_k * coefficient_k + bias`` where a coefficient is a matrix ``[width of atom, n]``
(`Dense`) or a vector ``[n]`` (`Diag`, a product element by element). Atoms are the step's
symbols (a sequence element, a state) and what is not linear in them. Two values are equal if their
normal forms have the same `key`; however a graph spells a matrix product (one on a concatenation,
four, split before or after the sigmoid), the normal form is the same.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Matrix: TypeAlias = npt.NDArray[np.float32]
Key: TypeAlias = tuple[object, ...]


def _digest(array: Matrix) -> str:
    return hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest() + str(array.shape)


@dataclass(frozen=True, eq=False)
class Coefficient:
    """What an atom is multiplied with: a matrix, or (1-D) a vector element by element."""

    array: Matrix

    @property
    def is_diag(self) -> bool:
        """True for a product element by element."""
        return self.array.ndim == 1

    @property
    def is_one(self) -> bool:
        """True if the product is the atom itself."""
        return self.is_diag and bool(np.all(self.array == 1))

    @property
    def is_zero(self) -> bool:
        """True if the product is zero, whatever the atom."""
        return not self.array.any()

    def dense(self) -> Matrix:
        """As a matrix."""
        return np.diag(self.array).astype(np.float32) if self.is_diag else self.array

    def __add__(self, other: Coefficient) -> Coefficient:
        if self.is_diag and other.is_diag:
            return Coefficient(self.array + other.array)
        return Coefficient(self.dense() + other.dense())

    def scaled(self, vector: Matrix) -> Coefficient:
        """Every column times its entry of `vector`."""
        return Coefficient((self.array * vector).astype(np.float32))

    def times(self, matrix: Matrix) -> Coefficient:
        """Followed by a matrix product."""
        if self.is_diag:
            # keeps the user's own numbers bit for bit where the coefficient is one
            return Coefficient(matrix if self.is_one else self.array[:, None] * matrix)
        return Coefficient(self.array @ matrix)

    @functools.cached_property
    def key(self) -> Key:
        """Equal for equal coefficients."""
        return ("diag" if self.is_diag else "dense", _digest(np.ascontiguousarray(self.array)))


@dataclass(frozen=True)
class Symbol:
    """Columns ``start:stop`` of a value that the step is given.

    `kind` is ``"x"`` (element of sequence `index`), ``"state"``, or ``"invariant"``.
    """

    kind: str
    index: int
    start: int
    stop: int
    whole: int
    """Number of columns of the value that these are columns of."""

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.stop - self.start

    @property
    def is_whole(self) -> bool:
        """True if these are all columns."""
        return self.width == self.whole

    def as_rows(self, matrix: Matrix) -> Matrix:
        """The matrix by which the whole value is multiplied, if these columns are by `matrix`."""
        if self.is_whole:
            return matrix
        rows = np.zeros((self.whole, matrix.shape[1]), np.float32)
        rows[self.start : self.stop] = matrix
        return rows

    @property
    def key(self) -> Key:
        """Equal for equal symbols."""
        return ("symbol", self.kind, self.index, self.start, self.stop)

    def columns(self, start: int, stop: int) -> Atom:
        """Some of the columns."""
        return Symbol(self.kind, self.index, self.start + start, self.start + stop, self.whole)

    def __str__(self) -> str:
        return f"{self.kind} {self.index}"


@dataclass(frozen=True, eq=False)
class Unary:
    """An element-wise function of one value; `low` and `high` are the bounds of ``"Clip"``."""

    function: str
    operand: Affine
    low: float = -np.inf
    high: float = np.inf

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.operand.width

    @functools.cached_property
    def key(self) -> Key:
        """Equal for equal values."""
        return ("unary", self.function, self.low, self.high, self.operand.key)

    def columns(self, start: int, stop: int) -> Atom:
        """Some of the columns."""
        return Unary(self.function, self.operand.columns(start, stop), self.low, self.high)

    def __str__(self) -> str:
        return f"{self.function}(…)"


@dataclass(frozen=True, eq=False)
class Product:
    """Product of two values, element by element; the order of the operands does not matter."""

    operands: tuple[Affine, Affine]

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.operands[0].width

    @functools.cached_property
    def key(self) -> Key:
        """Equal for equal values."""
        return ("product", frozenset(o.key for o in self.operands))

    def columns(self, start: int, stop: int) -> Atom:
        """Some of the columns."""
        a, b = self.operands
        return Product((a.columns(start, stop), b.columns(start, stop)))

    def __str__(self) -> str:
        return "a product"


@dataclass(frozen=True, eq=False)
class Mean:
    """The mean over the columns of a value: one column."""

    operand: Affine

    @property
    def width(self) -> int:
        """Number of columns."""
        return 1

    @functools.cached_property
    def key(self) -> Key:
        """Equal for equal values."""
        return ("mean", self.operand.key)

    def columns(self, start: int, stop: int) -> Atom:
        """The only column."""
        return self

    def __str__(self) -> str:
        return "a mean over columns"


@dataclass(frozen=True)
class Opaque:
    """Columns of a value that the algebra does not see into: which op of which node made it.

    `weight` is the position of the invariant that was to be a matrix, None if that is not why.
    """

    op: str
    node: str
    result: int
    start: int
    stop: int
    weight: int | None = None

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.stop - self.start

    @property
    def key(self) -> Key:
        """Equal for equal values."""
        return ("opaque", self.node, self.result, self.start, self.stop)

    def columns(self, start: int, stop: int) -> Atom:
        """Some of the columns."""
        start, stop = self.start + start, self.start + stop
        return Opaque(self.op, self.node, self.result, start, stop, self.weight)

    def __str__(self) -> str:
        return f"{self.op} ('{self.node}')"


Atom: TypeAlias = Symbol | Unary | Product | Mean | Opaque


@dataclass(frozen=True, eq=False)
class Affine:
    """``sum_k atom_k * coefficient_k + bias``, of shape ``[batch, width]``."""

    width: int
    terms: tuple[tuple[Atom, Coefficient], ...] = ()
    bias: Matrix = field(default_factory=lambda: np.zeros(0, np.float32))

    def __post_init__(self) -> None:
        if self.bias.size == 0 and self.width:
            object.__setattr__(self, "bias", np.zeros(self.width, np.float32))

    @classmethod
    def of(cls, atom: Atom) -> Affine:
        """The atom itself."""
        return cls(atom.width, ((atom, Coefficient(np.ones(atom.width, np.float32))),))

    @classmethod
    def constant(cls, vector: Matrix) -> Affine:
        """The same row in every batch element."""
        return cls(len(vector), (), np.asarray(vector, np.float32))

    @functools.cached_property
    def key(self) -> Key:
        """Equal for equal values."""
        return (
            self.width,
            frozenset((atom.key, coefficient.key) for atom, coefficient in self.terms),
            _digest(np.ascontiguousarray(self.bias + np.float32(0))),  # -0.0 is 0.0 here
        )

    @property
    def has_bias(self) -> bool:
        """True if a constant is added."""
        return bool(self.bias.any())

    @property
    def atom(self) -> Atom | None:
        """The one atom that this value is, None if it is a sum, scaled or shifted."""
        if len(self.terms) == 1 and self.terms[0][1].is_one and not self.has_bias:
            return self.terms[0][0]
        return None

    def coefficient(self, atom: Atom) -> Coefficient | None:
        """What `atom` is multiplied with, None if it does not occur."""
        return next((c for a, c in self.terms if a.key == atom.key), None)

    def __add__(self, other: Affine) -> Affine:
        by_key: dict[Key, tuple[Atom, Coefficient]] = {a.key: (a, c) for a, c in self.terms}
        for atom, coefficient in other.terms:
            mine = by_key.get(atom.key)
            by_key[atom.key] = (atom, coefficient if mine is None else mine[1] + coefficient)
        terms = tuple((a, c) for a, c in by_key.values() if not c.is_zero)
        return Affine(self.width, terms, (self.bias + other.bias).astype(np.float32))

    def scaled(self, vector: Matrix) -> Affine:
        """Every column times its entry of `vector` ``[width]``."""
        terms = tuple((a, c.scaled(vector)) for a, c in self.terms)
        kept = tuple((a, c) for a, c in terms if not c.is_zero)
        return Affine(self.width, kept, (self.bias * vector).astype(np.float32))

    def times(self, matrix: Matrix) -> Affine:
        """``self @ matrix``, `matrix` of shape ``[width, n]``."""
        terms = tuple((a, c.times(matrix)) for a, c in self.terms)
        kept = tuple((a, c) for a, c in terms if not c.is_zero)
        return Affine(matrix.shape[1], kept, (self.bias @ matrix).astype(np.float32))

    def columns(self, start: int, stop: int) -> Affine:
        """Columns ``start:stop``; an element-wise term is cut inside its atom."""
        if (start, stop) == (0, self.width):
            return self
        cut = Affine(stop - start, (), self.bias[start:stop])
        for atom, coefficient in self.terms:
            if coefficient.is_diag:
                part, share = atom.columns(start, stop), coefficient.array[start:stop]
            else:
                part, share = atom, coefficient.array[:, start:stop]
            if share.any():
                cut = cut + Affine(stop - start, ((part, Coefficient(share)),))
        return cut

    def __str__(self) -> str:
        parts = [str(a) if c.is_one else f"{a} * …" for a, c in self.terms]
        return " + ".join(parts + (["a constant"] if self.has_bias else [])) or "a constant"


Value: TypeAlias = tuple[Affine, ...]
"""Blocks side by side along the last axis."""


_SCALED = {"Tanh": ("Sigmoid", 0.5, 0.5), "Sigmoid": ("Tanh", 2.0, -1.0)}
"""``f: (g, a, b)``: ``a * f(z) + b`` is ``g(z / a)``."""


def named(value: Affine) -> Affine:
    """``tanh(z / 2) / 2 + 1/2`` as the sigmoid of z, ``2 sigmoid(2 z) - 1`` as the tanh of z."""
    atom, coefficient = value.terms[0] if len(value.terms) == 1 else (None, None)
    if not isinstance(atom, Unary) or coefficient is None or not coefficient.is_diag:
        return value
    function, scale, shift = _SCALED.get(atom.function, ("", 0.0, 0.0))
    if not function or np.any(coefficient.array != scale) or np.any(value.bias != shift):
        return value
    operand = atom.operand.scaled(np.full(value.width, 1 / scale, np.float32))
    return Affine.of(Unary(function, operand))


def width_of(value: Value) -> int:
    """Number of columns."""
    return sum(block.width for block in value)


def slice_columns(value: Value, start: int, stop: int) -> Value:
    """Columns ``start:stop``."""
    cut: list[Affine] = []
    at = 0
    for block in value:
        low, high = max(start - at, 0), min(stop - at, block.width)
        if low < high:
            cut.append(named(block.columns(low, high)))
        at += block.width
    return tuple(cut)


def aligned(values: Sequence[Value]) -> list[tuple[Affine, ...]]:
    """The values cut at the union of their block borders: one tuple of blocks per piece."""
    borders: set[int] = {0}
    for value in values:
        at = 0
        for block in value:
            at += block.width
            borders.add(at)
    edges = sorted(borders)
    return [
        tuple(slice_columns(value, low, high)[0] for value in values)
        for low, high in itertools.pairwise(edges)
    ]


def blockwise(function: Callable[..., Affine], *values: Value) -> Value:
    """Apply an element-wise function to values of the same width."""
    return tuple(named(function(*blocks)) for blocks in aligned(values))


def matmul(value: Value, matrix: Matrix) -> Value:
    """``value @ matrix``."""
    total = Affine(matrix.shape[1])
    at = 0
    for block in value:
        total = total + block.times(matrix[at : at + block.width])
        at += block.width
    return (total,)


def product(a: Affine, b: Affine) -> Affine:
    """Element-wise product; by a constant it stays linear, and constants of a row come out."""
    if not a.terms:
        return b.scaled(a.bias)
    if not b.terms:
        return a.scaled(b.bias)
    if a.key == b.key:
        return Affine.of(Unary("Square", a))
    for this, other in ((a, b), (b, a)):
        row = spread(other)
        if row is not None and not np.all(row[1] == 1):
            atom, scale = row
            ones = Coefficient(np.ones((1, other.width), np.float32))
            return Affine.of(Product((this, Affine(other.width, ((atom, ones),))))).scaled(scale)
    return Affine.of(Product((a, b)))


def spread(value: Affine) -> tuple[Atom, Matrix] | None:
    """The atom of one column and the constants ``[width]`` whose product the value is."""
    if len(value.terms) != 1 or value.has_bias:
        return None
    atom, coefficient = value.terms[0]
    if coefficient.is_diag or coefficient.array.shape[0] != 1:
        return None
    return atom, coefficient.array[0]


def per_row(value: Value) -> bool:
    """True for one number in each row that is made of means over columns."""
    return len(value) == 1 and value[0].width == 1 and _is_mean(value[0])


def _is_mean(value: Affine) -> bool:
    for atom, _ in value.terms:
        inner = atom.operand if isinstance(atom, Unary) else None
        if not isinstance(atom, Mean) and not (inner is not None and _is_mean(inner)):
            return False
    return bool(value.terms)


_INTERVALS = {"Relu": (0.0, np.inf), "Relu6": (0.0, 6.0)}


def interval(atom: Atom | None) -> tuple[float, float] | None:
    """The bounds an atom clips its operand to, None if it does not clip."""
    if not isinstance(atom, Unary):
        return None
    return (atom.low, atom.high) if atom.function == "Clip" else _INTERVALS.get(atom.function)


def clip(value: Affine, low: float, high: float) -> Affine:
    """``max(min(value, high), low)``; nested clips become one, relu and relu6 get their names."""
    inner = value.atom
    bounds = interval(inner)
    if bounds is not None and isinstance(inner, Unary):
        both = max(bounds[0], low), min(bounds[1], high)
        if both[0] <= both[1]:  # else the order of the two clips matters
            return clip(inner.operand, *both)
    for function, named in _INTERVALS.items():
        if named == (low, high):
            return Affine.of(Unary(function, value))
    return Affine.of(Unary("Clip", value, low, high))


def activate(function: str, value: Affine) -> Affine:
    """The normal form of ``Tanh``, ``Relu``, ``Relu6`` or another element-wise function."""
    bounds = _INTERVALS.get(function)
    return Affine.of(Unary(function, value)) if bounds is None else clip(value, *bounds)
