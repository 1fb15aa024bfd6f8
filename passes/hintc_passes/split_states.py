"""split-states: a state that holds several values side by side becomes one state for each.

Recognises a Scan's state ``[batch, columns]`` whose next value is a concatenation along the columns
and of which a step only reads columns at the same borders, as cells with ``state_is_tuple=False``
make it: ``[c | h]``, layer after layer. The initial state is cut; the final state is put together
again where it is read. Bit for bit the same. Other states stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hintc.graphdef.shapes import shapes_remembered
from hintc.ir import Graph, Module, Node, Scan
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass
from hintc_passes.scans.packed_states import split_packed_states
from hintc_passes.scans.step import rewrite_scans


@register
@dataclass(frozen=True)
class SplitStates(Pass):
    """Take packed states of Scans apart."""

    name: ClassVar[str] = "split-states"

    @shapes_remembered()
    def run(self, module: Module) -> PassReport:
        """Split the packed states of every Scan that the main graph reaches."""
        report = PassReport()

        def split(graph: Graph, node: Node) -> None:
            before = len(Scan.of(node).states)
            new = split_packed_states(module, graph, node)
            if new is not None:
                states = len(Scan.of(new).states)
                report.count("unpacked")
                said = f"carries {states} states instead of {before}"
                report.note("states-unpacked", new.name, said)

        rewrite_scans(module, split)
        return report
