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
