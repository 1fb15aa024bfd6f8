"""Ranges of values that are zero in all samples.

Such a value has no scale of its own, and the quantiser takes one of 1e-8. Beside an ordinary one
TFLite's ADD aborts on it, and XNNPACK refuses the model (measured). The state that the first of
unrolled steps starts from is such a value, and so is all that is computed from it alone, or from
rows beyond a mask. It gets the range of what it is computed with.
"""

from __future__ import annotations

from collections import deque

from hintc.tflite.flatbuffer import Model, Operator, Subgraph
from hintc.tflite.integers.ranges import Range, Ranges, joint

_ANY: Range = (-1.0, 1.0)
"""Where nothing else is known."""


def silent_ranges(model: Model, ranges: Ranges) -> Ranges:
    """New ranges for all tensors whose range is nothing but zero.

    Args:
        model: legalised, in float.
        ranges: what was measured.

    Returns:
        Of each the joint range of the nearest tensors, along operators, that are not always zero.
    """
    found: Ranges = {}
    for number, subgraph in enumerate(model.subgraphs):
        mine = {tensor: span for (at, tensor), span in ranges.items() if at == number}
        silent = [tensor for tensor, span in mine.items() if not any(span)]
        if silent:
            wide = _spread(
                subgraph, {t: span for t, span in mine.items() if any(span)}, set(silent)
            )
            found |= {(number, tensor): wide.get(tensor, _ANY) for tensor in silent}
    return found


def _spread(subgraph: Subgraph, wide: dict[int, Range], silent: set[int]) -> dict[int, Range]:
    """The ranges `wide`, and with them those of silent tensors, the nearest first."""
    beside: dict[int, list[Operator]] = {}
    for op in subgraph.operators:
        for tensor in (*op.inputs, *op.outputs):
            beside.setdefault(tensor, []).append(op)
    waiting, done = deque(wide), set[int]()
    while waiting:
        for op in beside.get(waiting.popleft(), ()):
            if id(op) in done:
                continue
            done.add(id(op))
            ends = {*op.inputs, *op.outputs}
            span = joint(*(wide[tensor] for tensor in ends if tensor in wide))
            reached = sorted(silent & ends - wide.keys())
            wide.update(dict.fromkeys(reached, span))
            waiting += reached
    return wide
