"""The LSTM as maths: matches the normal form of a step, says what differs.

Notation of Sak et al., "Long Short-Term Memory Based Recurrent Neural Network Architectures"
(2014), as TFLite's kernel computes it (tensorflow/lite/kernels/lstm_eval.cc)::

    i = sigmoid(x Wi + h Ri + pi * c  + bi)        (CIFG: i = 1 - f)
    f = sigmoid(x Wf + h Rf + pf * c  + bf)
    g = act(    x Wc + h Rc           + bc)
    c' = clip(f * c + i * g, cell_clip)
    o = sigmoid(x Wo + h Ro + po * c' + bo)
    h' = clip((o * act(c')) P + bp, proj_clip)     (no projection: o * act(c'))

With layer normalisation each gate is ``norm(sum without bias) * scale + bias`` (`normalised.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hintc_passes.cells.algebra import Affine, Atom, Matrix, Opaque, Product, Symbol, Unary
from hintc_passes.cells.difference import (
    Difference,
    foreign,
    output_is_not_h,
    single_block,
    symmetric_clip,
)
from hintc_passes.cells.functions import activate, interval
from hintc_passes.cells.normalised import match_normalised
from hintc_passes.cells.step_values import Result

ACTIVATIONS = {"Tanh": "TANH", "Relu": "RELU", "Relu6": "RELU6"}


@dataclass
class Gate:
    """What goes into one gate: ``sum x @ x_matrices + h @ h_matrix + peephole * c + bias``.

    With `norm` the sum without the bias is normalised and multiplied by it.

    Shapes: `x_matrices`, by position of the sequence, ``[inputs, cells]``, `h_matrix`
    ``[outputs, cells]``, the others ``[cells]``; None where a term is absent.
    """

    bias: Matrix
    x_matrices: dict[int, Matrix] = field(default_factory=dict)
    h_matrix: Matrix | None = None
    peephole: Matrix | None = None
    norm: Matrix | None = None


@dataclass
class LstmCell:
    """A recognised LSTM cell.

    Attributes:
        h, c: positions of the two states.
        gates: ``"input"`` (absent for CIFG), ``"forget"``, ``"cell"``, ``"output"``.
        activation: ``"TANH"``, ``"RELU"`` or ``"RELU6"``.
        cell_clip, proj_clip: bounds, 0.0 for none.
        projection: ``[cells, outputs]``, None for none, with its bias ``[outputs]``.
    """

    h: int
    c: int
    gates: dict[str, Gate] = field(default_factory=dict)
    activation: str = "TANH"
    cell_clip: float = 0.0
    proj_clip: float = 0.0
    projection: Matrix | None = None
    projection_bias: Matrix | None = None


def match_lstm(next_states: Sequence[Result], ys: Sequence[Result]) -> LstmCell:
    """Recognise an LSTM step.

    Args:
        next_states: normal forms of the two next states, in the order of the states.
        ys: normal forms of the step's outputs; all of them must be the new h.

    Raises:
        Difference: it is not the kernel's LSTM; says where it differs.
    """
    values = [single_block(v) for v in next_states]
    c = _cell_state(values)
    cell = LstmCell(h=1 - c, c=c)
    new_c, new_h = values[c], values[1 - c]
    gates = _match_update(cell, new_c)
    gates["output"] = _match_output(cell, new_h, new_c)
    for name, value in gates.items():
        normalised = match_normalised(name, value)
        gates[name] = value if normalised is None else normalised.operand
        gate = _match_gate(name, gates[name], cell, new_c if name == "output" else None)
        if normalised is not None:
            gate.norm, gate.bias = normalised.scale, normalised.bias
        cell.gates[name] = gate
    if len({gate.norm is None for gate in cell.gates.values()}) > 1:
        raise Difference("layer-norm", "some gates are normalised, others are not")
    if not any(gate.x_matrices for gate in cell.gates.values()):
        raise Difference("no-input", "no gate reads an input sequence")
    for y in ys:
        if single_block(y).key != new_h.key:
            raise output_is_not_h()
    return cell


def _cell_state(values: Sequence[Affine]) -> int:
    """Position of c: the state that its own next value is a multiple of, gate by gate."""
    found = [
        index
        for index, value in enumerate(values)
        if any(times_state(atom, index) is not None for atom, _ in _unclipped(value).terms)
    ]
    for value in values:
        if not found and isinstance(value.atom, Opaque):
            reason = f"a next state is made by {value.atom}, which is no cell's maths"
            raise foreign("opaque-state", reason, value.atom)
    if len(found) != 1:
        raise Difference(
            "no-cell-state",
            f"{'no' if not found else 'more than one'} state is updated as gate * state + "
            "gate * new value",
        )
    return found[0]


def _unclipped(value: Affine) -> Affine:
    atom = value.atom
    if interval(atom) is not None and isinstance(atom, Unary) and atom.function == "Clip":
        return atom.operand
    return value


def is_state(value: Affine, state: int) -> bool:
    """True for columns of a state."""
    symbol = value.atom
    return isinstance(symbol, Symbol) and (symbol.kind, symbol.index) == ("state", state)


def times_state(atom: Atom, state: int) -> Affine | None:
    """The other factor, if `atom` is a product with a whole state."""
    if not isinstance(atom, Product):
        return None
    for this, other in (atom.operands, atom.operands[::-1]):
        if is_state(this, state):
            return other
    return None


def _match_update(cell: LstmCell, new_c: Affine) -> dict[str, Affine]:
    """``c' = clip(f * c + i * g)``: pre-activations of the forget, cell and input gates."""
    unclipped = _unclipped(new_c)
    if unclipped is not new_c:
        cell.cell_clip = symmetric_clip(new_c.atom, "cell state")
    if len(unclipped.terms) != 2 or unclipped.has_bias:
        raise Difference("cell-update", f"the new cell state is {unclipped}, not f * c + i * g")
    if not all(coefficient.is_one for _, coefficient in unclipped.terms):
        raise Difference("cell-update", "a term of the new cell state is scaled by a constant")
    forget, new = (
        a for a, _ in sorted(unclipped.terms, key=lambda term: times_state(term[0], cell.c) is None)
    )
    gate = times_state(forget, cell.c)
    if gate is None or not isinstance(new, Product):
        raise Difference("cell-update", f"the new cell state adds {new}, not a gate * new value")
    gates = {"forget": _sigmoid(gate, "forget gate")}
    gates.update(_match_new_value(cell, new, gate))
    return gates


