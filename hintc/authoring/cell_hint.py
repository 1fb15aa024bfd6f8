"""The hint of a recurrent cell: one call for each chain of steps.

A cell is called once for each step (or once in all, in a loop's body), and all steps of a chain
are one call of the fused function. A cell object that is used again, on another sequence or in
another graph, starts another call; otherwise the two sequences would become one.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from hintc.authoring.hint import OpHint, Tensor


class CellHint:
    """Hints the weights, states and results of a cell.

    Args:
        function_name: name of the fused function.
        constants: constant arguments of the call, e.g. the activation's name.
    """

    def __init__(self, function_name: str, constants: Mapping[str, object]) -> None:
        self._function_name = function_name
        self._constants = dict(constants)
        self._variables: dict[str, tuple[int, Any]] = {}
        self._call: OpHint | None = None
        self._graph: weakref.ref[Any] | None = None
        self._weights: dict[str, Tensor] = {}
        self._last: set[Any] = set()

    def add_weight(self, name: str, index: int, variable: Any) -> None:
        """Declare a variable as argument `index` of every call, labelled `name`."""
        self._variables[name] = (index, variable)

    def begin_step(self, states: Sequence[Tensor]) -> tuple[OpHint, dict[str, Tensor]]:
        """The call that a step with these states belongs to, and its hinted weights by name."""
        import tensorflow as tf

        graph = tf.compat.v1.get_default_graph()
        same_graph = self._graph is not None and self._graph() is graph
        if self._call is None or not same_graph or not _reaches(states, self._last):
            self._graph = weakref.ref(graph)
            self._call = OpHint(self._function_name, **self._constants)  # type: ignore[arg-type]
            self._weights = {
                name: self._call.add_input(variable, name=name, index_override=index)
                for name, (index, variable) in self._variables.items()
            }
        return self._call, self._weights

    def end_step(self, results: Sequence[Tensor]) -> None:
        """Remember the results of a step: the next step's states come from them."""
        self._last = {result.op for result in results}


def _reaches(tensors: Sequence[Tensor], targets: set[Any]) -> bool:
    """Whether one of the `targets` (operations) is among the ancestors of `tensors`."""
    queue = deque(tensor.op for tensor in tensors if hasattr(tensor, "op"))
    seen = set(queue)
    while queue:
        op = queue.popleft()
        if op in targets:
            return True
        for operand in op.inputs:
            if operand.op not in seen:
                seen.add(operand.op)
                queue.append(operand.op)
    return False
