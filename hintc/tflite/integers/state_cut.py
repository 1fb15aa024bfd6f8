"""A model is cut at its states for the quantiser, and joined again behind it.

TensorFlow's quantiser knows a recurrent kernel with two variables, and neither operators that write
a variable nor such that read it. So what a writing operator reads becomes a further output of the
model, what a reading one gives a further input, and both operators go. Afterwards the variables are
int8 and int16, and operators of these types take their places.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hintc.errors import HintcError
from hintc.tflite.flatbuffer import Array, Operator, Subgraph
from hintc.tflite.kernel import Kernel, state_kernels
from hintc.tflite.prune import remove_unused_producers

_SHAPE_OPERAND = {"FILL": 0, "RESHAPE": 1, "BROADCAST_TO": 1, "CAST": None}
"""Operators that write a state -> which of their operands is the state's shape."""
_VERSIONS = {
    ("FILL", np.int8): 3,
    ("FILL", np.int16): 3,
    ("BROADCAST_TO", np.float32): 2,
    ("BROADCAST_TO", np.int8): 2,
    ("BROADCAST_TO", np.int16): 3,
    ("CONCATENATION", np.int8): 2,
    ("CONCATENATION", np.int16): 3,
    ("SLICE", np.int8): 2,
    ("SLICE", np.int16): 4,
    ("DEQUANTIZE", np.int8): 2,
    ("DEQUANTIZE", np.int16): 3,
    ("QUANTIZE", np.int16): 2,
}
"""First versions of operators that know these types."""


@dataclass(frozen=True)
class _Operand:
    """What a cut operator read: a constant, or a further output of the model (its place)."""

    constant: Array | None = None
    place: int = -1


@dataclass(frozen=True)
class _Site:
    """Which state of which kernel."""

    kernel: int
    slot: str


@dataclass(frozen=True)
class _Write:
    site: _Site
    operator: str
    shape: tuple[int, ...]
    sizes: _Operand | None
    value: _Operand


@dataclass(frozen=True)
class _Read:
    site: _Site
    step: _Operand
    place: int


@dataclass
class StateCut:
    """What `cut_states` took out, for `join_states`.

    Attributes:
        inputs: how many inputs the model had.
        outputs: how many outputs.
        kernels: names of the kernels, in order.
    """

    inputs: int
    outputs: int
    kernels: tuple[str, ...]
    _writes: list[_Write] = field(default_factory=list)
    _reads: list[_Read] = field(default_factory=list)

    @property
    def is_dynamic(self) -> bool:
        """Whether some state has a batch size that is known at run time only."""
        return any(write.shape[0] < 0 for write in self._writes)


def cut_states(subgraph: Subgraph) -> StateCut:
    """Takes the operators that write and read state variables out of `subgraph`.

    Args:
        subgraph: of a legalised model; is changed. Its variables have a fixed size afterwards.
    """
    kernels = list(state_kernels(subgraph))
    graph = subgraph.graph
    names = tuple(kernel.name for kernel in kernels)
    cut = StateCut(len(graph.inputs), len(graph.outputs), names)
    readers = _readers(subgraph)
    gone: list[Operator] = []
    for number, kernel in enumerate(kernels):
        for slot, variable in kernel.states.items():
            site = _Site(number, slot)
            gone += _cut_writer(subgraph, cut, site, variable)
            for joined in readers[variable]:
                if joined is not kernel.op:
                    (sliced,) = readers[joined.outputs[0]]
                    _cut_reader(subgraph, cut, site, joined, sliced)
                    gone += [joined, sliced]
            subgraph.tensor(variable).shapeSignature = None
    removed = {id(op) for op in gone}
    subgraph.operators = [op for op in subgraph.operators if id(op) not in removed]
    remove_unused_producers(subgraph, [i for op in gone for i in op.inputs if i >= 0])
    return cut


def _readers(subgraph: Subgraph) -> dict[int, list[Operator]]:
    """Tensor -> the operators that read it."""
    found: dict[int, list[Operator]] = {}
    for op in subgraph.operators:
        for tensor in dict.fromkeys(op.inputs):
            found.setdefault(tensor, []).append(op)
    return found


def _cut_writer(subgraph: Subgraph, cut: StateCut, site: _Site, variable: int) -> list[Operator]:
    writer = subgraph.producer(variable)
    if writer is None:
        return []
    name = subgraph.model.op_name(writer)
    at, shape = _SHAPE_OPERAND[name], subgraph.shape(variable)
    assert shape is not None
    sizes = None if at is None else _cut_operand(subgraph, writer.inputs[at])
    value = _cut_operand(subgraph, writer.inputs[1 if at == 0 else 0])
    cut._writes.append(_Write(site, name, shape, sizes, value))
    return [writer]


