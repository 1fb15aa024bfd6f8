"""resolve-lists: elements of TensorLists, read and written in straight lines, are plain values.

Follows each list from where it is made through every write at a known index. What reads an element
of it, or stacks it, gets the values themselves. Lists that pass through loops or conditions, or are
indexed by values that are not known, stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hintc.call_graph import needed_graphs
from hintc.graphdef.emit import Emitter
from hintc.graphdef.shapes import infer_shapes, shapes_remembered
from hintc.ir import AttributeValue, DType, Graph, Module, Node, Port
from hintc.ir.scan import dtype_of
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass
from hintc_passes.analysis.values import known_int, source_of

Elements = list[Port | None]
"""The elements of a list; None: not written yet."""


def _reserved(node: Node) -> Elements | None:
    size = known_int(node.operands[1])
    return None if size is None or size < 0 else [None] * size


@register
@dataclass(frozen=True)
class ResolveLists(Pass):
    """Replace reads of lists by what was written."""

    name: ClassVar[str] = "resolve-lists"

    @shapes_remembered()
    def run(self, module: Module) -> PassReport:
        """Resolve the lists of every graph that the main graph reaches."""
        report = PassReport()
        for graph in needed_graphs(module):
            if any(node.op.startswith("TensorList") for node in graph):
                found = _Lists(module, graph).run()
                if found:
                    report.count("resolved", found)
        return report


class _Lists:
    def __init__(self, module: Module, graph: Graph) -> None:
        self._module, self._graph = module, graph
        self._known: dict[Port, Elements] = {}
        self._make: dict[str, Callable[[Node], Elements | None]] = {
            "EmptyTensorList": lambda node: [],
            "TensorListFromTensor": self._rows,
            "TensorListPushBack": self._pushed,
            "TensorListReserve": _reserved,
            "TensorListSetItem": self._written,
        }

    def run(self) -> int:
        """Number of reads that were replaced."""
        replaced = 0
        for node in self._graph.topological():
            if node.op in self._make:
                elements = self._make[node.op](node)
                if elements is not None:
                    self._known[Port(node)] = elements
            elif node.op == "TensorListGetItem":
                replaced += self._read(node)
            elif node.op == "TensorListStack":
                replaced += self._stack(node)
            elif node.op == "TensorListLength":
                replaced += self._length(node)
        return replaced

    def _elements(self, node: Node) -> Elements | None:
        return self._known.get(source_of(node.operands[0]))

    def _copied(self, node: Node) -> Elements | None:
        """The elements of the list that a node changes; as they are if nobody else reads it."""
        elements = self._elements(node)
        alone = len(self._graph.uses(node.operands[0])) == 1 and node.operands[0] in self._known
        return elements if alone or elements is None else list(elements)

    # -- making ------------------------------------------------------------------------------

    def _rows(self, node: Node) -> Elements | None:
        tensor = node.operands[0]
        dims = infer_shapes(self._module, self._graph, [tensor])[tensor].dims
        if not dims or dims[0] < 0:
            return None
        rows = self._emitter(node).unpack(tensor, dims[0], "rows")
        return [Port(rows, at) for at in range(dims[0])]

    def _pushed(self, node: Node) -> Elements | None:
        elements = self._copied(node)
        if elements is not None:
            elements.append(node.operands[1])
        return elements

    def _written(self, node: Node) -> Elements | None:
        at, elements = known_int(node.operands[1]), self._copied(node)
        if elements is None or at is None or at < 0:
            return None
        if at >= len(elements):
            if not node.attributes.get("resize_if_index_out_of_bounds"):
                return None
            elements += [None] * (at + 1 - len(elements))
        elements[at] = node.operands[2]
        return elements

    # -- reading -----------------------------------------------------------------------------

    def _read(self, node: Node) -> bool:
        elements, at = self._elements(node), known_int(node.operands[1])
        if elements is None or at is None or not 0 <= at < len(elements):
            return False
        value = elements[at]
        if value is None:
            return False
        return self._replace(node, "Identity", [value], {"T": dtype_of(value)})

    def _stack(self, node: Node) -> bool:
        elements = self._elements(node)
        written = [e for e in elements or () if e is not None]
        if elements is None or not written:
            return False
        dtype = dtype_of(written[0])
        rows = [e if e is not None else self._zeros(node, written[0]) for e in elements]
        return self._replace(node, "Pack", rows, {"T": dtype, "N": len(rows), "axis": 0})

    def _zeros(self, node: Node, like: Port) -> Port:
        """An element that was never written; all elements of a stacked list have one shape."""
        return self._emitter(node).node("ZerosLike", [like], {"T": dtype_of(like)}, "unwritten")

    def _length(self, node: Node) -> bool:
        elements = self._elements(node)
        if elements is None:
            return False
        length = self._emitter(node).constant(np.int32(len(elements)), "length")
        return self._replace(node, "Identity", [length], {"T": DType.INT32})

    def _replace(
        self, node: Node, op: str, operands: list[Port], attributes: dict[str, AttributeValue]
    ) -> bool:
        """The reader becomes another node of its name, which may be that of an output."""
        graph, name = self._graph, node.name
        graph.rename(node, graph.unique_name(f"{name}/list"))
        new = graph.add(op, operands, attributes, name=name, origin=node.origin or (name,))
        new.device = node.device
        graph.set_controls(new, node.controls)
        graph.replace_uses(Port(node), Port(new))
        graph.replace_control_uses(node, [new])
        graph.remove(node)
        return True

    def _emitter(self, node: Node) -> Emitter:
        return Emitter(self._graph, node.name, node.origin or (node.name,))
