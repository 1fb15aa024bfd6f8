"""How often a loop runs: its condition as a set of upper bounds, and what that set reduces to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hintc.ir import Port, Shape
from hintc_passes.loops.refusal import Refusal
from hintc_passes.loops.values import first_dimension_of, known_int, source_of

Atom = tuple[str, Port | int]
"""A bound that is compared by equality: a constant, a first dimension, or any other value."""
_REMEDY = "A loop becomes a Scan if it counts from 0 in steps of 1 up to a fixed bound."


def upper_bounds(
    condition: Port, is_index: Callable[[Port], bool], outside: Callable[[Port], Port | None]
) -> list[Port]:
    """Ports (outside the loop, or constants of the condition) that an index must stay below.

    Args:
        condition: the result of the condition function.
        is_index: true for its arguments that count 0, 1, 2, …
        outside: the value outside that an unchanging argument stands for.

    Raises:
        Refusal: the condition is not a conjunction of ``index < bound``.
    """
    node = source_of(condition).node
    if node.op == "LogicalAnd":
        return [
            bound for operand in node.operands for bound in upper_bounds(operand, is_index, outside)
        ]
    if node.op in ("Less", "Greater"):
        index, bound = (source_of(p) for p in node.operands)
        if node.op == "Greater":
            index, bound = bound, index
        found = bound if known_int(bound) is not None else outside(bound)
        if is_index(index) and found is not None:
            return [found]
    raise Refusal(
        "loop-condition",
        f"the loop goes on while a {node.op} holds that is not index < bound",
        _REMEDY,
    )


class Bounds:
    """The least of some bounds, symbolically.

    Args:
        ports: the bounds.
        shapes: static shapes of values whose first dimension occurs.
    """

    def __init__(self, ports: Sequence[Port], shapes: Mapping[Port, Shape]) -> None:
        self._shapes = shapes
        self._ports: dict[Atom, Port] = {}
        self._larger: list[Port] = []
        for port in ports:
            self._take(port)
        self.open = [m for m in self._larger if not self._absorbed(m)]
        """``Maximum`` bounds that no other bound makes redundant."""

    def _take(self, port: Port) -> None:
        port = source_of(port)
        if port.node.op == "Minimum":
            for operand in port.node.operands:
                self._take(operand)
        elif port.node.op == "Maximum":
            self._larger.append(port)
        else:
            self._ports.setdefault(self.atom(port), port)

    def _absorbed(self, maximum: Port) -> bool:
        """``min(a, max(a, b)) == a``."""
        return any(self.atom(p) in self._ports for p in maximum.node.operands)

    def atom(self, port: Port) -> Atom:
        """What a bound is compared by."""
        port = source_of(port)
        value = known_int(port)
        if value is not None:
            return "constant", value
        of = first_dimension_of(port)
        if of is None:
            return "value", port
        return self.length(of)

    def length(self, of: Port) -> Atom:
        """The first dimension of a value, as an atom."""
        dims = self._shapes.get(source_of(of), Shape(None)).dims
        if dims and dims[0] >= 0:
            return "constant", dims[0]
        return self.symbol(of)

    def symbol(self, of: Port) -> Atom:
        """The first dimension of a value as that of the value it is a reversal of."""
        of = source_of(of)
        while of.node.op == "ReverseV2":
            of = source_of(of.node.operands[0])
        return "length", of

    def least(self) -> tuple[Atom, Port] | None:
        """The one atom that all bounds reduce to, leaving `open` aside; None if there are more."""
        constants = [a for a in self._ports if a[0] == "constant"]
        others = [a for a in self._ports if a[0] != "constant"]
        if others and (constants or len(others) > 1):
            return None
        if others:
            return others[0], self._ports[others[0]]
        if not constants:
            return None
        least = min(constants, key=lambda a: a[1] if isinstance(a[1], int) else 0)
        return least, self._ports[least]
