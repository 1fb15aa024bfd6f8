"""CUSTOM ``hintc.*`` operators become what their declarations say: built-ins or users' own.

The input comes from TensorFlow's converter, which turns each fused call of a lowered GraphDef into
one such operator. Everything else in the model stays as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from hintc.errors import HintcError
from hintc.ops import TARGETS, BuiltinLowering, CustomLowering, Quantize, StateSlot, Target
from hintc.tflite.call import FusedCall, fused_call
from hintc.tflite.dequantize import recompute_constants
from hintc.tflite.filled_constants import fill_constants
from hintc.tflite.flatbuffer import Model, Operator, Subgraph
from hintc.tflite.flexbuffer import dump_attributes
from hintc.tflite.loop_copies import copy_moved_inputs
from hintc.tflite.prune import remove_unused_producers, remove_unused_storage
from hintc.tflite.schema import schema
from hintc.tflite.state import StateMode, StateWriter, StepOf, read_step, read_variable
from hintc.tflite.weights import WeightStore

_NUMBERED = re.compile(r"input_(\d+)")
"""Operand slots of a user's op that was declared by its hints alone."""


@dataclass(frozen=True)
class Note:
    """Something `legalize` could not do as asked: which node, and why."""

    node: str
    text: str


@dataclass(frozen=True)
class Legalized:
    """What `legalize_model` gives.

    Args:
        tflite: the model's bytes.
        lowered: how many calls of each fused op were lowered.
        notes: where an option could not be followed.
    """

    tflite: bytes
    lowered: Counter[str] = field(default_factory=Counter)
    notes: tuple[Note, ...] = ()


def legalize(
    tflite_bytes: bytes,
    *,
    quantize: Quantize | None = None,
    target: Target = "tflite",
    state: StateMode = "reset",
) -> bytes:
    """Turns the fused calls of a converted model into operators that interpreters run.

    Args:
        tflite_bytes: a model from TensorFlow's converter.
        quantize: for the weights of fused kernels: None leaves float32, ``"dynamic"`` makes them
            int8 (symmetric, one scale each), ``"float16"`` float16.
        target: what shall run it; ``"tflm"`` (TFLite Micro) knows fewer variants.
        state: ``"reset"`` starts every invoke from the model's initial state, as TensorFlow
            does; ``"persist"`` goes on from the state that the last invoke left.

    Returns:
        The new model; the same bytes if it has no fused call, and no loop to be corrected or made
        smaller (see `loop_copies` and `filled_constants`).

    Raises:
        HintcError: not a TFLite model, a malformed call, or a use that the target cannot run.
    """
    return legalize_model(tflite_bytes, quantize=quantize, target=target, state=state).tflite


def legalize_model(
    tflite_bytes: bytes,
    *,
    quantize: Quantize | None = None,
    target: Target = "tflite",
    state: StateMode = "reset",
) -> Legalized:
    """As `legalize`, with an account of what was done."""
    for name, value, allowed in (
        ("quantize", quantize, (None, "dynamic", "float16")),
        ("target", target, TARGETS),
        ("state", state, ("reset", "persist")),
    ):
        if value not in allowed:
            raise HintcError(
                f"{name} is {value!r}", why="it must be one of " + ", ".join(map(repr, allowed))
            )
    model = Model.read(tflite_bytes)
    lowered: Counter[str] = Counter()
    notes: list[Note] = []
    entries = {0} | {signature.subgraphIndex for signature in model.root.signatureDefs or []}
    for number, subgraph in enumerate(model.subgraphs):
        if state == "persist" and number not in entries:
            _check_no_states(subgraph)
        rewriter = _Rewriter(subgraph, quantize, target, state)
        rewriter.run()
        lowered += rewriter.lowered
        notes += rewriter.notes
    changes = copy_moved_inputs(model) + fill_constants(model)
    if not lowered and not changes:
        return Legalized(tflite_bytes)
    remove_unused_storage(model)
    return Legalized(model.write(), lowered, tuple(notes))


