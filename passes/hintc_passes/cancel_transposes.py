"""cancel-transposes: transpositions that undo each other go, through what works element by element.

First pairs: a Transpose of a Transpose becomes one, or none. Then regions: operations that work
element by element, whose operands are all transposed in the same way, or constant, compute the same
before the transposition::

    transpose(relu(transpose(x, p) + c), q)  =  relu(x + transpose(c, p^-1)),   where q undoes p

A region is computed on what is not transposed if that saves transpositions; what leaves it for
another reader is transposed then.

Leaves alone permutations that are not constant, nodes with control edges, graphs with control flow
v1, and regions that would have as many transpositions afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import networkx as nx
import numpy as np

from hintc.call_graph import CONTROL_FLOW_V1, needed_graphs
from hintc.graft import COLOCATION
from hintc.ir import Array, DType, Graph, Module, Node, Port, Tensor
from hintc.ir.scan import dtype_of
from hintc.pattern import constant_of, is_hint
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass, remove_unread

Permutation: TypeAlias = tuple[int, ...]

_UNARY = (
    *("Abs", "Cast", "Ceil", "Cos", "Elu", "Erf", "Exp", "FakeQuantWithMinMaxArgs", "Floor"),
    *("Identity", "LeakyRelu", "Log", "LogicalNot", "Neg", "Reciprocal", "Relu", "Relu6", "Round"),
    *("Rsqrt", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Square", "Tanh"),
)
_BROADCASTING = (
    *("Add", "AddV2", "Div", "Equal", "Greater", "GreaterEqual", "Less", "LessEqual"),
    *("LogicalAnd", "LogicalOr", "Maximum", "Minimum", "Mul", "NotEqual", "Pow", "RealDiv"),
    *("SelectV2", "SquaredDifference", "Sub"),
)
_ELEMENTWISE = frozenset((*_UNARY, *_BROADCASTING, "BiasAdd"))


@register
@dataclass(frozen=True)
class CancelTransposes(Pass):
    """Removes transpositions that undo each other."""

    name: ClassVar[str] = "cancel-transposes"

    def run(self, module: Module) -> PassReport:
        """Pairs, then regions, in every graph."""
        report = PassReport()
        for graph in needed_graphs(module):
            if any(node.op in CONTROL_FLOW_V1 for node in graph):
                continue
            is_open = graph is module.graph and not graph.results
            _join_pairs(graph, is_open, report)
            while _move_regions(graph, is_open, report):  # what has moved may meet another
                _join_pairs(graph, is_open, report)
        return report


def _permutation(node: Node) -> Permutation | None:
    """The constant permutation of a Transpose without control edges."""
    if node.op != "Transpose" or _is_bound(node):
        return None
    array = constant_of(node.operands[1])
    if array is None or array.ndim != 1:
        return None
    order = tuple(int(axis) for axis in array)
    return order if sorted(order) == list(range(len(order))) else None


def _is_bound(node: Node) -> bool:
    """True if something besides its value says when the node runs, or where."""
    return bool(node.controls or node.graph.control_uses(node) or is_hint(node))


def _is_identity(order: Permutation) -> bool:
    return list(order) == list(range(len(order)))


def _is_output(node: Node, is_open: bool) -> bool:
    """True if the node may be an output of a graph that does not declare its results."""
    return is_open and not node.graph.is_used(node)


# -- pairs -------------------------------------------------------------------------------------


def _join_pairs(graph: Graph, is_open: bool, report: PassReport) -> None:
    for node in graph.topological():
        outer = _permutation(node)
        inner = None if outer is None else _permutation(node.operands[0].node)
        if outer is None or inner is None or len(outer) != len(inner):
            continue
        producer = node.operands[0].node
        order = tuple(inner[axis] for axis in outer)
        value = producer.operands[0]
        if not _is_identity(order):
            graph.set_operands(node, [value, _order(node, order)])
        elif _is_output(node, is_open):
            continue
        else:
            graph.replace_uses(Port(node), value)
            remove_unread(graph, [node])
        remove_unread(graph, [producer])
        report.count("pairs")


def _order(node: Node, order: Permutation) -> Port:
    dtype = dtype_of(node.operands[1])
    return _constant(node, np.asarray(order, dtype.numpy), "perm")


def _constant(near: Node, value: Array, name: str) -> Port:
    tensor = Tensor.of(value)
    scope = near.name.rpartition("/")[0]
    return Port(
        near.graph.add(
            "Const",
            (),
            {"dtype": tensor.dtype, "value": tensor},
            name=f"{scope}/{name}" if scope else name,
            device=near.device,
            origin=near.origin or (near.name,),
        )
    )


# -- regions -----------------------------------------------------------------------------------


def _move_regions(graph: Graph, is_open: bool, report: PassReport) -> bool:
    """Compute regions before their transpositions where that saves some; True if any was."""
    touched: set[Node] = set()
    for region in _regions(graph):
        nodes = region.nodes(is_open)
        if touched.isdisjoint(nodes) and region.saves(is_open) > 0:
            region.compute_before(is_open)
            report.count("regions")
            touched |= nodes
    return bool(touched)


@dataclass
class _Region:
    """Nodes that work element by element on values that are all transposed by `order`."""

    order: Permutation
    sources: dict[Node, None] = field(default_factory=dict)
    members: dict[Node, None] = field(default_factory=dict)

    def nodes(self, is_open: bool) -> set[Node]:
        """All that moving it may change or remove."""
        undone = (back for node in self.members for back in self._undoing(node, is_open))
        return {*self.sources, *self.members, *undone}

    def saves(self, is_open: bool) -> int:
        """How many transpositions fewer there would be."""
        undone = sum(len(self._undoing(node, is_open)) for node in self.members)
        unread = sum(not self._readers_outside(node, is_open) for node in self.sources)
        # a Transpose that reads what leaves the region becomes one with the new one
        added = sum(
            any(_permutation(reader) is None for reader in self._readers_outside(node, is_open))
            for node in self.members
        )
        return undone + unread - added

    def compute_before(self, is_open: bool) -> None:
        """Let the members read what is not transposed, and transpose what leaves them."""
        graph = next(iter(self.members)).graph
        leaving = [node for node in self.members if self._readers_outside(node, is_open)]
        undoing = {node: self._undoing(node, is_open) for node in self.members}
        for node in self.members:
            self._move(node)
        for node in leaving:
            self._transpose_result(node, undoing[node])
        for node, undone in undoing.items():
            for back in undone:
                graph.replace_uses(Port(back), Port(node))
                remove_unread(graph, [back])
        remove_unread(graph, self.sources)

    def _undoing(self, node: Node, is_open: bool) -> list[Node]:
        """The Transposes that read a member and undo its order."""
        found = []
        for use in node.graph.uses(node):
            order = _permutation(use.node) if use.slot == 0 else None
            if order is None or len(order) != len(self.order) or _is_output(use.node, is_open):
                continue
            if _is_identity(tuple(self.order[axis] for axis in order)):
                found.append(use.node)
        return found

    def _readers_outside(self, node: Node, is_open: bool) -> list[Node]:
        """What reads a node's value and is not in the region; itself if it is an output."""
        if _is_output(node, is_open):
            return [node]
        undone = self._undoing(node, is_open)
        readers = [use.node for use in node.graph.uses(node)]
        return [r for r in readers if r not in self.members and r not in undone]

    def _move(self, node: Node) -> None:
        operands = []
        for port in node.operands:
            if port.node in self.sources:
                operands.append(port.node.operands[0])
            else:
                operands.append(port if port.node in self.members else self._moved(node, port))
        node.graph.set_operands(node, operands)
        if node.op == "BiasAdd":
            node.op = "AddV2"
            node.attributes.pop("data_format", None)
        for name in ("_output_shapes", COLOCATION):
            node.attributes.pop(name, None)

    def _moved(self, node: Node, port: Port) -> Port:
        """The constant that `node` reads, for values that are not transposed."""
        array = constant_of(port)
        assert array is not None
        if node.op == "BiasAdd" and node.attributes.get("data_format", b"NHWC") == b"NCHW":
            array = array.reshape(-1, *(1,) * (len(self.order) - 2))
        if array.ndim == 0:
            return port
        full = array.reshape((1,) * (len(self.order) - array.ndim) + array.shape)
        name = port.node.name.rpartition("/")[2]
        return _constant(node, np.transpose(full, np.argsort(self.order)), name)

    def _transpose_result(self, node: Node, undone: Sequence[Node]) -> None:
        graph, name = node.graph, node.name
        dtype = dtype_of(Port(node))
        graph.rename(node, graph.unique_name(f"{name}/before"))
        order = _constant(node, np.asarray(self.order, np.int32), "perm")
        back = graph.add(
            "Transpose",
            [Port(node), order],
            {"T": dtype, "Tperm": DType.INT32},
            name=name,
            device=node.device,
            origin=node.origin or (name,),
        )
        stay = {back, *undone}
        graph.replace_uses(
            Port(node),
            Port(back),
            where=lambda use: use.node not in stay and use.node not in self.members,
        )


