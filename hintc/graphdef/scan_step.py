"""What every lowering of a Scan asks about its step function."""

from __future__ import annotations

from collections.abc import Sequence

from hintc.errors import HintcError
from hintc.ir import Graph, Module, Node, Port, Scan, producers
from hintc.ir.opdefs import side_effects


def checked_scan(module: Module, node: Node) -> Scan:
    """The Scan's parts.

    Raises:
        HintcError: its body takes or returns another number of values.
    """
    scan = Scan.of(node)
    body = scan.body_function(module).graph
    takes = 1 + len(scan.xs) + len(scan.states) + len(scan.invariants)
    gives = len(scan.states) + len(scan.reverse_ys)
    if (len(body.args), len(body.results)) != (takes, gives):
        raise HintcError(
            f"the step function '{scan.body}' takes {len(body.args)} values and returns "
            f"{len(body.results)}",
            node=node.name,
            why=f"the Scan needs {takes} and {gives}",
        )
    return scan


def step_nodes(body: Graph, results: Sequence[Port]) -> list[Node]:
    """The nodes of a step that `results` need or that have side effects, in topological order."""
    effects = side_effects(body)
    effects += body.control_results.values()
    needed = producers([*results, *(Port(n) for n in effects)])
    pending = [c for n in needed for c in n.controls]
    while pending:
        control = pending.pop()
        if control not in needed:
            new = producers([Port(control)]) - needed
            needed |= new
            pending.extend(c for n in new for c in n.controls)
    return [n for n in body.topological() if n in needed and not n.op.startswith("_")]
