"""Masks that sequence lengths make: what in a step, or before the loop, says ``t < lengths``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hintc.graphdef.emit import known_array
from hintc.graphdef.shapes import infer_shapes
from hintc.ir import DType, Graph, Module, Node, Port, Scan
from hintc.ir.scan import dtype_of
from hintc_passes.analysis.values import known_int, source_of
from hintc_passes.scans.step import Step

BATCH, TIME, REVERSED, ONE = "batch", "time", "time from its end", "all the same"
"""What a value depends on along an axis."""

_INTEGERS = (DType.INT32, DType.INT64)
_COMPARISONS = {
    "GreaterEqual": (0, True),
    "LessEqual": (1, True),
    "Less": (0, False),
    "Greater": (1, False),
}
"""Op -> (operand that is the index, whether it is true where the sequence has ended)."""


@dataclass(frozen=True)
class Term:
    """A value that depends on lengths, on the index of the step, or on both, and on nothing else.

    Attributes:
        axes: what it depends on along each axis.
        lengths: the vector of lengths, outside of the loop; None for the index itself.
        ended: for a mask, whether it is true where the sequence has ended; else None.
        backwards: the index is that of the step counted from the last one.
    """

    axes: tuple[str, ...]
    lengths: Port | None = None
    ended: bool | None = None
    backwards: bool = False


class Masks:
    """Reads masks in the step of a Scan.

    Args:
        module: has the Scan.
        graph: has the Scan.
        node: the Scan.
        step: its step.
    """

    def __init__(self, module: Module, graph: Graph, node: Node, step: Step) -> None:
        self._module, self._graph, self._step = module, graph, step
        scan = Scan.of(node)
        self._outer = dict(zip(step.invariants, scan.invariants, strict=True))
        rows = zip(scan.xs, scan.reverse_xs, strict=True)
        self._rows = dict(zip(step.xs, rows, strict=True))
        self._known: dict[Port, Term | None] = {}

    def mask(self, port: Port) -> Term | None:
        """The mask of rows that a value of the step is, with any number of equal columns."""
        term = self._read(port)
        if term is None or term.ended is None or term.axes[:1] != (BATCH,):
            return None
        return term if all(axis == ONE for axis in term.axes[1:]) else None

    def _read(self, port: Port) -> Term | None:
        port = source_of(port)
        if port not in self._known:
            self._known[port] = None
            self._known[port] = self._term(port)
        return self._known[port]

    def _term(self, port: Port) -> Term | None:
        if port == self._step.t:
            return Term(())
        if port in self._outer:
            return self._read(self._outer[port])
        if port in self._rows:
            return self._row(*self._rows[port])
        node = port.node
        if node.op in _COMPARISONS:
            return self._compared(node)
        if node.op in _FOLLOWED:
            term = self._read(node.operands[0])
            found = None if term is None else _FOLLOWED[node.op](node, term)
            return found or self._lengths(port)
        return _counted(node) or self._lengths(port)

    def _row(self, sequence: Port, reverse: bool) -> Term | None:
        """The element of a sequence."""
        term = self._read(sequence)
        if term is None or term.axes[:1] not in ((TIME,), (REVERSED,)):
            return None
        backwards = reverse != (term.axes[0] == REVERSED)
        if term.backwards or any(axis in (TIME, REVERSED) for axis in term.axes[1:]):
            return None
        return replace(term, axes=term.axes[1:], backwards=backwards)

    def _lengths(self, port: Port) -> Term | None:
        """A vector of integers from outside of the loop."""
        if port.node.graph is not self._graph or dtype_of(port) not in _INTEGERS:
            return None
        is_vector = infer_shapes(self._module, self._graph, [port])[port].rank == 1
        return Term((BATCH,), port) if is_vector else None

    def _compared(self, node: Node) -> Term | None:
        at, ended = _COMPARISONS[node.op]
        index, lengths = (self._read(node.operands[k]) for k in (at, 1 - at))
        if index is None or lengths is None or lengths.lengths is None:
            return None
        if index.lengths is not None or index.ended is not None or lengths.ended is not None:
            return None
        axes = _broadcast(index.axes, lengths.axes)
        if axes is None:
            return None
        return Term(axes, lengths.lengths, ended, index.backwards)


def _broadcast(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...] | None:
    size = max(len(one), len(other))
    pairs = zip(*((ONE,) * (size - len(axes)) + tuple(axes) for axes in (one, other)), strict=True)
    joined = [a if b == ONE else b if a == ONE else None for a, b in pairs]
    kept = tuple(axis for axis in joined if axis is not None)
    return kept if len(kept) == size else None


def _counted(node: Node) -> Term | None:
    """0, 1, 2, … along one axis."""
    if node.op == "Range":
        first, _, apart = node.operands
        return Term((TIME,)) if (known_int(first), known_int(apart)) == (0, 1) else None
    array = known_array(Port(node)) if node.op == "Const" else None
    if array is None or array.dtype not in (np.int32, np.int64) or array.size < 2:
        return None
    if array.size not in array.shape or (array.reshape(-1) != np.arange(array.size)).any():
        return None
    return Term(tuple(TIME if size == array.size else ONE for size in array.shape))


# -- what changes axes only ----------------------------------------------------------------------


def _expanded(node: Node, term: Term) -> Term | None:
    axis = known_int(node.operands[1])
    rank = len(term.axes)
    if axis is None or not -rank - 1 <= axis <= rank:
        return None
    at = axis if axis >= 0 else rank + 1 + axis
    return replace(term, axes=(*term.axes[:at], ONE, *term.axes[at:]))


def _sliced(node: Node, term: Term) -> Term | None:
    """``[:, None]`` and the like: new axes, everything else in full."""
    strides = known_array(node.operands[3])
    if strides is None or node.attributes.get("ellipsis_mask"):
        return None
    axes, left = [], list(term.axes)
    for number, stride in enumerate(strides.reshape(-1)):
        new, shrink, begin, end = (
            isinstance(mask := node.attributes.get(f"{kind}_mask", 0), int) and mask >> number & 1
            for kind in ("new_axis", "shrink_axis", "begin", "end")
        )
        if new:
            axes.append(ONE)
        elif begin and end and not shrink and int(stride) == 1 and left:
            axes.append(left.pop(0))
        else:
            return None
    return replace(term, axes=(*axes, *left))


def _transposed(node: Node, term: Term) -> Term | None:
    order = known_array(node.operands[1])
    if order is None or sorted(order.tolist()) != list(range(len(term.axes))):
        return None
    return replace(term, axes=tuple(term.axes[at] for at in order.tolist()))


def _tiled(node: Node, term: Term) -> Term | None:
    """Copies along axes where everything is the same."""
    counts = known_array(node.operands[1])
    if counts is None or counts.size != len(term.axes):
        return None
    pairs = zip(term.axes, counts.tolist(), strict=True)
    return term if all(axis == ONE or count == 1 for axis, count in pairs) else None


def _reshaped(node: Node, term: Term) -> Term | None:
    """A vector as a column."""
    dims = known_array(node.operands[1])
    if dims is None or len(term.axes) != 1 or dims.ndim != 1 or dims.size == 0:
        return None
    if int(dims[0]) != -1 or (dims[1:] != 1).any():
        return None
    return replace(term, axes=(*term.axes, *(ONE for _ in dims[1:])))


def _reversed(node: Node, term: Term) -> Term | None:
    found = known_array(node.operands[1])
    if found is None:
        return None
    turned = {int(axis) % len(term.axes) for axis in found.reshape(-1)} if term.axes else set()
    if any(term.axes[axis] == BATCH for axis in turned):
        return None
    other = {TIME: REVERSED, REVERSED: TIME, ONE: ONE}
    axes = (other[a] if at in turned else a for at, a in enumerate(term.axes))
    return replace(term, axes=tuple(axes))


def _cast(node: Node, term: Term) -> Term | None:
    is_integer = node.attributes.get("DstT") in _INTEGERS
    return term if term.ended is None and is_integer else None


def _negated(_: Node, term: Term) -> Term | None:
    return None if term.ended is None else replace(term, ended=not term.ended)


_FOLLOWED: Mapping[str, Callable[[Node, Term], Term | None]] = {
    "Cast": _cast,
    "ExpandDims": _expanded,
    "LogicalNot": _negated,
    "Reshape": _reshaped,
    "ReverseV2": _reversed,
    "StridedSlice": _sliced,
    "Tile": _tiled,
    "Transpose": _transposed,
}
"""Op -> what it makes of a term, its operand 0."""
