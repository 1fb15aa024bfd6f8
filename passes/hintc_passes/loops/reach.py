"""The graphs that a module's main graph reaches."""

from __future__ import annotations

from collections.abc import Iterator

from hintc.graphdef.shapes import functions_used
from hintc.ir import Graph, Module


def inner_first(module: Module) -> Iterator[Graph]:
    """The bodies of all functions that the main graph reaches, callees first; then itself."""
    seen: set[str] = set()

    def walk(graph: Graph) -> Iterator[Graph]:
        for name in functions_used(module, graph):
            if name in module.functions and name not in seen:
                seen.add(name)
                yield from walk(module.functions[name].graph)
        yield graph

    yield from walk(module.graph)
