"""Constants that a region reads go into it: the body of a call must not depend on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hintc.hints.protocol import is_hint
from hintc.ir import Graph, Node, Port
from hintc.ir.opdefs import lookup

_NOT_PURE = frozenset({"Placeholder", "PlaceholderV2", "_Arg", "_Retval"})


class Constants:
    """Which nodes of a graph compute the same whatever is fed; answers are remembered."""

    def __init__(self) -> None:
        self._known: dict[Node, bool] = {}

    def is_constant(self, node: Node) -> bool:
        """True for Const and for pure operations on constants."""
        todo = [node]
        while todo:
            top = todo[-1]
            if top in self._known:
                todo.pop()
                continue
            if not _may_be_constant(top):
                self._known[top] = False
                continue
            reads = [p.node for p in top.operands]
            unknown = [n for n in reads if n not in self._known]
            if unknown and not any(self._known.get(n) is False for n in reads):
                todo.extend(unknown)
                continue
            self._known[top] = all(self._known.get(n, False) for n in reads)
        return self._known[node]


def _may_be_constant(node: Node) -> bool:
    if node.op == "Const":
        return True
    if not node.operands or node.op in _NOT_PURE or node.op in ("Merge", "Enter", "Switch"):
        return False
    if is_hint(node):
        return False
    schema = lookup(node.op)
    return schema is not None and not schema.is_stateful


def constants_into(
    graph: Graph, interior: Mapping[Node, None], declared: Collection[Node], constants: Constants
) -> dict[Node, None]:
    """The interior with the constants that it reads, producers first.

    Those that are `declared` as arguments stay outside. Constants that are needed outside too are
    copied; the interior then reads the copies.
    """
    wanted: dict[Node, None] = {}
    for node in interior:
        for port in node.operands:
            if port.node in interior or port.node in declared:
                continue
            if constants.is_constant(port.node):
                _with_producers(port.node, wanted)
    inside = {**wanted, **interior}
    held = set(graph.control_results.values())
    copies: dict[Node, Node] = {}
    # readers first: a constant is needed outside exactly if a reader of it stays there
    for node in reversed(list(wanted)):
        readers = {*(u.node for u in graph.uses(node)), *graph.control_uses(node)}
        if node not in held and all(r in inside and r not in copies for r in readers):
            continue
        copies[node] = graph.append(graph.unique_name(node.name), node.op, node.attributes.copy())
        copies[node].device, copies[node].source = node.device, node.source
        copies[node].origin = node.origin or (node.name,)
    for node, copy in copies.items():
        graph.set_operands(copy, [Port(copies.get(p.node, p.node), p.index) for p in node.operands])
    result = {copies.get(n, n): None for n in inside}
    for node, copy in copies.items():
        for use in graph.uses(node):
            if use.node in result:
                port = use.node.operands[use.slot]
                graph.set_operand(use.node, use.slot, Port(copy, port.index))
    return result


def _with_producers(node: Node, wanted: dict[Node, None]) -> None:
    todo: list[tuple[Node, bool]] = [(node, False)]
    while todo:
        top, done = todo.pop()
        if top in wanted:
            continue
        if done:
            wanted[top] = None
            continue
        todo.append((top, True))
        todo.extend((p.node, False) for p in top.operands)
