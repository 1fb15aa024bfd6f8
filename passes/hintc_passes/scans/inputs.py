"""Products of a Scan's inputs with weights, computed for all steps at once before the loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from hintc.graft import graft
from hintc.graphdef.emit import Emitter
from hintc.ir import AttributeValue, Graph, Module, Node, Port, Scan, producers
from hintc.ir.opdefs import is_stateful
from hintc.ir.scan import dtype_of
from hintc_passes.scans.outputs import ELEMENTWISE, forget_shapes, is_elementwise, row_ranks
from hintc_passes.scans.step import Step, add_in_place_of, new_step

_MATRIX = 2
_OPS = frozenset((*ELEMENTWISE, "Identity", "MatMul"))


def hoist_inputs(module: Module, graph: Graph, node: Node) -> Node | None:
    """Move products of inputs with unchanging weights, and what is done to them, before the Scan.

    Returns:
        The Scan that takes the place of `node`; None if there is nothing to move.
    """
    hoisting = _Hoisting(module, graph, node)
    return hoisting.run() if hoisting.moved else None


class _Hoisting:
    def __init__(self, module: Module, graph: Graph, node: Node) -> None:
        self._module, self._graph, self._node = module, graph, node
        self._step, self._scan = Step.of(module, node), Scan.of(node)
        self._backwards = dict(zip(self._step.xs, self._scan.reverse_xs, strict=True))
        """For each value of the body that rows of the inputs decide: is it read from the end?"""
        self._unchanging: set[Node] = set()
        """Nodes that compute the same in every step, from invariants and constants."""
        self.moved: dict[Port, None] = {}
        """What the rest of the step reads of the nodes that move."""
        if any(n.op == "MatMul" for n in self._step.graph):
            self._find()

    def _find(self) -> None:
        step = self._step
        ranks = row_ranks(self._module, self._node, _OPS)
        products: set[Node] = set()
        for node in step.graph.topological():
            if self._computes_the_same(node):
                self._unchanging.add(node)
            movable = node.op in ("Identity", "MatMul") or is_elementwise(node)
            if movable and self._is_of_inputs(node, ranks):
                varying = [p for p in node.operands if p in self._backwards]
                self._backwards[Port(node)] = self._backwards[varying[0]]
                if node.op == "MatMul" or any(p.node in products for p in varying):
                    products.add(node)
        needed = producers([*step.nexts, *step.ys])
        for node in step.graph:
            if node in needed and node in products and self._is_read_by_rest(node):
                self.moved[Port(node)] = None

    def _is_read_by_rest(self, node: Node) -> bool:
        if Port(node) in (*self._step.nexts, *self._step.ys):
            return True
        return any(Port(use.node) not in self._backwards for use in self._step.graph.uses(node))

    def _computes_the_same(self, node: Node) -> bool:
        if not node.operands or node.controls or is_stateful(node):
            return False
        return all(self._is_fixed(p) for p in node.operands)

    def _is_fixed(self, port: Port) -> bool:
        return port.node in self._unchanging or self._step.is_fixed(port)

    def _is_of_inputs(self, node: Node, ranks: Mapping[Port, int | None]) -> bool:
        """True if the node computes the same rows from whole sequences."""
        varying = [p for p in node.operands if p in self._backwards]
        if not varying or len({self._backwards[p] for p in varying}) > 1:
            return False
        rank = ranks.get(Port(node))
        if rank is None or any(p not in varying and not self._is_fixed(p) for p in node.operands):
            return False
        if node.op == "MatMul":
            plain = not node.attributes.get("transpose_a")
            return plain and varying == [node.operands[0]] and rank == _MATRIX
        of_operands = [(p in varying, ranks.get(p)) for p in node.operands]
        return all(
            r is not None and (r == rank if varies else r <= rank) for varies, r in of_operands
        )

    def run(self) -> Node:
        graph, node = self._graph, self._node
        name = node.name
        graph.rename(node, graph.unique_name(f"{name}/inputs"))
        before = self._before(name)
        new = self._new_scan(name, before)
        for at in range(len(self._scan.states) + len(self._scan.reverse_ys)):
            graph.replace_uses(Port(node, at), Port(new, at))
        graph.replace_control_uses(node, [new])
        graph.remove(node)
        return new

    def _before(self, name: str) -> Mapping[Port, Port]:
        """The moved values, computed on whole sequences."""
        step, scan = self._step, self._scan
        values = dict(zip(step.xs, scan.xs, strict=True))
        values |= zip(step.invariants, scan.invariants, strict=True)
        needed = producers(self.moved)
        nodes = [n for n in step.graph if n in needed and n.op != "_Arg"]
        copies = graft(nodes, self._graph, values, prefix=name)
        forget_shapes(copies.values())
        whole = {
            copy: self._over_all_steps(copy) for old, copy in copies.items() if old.op == "MatMul"
        }
        moved = {port: copies[port.node] for port in self.moved}
        return {port: whole.get(copy, Port(copy)) for port, copy in moved.items()}

    def _over_all_steps(self, product: Node) -> Port:
        """``[T, B, I] * [I, N]``, which becomes one FULLY_CONNECTED.

        With a RESHAPE of the rows before and after it, XNNPACK gave wrong numbers in one of a
        hundred interpreters, at the second invoke after a resize (LiteRT 2.3, measured).
        """
        graph = self._graph
        emit = Emitter(graph, product.name, self._node.origin or (self._node.name,))
        kind: dict[str, AttributeValue] = {
            "T": dtype_of(Port(product)),
            "adj_y": bool(product.attributes.get("transpose_b")),
        }
        uses = graph.uses(Port(product))
        whole = emit.node("BatchMatMulV2", list(product.operands), kind, "sequence")
        for use in uses:
            graph.set_operand(use.node, use.slot, whole)
        graph.remove(product)
        return whole

    def _rest(self) -> Iterator[Node]:
        step = self._step
        cut = {port.node for port in self.moved}
        found: dict[Node, None] = {}
        pending = [p.node for p in (*step.nexts, *step.ys)]
        while pending:
            node = pending.pop()
            if node in found or node in cut:
                continue
            found[node] = None
            pending += [p.node for p in node.operands]
        return (n for n in step.graph if n in found)

    def _new_scan(self, name: str, before: Mapping[Port, Port]) -> Node:
        step, scan = self._step, self._scan
        rest = list(self._rest())
        inside = set(rest)
        xs = [k for k, p in enumerate(step.xs) if p.node in inside]
        kept = [p for p in step.invariants if p.node in inside]
        ports = [*(step.xs[k] for k in xs), *self.moved, *step.states, *kept]
        results = [(f"next_{k}", p) for k, p in enumerate(step.nexts)]
        results += [(f"y_{k}", p) for k, p in enumerate(step.ys)]
        body = new_step(
            f"{scan.body}_rest",
            [n for n in rest if not n.op.startswith("_")],
            step.t,
            [(p.node.name, p) for p in ports],
            results,
        )
        outer = dict(zip(step.invariants, scan.invariants, strict=True))
        backwards = [self._backwards[p] for p in self.moved]
        new = replace(
            scan,
            body=self._module.add_function(body).name,
            xs=(*(scan.xs[k] for k in xs), *before.values()),
            invariants=tuple(outer[p] for p in kept),
            reverse_xs=(*(scan.reverse_xs[k] for k in xs), *backwards),
        )
        return add_in_place_of(self._module, self._node, new, name)
