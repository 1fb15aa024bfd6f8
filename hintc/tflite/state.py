"""State tensors of fused recurrent kernels: written before the call, read after it.

A kernel keeps its state in variable tensors, which by themselves live from one invoke to the
next. TensorFlow starts every run from the initial state, so the model itself writes each variable
at every invoke: zeros by FILL, a given state by CAST or RESHAPE (a copy), or BROADCAST_TO.

All but CAST take the state's shape from a tensor. Where the batch is dynamic that is computed,
which makes the variable a dynamic tensor, resized on the heap when it is written. A shape like
[-1, width] would leave it in the arena, where its place is laid out before the first invoke: if an
operator before it has a dynamic result, it is resized after that, and written beyond its end
(measured: heap corruption in TensorFlow 2.21 and LiteRT 2.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hintc.ops import StateSlot
from hintc.tflite.call import FusedCall
from hintc.tflite.flatbuffer import Operator, Subgraph

StateMode = Literal["reset", "persist"]
_BROADCAST_TO_FLOAT = 2
"""Version of BROADCAST_TO; version 1 was withdrawn."""
_OURS = "hintc"
"""How the names of tensors begin that belong to no layer: short, as each model holds them."""


class StateWriter:
    """Emits the state tensors of one subgraph's fused calls; shapes are computed once.

    Attributes:
        dynamic: whether a state tensor of a dynamic size was made.
    """

    def __init__(self, subgraph: Subgraph, mode: StateMode) -> None:
        self._graph = subgraph
        self._mode = mode
        self.dynamic = False
        self._batch: dict[tuple[int, int], int] = {}
        self._sizes: dict[tuple[int, int, int], int] = {}

    def variable(self, call: FusedCall, state: StateSlot, width: int) -> tuple[int, list[Operator]]:
        """The variable tensor of `state` and the operators that write it.

        Args:
            call: the call it belongs to.
            state: which of its states.
            width: units of this state.

        Raises:
            HintcError: an initial state of the wrong shape or dtype, or, in mode ``persist``, a
                dynamic size of any input or an initial state that is not zero.
        """
        batch = self._batch_size(call)
        variable = self._graph.add_tensor(
            f"{call.name}/{state.slot}", (batch, width), variable=True
        )
        self.dynamic |= batch < 0
        given = call.operands.get(state.slot)
        zero = given is None or _is_zero(self._graph, given)
        if self._mode == "persist":
            self._check_persistent(call, state, batch, zero)
            return variable, []
        if given is None or zero:
            return variable, self._fill(call, batch, width, variable)
        return variable, self._copy(call, state, given, (batch, width), variable)

    def _batch_size(self, call: FusedCall) -> int:
        shape = self._graph.shape(call.operands[call.fused.operands[0].name])
        assert shape is not None
        return shape[batch_axis(call)]

    def _check_persistent(self, call: FusedCall, state: StateSlot, batch: int, zero: bool) -> None:
        if batch < 0:
            raise call.error(
                "its batch size is dynamic",
                why="a state that persists between invokes has one fixed size",
                remedy="Give the model's input a fixed batch, e.g. 1 with "
                "pipeline='fix-batch{size=1},default'.",
            )
        if not zero:
            raise call.error(
                f"its initial {state.slot} is not zero",
                why="a state that persists between invokes starts from zero",
                remedy="Convert with state='reset'.",
            )
        for tensor in self._graph.graph.inputs:
            shape = self._graph.shape(tensor)
            if shape is None or -1 in shape:
                raise call.error(
                    "its state cannot persist between invokes",
                    why=f"sizes of the input '{self._graph.tensor_name(tensor)}' are dynamic, and "
                    "the interpreters set all states to zero when an input gets another size",
                    remedy="Fix the number of steps of one invoke, 1 for a step at a time.",
                )

    def _fill(self, call: FusedCall, batch: int, width: int, variable: int) -> list[Operator]:
        sizes, ops = self._state_shape(call, batch, width)
        zero = self._graph.add_constant(f"{_OURS}/zero", np.zeros((), np.float32))
        return [*ops, self._graph.make_op("FILL", [sizes, zero], [variable], options="FillOptions")]

    def _copy(
        self,
        call: FusedCall,
        state: StateSlot,
        given: int,
        shape: tuple[int, int],
        variable: int,
    ) -> list[Operator]:
        batch, width = shape
        there = self._graph.shape(given)
        known = there is not None and len(there) == 2 and there[1] in (-1, width)
        if self._graph.dtype(given) != np.float32 or there is None or not known:
            raise call.error(
                f"its initial {state.slot} has shape {there}",
                why=f"expected float32 [{batch if batch >= 0 else 'batch'}, {width}]",
            )
        if there[0] == 1 and batch != 1:
            return self._broadcast(call, given, shape, variable)
        if there[0] >= 0 and there[0] != batch:
            raise call.error(
                f"its initial {state.slot} is for a batch of {there[0]}",
                why=f"the input's batch is {batch if batch >= 0 else 'dynamic'}",
            )
        if batch >= 0:
            return [self._plain_copy(given, variable)]
        sizes, ops = self._state_shape(call, batch, width)
        reshape = self._graph.make_op("RESHAPE", [given, sizes], [variable])
        return [*ops, reshape]

    def _plain_copy(self, given: int, variable: int) -> Operator:
        """A CAST to the same type: of a fixed size, RESHAPE would take its operand's memory."""
        kind = self._graph.tensor(variable).type
        fields = {"inDataType": kind, "outDataType": kind}
        return self._graph.make_op(
            "CAST", [given], [variable], options="CastOptions", fields=fields
        )

    def _broadcast(
        self, call: FusedCall, given: int, shape: tuple[int, int], variable: int
    ) -> list[Operator]:
        """One row for the whole batch, as TensorFlow's arithmetic would take it."""
        sizes, ops = self._state_shape(call, *shape)
        broadcast = self._graph.make_op(
            "BROADCAST_TO",
            [given, sizes],
            [variable],
            version=_BROADCAST_TO_FLOAT,
            options="BroadcastToOptions",
        )
        return [*ops, broadcast]

    def _state_shape(self, call: FusedCall, batch: int, width: int) -> tuple[int, list[Operator]]:
        """An int32 tensor [batch, width] and the operators that compute it."""
        if batch >= 0:
            sizes = np.array([batch, width], np.int32)
            return self._graph.add_constant(f"{_OURS}/state_shape", sizes), []
        source = call.operands[call.fused.operands[0].name]
        key = (source, batch_axis(call), width)
        if key in self._sizes:
            return self._sizes[key], []
        count, ops = self._batch_of(call, source)
        units = self._graph.add_constant(f"{_OURS}/units", np.array(width, np.int32))
        self._sizes[key] = self._graph.add_tensor(f"{_OURS}/state_shape_{width}", (2,), np.int32)
        pack = self._graph.make_op(
            "PACK",
            [count, units],
            [self._sizes[key]],
            options="PackOptions",
            fields={"valuesCount": 2, "axis": 0},
        )
        return self._sizes[key], [*ops, pack]

    def _batch_of(self, call: FusedCall, source: int) -> tuple[int, list[Operator]]:
        """An int32 scalar with the batch size at run time and the operators that compute it."""
        axis = batch_axis(call)
        if (source, axis) in self._batch:
            return self._batch[source, axis], []
        graph = self._graph
        rank = len(graph.shape(source) or ())
        shape = graph.add_tensor(f"{_OURS}/input_shape", (rank,), np.int32)
        count = graph.add_tensor(f"{_OURS}/batch", (), np.int32)
        bounds = [
            graph.add_constant(f"{_OURS}/batch_{name}", np.array([value], np.int32))
            for name, value in (("begin", axis), ("end", axis + 1), ("stride", 1))
        ]
        self._batch[source, axis] = count
        int32 = graph.tensor(shape).type
        return count, [
            graph.make_op(
                "SHAPE", [source], [shape], options="ShapeOptions", fields={"outType": int32}
            ),
            graph.make_op(
                "STRIDED_SLICE",
                [shape, *bounds],
                [count],
                options="StridedSliceOptions",
                fields={"shrinkAxisMask": 1},
            ),
        ]


