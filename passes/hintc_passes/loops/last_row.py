"""Lists of one row that every step overwrites: what a layer that gives its last output makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hintc.graphdef.emit import Emitter, known_array
from hintc.graphdef.final_rows import reads_last
from hintc.ir import DType, Graph, Node, Port
from hintc.ir.scan import dtype_of
from hintc.remark import Refused
from hintc_passes.analysis.values import is_zeros, reads_first, source_of
from hintc_passes.loops.trip_count import TripCount
from hintc_passes.loops.while_loop import Variable


@dataclass(frozen=True)
class LastRow:
    """The row that such a list holds after the loop.

    A loop of no steps leaves the row unwritten. TensorFlow stacks it as zeros if the list's
    element shape is defined, and fails if not.

    Attributes:
        variable: the list.
        state: number of the final state that is the row, None if the last output is it.
        blank: shape of the zeros that the row is if the loop makes no step; None if a step is
            certain, or the state is those zeros then, or TensorFlow fails.
    """

    variable: Variable
    state: int | None
    blank: tuple[int, ...] | None

    @classmethod
    def of(cls, variable: Variable, states: Sequence[Variable], trip: TripCount) -> LastRow:
        """How to read the row off a Scan.

        Raises:
            Refused: the loop may make no step, and what the row is then cannot be told.
        """
        row = source_of(variable.items[0].operands[2])
        same = next((k for k, state in enumerate(states) if state.next == row), None)
        if not trip.may_be_zero:
            return cls(variable, same, None)
        try:
            blank = _element_shape(variable)
        except Refused:
            if same is None or not is_zeros(states[same].first):
                raise
            return cls(variable, same, None)
        # a fused kernel has no final state after no steps, so the outputs are read even where
        # the state starts as zeros
        return cls(variable, same if blank is None else None, blank)

    def read(self, emit: Emitter, rows: Port) -> Port:
        """The row, outside the loop.

        Args:
            emit: adds what it takes.
            rows: the final state, or all outputs.
        """
        if self.state is not None:
            return rows
        name = f"y_{self.variable.at}"
        if self.blank is not None:
            dims = emit.constant(np.array([1, *self.blank], np.int32), f"{name}/blank_shape")
            rows = emit.concat([emit.fill(dims, dtype_of(rows), f"{name}/blank"), rows], name)
        bounds = [
            emit.constant(np.array([at], np.int32), f"{name}/{part}")
            for part, at in (("begin", -1), ("end", 0), ("strides", 1))
        ]
        return emit.node(
            "StridedSlice",
            [rows, *bounds],
            {"T": dtype_of(rows), "Index": DType.INT32, "shrink_axis_mask": 1},
            f"{name}/last",
        )

    def replace_reads(self, graph: Graph, stack: Node, row: Port) -> None:
        """What takes the only row of the stacked list reads `row` itself."""
        for use in graph.uses(Port(stack)):
            node = use.node
            if use.slot != 0 or not (reads_last(node) or reads_first(node)):
                continue
            if graph.is_used(node):  # else it may be an output, whose name is kept
                graph.replace_uses(Port(node), row)
                if not graph.is_used(node):
                    graph.remove(node)


def _element_shape(variable: Variable) -> tuple[int, ...] | None:
    """The shape of the list's elements as its readers see it; None if it is not defined.

    Raises:
        Refused: it is computed, or differs from reader to reader.
    """
    reserve = source_of(variable.first).node
    found = {_merged([reserve.operands[0], end.operands[1]]) for end in variable.ends}
    if len(found) != 1:
        raise _unclear(variable)
    shape = found.pop()
    return None if shape is None or min(shape, default=0) < 0 else shape


def _merged(shapes: Sequence[Port]) -> tuple[int, ...] | None:
    """Element shapes joined, -1 where none says; None if the rank is unknown to all."""
    result: tuple[int, ...] | None = None
    for port in shapes:
        array = known_array(port)
        if array is None:
            raise Refused(
                "loop-list",
                f"the loop may make no step, and the shape '{port.node.name}' of the row that it "
                "would leave unwritten is computed",
                "Give the time dimension of the input a fixed size.",
            )
        if array.ndim == 0:
            continue
        dims = tuple(int(dim) for dim in array)
        if result is not None and len(result) == len(dims):
            dims = tuple(max(a, b) for a, b in zip(result, dims, strict=True))
        result = dims
    return result


def _unclear(variable: Variable) -> Refused:
    return Refused(
        "loop-list",
        f"the loop may make no step, and the row that loop variable {variable.at} would leave "
        "unwritten is read in different shapes",
        "Give the time dimension of the input a fixed size.",
    )
