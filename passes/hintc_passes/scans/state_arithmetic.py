"""States of a recurrence that integer models keep in float32 from step to step.

A state that is rounded to int8 in every step drifts: of an LSTM's outputs the largest error was
measured at 0.1 of their span, with a cell state in float32 at 0.02, in the same time. A loop
carries float32 in any case; steps that are written out one after the other do so with this mark.
"""

from __future__ import annotations

from hintc.ir import DType, Graph, Module, Node, Port
from hintc.ir.scan import dtype_of
from hintc.precision import STAYS_FLOAT
from hintc_passes.analysis.values import source_of
from hintc_passes.scans.step import Step

_ARITHMETIC = frozenset(
    ("Add", "AddV2", "Sub", "Mul", "Neg", "Maximum", "Minimum", "Select", "SelectV2", "Identity")
)
_ACTIVATIONS = frozenset(("Tanh", "Sigmoid", "Relu", "Relu6", "Elu", "Softplus"))


def keep_states_in_float(module: Module, node: Node) -> None:
    """Mark the arithmetic that makes the next states of a Scan.

    It reaches back to products and activations; an activation of a state itself is part of it.
    """
    step = Step.of(module, node)
    states = {port for port in step.nexts if dtype_of(port) is DType.FLOAT}
    pending, seen = list(states), set(states)
    while pending:
        port = pending.pop()
        if not _is_arithmetic(step.graph, port.node, states):
            continue
        port.node.attributes[STAYS_FLOAT] = True
        operands = {source_of(operand) for operand in port.node.operands}
        pending += operands - seen
        seen |= operands


def _is_arithmetic(graph: Graph, node: Node, states: set[Port]) -> bool:
    if node.op in _ACTIVATIONS:
        return source_of(node.operands[0]) in states
    return node.op in _ARITHMETIC
