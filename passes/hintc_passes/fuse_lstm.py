"""fuse-lstm: a Scan whose step is an LSTM becomes UNIDIRECTIONAL_SEQUENCE_LSTM.

Recognises the cell by its maths (`cells/lstm.py`), however it is spelled and packed: gates in any
order, one matrix product or many, biases, forget bias, peepholes, projection, clips, coupled gates,
layer normalisation of the gates, tanh, relu or relu6. Makes: an annotation (`Scan.fusion`) with the
weights in the kernel's layout; `choose-form` decides whether it is used. Refuses, with the
difference: anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hintc.graphdef.shapes import shapes_remembered
from hintc.ir import Module
from hintc.ops.sequence_lstm import UNIDIRECTIONAL_SEQUENCE_LSTM, reference
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass
from hintc_passes.cells.algebra import Matrix
from hintc_passes.cells.fuse import fuse_scans
from hintc_passes.cells.lstm import LstmCell, match_lstm
from hintc_passes.cells.recognised import Groups, Kernel, Recognised, input_groups, input_matrix
from hintc_passes.cells.step_values import Result


@register
@dataclass(frozen=True)
class FuseLstm(Pass):
    """Recognise LSTM layers by their maths."""

    name: ClassVar[str] = "fuse-lstm"

    @shapes_remembered()
    def run(self, module: Module) -> PassReport:
        """Annotate every Scan that is an LSTM."""
        return fuse_scans(
            module, Kernel(UNIDIRECTIONAL_SEQUENCE_LSTM, reference, states=2, match=_recognise)
        )


def _recognise(next_states: Sequence[Result], ys: Sequence[Result]) -> Recognised:
    cell = match_lstm(next_states, ys)
    inputs = input_groups([gate.x_matrices for gate in cell.gates.values()])
    final = ["final_output_state", "final_cell_state"]
    return Recognised(
        x=inputs,
        weights=_weights(cell, inputs),
        states={"output_state": cell.h, "cell_state": cell.c},
        final=final if cell.h == 0 else final[::-1],
        attributes={
            "activation": cell.activation,
            "cell_clip": cell.cell_clip,
            "proj_clip": cell.proj_clip,
            "time_major": True,
        },
        description=_describe(cell),
    )


def _weights(cell: LstmCell, inputs: Groups) -> dict[str, Matrix]:
    """Constants in the kernel's layout: matrices ``[out, in]``, absent terms zero or left out."""
    gates = cell.gates
    cells = gates["forget"].bias.size
    every = {index: m for gate in gates.values() for index, m in gate.x_matrices.items()}
    outputs = cells if cell.projection is None else cell.projection.shape[1]
    weights: dict[str, Matrix] = {}
    for name, gate in gates.items():
        weights[f"input_to_{name}_weights"] = input_matrix(inputs, gate.x_matrices, every).T
        weights[f"recurrent_to_{name}_weights"] = _transposed(gate.h_matrix, outputs, cells)
        weights[f"{name}_gate_bias"] = gate.bias
        if gate.norm is not None:
            weights[f"{name}_layer_norm_coefficients"] = gate.norm
    if any(gate.peephole is not None for gate in gates.values()):
        for name in gates.keys() - {"cell"}:
            peephole = gates[name].peephole
            weights[f"cell_to_{name}_weights"] = (
                np.zeros(cells, np.float32) if peephole is None else peephole
            )
    if cell.projection is not None:
        weights["projection_weights"] = cell.projection.T
        if cell.projection_bias is not None:
            weights["projection_bias"] = cell.projection_bias
    order = UNIDIRECTIONAL_SEQUENCE_LSTM.slot_names
    return {slot: weights[slot] for slot in order if slot in weights}


def _transposed(matrix: Matrix | None, rows: int, columns: int) -> Matrix:
    return np.zeros((columns, rows), np.float32) if matrix is None else matrix.T


def _describe(cell: LstmCell) -> str:
    cells = cell.gates["forget"].bias.size
    extras = [
        "peephole" if any(g.peephole is not None for g in cell.gates.values()) else "",
        "" if cell.projection is None else f"projection to {cell.projection.shape[1]}",
        f"cell clip {cell.cell_clip:g}" if cell.cell_clip else "",
        f"projection clip {cell.proj_clip:g}" if cell.proj_clip else "",
        "" if "input" in cell.gates else "coupled gates",
        "" if cell.gates["forget"].norm is None else "layer normalisation",
        "" if cell.activation == "TANH" else cell.activation.lower(),
    ]
    return ", ".join([f"LSTM of {cells} cells", *(e for e in extras if e)])
