"""What keeps a step from being a kernel's cell."""

from __future__ import annotations

from hintc.ir import SCAN, Port
from hintc.ir.opdefs import WHILE_OPS
from hintc_passes.cells.algebra import Affine, Atom, Opaque, Symbol
from hintc_passes.cells.functions import interval
from hintc_passes.cells.step_values import Result

_LOOPS = (SCAN, *WHILE_OPS)


class Difference(Exception):
    """The step is not the cell that was looked for.

    Attributes:
        code, reason, remedy: of the remark.
        invariant: position of the invariant that a weight should have been, None if it is not that.
    """

    def __init__(
        self, code: str, reason: str, remedy: str = "", *, invariant: int | None = None
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.remedy = remedy
        self.invariant = invariant


def foreign(code: str, reason: str, atom: Atom) -> Difference:
    """What to raise where a cell's maths has a term that it should not have.

    Args:
        code: of the remark, if nothing better can be said about the term.
        reason: likewise.
        atom: the term.
    """
    if isinstance(atom, Symbol) and atom.kind == "invariant":
        return Difference(code, reason, invariant=atom.index)
    if isinstance(atom, Opaque) and atom.weight is not None:
        return Difference(code, reason, invariant=atom.weight)
    if isinstance(atom, Opaque) and atom.op in _LOOPS:
        return Difference(
            "inner-loop",
            f"each step runs a loop of its own, '{atom.node}'",
            "Only the inner loop may become a kernel: see the remark on it.",
        )
    return Difference(code, reason)


def varying_weight(port: Port) -> Difference:
    """What to raise where a step reads a value that is no sequence, no state and no constant."""
    return Difference(
        "varying-weight",
        f"the step reads '{port}', which is not constant",
        "If it is a weight, freeze the model; a kernel's weights are constants.",
    )


def output_is_not_h() -> Difference:
    """What to raise where a step gives something else than its new hidden state."""
    return Difference(
        "output-is-not-h",
        "a step's output is not the new hidden state",
        "Return the new hidden state, and compute from it after the loop.",
    )


def single_block(value: Result) -> Affine:
    """The value, if it is computed as one piece.

    Raises:
        Difference: it is a constant, or put together from several values.
    """
    if not isinstance(value, tuple):
        raise Difference(
            "constant-state",
            "a state or output of the step is constant",
            "Take it out of the loop.",
        )
    if len(value) != 1:
        raise Difference("packed-state", "a state or output of the step packs several values")
    return value[0]


def symmetric_clip(atom: Atom | None, what: str) -> float:
    """The bound of a clip to ``[-bound, bound]``.

    Raises:
        Difference: it clips to something else.
    """
    bounds = interval(atom)
    if bounds is None or bounds[0] != -bounds[1] or not 0 < bounds[1] < float("inf"):
        raise Difference(
            "asymmetric-clip",
            f"the {what} is clipped to {bounds}, the kernel clips to -a … a",
            "Clip to bounds that differ in sign only.",
        )
    return bounds[1]
