"""The exact number of steps of a loop, and which lists are as long."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hintc.graphdef.emit import Emitter, known_array
from hintc.ir import Port
from hintc.remark import Refused
from hintc_passes.analysis.values import is_zeros, known_int, readers, source_of
from hintc_passes.loops.bounds import Bounds
from hintc_passes.loops.linear import Linear
from hintc_passes.loops.while_loop import Role, Variable, WhileLoop, bad_list

_SELECTS = ("Select", "SelectV2")


def sequences_of(loop: WhileLoop) -> dict[int, Port]:
    """For each list that the loop reads, by position, the tensor it was made from."""
    return {v.at: source_of(v.first).node.operands[0] for v in loop.with_role(Role.READ_LIST)}


class TripCount:
    """The trip count of a loop.

    Args:
        loop: the loop, its variables with roles.
        limits: the numbers of steps that it may not exceed.

    Attributes:
        form: the trip count in terms of values outside the loop; negative means no steps.

    Raises:
        Refused: the count is not known before the loop starts.
    """

    def __init__(self, loop: WhileLoop, limits: Sequence[Linear]) -> None:
        self._loop = loop
        bounds = Bounds(limits, loop.sizes)
        least = bounds.least()
        if least is None:
            raise Refused(
                "loop-length",
                "the loop has several bounds, and it is not clear which is the least",
                "Give the time dimension a fixed size, or loop up to one bound only.",
            )
        self.form = least
        if len(bounds.open) > 1:
            raise _computed()
        for maximum in bounds.open:
            self._check_frozen_beyond(maximum)

    def longer(self, variable: Variable) -> Port | None:
        """The length of an output list if it may be longer than the loop runs, else None.

        Raises:
            Refused: the list grows in a way that is not followed.
        """
        length = variable.made.operands[1]
        room = self._loop.sizes.form(length) - self.form
        if room == Linear(0 if variable.before is None else 1):
            return None
        if variable.before is not None:
            raise bad_list(variable, "beside the row that is written before the loop, some are not")
        if not variable.items[0].attributes.get("resize_if_index_out_of_bounds"):
            return length
        if known_int(length) != 0:
            raise bad_list(variable, "it grows from a length that is not 0")
        return None

    @property
    def may_be_zero(self) -> bool:
        """False if the loop provably makes a step."""
        return not (self.form.is_constant and self.form.constant > 0)

    def covers(self, sequence: Port, axis: int = 0, skip: int = 0) -> bool:
        """True if the loop provably reads the whole sequence, but for the first `skip` rows."""
        sizes, form = self._loop.sizes, self.form + Linear(skip)
        return form in (sizes.length(sequence, axis), sizes.symbol(sequence, axis))

    def port(self, emit: Emitter) -> Port:
        """The trip count as an int32 scalar outside the loop."""
        if self.form.is_constant:
            return emit.constant(np.int32(max(self.form.constant, 0)), "trip_count")
        is_size = not self.form.constant and list(self.form.terms.values()) == [1]
        if is_size and next(iter(self.form.terms))[0] == "dimension":
            return self.value(emit, self.form)
        zero = emit.constant(np.int32(0), "trip_count/zero")
        return emit.binary("Maximum", self.value(emit, self.form), zero, "trip_count")

    def value(self, emit: Emitter, form: Linear) -> Port:
        """A form outside the loop, as an int32 scalar."""
        total: Port | None = None
        for atom, factor in form.terms.items():
            port = self._loop.sizes.ports[atom]
            if factor != 1:
                port = emit.binary("Mul", port, emit.constant(np.int32(factor)), "times")
            total = port if total is None else emit.add(total, port)
        if total is None or form.constant:
            constant = emit.constant(np.int32(form.constant))
            total = constant if total is None else emit.add(total, constant)
        return total

    # -- sequence lengths --------------------------------------------------------------------

    def _check_frozen_beyond(self, maximum: Port) -> None:
        """The bound ``max(1, max(lengths))`` may be dropped where later steps change nothing.

        Such a step keeps every state and writes a zero row, which is what a list row that was
        never written is stacked as.
        """
        lengths = _lengths_of(maximum)
        if lengths is None:
            raise _computed()
        if any(v.ends for v in self._loop.with_role(Role.LAST_LIST)):
            raise Refused(
                "loop-length", "the loop may stop early, and the row it wrote last is read"
            )
        for variable in self._loop.with_role(Role.COUNTER):
            if readers(self._loop.graph, Port(self._loop.node, variable.at)):
                raise Refused(
                    "loop-length",
                    "the loop may stop early, and the number of steps it made is read",
                )
        for variable in self._loop.with_role(Role.STATE):
            if not self._keeps(variable.next, lengths, variable):
                raise Refused(
                    "loop-length",
                    f"the loop may stop early, and state {variable.at} would change beyond the "
                    "longest sequence",
                )
        for variable in self._loop.with_role(Role.WRITE_LIST):
            row = variable.items[0].operands[2]
            if variable.ends and not self._keeps(row, lengths, None):
                raise Refused(
                    "loop-length",
                    "the loop may stop early, and the rows it would write beyond the longest "
                    "sequence are not provably zero",
                )

    def _keeps(self, value: Port, lengths: Port, state: Variable | None) -> bool:
        node = source_of(value).node
        if node.op not in _SELECTS:
            return False
        at_end, old = source_of(node.operands[0]).node, source_of(node.operands[1])
        if at_end.op != "GreaterEqual" or not self._loop.is_step(at_end.operands[0]):
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


def _computed() -> Refused:
    return Refused("loop-length", "the loop also stops at a bound that is computed from data")


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
