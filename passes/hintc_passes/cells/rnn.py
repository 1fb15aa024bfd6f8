"""The simple recurrent cell as maths: ``h' = act(x W + h R + b)``.

As TFLite's kernel computes it (tensorflow/lite/kernels/internal/kernel_utils.cc, RnnBatchStep).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hintc_passes.cells.algebra import Matrix, Symbol, Unary
from hintc_passes.cells.difference import Difference, foreign, output_is_not_h, single_block
from hintc_passes.cells.gru import refuse_gru
from hintc_passes.cells.step_values import Result

ACTIVATIONS = {"Tanh": "TANH", "Relu": "RELU", "Relu6": "RELU6"}


@dataclass(frozen=True)
class RnnCell:
    """A recognised cell: `x_matrices` ``[inputs, units]``, `h_matrix` ``[units, units]``.

    `x_matrices` has one by the position of each sequence that is read; `activation` is the
    kernel's name for it.
    """

    x_matrices: dict[int, Matrix]
    h_matrix: Matrix
    bias: Matrix
    activation: str


def match_rnn(next_states: Sequence[Result], ys: Sequence[Result]) -> RnnCell:
    """Recognise a simple recurrent step.

    Raises:
        Difference: it is not the kernel's; says where it differs.
    """
    new_h = single_block(next_states[0])
    refuse_gru(new_h)
    value, activation = new_h, "NONE"
    if isinstance(new_h.atom, Unary):
        activation = ACTIVATIONS.get(new_h.atom.function, "")
        if not activation:
            raise Difference(
                "cell-activation",
                f"the activation is {new_h.atom.function}, which no kernel has",
                "Train with tanh, relu, relu6 or no activation.",
            )
        value = new_h.atom.operand
    x_matrices: dict[int, Matrix] = {}
    h_matrix: Matrix | None = None
    for atom, coefficient in value.terms:
        if not isinstance(atom, Symbol):
            reason = f"the step adds {atom}, the kernel only x W + h R + b"
            raise foreign("cell-term", reason, atom)
        matrix = atom.as_rows(coefficient.dense())
        if atom.kind == "x":
            known = x_matrices.get(atom.index)
            x_matrices[atom.index] = matrix if known is None else known + matrix
        elif atom.kind == "state":
            h_matrix = matrix if h_matrix is None else h_matrix + matrix
        else:
            raise foreign("cell-term", f"the step adds a product with {atom}", atom)
    if not x_matrices or h_matrix is None:
        missing = "does not read its own state" if x_matrices else "reads no sequence"
        raise Difference("not-recurrent", f"the step {missing}; the kernel is act(x W + h R + b)")
    for y in ys:
        if single_block(y).key != new_h.key:
            raise output_is_not_h()
    return RnnCell(x_matrices, h_matrix, value.bias, activation)
