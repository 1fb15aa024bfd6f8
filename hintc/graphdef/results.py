"""Declared results of a main graph keep the tensor name the user knows them by."""

from __future__ import annotations

from hintc.ir import Graph, Node, Port
from hintc.ir.scan import dtype_of


def misnamed_results(graph: Graph) -> list[Node]:
    """Result nodes whose value is not computed under the result's own tensor name any more."""
    return [r for r in graph.results if _tensor(r) != _spelled(r.operands[0])]


def restore_result_names(graph: Graph) -> None:
    """Add an Identity (IdentityN for ``name:1``) under the name of every result that lost it."""
    wanted: dict[str, dict[int, Node]] = {}
    for result in misnamed_results(graph):
        name, index = _tensor(result)
        wanted.setdefault(name, {})[index] = result
    for name, by_index in wanted.items():
        squatter = graph.find(name)
        if squatter is not None:
            graph.rename(squatter, graph.unique_name(f"{name}/was"))
        any_value = next(iter(by_index.values())).operands[0]
        values = [
            by_index[i].operands[0] if i in by_index else any_value
            for i in range(max(by_index) + 1)
        ]
        dtypes = tuple(dtype_of(v) for v in values)
        if len(values) == 1:
            holder = graph.add("Identity", values, {"T": dtypes[0]}, name=name)
        else:
            holder = graph.add("IdentityN", values, {"T": dtypes}, name=name)
        for index, result in by_index.items():
            graph.set_operand(result, 0, Port(holder, index))


def _tensor(result: Node) -> tuple[str, int]:
    declared = result.attributes["result"]
    assert isinstance(declared, bytes)
    name, _, index = declared.decode().rpartition(":")
    return (name, int(index)) if name else (index, 0)


def _spelled(port: Port) -> tuple[str, int]:
    return port.node.name, port.index
