"""A Scan's step function, its arguments and results by role, and new ones cut out of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hintc.call_graph import needed_graphs
from hintc.graft import graft
from hintc.graphdef.scan_lowering import remove_unused_functions
from hintc.graphdef.scan_step import checked_scan
from hintc.ir import SCAN, DType, Function, Graph, Module, Node, Port, Scan
from hintc.ir.scan import dtype_of
from hintc_passes.analysis.values import source_of


def rewrite_scans(module: Module, rewrite: Callable[[Graph, Node], object]) -> None:
    """Call `rewrite` for every Scan that the main graph reaches and that has no fusion.

    Callees come first. The Scan at hand may be replaced; step functions that nobody runs any more,
    of what was there or was made meanwhile, are dropped.
    """
    before = set(module.functions)
    bodies: dict[str, None] = {}
    for graph in needed_graphs(module):
        for node in graph.of_ops((SCAN,)):
            if Scan.of(node).fusion is None:
                bodies[Scan.of(node).body] = None
                rewrite(graph, node)
    made = dict.fromkeys(name for name in module.functions if name not in before)
    if made:
        remove_unused_functions(module, bodies | made)


@dataclass(frozen=True)
class Step:
    """The body of a Scan.

    Attributes:
        graph: the body.
        t: the argument that is the index of the step.
        xs: the arguments that are elements of sequences.
        states: the arguments that are carried.
        invariants: the arguments that never change.
        nexts: the next values of the states.
        ys: the outputs of the step.
    """

    graph: Graph
    t: Port
    xs: tuple[Port, ...]
    states: tuple[Port, ...]
    invariants: tuple[Port, ...]
    nexts: tuple[Port, ...]
    ys: tuple[Port, ...]

    @classmethod
    def of(cls, module: Module, node: Node) -> Step:
        """The step function of a Scan node."""
        scan = checked_scan(module, node)
        graph = scan.body_function(module).graph
        args = [Port(arg) for arg in graph.args]
        results = [source_of(result.operands[0]) for result in graph.results]
        first, second = 1 + len(scan.xs), 1 + len(scan.xs) + len(scan.states)
        states = len(scan.states)
        return cls(
            graph,
            args[0],
            tuple(args[1:first]),
            tuple(args[first:second]),
            tuple(args[second:]),
            tuple(results[:states]),
            tuple(results[states:]),
        )

    def is_fixed(self, port: Port) -> bool:
        """True for what is the same in every step: invariants and constants."""
        port = source_of(port)
        return port in self._unchanging or port.node.op == "Const"

    @functools.cached_property
    def _unchanging(self) -> frozenset[Port]:
        return frozenset(self.invariants)


def new_step(
    name: str,
    nodes: Iterable[Node],
    t: Port | None,
    args: Sequence[tuple[str, Port]],
    results: Sequence[tuple[str, Port]],
) -> Function:
    """A step function from nodes of another graph.

    Args:
        name: of the function.
        nodes: what it computes, in any order.
        t: the port that becomes the index of the step; None if the nodes have none.
        args: names and the ports that become the other arguments, in order.
        results: names and ports that are returned.
    """
    function = Function(name)
    index = Port(function.add_arg("t", DType.INT32))
    values = {} if t is None else {t: index}
    for arg_name, port in args:
        values[port] = Port(function.add_arg(arg_name, dtype_of(port)))
    copies = graft(nodes, function.graph, values)
    for result_name, port in results:
        value = values.get(port) or Port(copies[port.node], port.index)
        function.graph.add_result(function.graph.unique_name(result_name), value)
    return function


def add_in_place_of(module: Module, old: Node, scan: Scan, name: str) -> Node:
    """Add a Scan that takes the place of another: its origin, device and control operands."""
    new = scan.add_to(module, old.graph, name=name, origin=old.origin or (name,))
    new.device = old.device
    old.graph.set_controls(new, old.controls)
    return new


def dependencies(graph: Graph, sources: Iterable[Node]) -> dict[Node, frozenset[Node]]:
    """For each node, which of `sources` its results depend on."""
    wanted = set(sources)
    found: dict[Node, frozenset[Node]] = {}
    interned: dict[frozenset[Node], frozenset[Node]] = {}
    for node in graph.topological():
        if node in wanted:
            own = frozenset((node,))
        else:
            before = {found[p.node] for p in node.operands}
            own = frozenset().union(*before) if len(before) != 1 else next(iter(before))
        found[node] = interned.setdefault(own, own)
    return found
