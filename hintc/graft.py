"""Copying nodes from one graph into another: what goes along, and what must be renamed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hintc.ir import ARG, Graph, Node, Port

COLOCATION = "_class"
"""Attribute that lists ``loc:@name``: run on the device of the node `name`."""
_AT = b"loc:@"


def graft(
    nodes: Iterable[Node], target: Graph, values: Mapping[Port, Port], *, prefix: str = ""
) -> dict[Node, Node]:
    """Copy `nodes` into `target` and connect the copies among each other.

    Args:
        nodes: what to copy; order is kept.
        target: the graph that gets the copies.
        values: for each value that `nodes` read from outside, the value to read in `target`.
            Control operands on outside nodes follow `values` of any port of them, and are dropped
            where there is none.
        prefix: put before the names, with a slash; names are made unique.

    Returns:
        Each node's copy. Colocations with nodes that were not copied are dropped.

    Raises:
        KeyError: a data operand is neither copied nor in `values`.
    """
    copies = {}
    for node in nodes:
        name = f"{prefix}/{node.name}" if prefix else node.name
        copy = target.append(target.unique_name(name), node.op, node.attributes.copy())
        copy.device, copy.origin = node.device, node.origin
        copy.source, copy.result_names = node.source, node.result_names
        copies[node] = copy
    # waiting for an argument, or sharing its device, says nothing
    places = {old.node: new.node for old, new in values.items() if new.node.op != ARG}
    names = {node.name: place.name for node, place in places.items()}
    names.update({node.name: copy.name for node, copy in copies.items()})
    for node, copy in copies.items():
        operands = [_moved(port, copies, values) for port in node.operands]
        if operands:
            target.set_operands(copy, operands)
        controls = [copies.get(c) or places.get(c) for c in node.controls]
        if controls:
            target.set_controls(copy, list(dict.fromkeys(c for c in controls if c is not None)))
        if COLOCATION in copy.attributes:
            rename_colocations(copy, names)
    return copies


def _moved(port: Port, copies: Mapping[Node, Node], values: Mapping[Port, Port]) -> Port:
    copy = copies.get(port.node)
    return values[port] if copy is None else Port(copy, port.index)


def rename_colocations(node: Node, names: Mapping[str, str]) -> None:
    """Let the colocations of `node` name other nodes; those that `names` lacks are dropped."""
    listed = node.attributes.get(COLOCATION, ())
    entries = listed if isinstance(listed, tuple) else (listed,)
    kept = []
    for entry in entries:
        if not isinstance(entry, bytes) or not entry.startswith(_AT):
            kept.append(entry)
        elif (name := names.get(entry.removeprefix(_AT).decode())) is not None:
            kept.append(_AT + name.encode())
    if not kept:
        del node.attributes[COLOCATION]
    elif tuple(kept) != entries:
        node.attributes[COLOCATION] = tuple(kept)


def remove_dead(graph: Graph, dead: Iterable[Node]) -> None:
    """Remove nodes that no other node reads, and the colocations with them.

    Raises:
        HintcError: a node that stays reads one of them.
    """
    graph.remove(dead)
    for node in graph:
        if COLOCATION in node.attributes:
            names = {name: name for name in colocated_with(node) if name in graph}
            rename_colocations(node, names)


def colocated_with(node: Node) -> list[str]:
    """Names of the nodes that `node` asks to share a device with."""
    listed = node.attributes.get(COLOCATION, ())
    return [
        entry.removeprefix(_AT).decode()
        for entry in (listed if isinstance(listed, tuple) else (listed,))
        if isinstance(entry, bytes) and entry.startswith(_AT)
    ]
