"""Moving part of a graph into a function of its own, called in its place."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hintc.errors import HintcError
from hintc.graft import graft
from hintc.ir import Function, FunctionRef, Graph, Module, Node, Port
from hintc.ir.scan import dtype_of

_NOT_IN_NAMES = re.compile(r"[^a-z0-9_]+")


def outline(
    module: Module,
    graph: Graph,
    nodes: Sequence[Node],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    *,
    name: str,
) -> Node:
    """Replace `nodes` by one PartitionedCall to a new function that has them as body.

    Args:
        module: gets the function.
        graph: has the nodes.
        nodes: the interior. Closed: what leaves it, leaves through `outputs`; and convex: no path
            goes out of it and in again.
        inputs: values from outside that become the first operands, in this order; they need not
            be read by the interior.
        outputs: what the call returns, in this order: interior values, or values from outside
            that are passed through. The uses outside are moved to the call's results.
        name: of the call node, and base of the function's name; both are made unique.

    Returns:
        The call, with attributes Tin, Tout, f. Values that the interior captures beside `inputs`
        follow as further operands, in order of first use. Control operands from outside become
        the call's; what waited for an interior node waits for the call. The interior keeps its
        node names in the body; the nodes themselves are new objects.

    Raises:
        HintcError: an interior value that is no output is read outside, or an input is computed
            by the interior.
    """
    interior = dict.fromkeys(nodes)
    _check_closed(graph, interior, inputs, outputs)
    captures = _captures(interior, inputs, outputs)
    operands = (*inputs, *captures)
    function = module.add_function(Function(_identifier(name)))
    body = function.graph
    values: dict[Port, Port] = {}
    taken = {node.name for node in interior}
    for port in operands:
        arg_name = _free(_identifier(port.node.name), taken)
        # an operand given twice is read through its first argument
        values.setdefault(port, Port(function.add_arg(arg_name, dtype_of(port))))
    copies = graft(interior, body, values)
    for port in outputs:
        inner = values[port] if port.node not in interior else Port(copies[port.node], port.index)
        body.add_result(_free(_identifier(port.node.name), taken), inner)
    return _put_call(graph, interior, operands, outputs, function, name)


def _put_call(
    graph: Graph,
    interior: dict[Node, None],
    operands: Sequence[Port],
    outputs: Sequence[Port],
    function: Function,
    name: str,
) -> Node:
    devices = {node.device for node in interior}
    waits = dict.fromkeys(c for n in interior for c in n.controls if c not in interior)
    call = graph.add(
        "PartitionedCall",
        operands,
        {
            "Tin": tuple(dtype_of(p) for p in operands),
            "Tout": tuple(dtype_of(p) for p in outputs),
            "f": FunctionRef(function.name),
        },
        name=name,
        controls=tuple(waits),
        device=devices.pop() if len(devices) == 1 else "",
        origin=dict.fromkeys(o for n in interior for o in n.origin or (n.name,)),
    )
    for index, port in enumerate(outputs):
        if port.node in interior:
            graph.replace_uses(port, Port(call, index), where=lambda use: use.node not in interior)
    for node in interior:
        for waiting in graph.control_uses(node):
            if waiting not in interior:
                graph.set_controls(
                    waiting,
                    list(dict.fromkeys(call if c is node else c for c in waiting.controls)),
                )
    for key, node in graph.control_results.items():
        if node in interior:
            graph.control_results[key] = call
    graph.remove(interior)
    return call


def _check_closed(
    graph: Graph, interior: dict[Node, None], inputs: Sequence[Port], outputs: Sequence[Port]
) -> None:
    for port in inputs:
        if port.node in interior:
            raise HintcError(
                "an input of the outlined part is computed inside it", node=port.node.name
            )
    leaving = set(outputs)
    for node in interior:
        for use in graph.uses(node):
            if use.node not in interior and use.node.operands[use.slot] not in leaving:
                raise HintcError(
                    f"the value is read outside of the outlined part, by '{use.node.name}'",
                    node=node.name,
                )


def _captures(
    interior: dict[Node, None], inputs: Sequence[Port], outputs: Sequence[Port]
) -> list[Port]:
    read = (p for node in interior for p in node.operands)
    known = set(inputs)
    return list(
        dict.fromkeys(p for p in (*read, *outputs) if p.node not in interior and p not in known)
    )


def _identifier(name: str) -> str:
    """A name that TensorFlow takes for arguments, results and functions."""
    cleaned = _NOT_IN_NAMES.sub("_", name.lower()).strip("_")
    return cleaned if cleaned[:1].isalpha() else f"v{cleaned}"


def _free(base: str, taken: set[str]) -> str:
    name, at = base, 0
    while name in taken:
        at += 1
        name = f"{base}_{at}"
    taken.add(name)
    return name
