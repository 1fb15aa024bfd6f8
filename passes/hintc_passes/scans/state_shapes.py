"""States keep their shape from step to step."""

from __future__ import annotations

from hintc.ir import Shape
from hintc.remark import Refused


def check_kept(at: int, first: Shape, following: Shape) -> None:
    """Refuse a state whose shape a step changes: number `at`, its shapes before and after.

    Raises:
        Refused: it does.
    """
    if not _is_kept(first, following):
        raise Refused(
            "state-changes-shape",
            f"state {at} starts as {first} and continues as {following}",
            "Give the initial state the shape that the loop's steps give it; to collect rows, "
            "write to a TensorArray.",
        )


def _is_kept(first: Shape, following: Shape) -> bool:
    """True unless a step provably, or by broadcasting possibly, changes the shape."""
    if first.dims is None or following.dims is None:
        return True
    if len(first.dims) != len(following.dims):
        return False
    return all(
        a in (b, -1) or (b == -1 and a != 1)
        for a, b in zip(first.dims, following.dims, strict=True)
    )
