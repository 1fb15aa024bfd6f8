"""CUSTOM ``hintc.*`` operators become what their declarations say: built-ins or users' own.

The input comes from TensorFlow's converter, which turns each fused call of a lowered GraphDef into
one such operator. Everything else in the model stays as it is.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hintc.errors import HintcError
from hintc.flexbuffer import dump_attributes
from hintc.ops import TARGETS, BuiltinLowering, CustomLowering, Quantize, Target
from hintc.tflite.call import FusedCall, fused_call
from hintc.tflite.dequantize import recompute_constants
from hintc.tflite.detour import find_detour, swap_major
from hintc.tflite.filled_constants import fill_constants
from hintc.tflite.flatbuffer import Model, Operator, Subgraph
from hintc.tflite.loop_copies import copy_moved_inputs
from hintc.tflite.micro import check_micro
from hintc.tflite.micro_spellings import spell_for_micro
from hintc.tflite.plain_integers import check_plain_integers
from hintc.tflite.prune import remove_unused_producers, remove_unused_storage
from hintc.tflite.runtime_version import raise_runtime_version
from hintc.tflite.schema import schema
from hintc.tflite.state import (
    StateMode,
    StateWriter,
    StepOf,
    may_have_no_steps,
    read_step,
    read_variable,
)
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
            int8 (symmetric, one scale each), ``"float16"`` float16. (``"int8"`` needs sample
            inputs: `hintc.convert`.)
        target: what shall run it; ``"tflm"`` (TFLite Micro) knows fewer variants.
        state: ``"reset"`` starts every invoke from the model's initial state, as TensorFlow
            does; ``"persist"`` goes on from the state that the last invoke left.

    Returns:
        The new model; the same bytes if it has no fused call, and no loop to be corrected or made
        smaller (see `loop_copies` and `filled_constants`).

    Raises:
        HintcError: not a TFLite model, a malformed call, a use that the target cannot run, or
            integers that a kernel takes for quantised ones (see `hintc.tflite.plain_integers`);
            for ``"tflm"`` whatever it cannot run (see `hintc.tflite.micro.check_micro`).
    """
    if quantize == "int8":
        raise HintcError(
            "quantize is 'int8'",
            why="full integer quantisation needs sample inputs, which legalize does not take",
            remedy="hintc.convert(..., quantize='int8', representative_dataset=...) converts and "
            "legalises too.",
        )
    return legalize_model(tflite_bytes, quantize=quantize, target=target, state=state).tflite


