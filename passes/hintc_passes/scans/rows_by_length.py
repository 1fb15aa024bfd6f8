"""What lengths do to the rows of a sequence ``[T, B, …]``, computed after the loop."""

from __future__ import annotations

import numpy as np

from hintc.graphdef.emit import Emitter
from hintc.ir import AttributeValue, DType, Port
from hintc.ir.scan import dtype_of


class RowsByLength:
    """Adds the nodes that mask, turn or pick rows.

    Args:
        emit: adds them.
        trip_count: T, an int32 scalar.
        lengths: int32 ``[B]``; any number may be less than 0 or more than T.
    """

    def __init__(self, emit: Emitter, trip_count: Port, lengths: Port) -> None:
        self._emit, self._trip_count, self._lengths = emit, trip_count, lengths

    def masked(self, rows: Port, beyond: Port | None, rank: int) -> Port:
        """`rows`, of this rank less 1 each, with `beyond` where ``t >= lengths[b]``.

        Args:
            rows: ``[T, B, …]``.
            beyond: ``[B, …]``; None for zeros.
            rank: of `beyond`.
        """
        emit, dtype = self._emit, dtype_of(rows)
        steps = _column(emit, _range(emit, self._trip_count, "steps"), "steps/column")
        ended = emit.binary("GreaterEqual", steps, self._lengths, "ended")
        for number in range(rank - 1):
            ended = _column(emit, ended, f"ended/{number}", dtype=DType.BOOL)
        if beyond is None:
            beyond = emit.constant(np.zeros((), dtype.numpy), "zero")
        return emit.node("SelectV2", [ended, beyond, rows], {"T": dtype}, "masked")

    def last(self, rows: Port, first: Port, rank: int) -> Port:
        """``rows[lengths[b] - 1, b]``; where there is no such row `first`, of rank `rank`."""
        emit = self._emit
        one = emit.constant(np.int32(1), "one")
        within = emit.binary("Minimum", self._lengths, self._trip_count, "within")
        at = emit.subtract(emit.binary("Maximum", within, one, "at_least_one"), one, "last")
        batch = _range(emit, emit.element(emit.shape(self._lengths), 0), "batch")
        places = emit.pack([at, batch], "places", axis=1)
        dtype = dtype_of(rows)
        found = emit.node(
            "GatherNd", [rows, places], {"Tparams": dtype, "Tindices": DType.INT32}, "last_rows"
        )
        zero = emit.constant(np.int32(0), "none")
        empty = emit.binary("LessEqual", self._lengths, zero, "empty")
        for number in range(rank - 1):
            empty = _column(emit, empty, f"empty/{number}", dtype=DType.BOOL)
        return emit.node("SelectV2", [empty, first, found], {"T": dtype}, "final")

    def turned(self, rows: Port) -> Port:
        """The first ``lengths[b]`` rows of each sequence in the opposite order."""
        emit = self._emit
        zero = emit.constant(np.int32(0), "nothing")
        within = emit.binary("Minimum", self._lengths, self._trip_count, "turned/at_most")
        within = emit.binary("Maximum", within, zero, "turned/lengths")
        attributes: dict[str, AttributeValue] = {
            "T": dtype_of(rows),
            "Tlen": DType.INT32,
            "seq_dim": 0,
            "batch_dim": 1,
        }
        return emit.node("ReverseSequence", [rows, within], attributes, "turned")

    def reversed(self, rows: Port) -> Port:
        """All rows in the opposite order."""
        emit = self._emit
        axis = emit.constant(np.array([0], np.int32), "time")
        types: dict[str, AttributeValue] = {"T": dtype_of(rows), "Tidx": DType.INT32}
        return emit.node("ReverseV2", [rows, axis], types, "reversed")


def _range(emit: Emitter, end: Port, name: str) -> Port:
    start, step = (emit.constant(np.int32(n), f"{name}/{n}") for n in (0, 1))
    return emit.node("Range", [start, end, step], {"Tidx": DType.INT32}, name)


def _column(emit: Emitter, value: Port, name: str, dtype: DType = DType.INT32) -> Port:
    """A new axis at the end."""
    axis = emit.constant(np.int32(-1), f"{name}/axis")
    return emit.node("ExpandDims", [value, axis], {"T": dtype, "Tdim": DType.INT32}, name)
