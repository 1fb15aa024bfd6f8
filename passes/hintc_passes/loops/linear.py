"""Integer scalars as linear forms: what an index is in terms of the step, a bound, a length."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from hintc.ir import Port
from hintc_passes.analysis.values import known_scalar, source_of

Atom = tuple[str, Hashable]
"""What a form is linear in, compared by equality: a dimension, or any other value."""
STEP: Atom = ("step", 0)
"""The number of steps done before this one."""
ARITHMETIC = ("AddV2", "Add", "Sub", "Mul", "Neg")
"""Ops that forms are made of."""


@dataclass(frozen=True)
class Linear:
    """``constant + sum(factor * atom)``.

    Attributes:
        constant: an integer.
        terms: atom -> factor, none of them 0.
    """

    constant: int = 0
    terms: Mapping[Atom, int] = field(default_factory=dict)

    @classmethod
    def of(cls, atom: Atom) -> Linear:
        """One atom."""
        return cls(0, {atom: 1})

    @property
    def is_constant(self) -> bool:
        """True if it has no terms."""
        return not self.terms

    def factor(self, atom: Atom) -> int:
        """How often an atom occurs."""
        return self.terms.get(atom, 0)

    def without(self, atom: Atom) -> Linear:
        """The form with an atom left out."""
        return Linear(self.constant, {a: f for a, f in self.terms.items() if a != atom})

    def __add__(self, other: Linear) -> Linear:
        terms = dict(self.terms)
        for atom, factor in other.terms.items():
            terms[atom] = terms.get(atom, 0) + factor
        return Linear(self.constant + other.constant, {a: f for a, f in terms.items() if f})

    def __mul__(self, factor: int) -> Linear:
        terms = {a: f * factor for a, f in self.terms.items()} if factor else {}
        return Linear(self.constant * factor, terms)

    def __neg__(self) -> Linear:
        return self * -1

    def __sub__(self, other: Linear) -> Linear:
        return self + -other


def linear(port: Port, leaf: Callable[[Port], Linear | None]) -> Linear | None:
    """A value as a linear form; None if some part of it has none.

    Args:
        port: an integer scalar.
        leaf: the form of a value that is no sum, difference or multiple.
    """
    port = source_of(port)
    constant = known_scalar(port)
    if constant is not None:
        return Linear(constant)
    if port.node.op not in ARITHMETIC:
        return leaf(port)
    operands = [linear(p, leaf) for p in port.node.operands]
    forms = [form for form in operands if form is not None]
    if len(forms) < len(operands):
        return None
    found = _combined(port.node.op, forms)
    return leaf(port) if found is None else found


def _combined(op: str, forms: Sequence[Linear]) -> Linear | None:
    if op == "Neg":
        return -forms[0]
    left, right = forms
    if op == "Mul":
        if right.is_constant:
            return left * right.constant
        return right * left.constant if left.is_constant else None
    return left - right if op == "Sub" else left + right