def _check_no_states(subgraph: Subgraph) -> None:
    """Refuses persistent states in a control-flow body: there an invoke is one iteration."""
    for op in subgraph.operators:
        call = fused_call(subgraph, op)
        lowering = call.fused.lowering if call else None
        if call and isinstance(lowering, BuiltinLowering) and lowering.states:
            raise call.error(
                "its state cannot persist between invokes",
                why=f"it stands in the body '{subgraph.name}' of a loop or a condition",
                remedy="Convert with state='reset'.",
            )


class _Rewriter:
    """Rewrites the fused calls of one subgraph."""

    def __init__(
        self, subgraph: Subgraph, quantize: Quantize | None, target: Target, state: StateMode
    ) -> None:
        self.subgraph = subgraph
        self.quantize = quantize
        self.target = target
        self.states = StateWriter(subgraph, state)
        self.weights = WeightStore(subgraph)
        self.read = subgraph.read_tensors()
        self.lowered: Counter[str] = Counter()
        self.notes: list[Note] = []

    def run(self) -> None:
        """Replaces every fused call, then removes what only they had read."""
        operators: list[Operator] = []
        freed: list[int] = []
        for op in self.subgraph.operators:
            call = fused_call(self.subgraph, op)
            if call is None:
                operators.append(op)
                continue
            self._check(call)
            operators += self._replacement(call)
            freed += op.inputs
            self.lowered[call.fused.name] += 1
        self.subgraph.operators = operators
        if self.states.dynamic:
            recompute_constants(self.subgraph)
        remove_unused_producers(self.subgraph, [index for index in freed if index >= 0])

    def _check(self, call: FusedCall) -> None:
        reasons = call.fused.refusals(
            call.spec.slots, call.attributes, target=self.target, quantize=self.quantize
        )
        if reasons:
            raise call.error(
                f"it cannot run on target '{self.target}'",
                why="; ".join(reasons),
                remedy="Let hintc lower this layer another way, e.g. with form=unroll.",
            )

    def _replacement(self, call: FusedCall) -> list[Operator]:
        lowering = call.fused.lowering
        if isinstance(lowering, CustomLowering):
            return self._custom(call, lowering)
        return self._builtin(call, lowering)

    def _custom(self, call: FusedCall, lowering: CustomLowering) -> list[Operator]:
        op = schema().OperatorT()
        op.opcodeIndex = self.subgraph.model.opcode("CUSTOM", custom=lowering.code)
        op.inputs = _in_order(call.operands)
        op.outputs = list(call.op.outputs)
        op.customOptions = list(dump_attributes(call.attributes))
        return [op]

    def _builtin(self, call: FusedCall, lowering: BuiltinLowering) -> list[Operator]:
        call.sizes()
        operands = dict(call.operands)
        before: list[Operator] = []
        for state in lowering.states:
            width = _width(call, state)
            operands[state.slot], ops = self.states.variable(call, state, width)
            before += ops
        hybrid = self._shrink(call, lowering, operands, before)
        main = self._kernel_results(call, lowering)
        kernel = self.subgraph.make_op(
            lowering.operator,
            [operands.get(slot, -1) for slot in call.fused.slot_names],
            list(main.values()),
            version=lowering.version(hybrid),
            options=lowering.options,
            fields=_options(call, lowering),
        )
        return [*before, kernel, *self._final_states(call, lowering, operands, main)]

    def _shrink(
        self,
        call: FusedCall,
        lowering: BuiltinLowering,
        operands: dict[str, int],
        before: list[Operator],
    ) -> bool:
        """Makes the weights smaller as asked; True if they are int8 now."""
        reasons: list[str] = []
        hybrid = False
        if self.quantize == "float16":
            made, reasons = self.weights.to_float16(call, operands)
            before += made
        elif self.quantize == "dynamic" and lowering.int8:
            reason = self.weights.to_int8(lowering, operands)
            hybrid = reason is None
            reasons = [] if reason is None else [reason]
        for reason in reasons:
            self.notes.append(Note(call.name, f"weights stay float32: {reason}"))
        return hybrid

    def _kernel_results(self, call: FusedCall, lowering: BuiltinLowering) -> dict[str, int]:
        """Tensors of what the kernel itself gives; made where the call does not ask for them."""
        if not lowering.states:
            for name in call.fused.results:
                if name not in call.results:
                    raise call.error(f"result '{name}' is missing")
            return {name: call.results[name] for name in call.fused.results}
        source = self.subgraph.shape(call.operands[call.fused.operands[0].name])
        assert source is not None
        widths = _widths(call, lowering)
        tensors = {}
        for name, states in lowering.outputs(call.attributes).items():
            if name in call.results:
                tensors[name] = call.results[name]
            else:
                shape = (*source[:-1], sum(widths[state] for state in states))
                tensors[name] = self.subgraph.add_tensor(f"{call.name}/{name}", shape)
        unknown = call.results.keys() - tensors.keys() - {s.result for s in lowering.states}
        for name in sorted(unknown):
            raise call.error(f"it has no result '{name}' with these attributes")
        return tensors

    def _final_states(
        self,
        call: FusedCall,
        lowering: BuiltinLowering,
        operands: dict[str, int],
        main: Mapping[str, int],
    ) -> list[Operator]:
        """Operators that read the final states somebody uses."""
        ops: list[Operator] = []
        widths = _widths(call, lowering)
        steps = _last_steps(call, lowering, main, widths)
        for state in lowering.states:
            result = call.results.get(state.result)
            if result is None or result not in self.read:
                continue
            if state.slot in steps:
                ops.append(read_step(call, steps[state.slot], result))
            else:
                width = widths[state.slot]
                step = next(iter(steps.values()))
                ops += read_variable(call, operands[state.slot], width, step, result)
        return ops