def _match_new_value(cell: LstmCell, new: Product, forget: Affine) -> dict[str, Affine]:
    """``i * g``, in either order; CIFG has ``1 - f`` for i."""
    for gate, value in (new.operands, new.operands[::-1]):
        activated = value.atom
        if not isinstance(activated, Unary) or activated.function not in ACTIVATIONS:
            continue
        cell.activation = ACTIVATIONS[activated.function]
        if is_complement(gate, forget):
            return {"cell": activated.operand}
        return {"cell": activated.operand, "input": _sigmoid(gate, "input gate")}
    raise Difference(
        "cell-activation",
        f"the new value is {new.operands[0]} * {new.operands[1]}; the kernel takes a sigmoid gate "
        "times tanh, relu or relu6",
        "Train with activation='tanh', 'relu' or 'relu6'.",
    )


def is_complement(gate: Affine, forget: Affine) -> bool:
    """True for ``1 - forget``."""
    minus_one = forget.scaled(np.full(forget.width, -1, np.float32))
    one = Affine.constant(np.ones(forget.width, np.float32))
    return gate.key == (one + minus_one).key


def _sigmoid(gate: Affine, name: str) -> Affine:
    atom = gate.atom
    if not isinstance(atom, Unary) or atom.function != "Sigmoid":
        raise Difference(
            "gate-activation",
            f"the {name} is {gate}, not a sigmoid",
            "Train with sigmoid gates (recurrent_activation='sigmoid').",
        )
    return atom.operand