def legalize_model(
    tflite_bytes: bytes,
    *,
    quantize: Quantize | None = None,
    target: Target = "tflite",
    state: StateMode = "reset",
) -> Legalized:
    """As `legalize`, with an account of what was done.

    ``quantize="int8"`` gives what `hintc.tflite.integers` takes: a float32 model of such kernels
    only as the quantiser knows.
    """
    for name, value, allowed in (
        ("quantize", quantize, (None, "dynamic", "float16", "int8")),
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
    if target == "tflm":
        changes += spell_for_micro(model)
    if lowered or changes:
        remove_unused_storage(model)
    check_plain_integers(model)
    if target == "tflm":
        check_micro(model, to_integers=quantize == "int8")
    if not lowered and not changes:
        return Legalized(tflite_bytes)
    raise_runtime_version(model)
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
            operators += self._replacement(call)
            freed += op.inputs
            self.lowered[call.fused.name] += 1
        self.subgraph.operators = operators
        if self.states.dynamic:
            recompute_constants(self.subgraph)
        remove_unused_producers(self.subgraph, [index for index in freed if index >= 0])

    def _replacement(self, call: FusedCall) -> list[Operator]:
        detour = find_detour(call, self.target, self.quantize)
        lowering = call.fused.lowering
        if isinstance(lowering, CustomLowering):
            return self._custom(call, lowering)
        self.notes += [Note(call.name, text) for text in detour.notes()]
        quantize = None if detour.keeps_float else self.quantize
        if not detour.swaps_major:
            return self._builtin(call, lowering, quantize)
        swapped, before, after = swap_major(call, lowering)
        return [*before, *self._builtin(swapped, lowering, quantize), *after]

    def _custom(self, call: FusedCall, lowering: CustomLowering) -> list[Operator]:
        call.sizes()
        op = schema().OperatorT()
        op.opcodeIndex = self.subgraph.model.opcode("CUSTOM", custom=lowering.code)
        op.inputs = _in_order(call)
        op.outputs = list(self._all_results(call).values())
        op.customOptions = list(dump_attributes(call.attributes))
        return [op]

    def _builtin(
        self, call: FusedCall, lowering: BuiltinLowering, quantize: Quantize | None
    ) -> list[Operator]:
        call.sizes()
        operands = {**call.operands, **self._stored(call, lowering)}
        before: list[Operator] = []
        widths = _widths(call, lowering)
        for state in lowering.states:
            operands[state.slot], ops = self.states.variable(call, state, widths[state.slot])
            before += ops
        hybrid = self._shrink(call, lowering, operands, before, quantize)
        main = self._kernel_results(call, lowering, widths)
        kernel = self.subgraph.make_op(
            lowering.operator,
            [operands.get(slot, -1) for slot in call.fused.slot_names],
            list(main.values()),
            version=_version(call, lowering, hybrid),
            options=lowering.options,
            fields=_options(call, lowering),
        )
        return [*before, kernel, *self._final_states(call, lowering, operands, main, widths)]

    def _stored(self, call: FusedCall, lowering: BuiltinLowering) -> dict[str, int]:
        """The constants that the kernel wants laid out otherwise."""
        found = {}
        for slot, arrange in lowering.stored.items():
            if slot not in call.operands:
                continue
            value = self.subgraph.constant(call.operands[slot])
            if value is None:
                raise call.error(f"operand '{slot}' is not a constant")
            name = f"{self.subgraph.tensor_name(call.operands[slot])}_stored"
            found[slot] = self.subgraph.add_constant(name, np.ascontiguousarray(arrange(value)))
        return found

    def _shrink(
        self,
        call: FusedCall,
        lowering: BuiltinLowering,
        operands: dict[str, int],
        before: list[Operator],
        quantize: Quantize | None,
    ) -> bool:
        """Makes the weights smaller as asked; True if they are int8 now."""
        reasons: list[str] = []
        hybrid = False
        if quantize == "float16":
            made, reasons = self.weights.to_float16(call, operands)
            before += made
        elif quantize == "dynamic" and lowering.int8:
            reason = self.weights.to_int8(lowering, operands)
            hybrid = reason is None
            reasons = [] if reason is None else [reason]
        for reason in reasons:
            self.notes.append(Note(call.name, f"weights stay float32: {reason}"))
        return hybrid

    def _kernel_results(
        self, call: FusedCall, lowering: BuiltinLowering, widths: Mapping[str, int]
    ) -> dict[str, int]:
        """Tensors of what the kernel itself gives; made where the call does not ask for them."""
        if not lowering.states:
            return self._all_results(call)
        source = self.subgraph.shape(call.operands[call.fused.operands[0].name])
        assert source is not None
        tensors = {}
        for name, states in lowering.outputs(call.attributes).items():
            if name in call.results:
                tensors[name] = call.results[name]
            elif not states:
                raise call.error(f"result '{name}' is missing")
            else:
                shape = (*source[:-1], sum(widths[state] for state in states))
                tensors[name] = self.subgraph.add_tensor(f"{call.name}/{name}", shape)
        unknown = call.results.keys() - tensors.keys() - {s.result for s in lowering.states}
        for name in sorted(unknown):
            raise call.error(f"it has no result '{name}' with these attributes")
        return tensors

    def _all_results(self, call: FusedCall) -> dict[str, int]:
        """Tensors of all results, in the declaration's order; as they are if that leaves it open.

        One that nobody reads is made if the op's shape rule tells what it looks like.
        """
        if call.fused.variadic:
            return dict(call.results)
        shapes = call.checked_shapes()
        found = {}
        for name in call.fused.results:
            if name in call.results:
                found[name] = call.results[name]
            elif (shape := shapes.get(name)) is not None:
                found[name] = self.subgraph.add_tensor(f"{call.name}/{name}", shape)
            else:
                raise call.error(
                    f"result '{name}' is missing", remedy="Give the op a shape rule, or return it."
                )
        return found

    def _final_states(
        self,
        call: FusedCall,
        lowering: BuiltinLowering,
        operands: dict[str, int],
        main: Mapping[str, int],
        widths: Mapping[str, int],
    ) -> list[Operator]:
        """Operators that read the final states somebody uses.

        Where there may be no steps, all of them from the variables: they are the initial ones then.
        """
        ops: list[Operator] = []
        steps = _last_steps(call, lowering, main, widths)
        some = next(iter(steps.values()), None) or _step_of(call, next(iter(main.values())))
        for state in lowering.states:
            result = call.results.get(state.result)
            if result is None or result not in self.read:
                continue
            if state.slot in steps and not may_have_no_steps(call):
                ops.append(read_step(call, steps[state.slot], result))
            else:
                width = widths[state.slot]
                ops += read_variable(call, operands[state.slot], width, some, result)
        return ops


def _in_order(call: FusedCall) -> list[int]:
    """Operands of a custom operator: all declared slots, -1 where one is not filled.

    Of an op that leaves its operands open: ``input_<k>`` is operand k, -1 where a k is skipped.
    """
    operands = call.operands
    if not call.fused.variadic:
        return [operands.get(slot, -1) for slot in call.fused.slot_names]
    numbers = [_NUMBERED.fullmatch(slot) for slot in operands]
    if not all(numbers):
        return list(operands.values())
    by_number = {
        int(number[1]): tensor
        for number, tensor in zip(numbers, operands.values(), strict=True)
        if number
    }
    return [by_number.get(k, -1) for k in range(max(by_number, default=-1) + 1)]


def _version(call: FusedCall, lowering: BuiltinLowering, hybrid: bool) -> int:
    if hybrid and call.attributes.get("asymmetric_quantize_inputs", False):
        return lowering.asymmetric_version
    return lowering.version(hybrid)


def _widths(call: FusedCall, lowering: BuiltinLowering) -> dict[str, int]:
    """Units of each state, by slot."""
    sizes, found = call.sizes(), {}
    for state in lowering.states:
        symbols = call.fused.slot(state.slot).shape[1].split("*")
        for symbol in symbols:
            if sizes.get(symbol, -1) < 0:
                raise call.error(f"the size {symbol} of its {state.slot} is not known")
        found[state.slot] = math.prod(sizes[symbol] for symbol in symbols)
    return found


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


def _step_of(call: FusedCall, output: int) -> StepOf:
    """The last step of a kernel's output, whatever it holds."""
    shape = call.subgraph.shape(output)
    assert shape is not None
    return StepOf(output, -1, shape[-1])


def _options(call: FusedCall, lowering: BuiltinLowering) -> dict[str, object]:
    fields: dict[str, object] = {}
    for attribute, option in lowering.fields.items():
        value = call.attributes[attribute]
        enum = lowering.enums.get(attribute)
        fields[option] = getattr(getattr(schema(), enum), str(value)) if enum else value
    return fields
