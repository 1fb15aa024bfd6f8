"""Evaluates the body of a Scan to the normal form of `algebra`.

Ops that the algebra does not know become opaque atoms that remember their op and node, so that a
refusal can name the first thing that is not part of a cell's maths. Nothing here decides what a
cell is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hintc.ir import ARG, FunctionRef, Graph, Module, Node, Port
from hintc_passes.cells.algebra import Affine, Opaque, Symbol
from hintc_passes.cells.op_rules import MATRIX_PRODUCTS, evaluate
from hintc_passes.cells.rows import Value, width_of
from hintc_passes.cells.step_values import Result


class UnknownWidthError(Exception):
    """A symbol's number of columns is not known, so its maths cannot be written down."""


@dataclass
class Step:
    """Values of one body.

    Args:
        module: where functions called by the body are.
        arguments: for every argument of the body its value; None where its width is not known.
    """

    module: Module
    arguments: Sequence[Result | None]
    _known: dict[Port, Result] = field(default_factory=dict)
    _scope: str = ""

    def run(self, graph: Graph) -> list[Result]:
        """Values of the body's results, in order.

        Raises:
            UnknownWidthError: a result depends on an argument whose width is not known.
        """
        needed = _cone(graph)
        for node in graph.topological():
            if node in needed:
                self._visit(node, graph)
        return [self._known[r.operands[0]] for r in graph.results]

    def _visit(self, node: Node, graph: Graph) -> None:
        if node.op == ARG:
            value = self.arguments[graph.args.index(node)]
            if value is None:
                raise UnknownWidthError(node.name)
            self._known[Port(node)] = value
            return
        operands = [self._known[p] for p in node.operands]
        results = self._call(node, operands) if _is_call(node) else evaluate(node, operands)
        if results is None:
            count = max((p.index for p in _ports_read(node)), default=0) + 1
            results = [self._opaque(node, i, operands) for i in range(count)]
        for index, result in enumerate(results):
            self._known[Port(node, index)] = result

    def _call(self, node: Node, operands: list[Result]) -> list[Result] | None:
        ref = node.attributes["f"]
        assert isinstance(ref, FunctionRef)
        inner = Step(self.module, operands, _scope=f"{self._scope}{node.name}/")
        return inner.run(self.module.function(ref.name, node=node).graph)

    def _opaque(self, node: Node, result: int, operands: list[Result]) -> Value:
        widths = [width_of(o) for o in operands if isinstance(o, tuple)]
        width = max(widths, default=1)
        weight = _varying_weight(node, operands)
        return (Affine.of(Opaque(node.op, self._scope + node.name, result, 0, width, weight)),)


def _varying_weight(node: Node, operands: Sequence[Result]) -> int | None:
    """Position of the invariant that the node, or one before it, takes for a matrix."""
    atoms = [o[0].atom if isinstance(o, tuple) and o else None for o in operands]
    weight = atoms[1] if node.op in MATRIX_PRODUCTS else None
    if isinstance(weight, Symbol) and weight.kind == "invariant":
        return weight.index
    found = (atom.weight for atom in atoms if isinstance(atom, Opaque))
    return next((at for at in found if at is not None), None)


def _cone(graph: Graph) -> set[Node]:
    seen: set[Node] = set()
    stack = [r.operands[0].node for r in graph.results]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(p.node for p in node.operands)
    return seen


def _ports_read(node: Node) -> list[Port]:
    return [use.node.operands[use.slot] for use in node.graph.uses(node)]


def _is_call(node: Node) -> bool:
    return node.op in ("PartitionedCall", "StatefulPartitionedCall")


def symbol(kind: str, index: int, width: int) -> Value:
    """A whole argument as a value."""
    return (Affine.of(Symbol(kind, index, 0, width, width)),)
