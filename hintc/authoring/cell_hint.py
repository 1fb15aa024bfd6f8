"""The hint of a recurrent cell: one call for each chain of steps.

A cell is called once for each step (or once in all, in a loop's body), and the steps of a chain,
each starting from the state that the one before left, are one call of the fused function. Steps
that start from anything else belong to another call: a cell object may serve two sequences, two
layers or two graphs, and merging them would claim a recurrence that is not there. A step in a
condition, where static_rnn puts each one that has lengths, is a call of its own: what one branch
computes, its weights among it, another cannot read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hintc.authoring.hint import OpHint, Tensor

# Operations through which a loop hands a state on unchanged, if only for some rows or under a
# condition (sequence lengths), or packed with another (state_is_tuple=False).
_HANDS_ON = {
    "Identity", "StopGradient", "Reshape", "Select", "SelectV2", "Switch", "Merge", "If",
    "StatelessIf", "ConcatV2", "Slice", "StridedSlice", "Split", "SplitV",
}  # fmt: skip


@dataclass(frozen=True)
class _Place:
    """A graph, and the condition or loop of control flow v1 in it, if any."""

    graph: Any
    context: Any

    @classmethod
    def current(cls) -> _Place:
        import tensorflow as tf

        graph = tf.compat.v1.get_default_graph()
        return cls(graph, graph._get_control_flow_context())


@dataclass(frozen=True)
class Chain:
    """One call of the fused function.

    Attributes:
        hint: of the call.
        weights: the hinted weights by name.
        place: where the weights can be read.
    """

    hint: OpHint
    weights: Mapping[str, Tensor]
    place: _Place


class CellHint:
    """Hints the weights, states and results of a cell.

    Args:
        function_name: name of the fused function.
        constants: constant arguments of each call, e.g. the activation's name.
    """

    def __init__(self, function_name: str, constants: Mapping[str, Any]) -> None:
        self._function_name = function_name
        self._constants = dict(constants)
        self._variables: dict[str, tuple[int, Any]] = {}
        self._chain_ending_at: dict[Any, Chain] = {}

    def add_weight(self, name: str, index: int, variable: Any) -> None:
        """Declare a variable as argument `index` of every call, labelled `name`."""
        self._variables[name] = (index, variable)

    def begin_step(self, states: Sequence[Tensor]) -> Chain:
        """The chain that a step with these states continues, or a new one."""
        chain, place = self._continued(states), _Place.current()
        if chain is None or chain.place != place:
            hint = OpHint(self._function_name, **self._constants)
            chain = Chain(
                hint,
                {
                    name: hint.add_input(variable, name=name, index_override=index)
                    for name, (index, variable) in self._variables.items()
                },
                place,
            )
        return chain

    def end_step(self, chain: Chain, results: Sequence[Tensor]) -> None:
        """Remember the results of a step, where the chain's next step will start."""
        ends = {end: other for end, other in self._chain_ending_at.items() if other is not chain}
        self._chain_ending_at = ends | {result.op: chain for result in results}

    def _continued(self, states: Sequence[Tensor]) -> Chain | None:
        """The chain whose last results are handed on to `states`, nearest first."""
        queue = deque(state.op for state in states if _symbolic(state))
        seen = set(queue)
        while queue:
            op = queue.popleft()
            if op in self._chain_ending_at:
                return self._chain_ending_at[op]
            if op.type in _HANDS_ON:
                new = [operand.op for operand in op.inputs if operand.op not in seen]
                seen.update(new)
                queue.extend(new)
        return None


def _symbolic(tensor: Tensor) -> bool:
    # An eager tensor has the attribute, but reading it raises AttributeError.
    return hasattr(tensor, "op")
