"""Element-wise functions of affine values, in normal form: products, clips, activations.

Each gives the simplest value that is equal, so that one spelling has one `key`: a product by a
constant stays linear, nested clips are one, and a scaled tanh is the sigmoid that it is.
"""

from __future__ import annotations

import numpy as np

from hintc_passes.cells.algebra import Affine, Atom, Coefficient, Matrix, Product, Unary

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
