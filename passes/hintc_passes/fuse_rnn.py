"""fuse-rnn: a Scan whose step is ``act(x W + h R + b)`` becomes UNIDIRECTIONAL_SEQUENCE_RNN.

Recognises the cell by its maths (`cells/rnn.py`). Makes: an annotation (`Scan.fusion`) with the
weights in the kernel's layout; `choose-form` decides whether it is used. Refuses, with the
difference: other activations than tanh, relu, relu6 and none, other terms, other states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hintc.graphdef.shapes import shapes_remembered
from hintc.ir import Module
from hintc.ops.sequence_rnn import UNIDIRECTIONAL_SEQUENCE_RNN, reference
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass
from hintc_passes.cells.fuse import fuse_scans
from hintc_passes.cells.recognised import Kernel, Recognised, input_groups, input_matrix
from hintc_passes.cells.rnn import match_rnn
from hintc_passes.cells.step_values import Result


@register
@dataclass(frozen=True)
class FuseRnn(Pass):
    """Recognise simple recurrent layers by their maths."""

    name: ClassVar[str] = "fuse-rnn"

    @shapes_remembered()
    def run(self, module: Module) -> PassReport:
        """Annotate every Scan that is a simple recurrent layer."""
        return fuse_scans(
            module, Kernel(UNIDIRECTIONAL_SEQUENCE_RNN, reference, states=1, match=_recognise)
        )


def _recognise(next_states: Sequence[Result], ys: Sequence[Result]) -> Recognised:
    cell = match_rnn(next_states, ys)
    inputs = input_groups([cell.x_matrices])
    return Recognised(
        x=inputs,
        weights={
            "input_weights": input_matrix(inputs, cell.x_matrices, cell.x_matrices).T,
            "recurrent_weights": cell.h_matrix.T,
            "bias": cell.bias,
        },
        states={"hidden_state": 0},
        final=["final_hidden_state"],
        attributes={"activation": cell.activation, "time_major": True},
        description=f"simple RNN of {cell.bias.size} units, {cell.activation.lower()}",
    )
