"""Which recurrences start anew at every invoke, where their states shall persist.

Only kernels keep a state from one invoke to the next. Others are no stream if they start with what
the model is given or computes from that.
"""

from __future__ import annotations

from hintc.graphdef.shapes import infer_shapes
from hintc.ir import DType, Module, Node, Scan
from hintc.ir.opdefs import WHILE_OPS
from hintc.ir.scan import dtype_of
from hintc_passes.analysis.values import is_given, is_zeros, source_of

_MATRIX = 2
"""Rank of a state ``[batch, n]``."""


def starts_anew(scan: Scan) -> bool:
    """True for a recurrence over a sequence whose first state does not depend on what is fed."""
    return bool(scan.xs) and not all(map(is_given, scan.states))


def loops_that_start_anew(module: Module) -> list[Node]:
    """Loops of the main graph that are no Scans, and start with a state ``[batch, n]`` of zeros."""
    graph, found = module.graph, []
    for node in graph.of_ops(WHILE_OPS):
        zeros = [p for p in node.operands if dtype_of(p) is DType.FLOAT and is_zeros(p)]
        if any(shape.rank == _MATRIX for shape in infer_shapes(module, graph, zeros).values()):
            found.append(node)
    return found


def reads_backwards(scan: Scan) -> bool:
    """True if a sequence is reversed before the recurrence reads it."""
    return any(source_of(x).node.op == "ReverseV2" for x in scan.xs)
