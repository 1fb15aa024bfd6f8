"""The ranges of what loops and conditions compute inside: their bodies run by themselves.

A loop is followed step by step: its condition and its body are models of their own, whose tensors
are all outputs, and what one step gives is fed to the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hintc.runtime.interpreter import Interpreter
from hintc.runtime.kernels import AnyKernel
from hintc.tflite.flatbuffer import Array, Model, Operator, Subgraph
from hintc.tflite.integers.ranges import Ranges, joint, range_of

Values = Mapping[int, Array]
"""Tensor of a subgraph -> its value in one run."""


def control_operands(subgraph: Subgraph) -> set[int]:
    """The computed or fed tensors that the loops and conditions of a subgraph start from."""
    read = {t for op in subgraph.operators if _callees(subgraph, op) for t in op.inputs}
    return {tensor for tensor in read if subgraph.constant(tensor) is None}


class BodyRanges:
    """Follows the loops and conditions of a model.

    Args:
        model: is not changed.
        kernels: for its custom operators.

    Attributes:
        found: the ranges of the float tensors of all subgraphs but the main one.
    """

    def __init__(self, model: Model, kernels: Mapping[str, AnyKernel] | None = None) -> None:
        self.found: Ranges = {}
        self._model, self._kernels = model, kernels
        self._bodies: dict[int, _Body] = {}

    def add(self, values: Values) -> None:
        """One run of the main subgraph.

        Args:
            values: has at least its `control_operands`.

        Raises:
            HintcError: a body does not run.
        """
        self._follow(self._model.subgraphs[0], values)

    def _follow(self, subgraph: Subgraph, values: Values) -> None:
        for op in subgraph.operators:
            callees = _callees(subgraph, op)
            if callees:
                given = [_value(subgraph, tensor, values) for tensor in op.inputs]
                if self._model.op_name(op) == "IF":
                    self._run(callees[0 if given[0].all() else 1], given[1:])
                else:
                    self._loop(callees, given)

    def _loop(self, callees: Sequence[int], given: Sequence[Array]) -> None:
        condition, body = callees
        while self._run(condition, given)[0].all():
            given = self._run(body, given)

    def _run(self, number: int, given: Sequence[Array]) -> list[Array]:
        """The results of a subgraph."""
        if number not in self._bodies:
            self._bodies[number] = _Body(self._model, number, given, self._kernels)
        body = self._bodies[number]
        values = body.run(given)
        for tensor, value in values.items():
            found = range_of(value) if value.dtype == np.float32 else None
            if found is not None:
                self.found[number, tensor] = joint(found, self.found.get((number, tensor)))
        self._follow(body.subgraph, values)
        return [_value(body.subgraph, t, values) for t in body.subgraph.graph.outputs]


class _Body:
    """A subgraph as a model of its own, of any sizes.

    Args:
        model: has it.
        number: which it is.
        given: values of its inputs.
        kernels: for custom operators.
    """

    def __init__(
        self,
        model: Model,
        number: int,
        given: Sequence[Array],
        kernels: Mapping[str, AnyKernel] | None,
    ) -> None:
        self.subgraph = model.subgraphs[number]
        copied = Model.read(model.write())
        copied.root.signatureDefs = None
        copied.root.subgraphs[0] = copied.root.subgraphs[number]
        graph = copied.root.subgraphs[0]
        for tensor, value in zip(graph.inputs, given, strict=True):
            graph.tensors[tensor].shape = list(value.shape)
            graph.tensors[tensor].shapeSignature = [-1] * value.ndim
        self._computed = sorted({t for op in graph.operators for t in op.outputs})
        graph.outputs = self._computed or graph.outputs
        self._interpreter = (
            Interpreter(copied.write(), delegates=False, kernels=kernels)
            if self._computed
            else None
        )

    def run(self, given: Sequence[Array]) -> dict[int, Array]:
        """The values of its inputs and of what it computes."""
        values = dict(zip(self.subgraph.graph.inputs, given, strict=True))
        if self._interpreter is not None:
            found = self._interpreter.run(list(given)).values()
            values |= zip(self._computed, found, strict=True)
        return values


def _value(subgraph: Subgraph, tensor: int, values: Values) -> Array:
    constant = subgraph.constant(tensor) if tensor not in values else None
    return values[tensor] if constant is None else constant


def _callees(subgraph: Subgraph, op: Operator) -> list[int]:
    """The numbers of the subgraphs that an operator runs."""
    options: Any = op.builtinOptions
    name = subgraph.model.op_name(op)
    if name == "WHILE":
        return [options.condSubgraphIndex, options.bodySubgraphIndex]
    return [options.thenSubgraphIndex, options.elseSubgraphIndex] if name == "IF" else []
