"""Cells that are called once, found by what is the same in every spelling of them.

An LSTM ends in ``gate * act(a * b + c * d)``, the inner sum perhaps clipped; a simple cell is an
activation of a sum with the product of a zero state. From there its nodes are followed back to
the matrix products, whose factors are its input and its hidden state, and to the one value beside
constants that no product is behind: the cell state.

This only proposes; `steps.raising` chooses and proves. A cell whose weights serve other products
too is one step of several, and no call of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from hintc.graphdef.emit import known_array
from hintc.ir import Graph, Node, Port
from hintc_passes.analysis.values import is_zeros, known_int, readers, source_of

PRODUCTS = ("BatchMatMul", "BatchMatMulV2", "Einsum", "MatMul")
"""Products with weights that cells are made of."""
_ADD = ("Add", "AddV2", "AddN", "BiasAdd")
_CLIP = ("ClipByValue", "Maximum", "Minimum")
_ACTIVATIONS = ("Relu", "Relu6", "Tanh")
_INSIDE = frozenset(
    (
        *(*_ADD, *_CLIP, *_ACTIVATIONS),
        *(*PRODUCTS, "ConcatV2", "Identity", "Mean", "Mul", "Neg", "RealDiv", "Rsqrt", "Sigmoid"),
        *("Slice", "Split", "SplitV", "Sqrt", "Square", "SquaredDifference", "Squeeze"),
        *("StridedSlice", "Sub"),
    )
)
"""Ops that cells are made of; Keras 3 squeezes a product of one row."""
_ON_WEIGHTS = frozenset(
    (
        *("ConcatV2", "ExpandDims", "Identity", "Pack", "Reshape", "Slice", "Split", "SplitV"),
        *("Squeeze", "StridedSlice", "Transpose", "Unpack"),
    )
)
"""What cuts weights and puts them together."""
_MATRIX = 2
"""Rank of states, and of the operands of products."""
_MOST_NODES = 200
"""Of one cell; the longest that a kernel computes, with layer normalisation, has about 90."""
_MOST_SUMMANDS = 8


@dataclass
class FoundStep:
    """A cell called once, perhaps.

    Attributes:
        end: its new hidden state, before a projection.
        new_cell: its new cell state; None for a simple cell.
        cell: the cell state that it starts with; None for a simple cell.
        sources: what its matrix products multiply, in order: inputs and the hidden state.
        nodes: what computes `end` from these and `cell`, without Identity nodes.
        joins: those of them that put sources side by side.
        weights: what its products multiply with.
    """

    end: Port
    new_cell: Port | None = None
    cell: Port | None = None
    sources: dict[Port, None] = field(default_factory=dict)
    nodes: dict[Node, None] = field(default_factory=dict)
    joins: set[Node] = field(default_factory=set)
    weights: dict[Node, None] = field(default_factory=dict)

    @property
    def values(self) -> list[Port]:
        """What must have a known width."""
        return [*self.sources, self.end, *([] if self.cell is None else [self.cell])]

    def now(self, moved: Mapping[Port, Port]) -> FoundStep:
        """The same where sources are read from other ports by now."""
        return replace(self, sources={moved.get(p, p): None for p in self.sources})


def find_steps(graph: Graph) -> list[FoundStep]:
    """What may be a cell called once, in topological order, each with its nodes likewise."""
    order = graph.topological()
    if not any(node.op in PRODUCTS for node in order):
        return []
    multiplied, fixed = _behind_products(order), _fixed(order)
    found = []
    for node in order:
        for step in (_lstm_ending_in(node, multiplied), _simple_cell_with(graph, node)):
            if step is not None and _collect(step, fixed) and not _is_part(graph, step):
                found.append(step)
    place = {node: at for at, node in enumerate(order)}
    for step in found:
        step.nodes = dict.fromkeys(sorted(step.nodes, key=place.__getitem__))
    return [step for step in found if not _reads_itself(step, place)]


def _reads_itself(step: FoundStep, place: Mapping[Node, int]) -> bool:
    """True if what a product reads may be computed from the new cell state."""
    if step.new_cell is None:
        return False
    last = place[step.new_cell.node]
    return any(place[port.node] >= last for port in step.sources)


def zero_state_of(product: Node) -> Port | None:
    """The zeros ``[batch, n]`` that a matrix product multiplies, alone or among others."""
    if product.op not in PRODUCTS:
        return None
    return next((p for p in _factors(product) if is_state_of_zeros(p)), None)


def is_state_of_zeros(port: Port) -> bool:
    """True for zeros of two dimensions: `is_zeros` of a scalar or vector is no state."""
    array = known_array(port)
    return is_zeros(port) and (array is None or array.ndim == _MATRIX)


def _behind_products(order: list[Node]) -> set[Node]:
    """Nodes that a matrix product is behind, with only ops of cells in between."""
    found: set[Node] = set()
    for node in order:
        if node.op in PRODUCTS or (
            node.op in _INSIDE and any(p.node in found for p in node.operands)
        ):
            found.add(node)
    return found


def _fixed(order: list[Node]) -> set[Node]:
    """Constants, and what is computed from nothing else: weights that a hint has cut in parts."""
    found: set[Node] = set()
    for node in order:
        if node.op == "Const" or (
            node.op in _ON_WEIGHTS and all(p.node in found for p in node.operands)
        ):
            found.add(node)
    return found


# -- where cells end -----------------------------------------------------------------------------


def _lstm_ending_in(node: Node, multiplied: set[Node]) -> FoundStep | None:
    """``gate * act(new cell state)``."""
    if node.op != "Mul" or node not in multiplied:
        return None
    for port in node.operands:
        activation = source_of(port).node
        if activation.op not in _ACTIVATIONS:
            continue
        new_cell = source_of(activation.operands[0])
        cell = _cell_state(_unclipped(new_cell), multiplied)
        if cell is not None:
            return FoundStep(Port(node), new_cell, cell)
    return None


def _unclipped(port: Port) -> Node:
    node = port.node
    while node.op in _CLIP:
        inner = [p for p in map(source_of, node.operands) if p.node.op != "Const"]
        if len(inner) != 1:
            break
        node = inner[0].node
    return node


def _cell_state(update: Node, multiplied: set[Node]) -> Port | None:
    """Of ``a * b + c * d`` the only factor that no product of matrices is behind."""
    if update.op not in _ADD or len(update.operands) != 2:
        return None
    terms = [source_of(p).node for p in update.operands]
    if any(term.op != "Mul" for term in terms):
        return None
    factors = dict.fromkeys(source_of(p) for term in terms for p in term.operands)
    states = [p for p in factors if p.node not in multiplied and _may_be_state(p)]
    return states[0] if len(states) == 1 else None


def _may_be_state(port: Port) -> bool:
    array = known_array(port)
    return array is None or array.ndim == _MATRIX


def _simple_cell_with(graph: Graph, node: Node) -> FoundStep | None:
    """``act(sum)`` with the product of a zero state among what is added."""
    if zero_state_of(node) is None:
        return None
    at = Port(node)
    for _ in range(_MOST_SUMMANDS):
        reading = readers(graph, at)
        if len(reading) != 1:
            return None
        at = Port(reading[0][0])
        if at.node.op in _ACTIVATIONS:
            return FoundStep(at)
        if at.node.op not in (*_ADD, "Squeeze"):
            return None
    return None


# -- what is in them -----------------------------------------------------------------------------


def _collect(step: FoundStep, fixed: set[Node]) -> bool:
    """Follow a cell back to its products; False if something in it is no cell's."""
    todo = [step.end]
    while todo:
        source = source_of(todo.pop())
        node = source.node
        if source == step.cell or node.op == "Const" or node in step.nodes:
            continue
        if not (node in fixed or node.op in _INSIDE) or node.controls:
            return False
        if len(step.nodes) >= _MOST_NODES:
            return False
        step.nodes[node] = None
        if node in fixed or node.op not in PRODUCTS:
            todo.extend(node.operands)
        elif _take_product(step, node, fixed):
            todo.append(node.operands[1 - factor_slot(node)])
        else:
            return False
    return bool(step.sources)


