"""Dropout that draws new noise: what is behind most random ops in a loop."""

from __future__ import annotations

from hintc.ir import Node

RANDOM = frozenset(
    (
        *("Multinomial", "ParameterizedTruncatedNormal", "RandomGamma", "RandomShuffle"),
        *("RandomStandardNormal", "RandomUniform", "RandomUniformInt", "TruncatedNormal"),
    )
)
"""Ops that give other numbers each time they run."""
_ON_THE_WAY = ("Add", "AddV2", "Cast", "Floor", "GreaterEqual", "Identity", "Mul", "Sub")
_ENDS = ("Mul", "Select", "SelectV2")


def dropout_of(noise: Node) -> Node | None:
    """The node that drops what the noise says, None if the noise is for something else.

    ``where(noise >= rate, x, 0)``, ``x * cast(noise >= rate)`` or ``x * floor(keep + noise)``,
    where noise may be scaled and shifted.
    """
    if noise.op != "RandomUniform":
        return None
    todo, decides = [(noise, False)], set[tuple[Node, bool]]()
    while todo:
        node, decided = todo.pop()
        for reader in (use.node for use in node.graph.uses(node)):
            if decided and reader.op in _ENDS:
                return reader
            step = (reader, decided or reader.op in ("Floor", "GreaterEqual"))
            if reader.op in _ON_THE_WAY and step not in decides:
                decides.add(step)
                todo.append(step)
    return None
