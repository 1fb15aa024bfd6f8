"""The simple recurrent cell as maths: ``h' = act(x W + h R + b)``.

As TFLite's kernel computes it (tensorflow/lite/kernels/internal/kernel_utils.cc, RnnBatchStep).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hintc_passes.cells.algebra import Matrix, Symbol, Unary
from hintc_passes.cells.difference import Difference, single_block
from hintc_passes.cells.step import Result

ACTIVATIONS = {"Tanh": "TANH", "Relu": "RELU", "Relu6": "RELU6"}


@dataclass(frozen=True)
class RnnCell:
    """A recognised cell: `x_matrix` ``[inputs, units]``, `h_matrix` ``[units, units]``.

    `x` is the position of the sequence that is the input, `activation` the kernel's name for it.
    """

    x: int
    x_matrix: Matrix
    h_matrix: Matrix
    bias: Matrix
    activation: str


def match_rnn(next_states: Sequence[Result], ys: Sequence[Result]) -> RnnCell:
    """Recognise a simple recurrent step.

    Raises:
        Difference: it is not the kernel's; says where it differs.
    """
    new_h = single_block(next_states[0])
    value, activation = new_h, "NONE"
    if isinstance(new_h.atom, Unary):
        activation = ACTIVATIONS.get(new_h.atom.function, "")
        if not activation:
            raise Difference(
                "cell-activation", f"the activation is {new_h.atom.function}, which no kernel has"
            )
        value = new_h.atom.operand
    matrices: dict[str, Matrix] = {}
    x = 0
    for atom, coefficient in value.terms:
        if not isinstance(atom, Symbol):
            raise Difference("cell-term", f"the step adds {atom}")
        if atom.kind == "invariant":
            raise Difference("cell-term", f"the step adds a product with {atom}")
        if atom.kind == "x" and "x" in matrices and atom.index != x:
            raise Difference(
                "not-one-input",
                "the step reads different inputs",
                "Concatenate the inputs before the recurrence.",
            )
        x = atom.index if atom.kind == "x" else x
        matrix = atom.as_rows(coefficient.dense())
        matrices[atom.kind] = matrices.get(atom.kind, 0) + matrix
    if set(matrices) != {"x", "state"}:
        raise Difference("not-recurrent", "the step is not act(x W + h R + b)")
    for y in ys:
        if single_block(y).key != new_h.key:
            raise Difference("output-is-not-h", "a step's output is not the new hidden state")
    return RnnCell(x, matrices["x"], matrices["state"], value.bias, activation)