def _take_product(step: FoundStep, product: Node, fixed: set[Node]) -> bool:
    slot = factor_slot(product)
    joined, weight = (source_of(product.operands[at]).node for at in (slot, 1 - slot))
    if weight not in fixed or product.attributes.get("transpose_a"):
        return False
    step.weights[weight] = None
    if _joins_columns(joined):
        step.joins.add(joined)
        step.nodes[joined] = None
    step.sources.update(dict.fromkeys(_factors(product)))
    return True


def _factors(product: Node) -> Iterator[Port]:
    """What a product multiplies with its weights, column by column."""
    left = source_of(product.operands[factor_slot(product)])
    if _joins_columns(left.node):
        yield from map(source_of, left.node.operands[:-1])
    else:
        yield left


def factor_slot(product: Node) -> int:
    """Which operand of a product is multiplied with weights; an Einsum may have these first."""
    one, other = map(source_of, product.operands)
    swapped = one.node.op == "Const" and not is_zeros(one)
    may_be_factor = other.node.op != "Const" or is_state_of_zeros(other)
    return int(product.op == "Einsum" and swapped and may_be_factor)


def _joins_columns(node: Node) -> bool:
    return node.op == "ConcatV2" and known_int(node.operands[-1]) in (1, -1)


def _is_part(graph: Graph, step: FoundStep) -> bool:
    """True if there is more: products with the same weights or, of a simple cell, states.

    An LSTM's gates look like a simple cell each.
    """
    shared = [Port(weight) for weight in step.weights]
    if step.cell is None:
        shared += [port for port in step.sources if is_state_of_zeros(port)]
    products = (node for port in shared for node in _products_of(graph, port))
    return any(node not in step.nodes for node in products)


def _products_of(graph: Graph, port: Port) -> Iterator[Node]:
    """What multiplies a value, alone or beside others."""
    for node, _ in readers(graph, port):
        if node.op in PRODUCTS:
            yield node
        elif _joins_columns(node):
            yield from (n for n, _ in readers(graph, Port(node)) if n.op in PRODUCTS)
