"""Node, Port and Use: an operation, one of its results, and one who reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from hintc.ir.attributes import Attributes

if TYPE_CHECKING:
    from hintc.ir.graph import Graph

CONTROL = -1
"""The port number of a control edge."""
ARG = "_Arg"
"""Op of a function's argument (TensorFlow's own name for it)."""
RESULT = "_Retval"
"""Op of a graph's result: one operand, no results; it keeps its operand alive."""


class Port(NamedTuple):
    """Result `index` of `node`."""

    node: Node
    index: int = 0  # type: ignore[assignment]  # hides tuple.index, which nobody wants here

    def __str__(self) -> str:
        return self.node.name if self.index == 0 else f"{self.node.name}:{self.index}"

    def __repr__(self) -> str:
        return f"Port({self})"


class Use(NamedTuple):
    """Operand `slot` of `node`; a control use has the slot CONTROL."""

    node: Node
    slot: int


class Node:
    """An operation in a graph. Change its edges and its name through its graph only.

    Attributes:
        op: name of the operation.
        attributes: see `Attributes`.
        device: requested device, "" for none.
        origin: names of the source nodes that this one stands for (provenance).
        source: what lowering may reuse if the node is unchanged (the NodeDef it was lifted from).
        result_names: how results are spelled in a function body, for an op that nobody knows.
    """

    __slots__ = (
        "__weakref__",
        "_controls",
        "_name",
        "_operands",
        "attributes",
        "device",
        "graph",
        "op",
        "origin",
        "result_names",
        "source",
    )

    def __init__(self, graph: Graph, name: str, op: str, attributes: Attributes) -> None:
        self.graph = graph
        self.op = op
        self.attributes = attributes
        self.device = ""
        self.origin: tuple[str, ...] = ()
        self.source: Any = None
        self.result_names: tuple[str, ...] = ()
        self._name = name
        self._operands: tuple[Port, ...] = ()
        self._controls: tuple[Node, ...] = ()

    @property
    def name(self) -> str:
        """Unique in the graph; change it with `Graph.rename`."""
        return self._name

    @property
    def operands(self) -> tuple[Port, ...]:
        """The values the node reads, in order."""
        return self._operands

    @property
    def controls(self) -> tuple[Node, ...]:
        """The nodes that must run before this one."""
        return self._controls

    def port(self, index: int = 0) -> Port:
        """Result `index` of this node."""
        return Port(self, index)

    def __repr__(self) -> str:
        return f"<{self.op} '{self._name}'>"
