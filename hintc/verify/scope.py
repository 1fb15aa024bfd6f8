"""What a rule sees: one graph, the module around it, and the element types of its values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from hintc.ir import DType, Function, FunctionRef, Graph, Module, Node, Unbound
from hintc.ir.opdefs import OpSchema, as_tuple, dtypes_of, schema_of

DTypes: TypeAlias = tuple[DType | None, ...]
"""Element types of several values; None where one is not known."""
Finding: TypeAlias = tuple[str, str]
"""Name of a node ("" for the graph) and what is wrong with it."""


@dataclass
class Scope:
    """A graph to check.

    Attributes:
        module: the module.
        graph: the graph.
        function: whose body `graph` is; None for the main graph.
    """

    module: Module
    graph: Graph
    function: Function | None = None
    _results: dict[Node, DTypes | None] = field(default_factory=dict)
    _schemas: dict[Node, OpSchema | None] = field(default_factory=dict)

    def schema(self, node: Node) -> OpSchema | None:
        """As `schema_of`, looked up once: every rule asks."""
        if node not in self._schemas:
            self._schemas[node] = schema_of(node)
        return self._schemas[node]

    @cached_property
    def calls(self) -> list[tuple[Node, str, FunctionRef]]:
        """What `function_refs` finds at all nodes, in order."""
        return [
            (node, attribute, ref)
            for node in self.graph
            for attribute, ref in function_refs(node, self.schema(node))
        ]

    def results(self, node: Node) -> DTypes | None:
        """Element type of each result of a node; None if their number is not known."""
        if node not in self._results:
            self._results[node] = self._result_dtypes(node)
        return self._results[node]

    def _result_dtypes(self, node: Node) -> DTypes | None:
        called = self.module.functions.get(node.op)
        if called is not None:
            return (None,) * len(called.graph.results)
        schema = self.schema(node)
        if schema is None or _has_open_layout(node, schema):
            return None
        return dtypes_of(schema.results, node.attributes)

    def expected_operands(self, node: Node) -> DTypes | None:
        """Element types that the op asks for; None if it is not known, or depends on the caller."""
        schema = self.schema(node)
        if schema is None or _has_open_layout(node, schema):
            return None
        return dtypes_of(schema.operands, node.attributes)

    def operands(self, node: Node) -> DTypes:
        """Element type of each operand, as its producer has it."""
        return tuple(self._dtype(producer, index) for producer, index in node.operands)

    def _dtype(self, node: Node, index: int) -> DType | None:
        results = self.results(node)
        return results[index] if results is not None and 0 <= index < len(results) else None

    def signature(self, name: str) -> tuple[DTypes, DTypes] | None:
        """Element types of a function's arguments and results; None if there is no function."""
        function = self.module.functions.get(name)
        if function is None:
            return None
        inside = Scope(self.module, function.graph, function)
        args = (arg.attributes.get("T") for arg in function.graph.args)
        results = (r.operands[0] if r.operands else None for r in function.graph.results)
        return (
            tuple(dtype if isinstance(dtype, DType) else None for dtype in args),
            tuple(None if port is None else inside._dtype(*port) for port in results),
        )


Rule: TypeAlias = Callable[[Scope], Iterator[Finding]]


def function_refs(node: Node, schema: OpSchema | None) -> Iterator[tuple[str, FunctionRef]]:
    """Functions that the node calls: those in attributes that its op declares as functions."""
    for name in schema.function_attributes if schema is not None else ():
        for member in as_tuple(node.attributes.get(name)):
            if isinstance(member, FunctionRef):
                yield name, member


def _has_open_layout(node: Node, schema: OpSchema) -> bool:
    """True if an attribute that says how many operands or results there are is not bound."""
    return any(isinstance(node.attributes.get(n), Unbound) for n in schema.layout_attributes)
