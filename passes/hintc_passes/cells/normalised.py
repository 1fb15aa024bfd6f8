"""Layer normalisation of a gate, as TFLite's LSTM does it.

``(z - mean(z)) / sqrt(mean((z - mean(z))^2) + 1e-8) * scale + bias``, means over the cells of one
gate (J. Ba, J. Kiros, G. Hinton, "Layer normalization", 2016; the constant is the kernel's).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hintc.ops.sequence_lstm import LAYER_NORM_EPSILON
from hintc_passes.cells.algebra import Affine, Matrix, Mean, Product, Unary
from hintc_passes.cells.difference import Difference
from hintc_passes.cells.functions import spread


@dataclass(frozen=True)
class Normalised:
    """What is normalised, and the vectors ``[cells]`` that it is scaled by and shifted by."""

    operand: Affine
    scale: Matrix
    bias: Matrix


def match_normalised(name: str, value: Affine) -> Normalised | None:
    """The normalisation that a gate's sum is; None if nothing in it is normalised.

    Raises:
        Difference: it is normalised in another way than the kernel's.
    """
    factors = [_times_deviation(atom) for atom, _ in value.terms]
    found = [factor for factor in factors if factor is not None]
    if not found:
        return None
    if len(found) != len(factors):
        raise Difference("gate-term", f"the {name} gate adds something to what it normalises")
    centred, scale = _centred(name, value, [factor[0] for factor in found])
    deviation = found[0][1]
    if any(other.key != deviation.key for _, other in found):
        raise Difference("layer-norm", f"the {name} gate normalises by several deviations")
    operand = _normalised_by(name, deviation)
    if operand.width != value.width:
        raise Difference("layer-norm", f"the {name} gate is normalised together with others")
    if _minus_mean(operand).key != centred.key:
        raise Difference("layer-norm", f"the {name} gate divides by another value's deviation")
    if operand.has_bias:
        raise Difference(
            "layer-norm",
            f"the {name} gate adds its bias before the normalisation, the kernel after it",
        )
    return Normalised(operand, scale, value.bias)


def _times_deviation(atom: object) -> tuple[Affine, Unary] | None:
    """``(value, 1 / sqrt(...))`` if the atom is their product."""
    if not isinstance(atom, Product):
        return None
    for this, other in (atom.operands, atom.operands[::-1]):
        row = spread(other)
        if row is not None and isinstance(row[0], Unary) and row[0].function == "Rsqrt":
            return this, row[0]
    return None


def _centred(name: str, value: Affine, parts: list[Affine]) -> tuple[Affine, Matrix]:
    """What is divided, and the scale: ``scale a / d - scale b / d`` is ``scale (a - b) / d``."""
    coefficients = [coefficient for _, coefficient in value.terms]
    if not all(c.is_diag for c in coefficients):
        raise Difference("layer-norm", f"the {name} gate mixes cells after the normalisation")
    order = sorted(zip(parts, coefficients, strict=True), key=lambda pair: _is_only_mean(pair[0]))
    total, scale = order[0][0], order[0][1].array
    for part, coefficient in order[1:]:
        if np.any(coefficient.array != -scale):
            raise Difference("layer-norm", f"the {name} gate scales what it normalises apart")
        total = total + part.scaled(np.full(part.width, -1, np.float32))
    return total, scale


def _is_only_mean(value: Affine) -> bool:
    return all(isinstance(atom, Mean) for atom, _ in value.terms)


def _minus_mean(value: Affine) -> Affine:
    ones = np.full((1, value.width), -1, np.float32)
    return value + Affine.of(Mean(value)).times(ones)


def _normalised_by(name: str, deviation: Unary) -> Affine:
    """What ``z`` is in ``1 / sqrt(mean((z - mean(z))^2) + 1e-8)``."""
    epsilon = deviation.operand.bias
    variance = Affine(1, deviation.operand.terms).atom
    squares = variance.operand.atom if isinstance(variance, Mean) else None
    if not isinstance(squares, Unary) or squares.function != "Square":
        raise Difference("layer-norm", f"the {name} gate is not divided by a standard deviation")
    if np.float32(epsilon[0]) != np.float32(LAYER_NORM_EPSILON):
        raise Difference(
            "layer-norm",
            f"the {name} gate adds {epsilon[0]:g} to the variance, the kernel "
            f"{LAYER_NORM_EPSILON:g}",
            f"Train with an epsilon of {LAYER_NORM_EPSILON:g}.",
        )
    ones = {a.key for a, _ in squares.operand.terms if isinstance(a, Mean)}
    without = tuple((a, c) for a, c in squares.operand.terms if a.key not in ones)
    operand = Affine(squares.operand.width, without, squares.operand.bias)
    if _minus_mean(operand).key != squares.operand.key:
        raise Difference("layer-norm", f"the {name} gate's deviation is not that from its mean")
    return operand
