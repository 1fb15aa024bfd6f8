"""What a rule sees: one graph, the module around it, and the element types of its values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from hintc.ir import DType, Function, FunctionRef, Graph, Module, Node, Unbound
from hintc.ir.opdefs import operand_dtypes, result_dtypes, schema_of

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

    def results(self, node: Node) -> DTypes | None:
        """Element type of each result of a node; None if their number is not known."""
        if node not in self._results:
            self._results[node] = self._result_dtypes(node)
        return self._results[node]

    def _result_dtypes(self, node: Node) -> DTypes | None:
        called = self.module.functions.get(node.op)
        if called is not None:
            return (None,) * len(called.graph.results)
        return None if _has_open_layout(node) else result_dtypes(node)

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


def expected_operands(node: Node) -> DTypes | None:
    """Element types that the op asks for; None if it is not known, or depends on the caller."""
    return None if _has_open_layout(node) else operand_dtypes(node)


def function_refs(node: Node) -> Iterator[tuple[str, FunctionRef]]:
    """Functions that the node calls: those in attributes that its op declares as functions."""
    schema = schema_of(node)
    for spec in schema.attributes if schema is not None else ():
        if spec.type in ("func", "list(func)"):
            value = node.attributes.get(spec.name)
            for member in value if isinstance(value, tuple) else (value,):
                if isinstance(member, FunctionRef):
                    yield spec.name, member


def _has_open_layout(node: Node) -> bool:
    """True if an attribute that says how many operands or results there are is not bound."""
    schema = schema_of(node)
    if schema is None:
        return False
    return any(
        isinstance(node.attributes.get(name), Unbound)
        for arg in (*schema.operands, *schema.results)
        for name in (arg.number_attr, arg.type_list_attr)
        if name
    )
