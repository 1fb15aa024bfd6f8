"""Rules that hold for any graph, whatever its ops mean."""

from __future__ import annotations

from collections.abc import Iterator

from hintc.errors import VerifyError
from hintc.ir import ARG, CONTROL, RESULT, DType, Graph, Node
from hintc.verify.scope import Finding, Scope


def unique_names(scope: Scope) -> Iterator[Finding]:
    """The table of names holds each node of the graph once, under its name, and nothing else."""
    graph = scope.graph
    vertices = list(graph)
    for node in vertices:
        if graph.find(node.name) is not node:
            yield node.name, "another node has this name, or the table of names lost it"
        if node.graph is not graph:
            yield node.name, "the node belongs to another graph"
    if len(vertices) != len(graph):
        yield "", f"the table of names has {len(graph)} entries for {len(vertices)} nodes"


def operands_agree_with_edges(scope: Scope) -> Iterator[Finding]:
    """Each operand has its edge, and each edge its operand."""
    for node in scope.graph:
        edges = set(scope.graph.edges_into(node))
        operands = {(p, slot, index) for slot, (p, index) in enumerate(node.operands)}
        operands.update((p, at, CONTROL) for at, p in enumerate(node.controls))
        if edges != operands:
            for edge in sorted(edges ^ operands, key=lambda e: e[1:]):
                yield node.name, _disagreement(*edge, is_operand=edge in operands)


def _disagreement(producer: Node, slot: int, port: int, *, is_operand: bool) -> str:
    kind, value = ("control ", "") if port == CONTROL else ("", f":{port}")
    missing = "edge" if is_operand else "operand"
    return f"{kind}operand {slot}, '{producer.name}{value}', has no {missing}"


def acyclic(scope: Scope) -> Iterator[Finding]:
    """Without the back edges NextIteration → Merge the graph has no cycle."""
    try:
        scope.graph.topological()
    except VerifyError as error:
        yield error.node or "", error.what


def arguments_and_results(scope: Scope) -> Iterator[Finding]:
    """`args`, `results` and `control_results` are nodes of the graph and say all about them."""
    graph = scope.graph
    yield from _listed(graph, "argument", graph.args)
    yield from _listed(graph, "result", graph.results)
    for name, node in graph.control_results.items():
        if node not in graph:
            yield node.name, f"the control result '{name}' is not in the graph"
    yield from _results(graph)
    if scope.function is not None:
        yield from _arguments(graph)
        listed = {*graph.args, *graph.results}
        for node in graph:
            if node.op in (ARG, RESULT) and node not in listed:
                yield node.name, f"the {node.op} is not listed as the function's"


def _listed(graph: Graph, what: str, nodes: list[Node]) -> Iterator[Finding]:
    seen: set[Node] = set()
    for node in nodes:
        if node not in graph:
            yield node.name, f"the {what} is not in the graph"
        if node in seen:
            yield node.name, f"the {what} is listed twice"
        seen.add(node)


def _results(graph: Graph) -> Iterator[Finding]:
    seen: set[bytes] = set()
    for node in graph.results:
        name = node.attributes.get("result")
        if node.op != RESULT:
            yield node.name, f"a result must be a {RESULT}, this is a {node.op}"
        elif not isinstance(name, bytes):
            yield node.name, "the result has no name (attribute 'result')"
        elif name in seen:
            yield node.name, f"two results are called '{name.decode()}'"
        else:
            seen.add(name)


def _arguments(graph: Graph) -> Iterator[Finding]:
    for index, node in enumerate(graph.args):
        found = node.attributes.get("index")
        if node.op != ARG:
            yield node.name, f"an argument must be an {ARG}, this is a {node.op}"
        elif found != index:
            yield node.name, f"argument {index} says it has the index {found!r}"
        elif isinstance(node.attributes.get("T"), DType) == ("type_attr" in node.attributes):
            yield node.name, "the argument needs either an element type 'T' or a 'type_attr'"
