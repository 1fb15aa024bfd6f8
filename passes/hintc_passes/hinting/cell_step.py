"""The step of a recurrent cell written out from a stub's operands, as a Scan.

Formulas: `hintc.ops.sequence_lstm` and `hintc.ops.sequence_rnn`. Argument numbers are those of the
hints `UnidirectionalSequenceLstm` and `UnidirectionalSequenceRnn`; weights are [out, in].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hintc.errors import HintError
from hintc.ir import AttributeValue, DType, Function, Graph, Module, Node, Port, Scan, Tensor
from hintc.ir.scan import dtype_of

_FLOAT = DType.FLOAT
_ACTIVATIONS = {"TANH": "Tanh", "RELU": "Relu", "RELU6": "Relu6", "NONE": "Identity"}
_LSTM_NEEDED = (0, 2, 3, 4, 6, 7, 8, 13, 14, 15)
_RNN_NEEDED = (0, 1, 2, 3)
_COUPLED = (1, 5, 12)  # the input gate: i = 1 - f where all three are absent


@dataclass(frozen=True)
class CellOptions:
    """What the weights do not say.

    Attributes:
        activation: "TANH", "RELU", "RELU6" or "NONE".
        cell_clip: bound of the cell state; 0 for none.
        proj_clip: bound of the projected output; 0 for none.
    """

    activation: str = "TANH"
    cell_clip: float = 0.0
    proj_clip: float = 0.0


class _Ops:
    """Appends float32 operations to a graph."""

    def __init__(self, graph: Graph, scope: str = "") -> None:
        self.graph = graph
        self.scope = f"{scope}/" if scope else ""

    def op(
        self,
        op: str,
        *operands: Port,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> Port:
        given = {"T": _FLOAT} if attributes is None else attributes
        return Port(self.graph.add(op, operands, given, name=self.scope + op.lower()))

    def constant(self, value: object, dtype: DType) -> Port:
        return self.op("Const", attributes={"value": Tensor.of(value, dtype), "dtype": dtype})

    def matmul(self, x: Port, matrix: Port) -> Port:
        """Times a transposed matrix: ``x @ matrix.T``."""
        attributes: dict[str, AttributeValue] = {
            "T": _FLOAT,
            "transpose_a": False,
            "transpose_b": True,
        }
        return self.op("MatMul", x, matrix, attributes=attributes)

    def bias(self, x: Port, bias: Port) -> Port:
        return self.op("BiasAdd", x, bias, attributes={"T": _FLOAT, "data_format": b"NHWC"})

    def clip(self, x: Port, bound: float) -> Port:
        if not bound:
            return x
        upper = self.op("Minimum", x, self.constant(bound, _FLOAT))
        return self.op("Maximum", upper, self.constant(-bound, _FLOAT))

    def size(self, value: Port, axis: int) -> Port:
        """Size of one axis, an int32 scalar."""
        attributes: dict[str, AttributeValue] = {"T": dtype_of(value), "out_type": DType.INT32}
        shape = self.op("Shape", value, attributes=attributes)
        bounds = [self.constant([at], DType.INT32) for at in (axis, axis + 1, 1)]
        attributes = {"T": DType.INT32, "Index": DType.INT32, "shrink_axis_mask": 1}
        masks = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask")
        return self.op(
            "StridedSlice",
            shape,
            *bounds,
            attributes={**attributes, **dict.fromkeys(masks, 0)},
        )

    def zeros(self, x: Port, matrix: Port) -> Port:
        """A zero state: [batch of the sequence `x`, columns of `matrix`]."""
        sizes = (self.size(x, 1), self.size(matrix, 1))
        dims = self.op("Pack", *sizes, attributes={"N": 2, "T": DType.INT32, "axis": 0})
        attributes: dict[str, AttributeValue] = {"T": _FLOAT, "index_type": DType.INT32}
        return self.op("Fill", dims, self.constant(0.0, _FLOAT), attributes=attributes)


def step_count(graph: Graph, sequence: Port, known: int, scope: str) -> Port:
    """An int32 scalar: `known`, or the length of the sequence if that is negative."""
    ops = _Ops(graph, scope)
    return ops.constant(known, DType.INT32) if known >= 0 else ops.size(sequence, 0)


def lstm_scan(
    module: Module, stub: Node, operands: Mapping[int, Port], options: CellOptions
) -> dict[int, Port]:
    """A Scan that computes an LSTM stub; values of its results 1 (final c) and 2 (outputs).

    Raises:
        HintError: an operand that every LSTM has is missing.
    """
    _check(stub, operands, _LSTM_NEEDED)
    ops = _Ops(stub.graph, stub.op)
    x = operands[0]
    m = operands.get(18) or ops.zeros(x, operands[8])
    # without a projection the cell is as wide as the output
    c = operands.get(19) or ops.zeros(x, operands[16] if 16 in operands else operands[8])
    weights = [index for index in sorted(operands) if 1 <= index <= 17]
    function = Function("lstm_step")
    args = _step_args(function, ("m_prev", "c_prev"), weights)
    _lstm_step(function, args, options)
    node = _add_scan(module, stub, function, x, (m, c), [operands[i] for i in weights])
    return {1: Port(node, 1), 2: Port(node, 2)}


def rnn_scan(
    module: Module, stub: Node, operands: Mapping[int, Port], options: CellOptions
) -> dict[int, Port]:
    """A Scan that computes an RNN stub; the value of its result 1 (outputs).

    Raises:
        HintError: an operand that every RNN has is missing.
    """
    _check(stub, operands, _RNN_NEEDED)
    ops = _Ops(stub.graph, stub.op)
    h = operands.get(4) or ops.zeros(operands[0], operands[2])
    function = Function("rnn_step")
    args = _step_args(function, ("h_prev",), (1, 2, 3))
    step = _Ops(function.graph)
    total = step.op(
        "AddV2", step.matmul(args["x"], args["1"]), step.matmul(args["h_prev"], args["2"])
    )
    out = step.op(_ACTIVATIONS[options.activation], step.bias(total, args["3"]))
    for name in ("h", "y"):
        function.graph.add_result(name, out)
    weights = [operands[i] for i in (1, 2, 3)]
    node = _add_scan(module, stub, function, operands[0], (h,), weights)
    return {1: Port(node, 1)}


def _check(stub: Node, operands: Mapping[int, Port], needed: Sequence[int]) -> None:
    missing = [index for index in needed if index not in operands]
    coupled = [index in operands for index in _COUPLED]
    if stub.op == "UnidirectionalSequenceLstm" and any(coupled) and not all(coupled):
        missing += [index for index in _COUPLED if index not in operands]
    if missing:
        raise HintError(
            f"stub '{stub.op}', call {stub.name}: argument {missing[0]} is missing",
            node=stub.name,
            remedy="Keep all operands of the stub when you cut a graph.",
        )


def _step_args(
    function: Function, states: Sequence[str], weights: Sequence[int]
) -> dict[str, Port]:
    """Arguments of a step: by name, weights by their number."""
    args = {"t": Port(function.add_arg("t", DType.INT32))}
    for name in ("x", *states):
        args[name] = Port(function.add_arg(name, _FLOAT))
    for index in weights:
        args[str(index)] = Port(function.add_arg(f"operand_{index}", _FLOAT))
    return args


def _lstm_step(function: Function, args: Mapping[str, Port], options: CellOptions) -> None:
    ops = _Ops(function.graph)
    x, m, c = args["x"], args["m_prev"], args["c_prev"]

    def gate(number: int, cell: Port, peephole: int = 0) -> Port:
        """Gate `number` of i, f, c, o before its activation."""
        total = ops.op(
            "AddV2",
            ops.matmul(x, args[str(1 + number)]),
            ops.matmul(m, args[str(5 + number)]),
        )
        total = ops.bias(total, args[str(12 + number)])
        weight = args.get(str(peephole))
        if weight is None:
            return total
        return ops.op("AddV2", total, ops.op("Mul", weight, cell))

    activation = _ACTIVATIONS[options.activation]
    forget = ops.op("Sigmoid", gate(1, c, 10))
    if "1" in args:
        write = ops.op("Sigmoid", gate(0, c, 9))
    else:
        write = ops.op("Sub", ops.constant(1.0, _FLOAT), forget)
    kept = ops.op("Mul", forget, c)
    new = ops.op("Mul", write, ops.op(activation, gate(2, c)))
    next_c = ops.clip(ops.op("AddV2", kept, new), options.cell_clip)
    output = ops.op("Sigmoid", gate(3, next_c, 11))
    next_m = ops.op("Mul", output, ops.op(activation, next_c))
    if "16" in args:
        next_m = ops.matmul(next_m, args["16"])
        if "17" in args:
            next_m = ops.bias(next_m, args["17"])
        next_m = ops.clip(next_m, options.proj_clip)
    for name, value in (("m", next_m), ("c", next_c), ("y", next_m)):
        function.graph.add_result(name, value)


def _add_scan(
    module: Module,
    stub: Node,
    function: Function,
    x: Port,
    states: tuple[Port, ...],
    weights: Sequence[Port],
) -> Node:
    module.add_function(function)
    scan = Scan(
        function.name,
        _Ops(stub.graph, stub.op).size(x, 0),
        (x,),
        states,
        tuple(weights),
        (False,),
        (False,),
        hint=stub.op,
    )
    return scan.add_to(module, stub.graph, name=stub.op, origin=(stub.name,))
