"""The maths of TensorFlow's block ops, whole cells in one op, in ops that everything else knows.

Formulas: the documentation of the ops LSTMBlockCell, BlockLSTM, BlockLSTMV2 and GRUBlockCell; the
order of gates was measured (BlockLSTMV2 has the order of cuDNN, the others that of LSTMCell).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hintc.graphdef.emit import Emitter
from hintc.ir import DType, Node, Port

LSTM_RESULTS = ("i", "cs", "f", "o", "ci", "co", "h")
"""Names of the results of the LSTM ops, in order."""
_ORDER = {"BlockLSTMV2": ("i", "f", "ci", "o")}
_DEFAULT_ORDER = ("i", "ci", "f", "o")


@dataclass(frozen=True)
class LstmOptions:
    """Attributes of a block LSTM: a clip of 0 or less, as no bias or peephole, is none."""

    order: tuple[str, ...]
    forget_bias: float
    cell_clip: float
    peephole: bool

    @classmethod
    def of(cls, node: Node) -> LstmOptions:
        """Read off a LSTMBlockCell, BlockLSTM or BlockLSTMV2."""
        second = node.op == "BlockLSTMV2"
        at = node.attributes
        bias, clip = at.get("forget_bias", 1.0), at.get("cell_clip", 0.0 if second else 3.0)
        return cls(
            _ORDER.get(node.op, _DEFAULT_ORDER),
            0.0 if second or not isinstance(bias, int | float) else float(bias),
            float(clip) if isinstance(clip, int | float) else 0.0,
            at.get("use_peephole") is True,
        )


def lstm_step(emit: Emitter, options: LstmOptions, values: Mapping[str, Port]) -> dict[str, Port]:
    """One step of a block LSTM.

    Args:
        emit: receives the ops.
        options: of the op.
        values: by the op's operand names: ``x [batch, inputs]``, ``cs_prev`` and ``h_prev``
            ``[batch, cells]``, ``w [inputs + cells, 4 cells]``, ``b [4 cells]``, and with
            peepholes ``wci``, ``wcf``, ``wco`` ``[cells]``.

    Returns:
        The results by their names in `LSTM_RESULTS`.
    """
    old = values["cs_prev"]
    gates = _gates(emit, (values["x"], values["h_prev"]), values["w"], values["b"], options.order)
    z = dict(zip(options.order, gates, strict=True))
    if options.forget_bias:
        bias = emit.constant(np.float32(options.forget_bias), "forget_bias")
        z["f"] = emit.add(z["f"], bias)
    if options.peephole:
        z["i"] = emit.add(z["i"], emit.binary("Mul", old, values["wci"]))
        z["f"] = emit.add(z["f"], emit.binary("Mul", old, values["wcf"]))
    found = {"i": _unary(emit, "Sigmoid", z["i"]), "ci": _unary(emit, "Tanh", z["ci"])}
    found["f"] = _unary(emit, "Sigmoid", z["f"])
    kept = emit.binary("Mul", found["f"], old)
    new = emit.add(emit.binary("Mul", found["ci"], found["i"]), kept, "cs")
    if options.cell_clip > 0:
        for op, bound in (("Minimum", options.cell_clip), ("Maximum", -options.cell_clip)):
            new = emit.binary(op, new, emit.constant(np.float32(bound), f"{op}/bound"))
    found["cs"], found["co"] = new, _unary(emit, "Tanh", new)
    if options.peephole:
        z["o"] = emit.add(z["o"], emit.binary("Mul", new, values["wco"]))
    found["o"] = _unary(emit, "Sigmoid", z["o"])
    found["h"] = emit.binary("Mul", found["o"], found["co"], "h")
    return found


def gru_step(emit: Emitter, values: Mapping[str, Port]) -> list[Port]:
    """A GRUBlockCell: results r, u, c and h from its operands by name."""
    x, old = values["x"], values["h_prev"]
    r, u = (
        _unary(emit, "Sigmoid", z)
        for z in _gates(emit, (x, old), values["w_ru"], values["b_ru"], ("r", "u"))
    )
    (z,) = _gates(emit, (x, emit.binary("Mul", old, r)), values["w_c"], values["b_c"], ("c",))
    c = _unary(emit, "Tanh", z)
    rest = emit.subtract(emit.constant(np.float32(1), "one"), u)
    h = emit.add(emit.binary("Mul", u, old), emit.binary("Mul", rest, c), "h")
    return [r, u, c, h]


def _gates(
    emit: Emitter, read: Sequence[Port], w: Port, b: Port, names: Sequence[str]
) -> list[Port]:
    """``concat(read) w + b`` in as many parts as there are names."""
    attributes = {"T": DType.FLOAT}
    product = emit.node("MatMul", [emit.concat(read, "xh", axis=1), w], {**attributes})
    z = emit.node("BiasAdd", [product, b], {**attributes})
    if len(names) == 1:
        return [z]
    axis = emit.constant(np.int32(1), "split/axis")
    split = emit.node("Split", [axis, z], {**attributes, "num_split": len(names)}, "split").node
    return [Port(split, at) for at in range(len(names))]


def _unary(emit: Emitter, op: str, value: Port) -> Port:
    return emit.node(op, [value], {"T": DType.FLOAT})
