"""Merging nodes that compute the same, so that equal values are one port."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from hintc.ir import Graph, Node, Port
from hintc.ir.opdefs import is_stateful


def merge_equal(graph: Graph, equal: Mapping[Port, Port] | None = None) -> dict[Port, Port]:
    """For each value the first in topological order that is provably equal; linear.

    Two stateless nodes are equal if op, attributes and operands are; Identity is its operand.
    Underscored attributes (hints, shapes found by others) and devices say nothing about values.

    Args:
        graph: is not changed.
        equal: arguments that are taken to equal others.
    """
    first: dict[Hashable, Node] = {}
    found: dict[Port, Port] = dict(equal or {})
    for node in graph.topological():
        operands = tuple(found.get(p, p) for p in node.operands)
        if node.op == "Identity":
            found[Port(node)] = operands[0]
            continue
        if node.op in ("_Arg", "_Retval", "Placeholder") or is_stateful(node) or node.controls:
            continue
        key = (node.op, attributes_key(node), operands)
        twin = first.setdefault(key, node)
        if twin is not node:
            for index in {use.node.operands[use.slot].index for use in graph.uses(node)}:
                found[Port(node, index)] = Port(twin, index)
    return found


def attributes_key(node: Node) -> Hashable:
    """The attributes of a node that bear on its results, comparable."""
    return tuple((k, v) for k, v in node.attributes.items() if not k.startswith("_"))
