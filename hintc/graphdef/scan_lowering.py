"""Scan → While without TensorLists (being written)."""

from hintc.ir import SCAN, Module


def has_scans(module: Module) -> bool:
    """True if any lifted graph of the module holds a Scan."""
    graphs = [
        module.graph,
        *(f.graph for f in module.functions.values() if f.is_lifted),
    ]
    return any(node.op == SCAN for graph in graphs for node in graph)


def expand_scans(module: Module) -> None:
    """Replace every Scan by its default form."""
    raise NotImplementedError
