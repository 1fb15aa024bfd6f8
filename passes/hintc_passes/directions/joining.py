"""Two calls of one direction each become one call of the bidirectional op."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from hintc.graphdef.emit import Emitter, known_array
from hintc.inlining import callee, inline_call
from hintc.ir import AttributeValue, DType, FunctionRef, Graph, Module, Node, Port
from hintc.ir.scan import dtype_of
from hintc.ops import FusedOp
from hintc.ops.directions import BACKWARD, FORWARD, MERGED
from hintc.outlining import outline
from hintc_passes.analysis.values import sweep
from hintc_passes.directions.layer import TIME, Layer
from hintc_passes.directions.view import View, views_of

_FEATURES = 2
"""The axis on which merged outputs stand side by side."""


class Joining:
    """Joins one pair.

    Args:
        module: has the functions.
        forward, backward: two layers of one graph; neither needs the other.
        op: the bidirectional op.
    """

    def __init__(self, module: Module, forward: Layer, backward: Layer, op: FusedOp) -> None:
        self._module, self._op = module, op
        self._forward, self._backward = forward, backward
        self._graph: Graph = forward.node.graph
        self._name = f"{forward.node.name}/both_ways"
        origins = (forward.node, backward.node)
        origin = tuple(dict.fromkeys(o for n in origins for o in n.origin or (n.name,)))
        self._emit = Emitter(self._graph, self._name, origin)
        self._interior: list[Node] = [forward.node, backward.node]

    def run(self) -> Node:
        """Replace the two calls by one; returns it."""
        results = self._results()
        x = self._input()
        operands = [("input", x)]
        for prefix, layer in ((FORWARD, self._forward), (BACKWARD, self._backward)):
            operands += [(prefix + slot, port) for slot, port in layer.operands()]
        call = outline(
            self._module,
            self._graph,
            self._interior,
            [port for _, port in operands],
            [port for _, port in results],
            name=re.sub(r"\W", "_", self._name),
        )
        slots: list[str | None] = [slot for slot, _ in operands]
        slots += [None] * (len(call.operands) - len(slots))
        attributes = {**self._forward.spec.attributes, MERGED: self._is_merged}
        self._mark(call, self._op.implements(slots, [name for name, _ in results], attributes))
        return call

    def _mark(self, call: Node, marking: FunctionRef) -> None:
        function = callee(self._module, call)
        assert function is not None
        function.attributes["_implements"] = marking
        for inner in [n for n in function.graph if n.op == "PartitionedCall"]:
            inline_call(self._module, function.graph, inner)

    def _input(self) -> Port:
        """The sequence that the call reads; the backward layer reads it reversed, inside."""
        forward, backward = self._forward, self._backward
        x = forward.node.operands[forward.sequence]
        view = View.of(x)
        if view == View(view.source):
            x = view.source  # perhaps reversed twice on the way
        for layer, value in ((forward, x), (backward, self._inside(x, "reversed_input"))):
            before = layer.node.operands[layer.sequence]
            self._graph.set_operand(layer.node, layer.sequence, value)
            sweep(self._graph, [before.node])
        return x

    # -- results -----------------------------------------------------------------------------

    def _results(self) -> list[tuple[str, Port]]:
        """What the new call gives: names and values."""
        forward, backward = (side.result("output") for side in (self._forward, self._backward))
        joints = [] if forward is None or backward is None else self._joints(forward, backward)
        self._is_merged = bool(joints)
        found: list[tuple[str, Port]] = []
        turned = None if backward is None else self._turn_output(backward)
        if joints:
            assert forward is not None and turned is not None
            found.append((f"{FORWARD}output", self._merge(forward, turned, joints)))
        else:
            if forward is not None:
                found.append((f"{FORWARD}output", forward))
            if turned is not None:
                found.append((f"{BACKWARD}output", turned))
        for prefix, layer in ((FORWARD, self._forward), (BACKWARD, self._backward)):
            for name in layer.spec.results:
                port = None if name == "output" else layer.result(name)
                if port is not None:
                    found.append((prefix + name, port))
        return found

    def _turn_output(self, output: Port) -> Port:
        """The backward output in the forward order; what read the other one goes on as before."""
        graph = self._graph
        rearranged = list(views_of(graph, output))
        turned = self._inside(output, "output_in_order")
        for node in rearranged:
            view = View.of(Port(node))
            if {view.axes[axis] for axis in view.reversed} == {TIME} and graph.is_used(node):
                graph.replace_uses(Port(node), self._transposed(turned, view))
        sweep(graph, reversed(rearranged))
        self._turn_steps(output, turned)
        left = [use for use in graph.uses(output) if use.node is not turned.node]
        if left:
            back = self._emit.node("ReverseV2", *self._reversal(turned), "output_reversed")
            for use in left:
                graph.set_operand(use.node, use.slot, back)
        return turned

    def _turn_steps(self, output: Port, turned: Port) -> None:
        """Who takes the backward output apart into its steps takes them from the other end."""
        graph = self._graph
        for use in graph.uses(output):
            unpack = use.node
            if unpack.op != "Unpack" or unpack.attributes.get("axis"):
                continue
            count = unpack.attributes["num"]
            assert isinstance(count, int)
            steps = self._emit.node("Unpack", [turned], dict(unpack.attributes), "steps").node
            for at in range(count):
                graph.replace_uses(Port(unpack, at), Port(steps, count - 1 - at))
            sweep(graph, [unpack])

    def _joints(self, forward: Port, backward: Port) -> list[Node]:
        """The concatenations of both outputs, if nothing else reads the two."""
        sides = []
        for output, slot in ((forward, 0), (backward, 1)):
            ends = list(self._ends(output))
            if any(at != slot for _, at in ends):
                return []
            sides.append([node for node, _ in ends])
        joints = list(dict.fromkeys(sides[0]))
        if set(joints) != set(sides[1]):
            return []
        return joints if all(self._joins(node, forward, backward) for node in joints) else []

    def _ends(self, output: Port) -> list[tuple[Node, int]]:
        """What reads an output, rearranged or not: (node, slot)."""
        rearranged = dict.fromkeys(views_of(self._graph, output))
        ends = []
        for port in (output, *map(Port, rearranged)):
            uses = self._graph.uses(port)
            ends += [(use.node, use.slot) for use in uses if use.node not in rearranged]
            if not uses:  # nobody reads it, so it may be an output of the model
                ends.append((port.node, -1))
        return ends

    def _joins(self, node: Node, forward: Port, backward: Port) -> bool:
        """True for ``concat(forward, backward in order)`` on the features' axis."""
        if node.op != "ConcatV2" or len(node.operands) != 3 or self._graph.control_uses(node):
            return False
        axis = known_array(node.operands[2])
        if axis is None or axis.size != 1:
            return False
        one, other = (View.of(port) for port in node.operands[:2])
        features = one.axes.index(_FEATURES)
        return (
            (one.source, other.source) == (forward, backward)
            and one.axes == other.axes
            and not one.reversed
            and {other.axes[at] for at in other.reversed} == {TIME}
            and int(axis.reshape(-1)[0]) % len(one.axes) == features
        )

    def _merge(self, forward: Port, turned: Port, joints: Sequence[Node]) -> Port:
        axis = self._emit.constant(np.int32(_FEATURES), "merged/axis")
        types: dict[str, AttributeValue] = {"T": dtype_of(forward), "Tidx": DType.INT32}
        merged = self._emit.node("ConcatV2", [forward, turned, axis], {"N": 2, **types}, "merged")
        self._interior += [axis.node, merged.node]
        for node in joints:
            view = View.of(node.operands[0])
            self._graph.replace_uses(Port(node), self._transposed(merged, view))
            sweep(self._graph, [node])
        return merged

    # -- nodes -------------------------------------------------------------------------------

    def _inside(self, value: Port, name: str) -> Port:
        """`value` reversed in time, inside of the new call."""
        operands, attributes = self._reversal(value)
        turned = self._emit.node("ReverseV2", operands, attributes, name)
        self._interior += [operands[1].node, turned.node]
        return turned

    def _reversal(self, value: Port) -> tuple[list[Port], dict[str, AttributeValue]]:
        axis = self._emit.constant(np.array([TIME], np.int32), "time_axis")
        return [value, axis], {"T": dtype_of(value), "Tidx": DType.INT32}

    def _transposed(self, value: Port, view: View) -> Port:
        """`value` with its axes in the order of `view`."""
        if view.axes == tuple(range(len(view.axes))):
            return value
        order = self._emit.constant(np.array(view.axes, np.int32), "order")
        attributes: dict[str, AttributeValue] = {"T": dtype_of(value), "Tperm": DType.INT32}
        return self._emit.node("Transpose", [value, order], attributes, "rearranged")