def _match_output(cell: LstmCell, new_h: Affine, new_c: Affine) -> Affine:
    """``h' = clip((o * act(c')) P + bp)``: pre-activation of the output gate."""
    value = new_h
    if isinstance(value.atom, Unary) and value.atom.function == "Clip":
        cell.proj_clip = symmetric_clip(value.atom, "projection")
        value = value.atom.operand
    if len(value.terms) != 1:
        raise Difference("hidden-update", f"the new hidden state is {value}, not o * act(c)")
    atom, coefficient = value.terms[0]
    if not coefficient.is_one or value.has_bias:
        cell.projection = coefficient.dense()
        cell.projection_bias = value.bias if value.has_bias else None
    elif cell.proj_clip:
        raise Difference(
            "clip-without-projection",
            "the hidden state is clipped, not projected",
            "Clip the cell state instead (cell_clip), or add a projection.",
        )
    if not isinstance(atom, Product):
        raise Difference("hidden-update", f"the new hidden state is {atom}, not o * act(c)")
    for name in sorted(ACTIVATIONS, key=lambda n: ACTIVATIONS[n] != cell.activation):
        activated = activate(name, new_c).key
        for gate, other in (atom.operands, atom.operands[::-1]):
            if other.key == activated:
                return _output_gate(cell, name, gate)
    raise Difference("hidden-update", "the new hidden state is not o * act(new cell state)")


def _output_gate(cell: LstmCell, activation: str, gate: Affine) -> Affine:
    if ACTIVATIONS[activation] != cell.activation:
        raise Difference(
            "two-activations",
            f"the new value goes through {cell.activation.lower()}, the cell state through "
            f"{activation.lower()}; the kernel has one activation",
            "Train with one activation for both.",
        )
    return _sigmoid(gate, "output gate")


def _match_gate(name: str, value: Affine, cell: LstmCell, new_c: Affine | None) -> Gate:
    gate = Gate(value.bias)
    if new_c is not None:
        value = _peel_new_state(gate, value, new_c)
    for atom, coefficient in value.terms:
        if not isinstance(atom, Symbol):
            raise foreign("gate-term", f"the {name} gate adds {atom}", atom)
        peephole = coefficient.is_diag and atom.is_whole and name in ("input", "forget")
        if atom.kind == "x":
            known = gate.x_matrices.get(atom.index)
            gate.x_matrices[atom.index] = _summed(known, atom.as_rows(coefficient.dense()))
        elif atom.kind == "state" and atom.index == cell.h:
            gate.h_matrix = _summed(gate.h_matrix, atom.as_rows(coefficient.dense()))
        elif atom.kind == "state" and peephole:
            gate.peephole = coefficient.array
        else:
            raise foreign("gate-term", f"the {name} gate adds a product with {atom}", atom)
    return gate


def _summed(matrix: Matrix | None, more: Matrix) -> Matrix:
    return more if matrix is None else matrix + more


def _peel_new_state(gate: Gate, value: Affine, new_c: Affine) -> Affine:
    """Take ``po * c'`` out of the output gate, also where c' is itself a sum."""
    lead, unit = new_c.terms[0]
    share = value.coefficient(lead)
    if share is None:
        return value
    if not (share.is_diag and unit.is_one):
        raise Difference("gate-term", "the output gate adds a matrix product with the cell state")
    peephole = share.array
    rest = value + new_c.scaled(-peephole)
    if rest.coefficient(lead) is not None or any(rest.coefficient(a) for a, _ in new_c.terms):
        raise Difference("gate-term", "the output gate adds a part of the new cell state")
    gate.peephole = peephole
    return rest
