"""States that are always equal: a layer with a mask carries its output beside its h."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hintc.graphdef.shapes import infer_shapes
from hintc.ir import Graph, Module, Node, Port, Scan, producers
from hintc.ir.scan import dtype_of
from hintc_passes.analysis.dimensions import same_shape
from hintc_passes.analysis.merging import merge_equal
from hintc_passes.analysis.values import is_zeros, source_of, sweep
from hintc_passes.scans.step import Step, new_step


def merge_states(module: Module, graph: Graph, node: Node) -> Node:
    """Carry states that start equal and, if equal, stay equal only once.

    Args:
        module: has the step function, which nothing else may use.
        graph: has the Scan.
        node: the Scan, without fusion.

    Returns:
        The Scan that takes its place, or itself.
    """
    step, scan = Step.of(module, node), Scan.of(node)
    equal = _equal_states(module, graph, step, scan)
    if not equal:
        return node
    name = node.name
    graph.rename(node, graph.unique_name(f"{name}/states"))
    kept = [k for k in range(len(step.states)) if k not in equal]
    new = _without(module, scan, step, equal).add_to(
        module, graph, name=name, origin=node.origin or (name,)
    )
    new.device = node.device
    graph.set_controls(new, node.controls)
    for at in range(len(step.states)):
        graph.replace_uses(Port(node, at), Port(new, kept.index(equal.get(at, at))))
    for k in range(len(step.ys)):
        graph.replace_uses(Port(node, len(step.states) + k), Port(new, len(kept) + k))
    graph.replace_control_uses(node, [new])
    before = [p.node for p in node.operands]
    graph.remove(node)
    del module.functions[scan.body]
    sweep(graph, before)
    return new


def _equal_states(module: Module, graph: Graph, step: Step, scan: Scan) -> dict[int, int]:
    """Number of each state that can go -> number of the one that it equals.

    By induction: equal before the first step, and after a step if they were before it.
    """
    zeros = [k for k, first in enumerate(scan.states) if is_zeros(first)]
    # the shape of ZerosLike takes a computation, that of others less
    zeros.sort(key=lambda k: source_of(scan.states[k]).node.op == "ZerosLike")
    shapes = infer_shapes(module, graph, [scan.states[k] for k in zeros]) if zeros[1:] else {}
    found: dict[int, int] = {}
    for place, dropped in enumerate(zeros):
        for kept in (k for k in zeros[:place] if k not in found):
            one, other = scan.states[kept], scan.states[dropped]
            rank = shapes[one].rank
            if dtype_of(one) is not dtype_of(other) or rank is None:
                continue
            if shapes[other].rank != rank or not _stay_equal(step, found, dropped, kept):
                continue
            if same_shape(one, other, rank):
                found[dropped] = kept
                break
    return found


def _stay_equal(step: Step, known: Mapping[int, int], dropped: int, kept: int) -> bool:
    equal = {step.states[a]: step.states[b] for a, b in {**known, dropped: kept}.items()}
    same = merge_equal(step.graph, equal)
    one, other = (source_of(step.nexts[k]) for k in (dropped, kept))
    return same.get(one, one) == same.get(other, other)


def _without(module: Module, scan: Scan, step: Step, equal: Mapping[int, int]) -> Scan:
    """The Scan without the states that equal others."""
    for dropped, kept in equal.items():
        step.graph.replace_uses(step.states[dropped], step.states[kept])
    results = [source_of(result.operands[0]) for result in step.graph.results]
    states = len(step.states)
    kept_states = [k for k in range(states) if k not in equal]
    named = [(f"next_{k}", results[k]) for k in kept_states]
    named += [(f"y_{k}", port) for k, port in enumerate(results[states:])]
    args = [*step.xs, *(step.states[k] for k in kept_states), *step.invariants]
    needed = producers(port for _, port in named)
    body = new_step(
        f"{scan.body}_merged",
        [n for n in step.graph if n in needed and not n.op.startswith("_")],
        step.t,
        [(p.node.name, p) for p in args],
        named,
    )
    return replace(
        scan,
        body=module.add_function(body).name,
        states=tuple(scan.states[k] for k in kept_states),
    )
