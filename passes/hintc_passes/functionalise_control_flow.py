"""functionalise-control-flow: frames and branches of control flow v1 become While and If.

Recognises Enter, Merge, LoopCond, Switch, NextIteration and Exit of a loop, Switch and Merge of a
condition, nested in any way, and the TensorArrays that pass through them, in the main graph and
in the functions that it needs. Makes what TensorFlow 2 would have built: While or StatelessWhile,
If or StatelessIf with functions, and TensorLists.

Refuses, with a remark, and leaves as they are: frames and branches that are not well formed,
TensorArrays used in other ways than loops do, whatever holds one of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hintc.call_graph import CONTROL_FLOW_V1, Effects, needed_graphs
from hintc.graphdef.shapes import shapes_remembered
from hintc.ir import Graph, Module, Node
from hintc.registry import register
from hintc.remark import PassReport, Refused
from hintc.rewrite import Pass
from hintc_passes.frames.array_flow import ARRAY, ARRAY_OPS
from hintc_passes.frames.find_regions import find_regions
from hintc_passes.frames.if_building import build_ifs
from hintc_passes.frames.regions import Condition, Construct, Loop, Regions
from hintc_passes.frames.replacing import forget_colocations
from hintc_passes.frames.result_shapes import state_shapes
from hintc_passes.frames.tensor_arrays import replace_arrays
from hintc_passes.frames.while_building import build_while


@register
@dataclass(frozen=True)
class FunctionaliseControlFlow(Pass):
    """Turn control flow v1 into functions."""

    name: ClassVar[str] = "functionalise-control-flow"

    @shapes_remembered()
    def run(self, module: Module) -> PassReport:
        """Rewrite every graph that the main graph reaches."""
        report = PassReport()
        for graph in needed_graphs(module):
            if any(node.op in CONTROL_FLOW_V1 or node.op == ARRAY for node in graph):
                _functionalise(module, graph, report)
        return report


def _functionalise(module: Module, graph: Graph, report: PassReport) -> None:
    effects = Effects(module, but=ARRAY_OPS)
    regions = find_regions(graph, effects)
    if regions.stuck is not None:
        report.refused(
            "frame-malformed",
            regions.stuck.name,
            "the node is on a cycle that is no loop, or two loops have one frame name",
            "Freeze the graph again from the code that made it.",
        )
        return
    for name, refusal in replace_arrays(regions, report):
        report.refused(refusal.code, name, refusal.reason, refusal.remedy)
    built: list[Node] = []
    for construct in regions.constructs():
        try:
            built += _build(module, regions, construct, effects)
        except Refused as refusal:
            report.refused(refusal.code, construct.name, refusal.reason, refusal.remedy)
            _keep_outer(construct)
    forget_colocations(graph)
    state_shapes(module, graph, built)
    report.count("functionalised", len(built))


def _build(module: Module, regions: Regions, construct: Construct, effects: Effects) -> list[Node]:
    if construct.trouble is not None:
        raise construct.trouble
    if isinstance(construct, Loop):
        return [build_while(module, regions, construct, effects)]
    assert isinstance(construct, Condition)
    return build_ifs(module, regions, construct, effects)


def _keep_outer(construct: Construct) -> None:
    """What holds something of control flow v1 cannot be a function."""
    outer = construct.parent.construct
    if outer is not None and outer.trouble is None:
        outer.trouble = Refused(
            "frame-holds-refused", f"'{construct.name}' inside stays control flow v1"
        )
