"""Flags that are provably equal for all rows: a condition on the index of the step, spread out.

Users of `raw_rnn` write ``(t >= n) & tf.fill([batch], True)``, ``t >= tf.fill([batch], n)`` and the
like. Such a value is a `Since`: a linear form that is 0 or more where the flags are true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hintc.graphdef.emit import known_array
from hintc.ir import Node, Port
from hintc_passes.analysis.values import source_of
from hintc_passes.loops.linear import Linear

Since = Linear | bool
"""What is 0 or more where all flags are true, and negative where none is; or always the same."""
Forms = Callable[[Port], Linear | None]
"""Gives an integer scalar as a linear form, None if it is none, or no scalar."""

_SPREADS = {"Fill": 1, "BroadcastTo": 0, "ExpandDims": 0, "Pack": 0, "Reshape": 0, "Tile": 0}
"""Op -> the operand of which all elements of its result are copies."""
_COMPARISONS = {"GreaterEqual": (0, 1, 0), "Greater": (0, 1, 1)}
_COMPARISONS |= {"LessEqual": (1, 0, 0), "Less": (1, 0, 1)}
"""Op -> (operand that is greater, operand that is less, by how much at least)."""
_LOGIC = {"LogicalAnd": 2, "LogicalOr": 2, "LogicalNot": 1}
"""Op -> number of operands."""


def uniform_since(port: Port, form: Forms, known: Mapping[Port, Since]) -> Since | None:
    """What makes flags true, if that is provably the same for all of them.

    Args:
        port: booleans of any shape.
        form: of integer scalars.
        known: values of which it is known already.
    """
    port = source_of(port)
    if port in known:
        return known[port]
    same = _same_everywhere(port)
    if same is not None:
        return bool(same) if same.dtype == np.bool_ else None
    if port.node.op in _COMPARISONS:
        return _compared(port.node, form)
    spread = _spread(port)
    if spread is not None:
        return uniform_since(spread, form, known)
    read = port.node.operands if port.node.op in _LOGIC else ()
    sides = [uniform_since(p, form, known) for p in read]
    return _joined(port.node.op, [side for side in sides if side is not None])


def _compared(node: Node, form: Forms) -> Since | None:
    high, low, apart = _COMPARISONS[node.op]
    greater = _uniform_form(node.operands[high], form)
    less = _uniform_form(node.operands[low], form)
    if greater is None or less is None:
        return None
    since = greater - less - Linear(apart)
    return since.constant >= 0 if since.is_constant else since


def _uniform_form(port: Port, form: Forms) -> Linear | None:
    """The form of integers that are all the same."""
    port = source_of(port)
    same = _same_everywhere(port)
    if same is not None:
        return Linear(int(same)) if same.dtype.kind in "iu" else None
    if port.node.op in ("Maximum", "Minimum"):
        sides = [_uniform_form(p, form) for p in port.node.operands]
        if sides[0] is not None and sides[1] is not None:
            greater = _greater(sides[0], sides[1])
            if greater is not None:
                return greater[0 if port.node.op == "Maximum" else 1]
    spread = _spread(port)
    return form(port) if spread is None else _uniform_form(spread, form)


def _spread(port: Port) -> Port | None:
    """What all elements of a value are copies, or parts, of."""
    node = port.node
    if node.op not in _SPREADS or (node.op == "Pack" and len(node.operands) > 1):
        return None
    return node.operands[_SPREADS[node.op]]


def _same_everywhere(port: Port) -> np.generic | None:
    """The element of a constant whose elements are all equal."""
    array = known_array(port) if port.node.op == "Const" else None
    if array is None or not array.size or (array != array.flat[0]).any():
        return None
    element: np.generic = array.flat[0]
    return element


def _joined(op: str, sides: Sequence[Since]) -> Since | None:
    """What an operation of `_LOGIC` gives; None for others, or if an operand is not known."""
    if not sides or len(sides) < _LOGIC[op]:
        return None
    if op == "LogicalNot":
        (side,) = sides
        return not side if isinstance(side, bool) else -side - Linear(1)
    every = op == "LogicalAnd"
    one, other = sides
    if isinstance(one, bool):
        return other if one is every else one
    if isinstance(other, bool):
        return one if other is every else other
    greater = _greater(one, other)
    return None if greater is None else greater[1 if every else 0]


def _greater(one: Linear, other: Linear) -> tuple[Linear, Linear] | None:
    """Two forms, the greater one first; None if that is not always the same one."""
    apart = one - other
    if not apart.is_constant:
        return None
    return (one, other) if apart.constant >= 0 else (other, one)