def _regions(graph: Graph) -> list[_Region]:
    """The connected regions, each with what it reads that is transposed."""
    orders: dict[Node, Permutation] = {}
    links: nx.Graph[Node] = nx.Graph()
    sources: dict[Node, None] = {}
    for node in graph.topological():
        order = _permutation(node)
        if order is not None and not _is_identity(order):
            orders[node] = order
            sources[node] = None
        elif node.op in _ELEMENTWISE and not _is_bound(node):
            order = _common_order(node, orders)
            if order is not None:
                orders[node] = order
                links.add_edges_from((node, p.node) for p in node.operands if p.node in orders)
    regions: dict[Node, _Region] = {}
    for parts in nx.connected_components(links):
        region = _Region(orders[next(iter(parts))])
        regions.update((node, region) for node in parts)
    for node in orders:  # in their order in the graph
        if node in regions:
            (regions[node].sources if node in sources else regions[node].members)[node] = None
    return list({id(region): region for region in regions.values()}.values())


def _common_order(node: Node, orders: dict[Node, Permutation]) -> Permutation | None:
    """The order in which all operands that are not constant are transposed, if it is one."""
    found = {orders[p.node] for p in node.operands if p.node in orders}
    if len(found) != 1:
        return None
    (order,) = found
    rest = [p for p in node.operands if p.node not in orders]
    return order if all(_broadcasts(port, len(order)) for port in rest) else None


def _broadcasts(port: Port, rank: int) -> bool:
    array = constant_of(port)
    return array is not None and array.ndim <= rank