def batch_axis(call: FusedCall) -> int:
    """The batch axis of a sequence: 1 when time-major, else 0; of a single step 0."""
    return 1 if call.attributes.get("time_major", False) else 0


@dataclass(frozen=True)
class StepOf:
    """One time step of a kernel's output.

    Attributes:
        sequence: the output's tensor, rank 3; rank 2 if the kernel takes a single step.
        time: 0 for the first step, -1 for the last.
        width: units of what is read.
        columns: where these stand in the output, ``(begin, end)``; None: they are all of it.
    """

    sequence: int
    time: int
    width: int
    columns: tuple[int, int] | None = None


def read_step(call: FusedCall, step: StepOf, output: int) -> Operator:
    """STRIDED_SLICE: `step` into `output` ([batch, width]); RESHAPE where it is all there is."""
    if _is_single(call):
        graph = call.subgraph
        sizes = graph.add_constant(f"{_OURS}/step_shape", np.array([-1, step.width], np.int32))
        return graph.make_op("RESHAPE", [step.sequence, sizes], [output])
    return _slice_step(call, step, output, keep_time=False)


def _slice_step(call: FusedCall, step: StepOf, output: int, *, keep_time: bool) -> Operator:
    """STRIDED_SLICE: `step` alone, with its axis of time (of size 0 if there is no step) or not."""
    graph, time = call.subgraph, 1 - batch_axis(call)
    begin, end = np.zeros(3, np.int32), np.zeros(3, np.int32)
    begin[time] = step.time
    # On the other axes the masks say "all of it"; the time axis is shrunk to the step itself.
    others = 0b111 & ~(1 << time)
    if step.columns is not None:
        begin[2], end[2] = step.columns
        others &= 0b011
    # an end before the begin gives no row, although the axis is shrunk away
    end[time] = step.time + 1
    ends = others | (1 << time if step.time == -1 else 0)
    bounds = [
        graph.add_constant(f"{_OURS}/step_{name}", value)
        for name, value in (("begin", begin), ("end", end), ("stride", np.ones(3, np.int32)))
    ]
    return graph.make_op(
        "STRIDED_SLICE",
        [step.sequence, *bounds],
        [output],
        options="StridedSliceOptions",
        fields={
            "beginMask": others,
            "endMask": ends,
            "shrinkAxisMask": 0 if keep_time else 1 << time,
        },
    )


