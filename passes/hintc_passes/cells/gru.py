"""The gated recurrent unit as maths, so that a refusal can name it: TFLite has no kernel for it.

Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder" (2014)::

    z = gate(x Wz + h Rz + bz)
    c = act(...)                       of x and of h behind a reset gate, wherever that stands
    h' = z * h + (1 - z) * c           or h + z * (c - h), or with z and 1 - z exchanged
"""

from __future__ import annotations

from hintc_passes.cells.algebra import Affine, Atom, Product
from hintc_passes.cells.difference import Difference
from hintc_passes.cells.lstm import is_complement, is_state, times_state


def refuse_gru(new_h: Affine) -> None:
    """Say so if the next value of the only state is a GRU's.

    Raises:
        Difference: it is.
    """
    if len(new_h.terms) != 2 or new_h.has_bias:
        return
    if not all(coefficient.is_one for _, coefficient in new_h.terms):
        return
    (one, _), (other, _) = new_h.terms
    if any(_is_weighted(*p) or _is_moved(*p) for p in ((one, other), (other, one))):
        raise Difference(
            "gru",
            "it is a gated recurrent unit (GRU), which TFLite has no kernel for",
            "Keep the loop or the steps that it becomes, or train an LSTM, which has a kernel.",
        )


def _is_weighted(kept: Atom, new: Atom) -> bool:
    """``z * h`` and ``(1 - z) * c``."""
    gate = times_state(kept, 0)
    if gate is None or not isinstance(new, Product):
        return False
    return any(is_complement(share, gate) for share in new.operands)


def _is_moved(start: Atom, moved: Atom) -> bool:
    """``a`` and ``z * (b - a)``, one of a and b being h."""
    if not isinstance(moved, Product):
        return False
    begin = Affine.of(start)
    for difference in moved.operands:
        if difference.width != begin.width:
            continue
        end = difference + begin
        if end.coefficient(start) is None and (is_state(begin, 0) or is_state(end, 0)):
            return True
    return False
