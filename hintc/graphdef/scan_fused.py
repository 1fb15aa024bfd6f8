"""Scan → one call of a fused op, whose function keeps the recurrence as its body."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hintc.errors import HintcError
from hintc.graft import graft
from hintc.graphdef.emit import constant_behind
from hintc.graphdef.loop_builder import LoopBuilder
from hintc.graphdef.scan_step import checked_scan
from hintc.graphdef.shapes import infer_shapes, replace_uses
from hintc.ir import Function, FunctionRef, Fusion, Graph, Module, Node, Port, Scan
from hintc.ir.scan import dtype_of
from hintc.ops import FusedOp, declared


def scan_to_fused_call(module: Module, graph: Graph, node: Node) -> Node:
    """Replace one recognised Scan of `graph` by a PartitionedCall of its fused op.

    The operands are the Scan's (a constant trip count moves into the function), then what only
    the kernel reads. The function computes the same by the recurrence, as a While. Results that
    nobody reads are left out.

    Returns:
        The call. It has the Scan's name and provenance; the Scan is removed.

    Raises:
        HintcError: the Scan has no fusion, or a result is read that the fused op does not give.
    """
    scan = checked_scan(module, node)
    fusion = scan.fusion
    if fusion is None:
        raise HintcError(
            "the recurrence cannot be fused",
            node=node.name,
            why="no fused op was recognised in it",
            remedy="Use form=while or form=unroll.",
        )
    operands, slots = _operands(scan, fusion)
    kept = _kept_results(graph, node, fusion)
    function = _function(module, graph, node, operands, kept)
    op = declared(fusion.op) or FusedOp.custom(fusion.op)
    names = [name for at in kept if (name := fusion.results[at]) is not None]
    function.attributes["_implements"] = op.implements(slots, names, fusion.attributes)
    return _put_call(graph, node, operands, kept, function)


def _operands(scan: Scan, fusion: Fusion) -> tuple[list[Port], list[str | None]]:
    """The call's operands, and the slot that each fills (None: only the body reads it)."""
    plain = [*scan.xs, *scan.states, *scan.invariants]
    if constant_behind(scan.trip_count) is None:
        plain.append(scan.trip_count)
    operands = list(dict.fromkeys(plain))
    slots: list[str | None] = [None] * len(operands)
    for slot, port in fusion.operands.items():
        at = operands.index(port) if port in operands else -1
        if at >= 0 and slots[at] is None:
            slots[at] = slot
        else:
            operands.append(port)
            slots.append(slot)
    return operands, slots


def _kept_results(graph: Graph, node: Node, fusion: Fusion) -> list[int]:
    """Positions of the results that the call gives: those read, or the first one there is."""
    used = [at for at in range(len(fusion.results)) if graph.uses(Port(node, at))]
    for at in used:
        if fusion.results[at] is None:
            raise HintcError(
                f"result {at} of the recurrence is read",
                node=node.name,
                why=f"{fusion.op} does not give it",
                remedy="Use form=while or form=unroll.",
            )
    given = [at for at, name in enumerate(fusion.results) if name is not None]
    return used or given[-1:]


def _function(
    module: Module, graph: Graph, node: Node, operands: Sequence[Port], kept: Sequence[int]
) -> Function:
    scan = Scan.of(node)
    function = module.add_function(Function(re.sub(r"\W", "_", f"{node.name}_fused")))
    body = function.graph
    values: dict[Port, Port] = {}
    for at, port in enumerate(operands):
        arg = function.add_arg(f"operand_{at}", dtype_of(port))
        values.setdefault(port, Port(arg))
    trip = constant_behind(scan.trip_count)
    if trip is not None:
        copy = graft([trip], body, {})[trip]
        body.set_controls(copy, [])
        values[scan.trip_count] = Port(copy)
    inner = Scan(
        scan.body,
        values[scan.trip_count],
        tuple(values[p] for p in scan.xs),
        tuple(values[p] for p in scan.states),
        tuple(values[p] for p in scan.invariants),
        scan.reverse_xs,
        scan.reverse_ys,
    ).add_to(module, body, name="recurrence", origin=node.origin or (node.name,))
    for number, at in enumerate(kept):
        body.add_result(f"result_{number}", Port(inner, at))
    shapes = infer_shapes(module, graph, operands)
    LoopBuilder(module, body, inner, [shapes[port] for port in operands]).build()
    return function


def _put_call(
    graph: Graph, node: Node, operands: Sequence[Port], kept: Sequence[int], function: Function
) -> Node:
    name = node.name
    graph.rename(node, graph.unique_name(f"{name}/scan"))
    call = graph.add(
        "PartitionedCall",
        operands,
        {
            "Tin": tuple(dtype_of(p) for p in operands),
            "Tout": tuple(dtype_of(r.operands[0]) for r in function.graph.results),
            "f": FunctionRef(function.name),
        },
        name=name,
        controls=node.controls,
        device=node.device,
        origin=node.origin or (name,),
    )
    for number, at in enumerate(kept):
        replace_uses(graph, Port(node, at), Port(call, number))
    graph.replace_control_uses(node, [call])
    graph.remove(node)
    return call
