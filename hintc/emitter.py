"""Emitter: adds the nodes that replace a match, fused calls with the matched body among them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hintc.errors import HintcError
from hintc.graft import graft
from hintc.ir import AttributeValue, DType, Function, FunctionRef, Module, Node, Port, Tensor
from hintc.ir.scan import dtype_of
from hintc.ops import FusedOp, Target, declare
from hintc.pattern import Match, constant_of
from hintc.remark import Refused


class Emitter:
    """Adds the nodes that replace a match: in its scope, on its device, with its provenance.

    Attributes:
        module: the module.
        graph: where the nodes go.
        added: the new nodes.
        fused: the fused calls among them, and their ops.
    """

    def __init__(self, module: Module, match: Match, target: Target = "tflite") -> None:
        self.module = module
        self.graph = match.graph
        self.added: list[Node] = []
        self.fused: list[tuple[Node, FusedOp]] = []
        self._match = match
        self._target: Target = target
        self._scope = match.root.name.rpartition("/")[0]
        self._device = match.root.device
        self._origin = tuple(
            dict.fromkeys(name for n in match.interior for name in n.origin or (n.name,))
        )

    def add(
        self,
        op: str,
        operands: Sequence[Port | Node] = (),
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        name: str | None = None,
    ) -> Node:
        """Append a node, named ``scope/name``; `name` defaults to the op."""
        base = f"{self._scope}/{name or op}" if self._scope else name or op
        node = self.graph.add(
            op, operands, attributes, name=base, device=self._device, origin=self._origin
        )
        self.added.append(node)
        return node

    def constant(self, value: Any, dtype: DType | None = None, *, name: str = "Const") -> Node:
        """Append a constant; `value` is anything NumPy takes."""
        tensor = Tensor.of(value, dtype)
        return self.add("Const", (), {"dtype": tensor.dtype, "value": tensor}, name=name)

    def call(
        self,
        op: FusedOp,
        operands: Mapping[str, Port | Node],
        attributes: Mapping[str, object] | None = None,
        results: Sequence[str] | None = None,
    ) -> Node:
        """Append a fused call of `op`; its body is what the pattern matched.

        Args:
            op: declared, or it is declared now.
            operands: slot -> value. All that the matched nodes read must be among them, but for
                constants, which go into the body.
            attributes: of the call; those with defaults may be left out.
            results: for each root of the pattern its name in the op; by default the op's results
                in order.

        Returns:
            The call, with one result for each root.

        Raises:
            Refused: a constraint of the op excludes this use; the match is then left alone.
            HintcError: the call does not fit the declaration, or the body reads something else.
        """
        declare(op)
        names = tuple(results) if results is not None else op.results[: len(self._match.roots)]
        marking = op.implements(tuple(operands), names, attributes)
        reasons = op.refusals(tuple(operands), attributes or {}, target=self._target)
        if reasons:
            raise Refused("op-constraint", f"the op '{op.name}' excludes it: {'; '.join(reasons)}")
        values = [value if isinstance(value, Port) else Port(value) for value in operands.values()]
        function = _matched_body(self.module, self._match, values, name=op.name)
        function.attributes["_implements"] = marking
        call = self.add(
            "PartitionedCall",
            values,
            {
                "Tin": tuple(dtype_of(value) for value in values),
                "Tout": tuple(dtype_of(root) for root in self._match.roots),
                "f": FunctionRef(function.name),
            },
            name=op.name,
        )
        self.fused.append((call, op))
        return call


def _matched_body(module: Module, match: Match, operands: Sequence[Port], *, name: str) -> Function:
    """A new library function that computes the roots of a match from `operands`."""
    function = module.add_function(Function(re.sub(r"\W", "_", f"{name}_body")))
    values: dict[Port, Port] = {}
    for at, port in enumerate(operands):
        values.setdefault(port, Port(function.add_arg(f"operand_{at}", dtype_of(port))))
    nodes = _with_constants(match, values)
    copies = graft(nodes, function.graph, values)
    for node in copies.values():
        node.device = ""
        node.attributes.pop("_output_shapes", None)
    for at, root in enumerate(match.roots):
        function.graph.add_result(f"result_{at}", Port(copies[root.node], root.index))
    return function


def _with_constants(match: Match, known: dict[Port, Port]) -> list[Node]:
    """The matched nodes, after the constants that they read beside the `known` values."""
    interior = dict.fromkeys(match.interior)
    constants: dict[Node, None] = {}
    todo = [port for node in interior for port in node.operands]
    while todo:
        port = todo.pop()
        if port.node in interior or port in known or port.node in constants:
            continue
        if constant_of(port) is None:
            raise HintcError(
                f"the fused call that replaces it does not take '{port}', which it reads",
                node=match.root.name,
                remedy="Make it an operand of the op.",
            )
        constants[port.node] = None
        todo += port.node.operands
    return [*reversed(constants), *reversed(interior)]