def _in_order(operands: Mapping[str, int]) -> list[int]:
    """Operands of a custom operator: ``input_<k>`` is operand k, -1 where a k is skipped."""
    numbers = [_NUMBERED.fullmatch(slot) for slot in operands]
    if not all(numbers):
        return list(operands.values())
    by_number = {
        int(number[1]): tensor
        for number, tensor in zip(numbers, operands.values(), strict=True)
        if number
    }
    return [by_number.get(k, -1) for k in range(max(by_number, default=-1) + 1)]


def _width(call: FusedCall, state: StateSlot) -> int:
    shape = call.subgraph.shape(call.operands[state.weights])
    size = shape[state.axis] if shape else -1
    if size < 0:
        raise call.error(f"the size of operand '{state.weights}' is not known")
    return size


def _widths(call: FusedCall, lowering: BuiltinLowering) -> dict[str, int]:
    """Units of each state, by slot."""
    return {state.slot: _width(call, state) for state in lowering.states}


def _last_steps(
    call: FusedCall,
    lowering: BuiltinLowering,
    main: Mapping[str, int],
    widths: Mapping[str, int],
) -> dict[str, StepOf]:
    """For each state that a kernel's output holds: where its final value stands there."""
    backward = {state.slot for state in lowering.states if state.backward}
    found = {}
    for name, states in lowering.outputs(call.attributes).items():
        begin = 0
        for slot in states:
            end = begin + widths[slot]
            columns = (begin, end) if len(states) > 1 else None
            found[slot] = StepOf(main[name], 0 if slot in backward else -1, widths[slot], columns)
            begin = end
    return found


def _options(call: FusedCall, lowering: BuiltinLowering) -> dict[str, object]:
    fields: dict[str, object] = {}
    for attribute, option in lowering.fields.items():
        value = call.attributes[attribute]
        enum = lowering.enums.get(attribute)
        fields[option] = getattr(getattr(schema(), enum), str(value)) if enum else value
    return fields
