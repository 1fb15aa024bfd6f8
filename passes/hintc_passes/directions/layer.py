"""A fused call of one direction, as it stands in a graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hintc.graphdef.shapes import infer_shapes
from hintc.inlining import CALL_OPS, callee
from hintc.ir import FunctionRef, Graph, Module, Node, Port
from hintc.ops import PREFIX, AttributeValue, FusedOp, Spec
from hintc_passes.directions.view import View

TIME = 0
"""The axis of time in what hintc's own calls read."""


@dataclass(frozen=True)
class Layer:
    """A call of a unidirectional op whose sequence is time-major.

    Attributes:
        node: the call.
        spec: its spec.
        view: its sequence, seen from the value that both directions read; as found, before
            anything was joined.
        shapes: slot -> static shape, of weights and biases.
    """

    node: Node
    spec: Spec
    view: View
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def sequence(self) -> int:
        """Its operand that is the sequence."""
        return self.spec.slots.index("input")

    @property
    def is_backward(self) -> bool:
        """True if it reads its source from the end."""
        return TIME in self.view.reversed

    @property
    def place(self) -> tuple[object, ...]:
        """What the two directions of a pair have in common."""
        return self._place(self.view)

    @property
    def place_by_lengths(self) -> tuple[object, ...] | None:
        """`place`, seen from behind a reversal of each row up to its length; None without one."""
        node = self.view.source.node
        if node.op != "ReverseSequence":
            return None
        return self._place(self.view.through(View.of(node.operands[0])))

    def _place(self, view: View) -> tuple[object, ...]:
        return (self.spec.op, view.source, view.axes, view.reversed - {TIME})

    @property
    def kind(self) -> tuple[object, ...]:
        """What else a kernel wants of both directions: attributes, operands and their sizes."""
        return (tuple(self.spec.attributes.items()), tuple(sorted(self.shapes.items())))

    def operands(self) -> Iterator[tuple[str, Port]]:
        """(slot, value) of all that the kernel reads, but for the sequence."""
        for slot, port in zip(self.spec.slots, self.node.operands, strict=True):
            if slot is not None and slot != "input":
                yield slot, port

    def result(self, name: str) -> Port | None:
        """The result called `name`, if the call gives it and something reads it."""
        if name not in self.spec.results:
            return None
        port = Port(self.node, self.spec.results.index(name))
        return port if self.node.graph.uses(port) else None


def find_layers(module: Module, graph: Graph, ops: Mapping[str, FusedOp]) -> list[Layer]:
    """The calls of `ops` in a graph that something reads; weights of unknown sizes are left out."""
    found = []
    for node in graph.topological():
        spec = _spec(module, node, ops)
        if spec is None or not spec.attributes.get("time_major") or not graph.is_used(node):
            continue
        shapes = _shapes(module, graph, node, spec, ops[spec.op])
        if shapes is not None:
            sequence = node.operands[spec.slots.index("input")]
            found.append(Layer(node, spec, View.of(sequence), shapes))
    return found


def _spec(module: Module, node: Node, ops: Mapping[str, FusedOp]) -> Spec | None:
    function = callee(module, node) if node.op in CALL_OPS else None
    mark = None if function is None else function.attributes.get("_implements")
    if not isinstance(mark, FunctionRef) or mark.name.removeprefix(PREFIX) not in ops:
        return None
    text: AttributeValue | object = dict(mark.attributes).get("spec")
    op = ops[mark.name.removeprefix(PREFIX)]
    return op.parse_spec(text.decode()) if isinstance(text, bytes) else None


def _shapes(
    module: Module, graph: Graph, node: Node, spec: Spec, op: FusedOp
) -> dict[str, tuple[int, ...]] | None:
    """Sizes of weights and biases; None if one is not static."""
    ports = {
        slot: port
        for slot, port in zip(spec.slots, node.operands, strict=True)
        if slot is not None and op.slot(slot).kind in ("weight", "bias")
    }
    known = infer_shapes(module, graph, ports.values())
    found = {}
    for slot, port in ports.items():
        dims = known[port].dims
        if dims is None or min(dims, default=0) < 0:
            return None
        found[slot] = tuple(dims)
    return found
