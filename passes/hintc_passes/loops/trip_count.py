"""The exact number of steps of a loop, and which lists are as long."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hintc.graft import graft
from hintc.graphdef.emit import Emitter, known_array
from hintc.ir import Port, Shape, producers
from hintc.ir.opdefs import is_stateful
from hintc_passes.loops.bounds import Bounds, upper_bounds
from hintc_passes.loops.refusal import Refusal
from hintc_passes.loops.values import is_zeros, known_int, readers, source_of
from hintc_passes.loops.while_loop import Role, Variable, WhileLoop

_SELECTS = ("Select", "SelectV2")


def sequences_of(loop: WhileLoop) -> dict[int, Port]:
    """For each list that the loop reads, by position, the tensor it was made from."""
    return {v.at: source_of(v.first).node.operands[0] for v in loop.with_role(Role.READ_LIST)}


class TripCount:
    """The trip count of a loop.

    Args:
        loop: the loop.
        shapes: static shapes of the sequences it reads and of other values its bounds look at.

    Attributes:
        atom: the trip count, comparable.

    Raises:
        Refusal: the count is not known before the loop starts.
    """

    def __init__(self, loop: WhileLoop, shapes: Mapping[Port, Shape]) -> None:
        self._loop = loop
        result = loop.cond.results[0].operands[0]
        self._bounds = Bounds(upper_bounds(result, self._is_index, self._outside), shapes)
        least = self._bounds.least()
        if least is None:
            raise Refusal(
                "loop-length",
                "the loop has several bounds, and it is not clear which is the least",
                "Give the time dimension a fixed size, or loop up to one bound only.",
            )
        self.atom, self._port = least
        for maximum in self._bounds.open:
            self._check_frozen_beyond(maximum)

    def _is_index(self, arg: Port) -> bool:
        return self._role(arg) is Role.INDEX

    def _outside(self, bound: Port) -> Port | None:
        """The value outside that a value of the condition is; what it computes is hoisted."""
        loop = self._loop
        needed = producers([bound])
        values = {}
        for node in needed:
            if node.op == "_Arg":
                if self._role(Port(node)) is not Role.INVARIANT:
                    return None
                values[Port(node)] = loop.node.operands[self._at(Port(node))]
            elif is_stateful(node):
                return None
        nodes = [n for n in loop.cond if n in needed and n.op != "_Arg"]
        copies = graft(nodes, loop.graph, values, prefix=f"{loop.node.name}/bound")
        loop.hoisted.extend(reversed(copies.values()))
        return values.get(bound) or Port(copies[bound.node], bound.index)

    def _at(self, arg: Port) -> int:
        return self._loop.cond.args.index(arg.node)

    def _role(self, arg: Port) -> Role | None:
        if arg.node.op != "_Arg":
            return None
        return self._loop.variables[self._at(arg)].role

    def longer(self, variable: Variable) -> Port | None:
        """The length of an output list if it may be longer than the loop runs, else None."""
        length = source_of(variable.first).node.operands[1]
        return None if self._bounds.atom(length) == self.atom else length

    @property
    def may_be_zero(self) -> bool:
        """False if the loop provably makes a step."""
        kind, value = self.atom
        return not (kind == "constant" and isinstance(value, int) and value > 0)

    def covers(self, sequence: Port) -> bool:
        """True if the loop provably reads the whole sequence."""
        return self.atom in (self._bounds.length(sequence), self._bounds.symbol(sequence))

    def port(self, emit: Emitter) -> Port:
        """The trip count as an int32 scalar outside the loop."""
        kind, value = self.atom
        if kind == "constant" and isinstance(value, int):
            return emit.constant(np.int32(max(value, 0)), "trip_count")
        return self._port

    # -- sequence lengths --------------------------------------------------------------------

    def _check_frozen_beyond(self, maximum: Port) -> None:
        """The bound ``max(1, max(lengths))`` may be dropped where later steps change nothing.

        Such a step keeps every state and writes a zero row, which is what a list row that was
        never written is stacked as.
        """
        lengths = _lengths_of(maximum)
        if lengths is None or len(self._bounds.open) > 1:
            raise Refusal(
                "loop-length", "the loop also stops at a bound that is computed from data"
            )
        if any(v.ends for v in self._loop.with_role(Role.LAST_LIST)):
            raise Refusal(
                "loop-length", "the loop may stop early, and the row it wrote last is read"
            )
        for variable in self._loop.with_role(Role.INDEX):
            if readers(self._loop.graph, Port(self._loop.node, variable.at)):
                raise Refusal(
                    "loop-length",
                    "the loop may stop early, and the number of steps it made is read",
                )
        for variable in self._loop.with_role(Role.STATE):
            if not self._keeps(variable.next, lengths, variable):
                raise Refusal(
                    "loop-length",
                    f"the loop may stop early, and state {variable.at} would change beyond the "
                    "longest sequence",
                )
        for variable in self._loop.with_role(Role.WRITE_LIST):
            row = variable.items[0].operands[2]
            if variable.ends and not self._keeps(row, lengths, None):
                raise Refusal(
                    "loop-length",
                    "the loop may stop early, and the rows it would write beyond the longest "
                    "sequence are not provably zero",
                )

    def _keeps(self, value: Port, lengths: Port, state: Variable | None) -> bool:
        node = source_of(value).node
        if node.op not in _SELECTS:
            return False
        at_end, old = source_of(node.operands[0]).node, source_of(node.operands[1])
        if at_end.op != "GreaterEqual" or not self._loop.is_index(at_end.operands[0]):
            return False
        limit = self._first_of(source_of(at_end.operands[1]))
        if limit is None or source_of(limit) != lengths:
            return False
        if state is not None:
            return old == state.arg
        zeros = self._first_of(old)
        return is_zeros(zeros if zeros is not None else old)

    def _first_of(self, arg: Port) -> Port | None:
        for variable in self._loop.with_role(Role.INVARIANT):
            if variable.arg == arg:
                return variable.first
        return None


def _lengths_of(maximum: Port) -> Port | None:
    """`lengths` where the value is ``Maximum(1, Max(lengths))`` over its only axis."""
    left, right = (source_of(p) for p in maximum.node.operands)
    if known_int(left) is None:
        left, right = right, left
    floor = known_int(left)
    if floor is None or floor > 1 or right.node.op != "Max":
        return None
    axes = known_array(right.node.operands[1])
    if axes is None or axes.reshape(-1).tolist() != [0]:
        return None
    return source_of(right.node.operands[0])
