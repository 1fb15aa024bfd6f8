"""Patterns: pieces of graphs written as the maths they are, and matching them."""

from hintc.pattern.language import (
    AnyOf,
    Capture,
    Constant,
    OpBuilder,
    Open,
    Operation,
    Pattern,
    Rest,
    Result,
    Through,
    Value,
    trace,
)
from hintc.pattern.matching import COMMUTATIVE, Match, Matcher, constant_of, is_hint
from hintc.remark import NearMiss

__all__ = [
    "COMMUTATIVE",
    "AnyOf",
    "Capture",
    "Constant",
    "Match",
    "Matcher",
    "NearMiss",
    "OpBuilder",
    "Open",
    "Operation",
    "Pattern",
    "Rest",
    "Result",
    "Through",
    "Value",
    "constant_of",
    "is_hint",
    "trace",
]
