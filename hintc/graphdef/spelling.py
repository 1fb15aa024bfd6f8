"""How operands are spelled: ``node:2`` in a graph, ``node:output_arg:0`` in a function body.

Source: tensorflow/core/framework/function.proto, comment on `FunctionDef.node_def`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from hintc.errors import HintcError
from hintc.ir import ARG, Graph, Node, Port
from hintc.ir.opdefs import ArgSpec, schema_of


class Spelling(Protocol):
    """One of the two ways to write operands."""

    def port(self, graph: Graph, text: str) -> Port | None:
        """The value that `text` spells; None if there is no such node or result."""

    def spell(self, port: Port) -> str:
        """The usual spelling of a value."""

    def means(self, text: str, port: Port) -> bool:
        """True if `text`, in any spelling, is `port`."""


class GraphSpelling:
    """Operands of a top-level graph: ``node``, ``node:1``."""

    def port(self, graph: Graph, text: str) -> Port | None:
        """The value that `text` spells; None if there is no such node."""
        name, _, index = text.rpartition(":")
        if not name:
            node = graph.find(text)
            return None if node is None else Port(node)
        node = graph.find(name)
        return None if node is None or not index.isdecimal() else Port(node, int(index))

    def spell(self, port: Port) -> str:
        """The usual spelling of a value."""
        return port.node.name if port.index == 0 else f"{port.node.name}:{port.index}"

    def means(self, text: str, port: Port) -> bool:
        """True if `text`, in any spelling, is `port`."""
        name = port.node.name
        return text == f"{name}:{port.index}" or (port.index == 0 and text == name)


class BodySpelling:
    """Operands of a function body: ``argument``, ``node:result:0``.

    Args:
        library: FunctionDefs by name; a node may call one of them by using its name as op.
    """

    def __init__(self, library: Mapping[str, Any]) -> None:
        self._library = library

    def port(self, graph: Graph, text: str) -> Port | None:
        """The value that `text` spells; None if there is no such node or result."""
        name, _, rest = text.partition(":")
        node = graph.find(name)
        if node is None:
            return None
        if node.op == ARG:  # the text may be older than the argument, and mean a node of that name
            return Port(node, int(rest or 0)) if (rest or "0").isdigit() else None
        if not rest:  # that is how a graph spells it; TensorFlow refuses it in a body
            return None
        result, _, offset = rest.partition(":")
        layout = self._layout(node)
        if layout is None:
            return Port(node, _index_of_unknown(node, rest))
        start = 0
        for result_name, count in layout:
            if result_name == result:
                return Port(node, start + int(offset or 0))
            start += count
        return None

    def spell(self, port: Port) -> str:
        """The usual spelling of a value.

        Raises:
            HintcError: the node has no such result.
        """
        node, index = port
        if node.op == ARG:
            return node.name if index == 0 else f"{node.name}:{index}"
        if node.result_names:
            return f"{node.name}:{node.result_names[index]}"
        start = 0
        for result_name, count in self._layout(node) or ():
            if index < start + count:
                return f"{node.name}:{result_name}:{index - start}"
            start += count
        raise HintcError(f"the op {node.op} has no result {index}", node=node.name)

    def means(self, text: str, port: Port) -> bool:
        """True if `text`, in any spelling, is `port`."""
        return text.partition(":")[0] == port.node.name and self.port(port.node.graph, text) == port

    def _layout(self, node: Node) -> list[tuple[str, int]] | None:
        definition = self._library.get(node.op)
        if definition is not None:
            return [(arg.name, 1) for arg in definition.signature.output_arg]
        schema = schema_of(node)
        if schema is None:
            return None
        return [(arg.name, _count(arg, node)) for arg in schema.results]


def _count(arg: ArgSpec, node: Node) -> int:
    return len(arg.dtypes(node.attributes)) if arg.type_list_attr or arg.number_attr else 1


def _index_of_unknown(node: Node, spelled: str) -> int:
    if spelled not in node.result_names:
        node.result_names = (*node.result_names, spelled)
    return node.result_names.index(spelled)
