"""Putting one functional node in the place of many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hintc.graft import COLOCATION, colocated_with, rename_colocations
from hintc.ir import ARG, AttributeValue, Graph, Node, Port
from hintc.ir.opdefs import is_stateful
from hintc.ir.scan import dtype_of
from hintc.remark import Refused
from hintc_passes.frames.regions import Construct, Regions

_KEPT = (ARG, "Placeholder", "PlaceholderWithDefault")


def check_closed(graph: Graph, doomed: Iterable[Node], ends: Iterable[Node]) -> None:
    """Check that of nodes that are to go, only `ends` are read by others.

    Raises:
        Refused: another one is read as well.
    """
    inside, free = set(doomed), set(ends)
    for node in inside - free:
        for reader in (*(use.node for use in graph.uses(node)), *graph.control_uses(node)):
            if reader not in inside:
                raise Refused(
                    "frame-malformed", f"'{reader.name}' outside reads '{node.name}' inside"
                )


def take_over(
    regions: Regions,
    construct: Construct,
    built: Sequence[Node],
    values: Mapping[Port, Port],
    doomed: Sequence[Node],
) -> None:
    """Let new nodes give what the construct gave, and remove the construct.

    Args:
        regions: of the graph; learns where the new nodes run.
        construct: what is replaced.
        built: the new nodes.
        values: for each value that left the construct, the new node's result that it is.
        doomed: all nodes of the construct.
    """
    graph = regions.graph
    for node in built:
        regions.place(node, construct.parent)
    unread = [old for old in values if not graph.is_used(old.node)]
    names = {old.node.name: values[old] for old in unread}
    for old, new in values.items():
        graph.replace_uses(old, new)
        graph.replace_control_uses(old.node, [new.node])
    heirs = {old.node: new.node for old, new in values.items()}
    gone = set(doomed)
    for key, ending in graph.control_results.items():
        if ending in gone:
            graph.control_results[key] = heirs.get(ending, built[0])
    _remove(regions, gone)
    if construct.parent is regions.root and not graph.results:
        # nobody reads it, so this is what the user may ask for, by this name
        for name, port in names.items():
            attributes: dict[str, AttributeValue] = {"T": dtype_of(port)}
            holder = graph.add("Identity", [port], attributes, name=name, origin=(name,))
            regions.place(holder, regions.root)


def _remove(regions: Regions, gone: set[Node]) -> None:
    """Remove nodes and what they alone read, so that nothing is left over in a branch."""
    graph = regions.graph
    before = _producers(gone)
    graph.remove(gone)
    for node in gone:
        regions.forget(node)
    pending = [node for node in before if node not in gone]
    while pending:
        node = pending.pop()
        if node not in graph or graph.is_used(node) or node in graph.args or is_stateful(node):
            continue
        if node.op in _KEPT:
            continue
        before = _producers([node])
        graph.remove(node)
        regions.forget(node)
        pending.extend(before)


def _producers(nodes: Iterable[Node]) -> list[Node]:
    return list(
        dict.fromkeys(
            n for node in nodes for n in (*(p.node for p in node.operands), *node.controls)
        )
    )


def forget_colocations(graph: Graph) -> None:
    """Let no node ask for the device of one that is gone."""
    for node in graph:
        if COLOCATION in node.attributes:
            names = {name: name for name in colocated_with(node) if name in graph}
            rename_colocations(node, names)
