"""Scan → plain TensorFlow ops: a While without TensorLists, unrolled steps, or a fused call.

The While carries ``(t, states…, accumulators…)`` and passes sequences and invariants through. A
step reads ``x[t]`` by GatherV2 and writes ``y`` into its accumulator ``[T, …]`` by
XlaDynamicUpdateSlice, which runs in TensorFlow and becomes DYNAMIC_UPDATE_SLICE in TFLite; unlike
TensorLists that keeps batch and time dynamic.
"""

from __future__ import annotations

from hintc.call_graph import callees
from hintc.graphdef.loop_builder import LoopBuilder
from hintc.graphdef.scan_fused import scan_to_fused_call
from hintc.graphdef.scan_unroll import known_trip_count, unroll_scan
from hintc.ir import SCAN, Graph, Module, Node, Scan

__all__ = [
    "expand_scans",
    "has_scans",
    "known_trip_count",
    "scan_to_fused_call",
    "scan_to_while",
    "unroll_scan",
]


def has_scans(module: Module) -> bool:
    """True if any lifted graph of the module holds a Scan."""
    return any(node.op == SCAN for graph in _lifted(module) for node in graph)


def expand_scans(module: Module) -> None:
    """Replace every Scan by its default form, and forget step functions that nothing uses then.

    Raises:
        HintcError: a Scan breaks the contract of `hintc.ir.scan`.
    """
    bodies: dict[str, None] = {}
    while has_scans(module):
        for graph in _lifted(module):
            for node in graph.of_ops((SCAN,)):
                bodies[Scan.of(node).body] = None
                _expand_inner(module, node, bodies)
                scan_to_while(module, graph, node)
    remove_unused_functions(module, bodies)


def _expand_inner(module: Module, node: Node, bodies: dict[str, None]) -> None:
    """Expand the Scans in the body first, so that they are not copied unexpanded."""
    body = Scan.of(node).body_function(module).graph
    for inner in body.of_ops((SCAN,)):
        bodies[Scan.of(inner).body] = None
        _expand_inner(module, inner, bodies)
        scan_to_while(module, body, inner)


def scan_to_while(module: Module, graph: Graph, node: Node) -> Node:
    """Replace one Scan of `graph` by a StatelessWhile (While if a step has side effects).

    Outputs that nobody reads get no accumulator, nor do outputs of which only the last element is
    read where that is a final state. Constants that are invariants move into the body, where the
    TFLite converter can quantise them.

    Returns:
        The loop node. It has the Scan's name and provenance; the Scan is removed.

    Raises:
        HintcError: operands and body of the Scan disagree.
    """
    return LoopBuilder(module, graph, node).build()


def remove_unused_functions(module: Module, names: dict[str, None]) -> None:
    """Drop those library functions called `names` that no graph refers to."""
    if not names:
        return
    used = {name for graph in _lifted(module) for name in callees(module, graph)}
    for name in names:
        if name not in used:
            module.functions.pop(name, None)


def _lifted(module: Module) -> list[Graph]:
    return [module.graph, *(f.graph for f in module.functions.values() if f.is_lifted)]
