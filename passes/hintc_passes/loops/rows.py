"""What a step reads of tensors outside the loop, one row a step: the sequences of a Scan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hintc.graphdef.emit import known_array
from hintc.ir import Node, Port
from hintc_passes.analysis.values import known_int, readers, source_of
from hintc_passes.loops.linear import STEP, Linear
from hintc_passes.loops.trip_count import TripCount, sequences_of
from hintc_passes.loops.while_loop import Role, Variable, WhileLoop


@dataclass(frozen=True)
class Rows:
    """A sequence of a Scan.

    Attributes:
        source: the tensor outside.
        axis: what is stepped along.
        reverse: True if the last row comes first.
        skip: so many rows at the start are not read; all after them are.
    """

    source: Port
    axis: int
    reverse: bool
    skip: int = 0


def is_reversed(index: Linear | None, trip: Linear) -> bool | None:
    """False for an index that is the step, True for one that counts down to 0, else None."""
    if index == Linear.of(STEP):
        return False
    if index == trip - Linear(1) - Linear.of(STEP):
        return True
    return None


def rows_read(loop: WhileLoop, trip: TripCount) -> Mapping[Port, Rows]:
    """For each value of the body that is one row of an unchanging tensor, which rows it is."""
    found: dict[Port, Rows] = {}
    sequences = sequences_of(loop)
    for variable in loop.with_role(Role.READ_LIST):
        for item in variable.items:
            rows = _rows(loop.form(item.operands[1]), sequences[variable.at], 0, trip)
            if rows is not None:
                found[Port(item)] = rows
    for variable in loop.with_role(Role.AHEAD):
        assert variable.of is not None
        found[variable.arg] = Rows(sequences[variable.of.at], 0, False)
    for variable in loop.with_role(Role.INVARIANT):
        for node, axis, index in _picks(loop, variable):
            rows = _rows(loop.form(index), variable.first, axis, trip)
            if rows is not None:
                found[Port(node)] = rows
    return found


def _rows(index: Linear | None, source: Port, axis: int, trip: TripCount) -> Rows | None:
    """The rows at this index, one a step; None if they are not in order."""
    reverse = is_reversed(index, trip.form)
    if reverse is not None:
        return Rows(source, axis, reverse)
    skip = 0 if index is None else (index - Linear.of(STEP)).constant
    if skip > 0 and index == Linear.of(STEP) + Linear(skip) and trip.covers(source, axis, skip):
        return Rows(source, axis, reverse=False, skip=skip)
    return None


def _picks(loop: WhileLoop, variable: Variable) -> Iterator[tuple[Node, int, Port]]:
    """(node, axis, index) of all that takes one slice of a variable of known rank."""
    rank = loop.shapes[variable.first].rank if variable.first in loop.shapes else None
    if not rank:
        return
    for node, slot in readers(loop.body, variable.arg):
        if slot != 0:
            continue
        if node.op == "GatherV2":
            axis = known_int(node.operands[2])
            if axis is not None and -rank <= axis < rank and not node.attributes.get("batch_dims"):
                yield node, axis % rank, node.operands[1]
        elif node.op == "StridedSlice":
            picked = _picked(node)
            if picked is not None and picked[0] < rank:
                yield node, *picked


def _picked(node: Node) -> tuple[int, Port] | None:
    """(axis, index) if the slice takes one element of one axis and all of the others."""
    shrink, starts, stops = (
        node.attributes.get(f"{kind}_mask", 0) for kind in ("shrink_axis", "begin", "end")
    )
    if any(node.attributes.get(f"{kind}_mask") for kind in ("ellipsis", "new_axis")):
        return None
    if not (isinstance(shrink, int) and isinstance(starts, int) and isinstance(stops, int)):
        return None
    begin, strides = source_of(node.operands[1]).node, known_array(node.operands[3])
    if begin.op != "Pack" or strides is None or shrink.bit_count() != 1 or (strides != 1).any():
        return None
    axis = shrink.bit_length() - 1
    whole = (1 << len(begin.operands)) - 1 & ~shrink
    if axis >= len(begin.operands) or starts & whole != whole or stops & whole != whole:
        return None
    return (axis, begin.operands[axis]) if not starts & shrink else None