def _cut_reader(
    subgraph: Subgraph, cut: StateCut, site: _Site, joined: Operator, sliced: Operator
) -> None:
    """Takes out CONCATENATION(state, step) and the SLICE behind it; see `read_variable`."""
    result = sliced.outputs[0]
    subgraph.graph.inputs = [*subgraph.graph.inputs, result]
    step = _cut_operand(subgraph, joined.inputs[1])
    cut._reads.append(_Read(site, step, len(subgraph.graph.inputs) - 1))


def _cut_operand(subgraph: Subgraph, tensor: int) -> _Operand:
    constant = subgraph.constant(tensor)
    if constant is not None:
        return _Operand(constant)
    subgraph.graph.outputs = [*subgraph.graph.outputs, tensor]
    return _Operand(place=len(subgraph.graph.outputs) - 1)


def join_states(subgraph: Subgraph, cut: StateCut) -> None:
    """Puts back what `cut_states` took out, in the types that the states have now.

    Args:
        subgraph: the quantised model's; is changed.
        cut: what was taken out of its float form.

    Raises:
        HintcError: the kernels of `subgraph` are not those that were cut.
    """
    kernels = list(state_kernels(subgraph))
    if len(kernels) != len(cut.kernels) or not all(
        kernel.name.startswith(name) for kernel, name in zip(kernels, cut.kernels, strict=True)
    ):
        raise HintcError(
            "the quantised model has other kernels than the float one",
            why=f"{', '.join(k.name for k in kernels)} instead of {', '.join(cut.kernels)}",
            remedy="With an untested TensorFlow version, please report this.",
        )
    join = _Join(subgraph, list(subgraph.graph.outputs))
    made = [op for write in cut._writes for op in join.writer(kernels[write.site.kernel], write)]
    for read in cut._reads:
        made += join.reader(kernels[read.site.kernel], read, subgraph.graph.inputs[read.place])
    subgraph.graph.inputs = subgraph.graph.inputs[: cut.inputs]
    subgraph.graph.outputs = subgraph.graph.outputs[: cut.outputs]
    subgraph.operators = _in_order(subgraph, [*subgraph.operators, *made])
    remove_unused_producers(subgraph, join.outputs[cut.outputs :])


