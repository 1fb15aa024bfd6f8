"""What keeps a step from being a kernel's cell."""

from __future__ import annotations

from hintc_passes.cells.algebra import Affine, Atom, interval
from hintc_passes.cells.step import Result


class Difference(Exception):
    """The step is not the cell that was looked for."""

    def __init__(self, code: str, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.remedy = remedy


def single_block(value: Result) -> Affine:
    """The value, if it is computed as one piece.

    Raises:
        Difference: it is a constant, or put together from several values.
    """
    if not isinstance(value, tuple):
        raise Difference("constant-state", "a state or output of the step is constant")
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
        raise Difference("asymmetric-clip", f"the {what} is clipped to {bounds}")
    return bounds[1]
