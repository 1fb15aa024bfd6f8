"""Shapes of what loops and conditions give, stated on the nodes.

TensorFlow takes a loop's results to have the shapes of its operands unless they are stated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hintc.graphdef.shapes import common_shape, infer_results, infer_shapes
from hintc.ir import DType, FunctionRef, Graph, Module, Node, Shape
from hintc.ir.opdefs import IF_OPS, WHILE_OPS
from hintc.ir.scan import dtype_of


def state_shapes(module: Module, graph: Graph, nodes: Iterable[Node]) -> None:
    """State the shapes of the results of loops and conditions, and of those inside.

    Args:
        module: has the functions.
        graph: has the nodes.
        nodes: what was built, in this graph or in functions of it.
    """
    built = {node for node in nodes if node in graph}
    for node in graph.topological() if built else ():
        if node in built:
            _state(module, graph, node, None)


def _state(module: Module, graph: Graph, node: Node, args: Sequence[Shape] | None) -> None:
    ports = [p for p in node.operands if dtype_of(p) is not DType.VARIANT]
    # asked although not needed: loops in a row are looked at only as far back as this is known
    rows = [p.node.operands[0] for p in node.operands if p.node.op == "TensorListFromTensor"]
    found = infer_shapes(module, graph, [*ports, *rows], args)
    shapes = [found.get(port, Shape(())) for port in node.operands]
    results = (
        _of_if(module, node, shapes[1:]) if node.op in IF_OPS else _of_loop(module, node, shapes)
    )
    node.attributes["output_shapes"] = tuple(results)


def _of_if(module: Module, node: Node, shapes: Sequence[Shape]) -> list[Shape]:
    sides = [_of_function(module, node, key, shapes) for key in ("then_branch", "else_branch")]
    return [common_shape(one, other) for one, other in zip(*sides, strict=True)]


def _of_loop(module: Module, node: Node, shapes: Sequence[Shape]) -> list[Shape]:
    """Each round forgets a dimension at least, or is the last."""
    kept = list(shapes)
    while True:
        nexts = _of_function(module, node, "body", kept)
        common = [common_shape(one, other) for one, other in zip(kept, nexts, strict=True)]
        if common == kept:
            return kept
        kept = common


def _of_function(module: Module, node: Node, key: str, args: Sequence[Shape]) -> list[Shape]:
    ref = node.attributes[key]
    assert isinstance(ref, FunctionRef)
    body = module.function(ref.name).graph
    for inner in body.topological():
        if inner.op in (*IF_OPS, *WHILE_OPS):
            _state(module, body, inner, args)
    found = infer_results(module, body, args)
    lists = [dtype_of(r.operands[0]) is DType.VARIANT for r in body.results]
    return [Shape(()) if is_list else s for s, is_list in zip(found, lists, strict=True)]