class _Join:
    """Makes the operators that write and read the states."""

    def __init__(self, subgraph: Subgraph, outputs: list[int]) -> None:
        self.subgraph = subgraph
        self.outputs = outputs

    def writer(self, kernel: Kernel, write: _Write) -> list[Operator]:
        """The zero point, or the given state in the variable's type, written into it.

        A SLICE that takes all of a constant resets a state of a fixed size: TFLite Micro has no
        FILL of int16, and TFLite runs a RESHAPE of a constant only once.
        """
        variable = kernel.states[write.site.slot]
        tensor = self.subgraph.tensor(variable)
        tensor.shape = [max(size, 1) for size in write.shape]
        tensor.shapeSignature = list(write.shape) if write.shape[0] < 0 else None
        if write.sizes is None:
            return [self._copy(self._tensor(kernel, write.value), variable)]
        sizes = self._tensor(kernel, write.sizes)
        if write.operator == "FILL" and min(write.shape) >= 0:
            zeros = self._zeros(kernel, variable, write.shape)
            begin = self._constant(kernel, np.zeros(len(write.shape), np.int32))
            return [self._op("SLICE", [zeros, begin, sizes], variable, options="SliceOptions")]
        if write.operator == "FILL":
            zero = self._zeros(kernel, variable, ())
            return [self._op("FILL", [sizes, zero], variable, options="FillOptions")]
        given, made = self._as_state(self._tensor(kernel, write.value), variable, write.site.slot)
        options = "BroadcastToOptions" if write.operator == "BROADCAST_TO" else None
        made.append(self._op(write.operator, [given, sizes], variable, options=options))
        return made

    def _copy(self, value: int, variable: int) -> Operator:
        """A state of a fixed size."""
        if self.subgraph.dtype(variable) != np.float32:
            return self._op("QUANTIZE", [value], variable, options="QuantizeOptions")
        cast = self._op("CAST", [value], variable, options="CastOptions")
        kind = self.subgraph.tensor(variable).type
        cast.builtinOptions.inDataType = cast.builtinOptions.outDataType = kind
        return cast

    def reader(self, kernel: Kernel, read: _Read, result: int) -> list[Operator]:
        """The state's values after the kernel has run; on why it goes this way see `state`."""
        graph, variable = self.subgraph, kernel.states[read.site.slot]
        step, made = self._as_state(self._tensor(kernel, read.step), variable, "last_step")
        (batch, width), steps = graph.shape(variable) or (-1, -1), graph.shape(step) or (-1, -1)
        joined = self._like(variable, (batch, width + steps[1]), "state_and_last_step")
        state = self._like(variable, (batch, width), "state")
        bounds = [
            graph.add_constant(f"{kernel.name}/state_{name}", np.array(value, np.int32))
            for name, value in (("begin", [0, 0]), ("size", [-1, width]))
        ]
        concatenate = self._op(
            "CONCATENATION", [variable, step], joined, options="ConcatenationOptions"
        )
        concatenate.builtinOptions.axis = 1
        made += [concatenate, self._op("SLICE", [joined, *bounds], state, options="SliceOptions")]
        if graph.tensor(variable).quantization is None or graph.dtype(variable) == np.float32:
            made[-1].outputs = [result]
            return made
        options = "DequantizeOptions"
        return [*made, self._op("DEQUANTIZE", [state], result, options=options)]

    def _tensor(self, kernel: Kernel, operand: _Operand) -> int:
        if operand.constant is None:
            return self.outputs[operand.place]
        return self._constant(kernel, operand.constant)

    def _constant(self, kernel: Kernel, value: Array) -> int:
        return self.subgraph.add_constant(f"{kernel.name}/constant", value)

    def _zeros(self, kernel: Kernel, variable: int, shape: tuple[int, ...]) -> int:
        """A constant whose values stand for 0 in the variable's type."""
        tensor, dtype = self.subgraph.tensor(variable), self.subgraph.dtype(variable)
        point = 0 if dtype == np.float32 else int(tensor.quantization.zeroPoint[0])
        zeros = self.subgraph.add_constant(f"{kernel.name}/zero", np.full(shape, point, dtype))
        self.subgraph.tensor(zeros).quantization = tensor.quantization
        return zeros

    def _as_state(self, tensor: int, variable: int, name: str) -> tuple[int, list[Operator]]:
        """`tensor` in type and scale of `variable`."""
        graph = self.subgraph
        if graph.dtype(variable) == np.float32:
            return tensor, []
        # to int16 through float32: tf.lite's QUANTIZE takes no int8 for it
        producer = graph.producer(tensor) if graph.dtype(variable) == np.int8 else None
        if producer is not None and graph.model.op_name(producer) == "DEQUANTIZE":
            tensor = producer.inputs[0]
        made = self._like(variable, graph.shape(tensor) or (), name)
        return made, [self._op("QUANTIZE", [tensor], made, options="QuantizeOptions")]

    def _like(self, variable: int, shape: tuple[int, ...], name: str) -> int:
        """A new tensor in the type and scale of `variable`."""
        graph, dtype = self.subgraph, self.subgraph.dtype(variable)
        assert dtype is not None
        made = graph.add_tensor(f"{graph.tensor_name(variable)}/{name}", shape, dtype)
        graph.tensor(made).quantization = graph.tensor(variable).quantization
        return made

    def _op(self, name: str, inputs: list[int], output: int, *, options: str | None) -> Operator:
        """An operator in the version that knows the type it works on."""
        typed = inputs[0] if name in ("DEQUANTIZE", "SLICE") else output
        dtype = self.subgraph.dtype(typed)
        version = _VERSIONS.get((name, dtype.type), 1) if dtype is not None else 1
        return self.subgraph.make_op(name, inputs, [output], version=version, options=options)


def _in_order(subgraph: Subgraph, operators: list[Operator]) -> list[Operator]:
    """The operators so that each stands behind those whose results it reads, else as given."""
    makers = {made: op for op in operators for made in op.outputs}
    ordered: list[Operator] = []
    done: set[int] = set()
    for start in operators:
        waiting = [start]
        while waiting:
            op = waiting[-1]
            before = [makers[i] for i in op.inputs if i in makers and id(makers[i]) not in done]
            if before and id(op) not in done:
                waiting += reversed(before)
                continue
            waiting.pop()
            if id(op) not in done:
                done.add(id(op))
                ordered.append(op)
    return ordered
