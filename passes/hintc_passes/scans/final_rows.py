"""Outputs of a Scan of which only the last step's row is read, and that are states: final states.

tf.scan gives every state as a sequence; a reversed one begins with the last step. No kernel gives
the sequence of c, but each its end.
"""

from __future__ import annotations

from dataclasses import replace

from hintc.graphdef.final_rows import reads_last
from hintc.ir import Graph, Module, Node, Port, Scan
from hintc_passes.analysis.products import PRODUCTS
from hintc_passes.analysis.values import reads_first
from hintc_passes.scans.step import Step, add_in_place_of, new_step


def read_final_states(module: Module, graph: Graph, node: Node) -> Node | None:
    """Let what reads the last step's row of a state's sequence read the final state instead.

    After no steps there is no last row, and reading it fails. Sequences of what enters a product
    stay: it is h, which kernels give.

    Returns:
        The Scan that takes the place of `node`, without the outputs that nobody reads any more;
        None if nothing was to be done.
    """
    scan, step = Scan.of(node), Step.of(module, node)
    first = len(scan.states)
    dropped = set()
    for k, port in enumerate(step.ys):
        rows = Port(node, first + k)
        readers = [use.node for use in graph.uses(rows)]
        if port not in step.nexts or not readers:
            continue
        state = step.nexts.index(port)
        reads = reads_first if scan.reverse_ys[k] else reads_last
        last = all(reads(r) and r.operands[0] == rows and graph.is_used(r) for r in readers)
        if not last or enters_product(step.states[state]):
            continue
        for reader in readers:
            graph.replace_uses(Port(reader), Port(node, state))
            graph.replace_control_uses(reader, [node])
            graph.remove(reader)
        dropped.add(k)
    return _without(module, graph, node, step, dropped) if dropped else None


def enters_product(state: Port) -> bool:
    """True if a state of a step is a factor of a product of matrices, as h is and c is not."""
    pending = [state]
    while pending:
        for use in state.node.graph.uses(pending.pop()):
            if use.node.op in PRODUCTS or use.node.op == "PartitionedCall":  # a hinted cell
                return True
            if use.node.op in ("ConcatV2", "Identity"):
                pending.append(Port(use.node))
    return False


def _without(module: Module, graph: Graph, node: Node, step: Step, dropped: set[int]) -> Node:
    scan, name = Scan.of(node), node.name
    kept = [k for k in range(len(step.ys)) if k not in dropped]
    body = new_step(
        f"{scan.body}_read",
        [n for n in step.graph if not n.op.startswith("_")],
        step.t,
        [(p.node.name, p) for p in (*step.xs, *step.states, *step.invariants)],
        [
            *((f"next_{k}", p) for k, p in enumerate(step.nexts)),
            *((f"y_{k}", step.ys[at]) for k, at in enumerate(kept)),
        ],
    )
    graph.rename(node, graph.unique_name(f"{name}/states_read"))
    read = replace(
        scan,
        body=module.add_function(body).name,
        reverse_ys=tuple(scan.reverse_ys[k] for k in kept),
    )
    new = add_in_place_of(module, node, read, name)
    states = len(scan.states)
    for at in range(states):
        graph.replace_uses(Port(node, at), Port(new, at))
    for place, k in enumerate(kept):
        graph.replace_uses(Port(node, states + k), Port(new, states + place))
    graph.replace_control_uses(node, [new])
    graph.remove(node)
    return new
