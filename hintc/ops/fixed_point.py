"""Fixed-point arithmetic of TensorFlow Lite's integer kernels, bit by bit.

Facts from gemmlowp, fixedpoint/fixedpoint.h (products, shifts, exp_on_negative_values, logistic and
tanh of 16-bit values), and from TensorFlow Lite, kernels/internal/quantization_util.cc
(QuantizeMultiplier) and kernels/internal/common.h and .cc (MultiplyByQuantizedMultiplier,
GetInvSqrtQuantizedMultiplierExp). Products are rounded with ties upward, and what is shifted right
once more with ties away from zero, as these are built for x86; the vector instructions of ARM round
all ties upward. Values are held in int64 and reduced to the kernel's width where it overflows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

_ONE = 32767
"""1 in Q0.15, or as near as it comes."""
_ROOT_OF_HALF = 1518500250
"""In Q0.31."""
_POWERS_OF_E = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
"""exp(-1/4), exp(-1/2), exp(-1) to exp(-16), in Q0.31."""


def saturated(x: Integers, bits: int) -> Integers:
    """x, or the nearest signed value of so many bits."""
    return np.clip(x, -(1 << bits - 1), (1 << bits - 1) - 1)


def wrapped(x: Integers, bits: int) -> Integers:
    """The low bits of x as a signed value: what is left of it after an overflow."""
    half = 1 << bits - 1
    return ((x + half) & ((1 << bits) - 1)) - half


def quotient(x: Integers, divisor: int) -> Integers:
    """X / divisor without its fraction, as C divides: towards zero."""
    return np.asarray(np.sign(x) * (np.abs(x) // divisor))


def shifted_right(x: Integers, count: int) -> Integers:
    """X / 2**count, rounded; ties away from zero."""
    half = 1 << count >> 1
    return np.asarray(np.sign(x) * ((np.abs(x) + half) >> count))


def high_product(a: Integers, b: Integers | int, bits: int) -> Integers:
    """The product of two values of so many bits in [-1, 1), as one of them: 2 a b / 2**bits.

    Rounded as vqrdmulh does: ties upward.
    """
    fraction = bits - 1
    product = a * b
    nudge = np.where(product >= 0, 1 << fraction - 1, 1 - (1 << fraction - 1))
    return saturated(quotient(product + nudge, 1 << fraction), bits)


@dataclass(frozen=True)
class Multiplier:
    """A positive real number that integers are multiplied by.

    Args:
        mantissa: in Q0.31.
        exponent: of 2.
    """

    mantissa: int
    exponent: int

    @classmethod
    def of(cls, value: float) -> Multiplier:
        """The one nearest to a value."""
        fraction, exponent = math.frexp(value)
        mantissa = math.floor(fraction * 2**31 + 0.5)
        if mantissa == 1 << 31:
            mantissa, exponent = mantissa // 2, exponent + 1
        return cls(mantissa, exponent) if exponent >= -31 else cls(0, 0)

    @classmethod
    def inverse_root(cls, value: int) -> Multiplier:
        """1 / sqrt(value), by Newton's iteration; value: int32, at least 1."""
        if value == 1:
            return cls(2**31 - 1, 0)
        shift = 11
        while value >= 1 << 29:
            value, shift = value // 4, shift + 1
        pairs = (31 - value.bit_length()) // 2 - 1
        value, shift = value << 2 * pairs, shift - pairs
        # values of 32 bits, 3 of them before the point; a product of two has 6, of three 9
        number = np.array(value >> 1, np.int64)
        half, three_halves = shifted_right(number, 1), 3 << 27
        x = np.array(1 << 28, np.int64)
        for _ in range(5):
            cube = _scaled_up(high_product(high_product(x, x, 32), x, 32), 6, 32)
            step = high_product(x, three_halves, 32) - high_product(half, cube, 32)
            x = _scaled_up(step, 3, 32)
        mantissa = int(high_product(x, _ROOT_OF_HALF, 32))
        return cls(mantissa << max(-shift, 0), -max(shift, 0))

    def times(self, x: Integers) -> Integers:
        """X times this number, in 32 bits."""
        left, right = max(self.exponent, 0), max(-self.exponent, 0)
        return shifted_right(high_product(wrapped(x << left, 32), self.mantissa, 32), right)

    def shifted(self, count: int) -> Multiplier:
        """2**count times this number."""
        return Multiplier(self.mantissa, self.exponent + count)


def sigmoid(x: Integers) -> Integers:
    """The logistic function of int16 values in Q3.12, in Q0.15."""
    size = np.where(x > 0, wrapped(-x, 16), x)
    positive = _scaled_up(_twice_the_inverse(_exp(size, 3)), 1, 16)
    found = np.where(x > 0, positive, _ONE - positive)
    return np.where(x == 0, 1 << 14, found)


def tanh(x: Integers, integer_bits: int) -> Integers:
    """The hyperbolic tangent of int16 values, in Q0.15.

    Args:
        x: with so many bits before the point, the sign apart, and 15 - integer_bits behind.
        integer_bits: 0 to 6.
    """
    size = np.where(x < 0, x, wrapped(-x, 16))
    one = 1 << 13
    found = _scaled_up(_twice_the_inverse(_exp(size, integer_bits + 1)) - one, 2, 16)
    return np.where(x == 0, 0, np.where(x < 0, -found, found))


def _scaled_up(x: Integers, count: int, bits: int) -> Integers:
    """X * 2**count, saturated."""
    return saturated(x << count, bits)


def _exp(x: Integers, integer_bits: int) -> Integers:
    """exp(x) for int16 values, x <= 0, in Q0.15."""
    fraction_bits = 15 - integer_bits
    quarter = 1 << fraction_bits - 2
    inside = (x & (quarter - 1)) - quarter
    found = _exp_of_a_quarter(_scaled_up(inside, integer_bits, 16))
    rest = wrapped(inside - x, 16)
    for exponent, power in zip(range(-2, integer_bits), _POWERS_OF_E, strict=False):
        bit = 1 << fraction_bits + exponent
        found = np.where(rest & bit, high_product(found, _upper_half(power), 16), found)
    if integer_bits > 5:
        found = np.where(x < -(1 << 20 - integer_bits), 0, found)
    return np.where(x == 0, _ONE, found)


def _exp_of_a_quarter(x: Integers) -> Integers:
    """exp(x) for x in [-1/4, 0), both in Q0.15: its Taylor series around -1/8."""
    middle, third = _upper_half(1895147668), _upper_half(715827883)
    x = x + (1 << 12)
    square = high_product(x, x, 16)
    cube, fourth = high_product(square, x, 16), high_product(square, square, 16)
    rest = high_product(shifted_right(fourth, 2) + cube, third, 16) + square
    return saturated(middle + high_product(x + shifted_right(rest, 1), middle, 16), 16)


def _twice_the_inverse(x: Integers) -> Integers:
    """2 / (1 + x) for x in (0, 1), from Q0.15 to Q2.13, by Newton's iteration."""
    half = (x + _ONE + 1) >> 1
    one = 1 << 13
    found = _upper_half(1515870810) + high_product(half, _upper_half(-1010580540), 16)
    for _ in range(3):
        error = wrapped(one - high_product(half, found, 16), 16)
        found = wrapped(found + _scaled_up(high_product(found, error, 16), 2, 16), 16)
    return found


def _upper_half(constant: int) -> int:
    """A constant of 32 bits in 16."""
    return int(shifted_right(np.array(constant, np.int64), 16))
