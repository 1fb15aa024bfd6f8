"""Elementwise work on a Scan's outputs, done once on whole sequences instead of step by step."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace

from hintc.graft import graft
from hintc.graphdef.shapes import argument_shapes, infer_shapes
from hintc.ir import Graph, Module, Node, Port, Scan, producers
from hintc_passes.analysis.values import source_of
from hintc_passes.scans.step import (
    Step,
    add_in_place_of,
    dependencies,
    new_step,
)

ELEMENTWISE = frozenset(
    (
        *("Tanh", "Sigmoid", "Relu", "Relu6", "Elu", "Softplus", "Neg", "Exp", "Square", "Abs"),
        *("AddV2", "Add", "Sub", "Mul", "RealDiv", "Maximum", "Minimum", "BiasAdd"),
    )
)
"""Ops that treat ``[T, …]`` like T times ``[…]`` if what varies over time has one rank."""


_OPS = (*ELEMENTWISE, "Identity")


def is_elementwise(node: Node) -> bool:
    """True for ops in `ELEMENTWISE`, but for a bias along any other than the last axis."""
    channels_last = node.attributes.get("data_format", b"NHWC") == b"NHWC"
    return node.op in ELEMENTWISE and (node.op != "BiasAdd" or channels_last)


def row_ranks(module: Module, node: Node, ops: Container[str]) -> Mapping[Port, int | None]:
    """Ranks of what nodes with these ops read and give in one step of a Scan."""
    body = Scan.of(node).body_function(module).graph
    ports = {p for n in body if n.op in ops for p in (Port(n), *n.operands)}
    shapes = infer_shapes(module, body, ports, argument_shapes(module, node.graph, node))
    return {port: shape.rank for port, shape in shapes.items()}


def forget_shapes(nodes: Iterable[Node]) -> None:
    """Drop the shapes that TensorFlow has noted on nodes of a step: they compute all steps now."""
    for node in nodes:
        node.attributes.pop("_output_shapes", None)


def hoist_outputs(module: Module, graph: Graph, node: Node) -> Node | None:
    """Move elementwise ops that only outputs need (a residual, a scale) behind the Scan.

    Returns:
        The Scan that takes the place of `node`; None if there is nothing to move.
    """
    hoisting = _Hoisting(module, graph, node)
    return hoisting.run() if hoisting.plans else None


class _Hoisting:
    def __init__(self, module: Module, graph: Graph, node: Node) -> None:
        self._module, self._graph, self._node = module, graph, node
        self._step, self._scan = Step.of(module, node), Scan.of(node)
        states = dependencies(self._step.graph, [p.node for p in self._step.states])
        self._core = {n for n in producers(self._step.nexts) if states[n]}
        self._sequences = dict(zip(self._step.xs, self._scan.reverse_xs, strict=True))
        candidates = {
            k: nodes for k, port in enumerate(self._step.ys) if (nodes := self._movable(port))
        }
        self._ranks = row_ranks(module, node, _OPS) if candidates else {}
        self.plans = {
            k: nodes
            for k, nodes in candidates.items()
            if all(self._keeps_meaning(n, self._scan.reverse_ys[k]) for n in nodes)
        }
        """For each output to change, the nodes that move."""

    def _movable(self, port: Port) -> list[Node]:
        """The elementwise nodes at the end of what computes an output."""
        found: dict[Node, None] = {}
        pending = [port]
        while pending:
            node = pending.pop().node
            if node in found or node in self._core:
                continue
            if node.op != "Identity" and not is_elementwise(node):
                continue
            found[node] = None
            pending.extend(node.operands)
        return [n for n in self._step.graph if n in found]

    def _keeps_meaning(self, node: Node, backwards: bool) -> bool:
        """True if the node computes the same rows from whole sequences."""
        rank = self._ranks.get(Port(node))
        if rank is None:
            return False
        for operand in node.operands:
            if source_of(operand) == self._step.t:
                return False
            if self._sequences.get(source_of(operand), backwards) != backwards:
                return False
            of_operand = self._ranks.get(operand)
            fits = of_operand is not None and (
                of_operand <= rank if self._step.is_fixed(operand) else of_operand == rank
            )
            if not fits:
                return False
        return True

    def run(self) -> Node:
        step, scan, graph, node = self._step, self._scan, self._graph, self._node
        leaves = {k: self._leaves(nodes) for k, nodes in self.plans.items()}
        wanted: dict[tuple[Port, bool], None] = {}
        for k, port in enumerate(step.ys):
            for leaf in leaves.get(k, [port]):
                wanted[leaf, scan.reverse_ys[k]] = None
        name = node.name
        graph.rename(node, graph.unique_name(f"{name}/outputs"))
        new = self._new_scan(name, list(wanted))
        states = len(scan.states)
        at = {key: Port(new, states + number) for number, key in enumerate(wanted)}
        for number in range(states):
            graph.replace_uses(Port(node, number), Port(new, number))
        for k, port in enumerate(step.ys):
            backwards = scan.reverse_ys[k]
            if k in self.plans:
                rows = {leaf: at[leaf, backwards] for leaf in leaves[k]}
                value = self._outside(port, self.plans[k], rows, name)
            else:
                value = at[port, backwards]
            graph.replace_uses(Port(node, states + k), value)
        graph.replace_control_uses(node, [new])
        graph.remove(node)
        return new

    def _leaves(self, nodes: Sequence[Node]) -> list[Port]:
        """What the moved nodes read of each step, sequences of the Scan left out."""
        inside = set(nodes)
        found: dict[Port, None] = {}
        for node in nodes:
            for operand in node.operands:
                fixed = self._step.is_fixed(operand) or source_of(operand) in self._sequences
                if operand.node not in inside and not fixed:
                    found[operand] = None
        return list(found)

    def _outside(
        self, port: Port, nodes: Sequence[Node], rows: Mapping[Port, Port], name: str
    ) -> Port:
        step, scan = self._step, self._scan
        values = dict(rows)
        values |= zip(step.xs, scan.xs, strict=True)
        values |= zip(step.invariants, scan.invariants, strict=True)
        needed: dict[Node, None] = dict.fromkeys(nodes)
        pending = [p for n in nodes for p in n.operands]
        while pending:  # constants of the body, and Identities before them
            operand = pending.pop()
            if operand not in values and operand.node not in needed:
                needed[operand.node] = None
                pending.extend(operand.node.operands)
        ordered = [n for n in step.graph if n in needed]
        copies = graft(ordered, self._graph, values, prefix=name)
        forget_shapes(copies.values())
        return Port(copies[port.node], port.index)

    def _new_scan(self, name: str, wanted: Sequence[tuple[Port, bool]]) -> Node:
        step, scan = self._step, self._scan
        results = [(f"next_{k}", p) for k, p in enumerate(step.nexts)]
        results += [(f"y_{k}", p) for k, (p, _) in enumerate(wanted)]
        needed = producers(p for _, p in results)
        kept = [p for p in step.invariants if p.node in needed]
        xs = [k for k, p in enumerate(step.xs) if p.node in needed]
        ports = [*(step.xs[k] for k in xs), *step.states, *kept]
        body = new_step(
            f"{scan.body}_core",
            [n for n in step.graph if n in needed and not n.op.startswith("_")],
            step.t,
            [(p.node.name, p) for p in ports],
            results,
        )
        outer = dict(zip(step.invariants, scan.invariants, strict=True))
        new = replace(
            scan,
            body=self._module.add_function(body).name,
            xs=tuple(scan.xs[k] for k in xs),
            invariants=tuple(outer[p] for p in kept),
            reverse_xs=tuple(scan.reverse_xs[k] for k in xs),
            reverse_ys=tuple(backwards for _, backwards in wanted),
        )
        return add_in_place_of(self._module, self._node, new, name)
