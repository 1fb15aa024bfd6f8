"""Nodes of a region as the body of a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hintc.call_graph import CONTROL_FLOW_V1, Effects
from hintc.graft import graft
from hintc.ir import Function, Module, Node, Port
from hintc.ir.opdefs import is_stateful
from hintc.ir.scan import dtype_of
from hintc.remark import Refused

_FAMILIES = ("TensorArray", "Stack")
"""Resources that live as long as one run of a graph."""


@dataclass(frozen=True)
class Inside:
    """What a region computes.

    Attributes:
        nodes: each after what it reads.
        reads: the boundary values that are read, in order of first use.
        waits: nodes outside that it waits for.
        ends: nodes with side effects that must have run at the end.
    """

    nodes: Sequence[Node]
    reads: Sequence[Port]
    waits: Sequence[Node]
    ends: Sequence[Node] = ()

    @property
    def is_stateful(self) -> bool:
        """True if a node is declared stateful."""
        return any(is_stateful(node) for node in self.nodes)


def nodes_inside(
    results: Sequence[Port],
    is_inside: Callable[[Port], bool],
    owns: Callable[[Node], bool],
    effects: Effects,
    ends: Sequence[Node] = (),
) -> Inside:
    """What the values need, by data, and by control where a side effect must come before.

    Args:
        results: the values.
        is_inside: false for the values at the boundary.
        owns: true for nodes of the region, for which a control edge means nothing more than
            that they are alive if they have no side effect.
        effects: knows them.
        ends: what is waited for beside the values.

    Raises:
        Refused: an operation cannot be in a function.
    """
    starts = [p.node for p in results if is_inside(p)]
    ends = [node for node in ends if is_inside(Port(node))]
    order = _before([*starts, *ends], is_inside, owns, controls=True)
    acting: set[Node] = set()
    for node in order:
        before = {p.node for p in node.operands if is_inside(p)}.union(node.controls)
        if effects.of(node) or not acting.isdisjoint(before):
            acting.add(node)
    ends = [node for node in ends if node in acting]
    kept = _before(
        [*starts, *ends],
        is_inside,
        lambda node: node in acting,
        controls=bool(acting),
    )
    reads = dict.fromkeys(p for n in kept for p in n.operands if not is_inside(p))
    reads |= dict.fromkeys(p for p in results if not is_inside(p))
    waits = dict.fromkeys(c for n in kept for c in n.controls if not owns(c))
    for node in kept:
        _check(node)
    return Inside(kept, list(reads), list(waits), [n for n in kept if effects.of(n)])


def _check(node: Node) -> None:
    if node.op in CONTROL_FLOW_V1:
        raise Refused("frame-malformed", f"{node.op} '{node.name}' inside is of no loop inside")
    if node.op.startswith(_FAMILIES) and is_stateful(node):
        raise Refused(
            "frame-resource",
            f"{node.op} '{node.name}' inside works on a resource that has no functional form",
            "Use TensorArray in the ways of tf.while_loop: read, write, stack, unstack.",
        )


def _before(
    starts: Sequence[Node],
    is_inside: Callable[[Port], bool],
    follows: Callable[[Node], bool],
    *,
    controls: bool,
) -> list[Node]:
    """The nodes that `starts` need, each after what it needs."""
    order: list[Node] = []
    seen: set[Node] = set()
    pending = [(node, False) for node in reversed(starts)]
    while pending:
        node, is_done = pending.pop()
        if is_done:
            order.append(node)
            continue
        if node in seen:
            continue
        seen.add(node)
        pending.append((node, True))
        before = [p.node for p in node.operands if is_inside(p)]
        if controls:
            before += [c for c in node.controls if follows(c) and is_inside(Port(c))]
        pending.extend((n, False) for n in reversed(before) if n not in seen)
    return order


def region_function(
    module: Module,
    name: str,
    inside: Inside,
    args: Sequence[tuple[str, Port]],
    aliases: Mapping[Port, Port],
    results: Sequence[tuple[str, Port]],
) -> Function:
    """A function that computes what a region computes.

    Args:
        module: gets the function.
        name: of the function, made unique.
        inside: what it computes.
        args: names and outside values of the arguments.
        aliases: for each boundary value the outside value that it is.
        results: names and values of the results.
    """
    function = module.add_function(Function(name))
    given = {port: Port(function.add_arg(label, dtype_of(port))) for label, port in args}
    values = {port: given[aliases.get(port, port)] for port in inside.reads}
    copies = graft(inside.nodes, function.graph, values)
    for label, port in results:
        value = values.get(port) or Port(copies[port.node], port.index)
        function.graph.add_result(label, value)
    for at, node in enumerate(inside.ends):
        function.graph.control_results[f"end_{at}"] = copies[node]
    return function
