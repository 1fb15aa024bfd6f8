"""What stays float32 in a model of integers, by marks on nodes."""

from __future__ import annotations

from hintc.call_graph import needed_graphs
from hintc.ir import Module

STAYS_FLOAT = "_hintc_stays_float"
"""Attribute of a node whose result loses too much as int8; it has no other meaning."""


def float_nodes(module: Module) -> frozenset[str]:
    """The names of all marked nodes that the main graph reaches."""
    return frozenset(
        node.name
        for graph in needed_graphs(module)
        for node in graph
        if STAYS_FLOAT in node.attributes
    )
