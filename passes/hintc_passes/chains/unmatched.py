"""Steps that feed each other, but that no lanes were found for: so that they are not passed over.

A recurrence has, for every step but the last, a matrix product that needs all elements up to that
step's and none after it. Layers in a row, or one layer on each element, have not.
"""

from __future__ import annotations

from collections.abc import Sequence

from hintc.ir import Node
from hintc.ir.opdefs import IF_OPS, is_stateful
from hintc.remark import Refused
from hintc_passes.analysis.noise import dropout_of
from hintc_passes.analysis.products import PRODUCTS
from hintc_passes.chains.positions import Domain, Positions


def unmatched(positions: Positions, domain: Domain) -> tuple[Node, Refused] | None:
    """The first such node of a domain, and why its steps stay; None if there is no recurrence.

    Args:
        positions: of the graph.
        domain: in which no chain was found.
    """
    trip, nodes = domain[0], positions.nodes.get(domain, [])
    for spans in (
        [(0, t) for t in range(1, trip - 1)],
        [(t, trip - 1) for t in range(1, trip - 1)],
    ):
        wanted, left = set(spans), set(spans)
        crossing = []
        for node in nodes:
            span = positions.span(node)
            if span in wanted:
                crossing.append(node)
                if node.op in PRODUCTS or node.op in IF_OPS:
                    left.discard(span)
        if not left:
            return crossing[0], _reason(trip, crossing)
    return None


def _reason(trip: int, nodes: Sequence[Node]) -> Refused:
    looks = f"looks like {trip} steps of a recurrence, but"
    branch = next((n for n in nodes if n.op in IF_OPS), None)
    if branch is not None:
        return Refused(
            "chain-unmatched",
            f"{looks} they run under conditions, '{branch.name}' for one",
            "With sequence lengths use dynamic_rnn instead of static_rnn.",
        )
    effect = next((n for n in nodes if is_stateful(n)), None)
    if effect is not None and dropout_of(effect) is not None:
        return Refused(
            "chain-unmatched",
            f"{looks} each draws new noise for a dropout, '{effect.name}' for one",
            "Export the model for inference (keep_prob 1, rate 0, training=False).",
        )
    return Refused(
        "chain-unmatched",
        f"{looks} which values each step passes on to the next could not be told",
        "A loop over time (dynamic_rnn, unroll=False) leaves no doubt.",
    )