def may_have_no_steps(call: FusedCall) -> bool:
    """True if the number of steps is known at run time only: it may be 0."""
    if _is_single(call):
        return False
    shape = call.subgraph.shape(call.operands[call.fused.operands[0].name])
    return shape is not None and shape[1 - batch_axis(call)] < 0


def _step_or_zeros(call: FusedCall, step: StepOf, output: int) -> list[Operator]:
    """`step` into `output`; zeros if there are no steps: STRIDED_SLICE would read what is no step.

    The SUM is over one step, or none.
    """
    graph, time = call.subgraph, 1 - batch_axis(call)
    sizes = [-1, -1, step.width]
    sizes[1 - time] = (graph.shape(output) or (-1,))[0]
    kept = graph.add_tensor(f"{_OURS}/last_step_if_any", tuple(sizes))
    axis = graph.add_constant(f"{_OURS}/time_axis", np.array([time], np.int32))
    return [
        _slice_step(call, step, kept, keep_time=True),
        graph.make_op("SUM", [kept, axis], [output], options="ReducerOptions"),
    ]


def read_variable(
    call: FusedCall, variable: int, width: int, step: StepOf, output: int
) -> list[Operator]:
    """Reads `variable` after the kernel has run, into `output`.

    Nothing in the schema says that the kernel writes the variable, so a delegate may move a plain
    read before it. The read goes through a CONCATENATION with a step of the kernel's output, on
    which it then depends.

    Args:
        call: the call.
        variable: the state tensor.
        width: units of the state.
        step: a step of one of the kernel's outputs.
        output: the tensor to fill, [batch, width].
    """
    graph = call.subgraph
    shape = graph.shape(variable)
    batch = shape[0] if shape else -1
    if _is_single(call):
        last, before = step.sequence, []
    else:
        last = graph.add_tensor(f"{_OURS}/last_step", (batch, step.width))
        safe = may_have_no_steps(call)
        before = _step_or_zeros(call, step, last) if safe else [read_step(call, step, last)]
    joined = graph.add_tensor(f"{_OURS}/state_and_last_step", (batch, width + step.width))
    bounds = [
        graph.add_constant(f"{_OURS}/state_{name}", np.array(value, np.int32))
        for name, value in (("begin", [0, 0]), ("size", [-1, width]))
    ]
    return [
        *before,
        graph.make_op(
            "CONCATENATION",
            [variable, last],
            [joined],
            options="ConcatenationOptions",
            fields={"axis": 1},
        ),
        graph.make_op("SLICE", [joined, *bounds], [output], options="SliceOptions"),
    ]


def _is_single(call: FusedCall) -> bool:
    """Whether the kernel takes a single step, not a sequence."""
    return len(call.fused.operands[0].shape) == 2


def _is_zero(graph: Subgraph, index: int) -> bool:
    """Whether this tensor is certainly all zeros: a constant, or FILL with one."""
    value = graph.constant(index)
    if value is not None:
        return not value.any()
    op = graph.producer(index)
    if op is None:
        return False
    name = graph.model.op_name(op)
    if name == "ZEROS_LIKE":
        return True
    sources = {"FILL": 1, "RESHAPE": 0, "BROADCAST_TO": 0, "TILE": 0, "EXPAND_DIMS": 0}
    return name in sources and _is_zero(graph, op.inputs[sources[name]])
