"""What a fused op is: operands, attributes, results, limits and how it becomes TFLite.

One declaration serves the built-in kernels and users' own ops. It says nothing about graphs:
whoever recognises an op fills its slots, whoever legalises it reads them back from the spec, the
JSON text that travels with the call (`FusedOp.spec`, `FusedOp.parse_spec`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hintc.errors import HintcError
from hintc.ir import Array, FunctionRef
from hintc.ops.spec import PREFIX, AttributeValue, Spec, parse_spec, plain_value

SlotKind = Literal["input", "weight", "bias", "state"]
Target = Literal["tflite", "litert", "tflm"]
Quantize = Literal["dynamic", "float16", "int8"]

TARGETS: tuple[Target, ...] = ("tflite", "litert", "tflm")


@dataclass(frozen=True)
class OperandSlot:
    """One operand of a fused op.

    Args:
        name: the schema's name of the operand; unique in its op.
        kind: ``weight`` is a matrix or vector that multiplies, ``bias`` one that is added or
            normalises, ``state`` a recurrent state's initial value (float32 [batch, width]).
        optional: the op is complete without it. States are optional by nature: absent means zeros.
        shape: symbolic sizes, e.g. ``("n_cell", "n_in")``; equal names are equal sizes within
            one call and "?" is any size; a state's may be a product, ``"n_filters*memory"``.
            Empty: any shape.
    """

    name: str
    kind: SlotKind = "input"
    optional: bool = False
    shape: tuple[str, ...] = ()


@dataclass(frozen=True)
class AttributeSpec:
    """Type, default and permitted values of one attribute."""

    type: type[bool] | type[int] | type[float] | type[str] | type[tuple[AttributeValue, ...]]
    default: AttributeValue | None = None
    choices: tuple[AttributeValue, ...] = ()

    def checked(self, op: str, name: str, value: object) -> AttributeValue:
        """`value` in the attribute's type; an int is taken for a float, nothing else is cast."""
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        plain = plain_value(op, name, value)
        if type(plain) is not self.type:
            raise HintcError(
                f"{op}: attribute '{name}' is {value!r}",
                why=f"it must be {self.type.__name__}",
            )
        if self.choices and plain not in self.choices:
            raise HintcError(
                f"{op}: attribute '{name}' is {value!r}",
                why="it must be one of " + ", ".join(map(str, self.choices)),
            )
        return plain


@dataclass(frozen=True)
class Use:
    """One use of a fused op, as far as constraints look at it."""

    slots: frozenset[str]
    attributes: Mapping[str, AttributeValue]
    target: Target = "tflite"
    quantize: Quantize | None = None
    dynamic_batch: bool = False


@dataclass(frozen=True)
class Broken:
    """A variant that a kernel takes and gets wrong, measured on TensorFlow 2.21 and LiteRT 2.3.

    Of a constraint for TFLite Micro: measured on tflite-micro 0.dev20261023182759.

    Args:
        variant: what is broken, for the page on kernels.
        symptom: what was seen.
        cause: where the kernel's source goes wrong.
        instead: what hintc does.
    """

    variant: str
    symptom: str
    cause: str
    instead: str


@dataclass(frozen=True)
class Constraint:
    """A rule that every use keeps; `reason` completes "refused, because ...".

    `broken` is set where the kernel would run and be wrong, not just refuse.
    """

    reason: str
    holds: Callable[[Use], bool]
    targets: tuple[Target, ...] = TARGETS
    broken: Broken | None = None


NO_FLOAT16 = Constraint(
    "TFLite Micro cannot read float16 weights",
    lambda use: use.quantize != "float16",
    targets=("tflm",),
)
NO_INTEGERS = Constraint("it has no integer kernel", lambda use: False)


@dataclass(frozen=True)
class StateSlot:
    """A recurrent state: a float32 [batch, width] tensor that the kernel reads and writes.

    Args:
        slot: its operand slot; the width is the second size of that slot's shape.
        result: name of the result that is this state's final value.
        backward: the recurrence runs from the last step to the first.
    """

    slot: str
    result: str
    backward: bool = False


Dims = tuple[int, ...] | None
"""A shape: -1 for an unknown size, None for an unknown rank."""
ShapeRule = Callable[[Mapping[str, Dims], Mapping[str, AttributeValue]], Sequence[Dims]]
"""Shapes of the results from those of the operands, by slot, and the attributes."""
Outputs = Mapping[str, tuple[str, ...]]
"""What a kernel gives, in order: result name -> slots of the states that each step puts there side
by side. The final value of such a state can be read from the result's last step, or from its first
one if the state runs backward. A kernel of a single step gives that step."""


@dataclass(frozen=True)
class BuiltinLowering:
    """How the op becomes a built-in TFLite operator with variable state tensors.

    Args:
        operator: name in the schema's ``BuiltinOperator``.
        options: name of its options table in the schema.
        fields: attribute name -> field of that table.
        version: operator version from whether its weights are int8 (hybrid), as in
            tools/versioning/op_version.cc.
        enums: attribute name -> the schema's enumeration that its string value is a member of.
        states: the recurrent states. With states, operand 0 is the input: a sequence of rank 3,
            [time, batch, n] if attribute ``time_major`` is true, else [batch, time, n], or a
            single step, [batch, n].
        outputs: with states: the kernel's outputs, which may depend on the attributes; without,
            they are the op's results.
        int8: slots that are int8 under dynamic-range quantisation.
        integer: what a use keeps, beside the op's constraints, to run on int8 values; one that
            does not runs in float.
        asymmetric_version: operator version with int8 weights and attribute
            ``asymmetric_quantize_inputs``.
        stored: operand slots that are constants, and how the kernel wants them laid out: a
            function of the array as the call has it.
    """

    operator: str
    options: str
    fields: Mapping[str, str]
    version: Callable[[bool], int]
    enums: Mapping[str, str] = field(default_factory=dict)
    states: tuple[StateSlot, ...] = ()
    outputs: Callable[[Mapping[str, AttributeValue]], Outputs] = lambda attributes: {}
    int8: frozenset[str] = frozenset()
    integer: tuple[Constraint, ...] = (NO_INTEGERS,)
    asymmetric_version: int = 1
    stored: Mapping[str, Callable[[Array], Array]] = field(default_factory=dict)


@dataclass(frozen=True)
class CustomLowering:
    """The op becomes a CUSTOM operator with its attributes as a flexbuffer map.

    Args:
        code: the operator's custom code; the kernel is registered under it.
    """

    code: str


Lowering = BuiltinLowering | CustomLowering


@dataclass(frozen=True)
class FusedOp:
    """The declaration of a fused op.

    Args:
        name: the schema's operator name for a built-in, else the user's own.
        operands: slots in the kernel's order.
        results: result names; the first one is what the kernel itself gives.
        attributes: attribute name -> type, default, choices.
        lowering: how it becomes TFLite.
        constraints: what a use must keep.
        variadic: operands and results are free (any names, any number) and attributes beyond the
            declared ones are let through as they are.
        doc: one sentence: what it computes.
        shapes: the shape rule; None: what TensorFlow infers from the body.
        reference: what the op computes, in numpy: takes the operands by slot name (absent ones
            are left out) and the attributes, all by keyword; returns one array or one for each
            result. None: what the body of each call computes.
    """

    name: str
    operands: tuple[OperandSlot, ...]
    results: tuple[str, ...]
    attributes: Mapping[str, AttributeSpec]
    lowering: Lowering
    constraints: tuple[Constraint, ...] = ()
    variadic: bool = False
    doc: str = ""
    shapes: ShapeRule | None = None
    reference: Callable[..., Any] | None = None

    @classmethod
    def custom(
        cls,
        name: str,
        *,
        operands: Sequence[str | OperandSlot] | None = None,
        results: Sequence[str] = ("output",),
        attributes: Mapping[str, AttributeSpec] | None = None,
        code: str | None = None,
        constraints: tuple[Constraint, ...] = (),
        doc: str = "",
        shapes: ShapeRule | None = None,
        reference: Callable[..., Any] | None = None,
    ) -> FusedOp:
        """A user's own op, which becomes the CUSTOM operator `code` (default: its own name).

        Args:
            name: of the op, and of the `OpHint` that marks it.
            operands: in the kernel's order; a name stands for a slot that must be filled. None:
                any operands and any results.
            results: in the kernel's order; without `operands` of no meaning.
            attributes: the kernel gets them as a flexbuffer map.
            code: the custom code under which the kernel is registered.
            constraints: what a use must keep.
            doc: one sentence: what it computes.
            shapes: see `FusedOp`.
            reference: see `FusedOp`.
        """
        lowering = CustomLowering(code or name)
        slots = [OperandSlot(o) if isinstance(o, str) else o for o in operands or ()]
        return cls(
            name,
            tuple(slots),
            () if operands is None else tuple(results),
            dict(attributes or {}),
            lowering,
            constraints,
            operands is None,
            doc,
            shapes,
            reference,
        )

    @property
    def lowering_text(self) -> str:
        """What it becomes, in a few words."""
        if isinstance(self.lowering, BuiltinLowering):
            return f"built-in operator {self.lowering.operator}"
        return f"CUSTOM operator '{self.lowering.code}'"

    @property
    def slot_names(self) -> tuple[str, ...]:
        """Slot names in the kernel's order."""
        return tuple(slot.name for slot in self.operands)

    def slot(self, name: str) -> OperandSlot:
        """The slot called `name`; `HintcError` when there is none."""
        for slot in self.operands:
            if slot.name == name:
                return slot
        raise HintcError(f"{self.name} has no operand '{name}'")

    def checked_attributes(self, given: Mapping[str, object]) -> dict[str, AttributeValue]:
        """All attributes of a use: `given` checked, defaults filled in."""
        unknown = sorted(set(given) - set(self.attributes))
        if unknown and not self.variadic:
            raise HintcError(
                f"{self.name} has no attribute '{unknown[0]}'",
                why="it has " + ", ".join(self.attributes),
            )
        values = {name: plain_value(self.name, name, given[name]) for name in unknown}
        for name, spec in self.attributes.items():
            if name in given:
                values[name] = spec.checked(self.name, name, given[name])
            elif spec.default is None:
                raise HintcError(f"{self.name}: attribute '{name}' is missing")
            else:
                values[name] = spec.default
        return values

    def refusals(
        self,
        slots: Sequence[str | None],
        attributes: Mapping[str, object],
        *,
        target: Target = "tflite",
        quantize: Quantize | None = None,
    ) -> list[str]:
        """Why this use is not legal on `target`: one reason for each broken constraint."""
        present = frozenset(slot for slot in slots if slot is not None)
        use = Use(present, self.checked_attributes(attributes), target, quantize)
        return [constraint.reason for constraint in self.violated(use)]

    def violated(self, use: Use) -> list[Constraint]:
        """The constraints that `use` does not keep."""
        return [c for c in self.constraints if use.target in c.targets and not c.holds(use)]

    def spec(
        self,
        slots: Sequence[str | None],
        results: Sequence[str],
        attributes: Mapping[str, object] | None = None,
    ) -> str:
        """The JSON spec of a call, checked; the same use gives the same text.

        Args:
            slots: for each operand of the call its slot name, or None: only the body needs it.
            results: for each result of the call its name in this op.
            attributes: those that differ from their defaults at least.

        Raises:
            HintcError: an unknown, repeated or missing slot, result or attribute.
        """
        self._check_shape(slots, results)
        content = {
            "op": self.name,
            "slots": list(slots),
            "results": list(results),
            "attributes": self.checked_attributes(attributes or {}),
        }
        return json.dumps(content, sort_keys=True, allow_nan=False)

    def implements(
        self,
        slots: Sequence[str | None],
        results: Sequence[str],
        attributes: Mapping[str, object] | None = None,
    ) -> FunctionRef:
        """The attribute ``_implements`` of a function that computes one call; see `spec`."""
        spec = self.spec(slots, results, attributes).encode()
        return FunctionRef(PREFIX + self.name, (("spec", spec), ("tfl_fusable_op", True)))

    def parse_spec(self, text: str) -> Spec:
        """A spec of this op read back and checked; `HintcError` if it is not one."""
        raw = parse_spec(text)
        if raw.op != self.name:
            raise HintcError(f"the spec is of '{raw.op}', not of '{self.name}'")
        self._check_shape(raw.slots, raw.results)
        return Spec(raw.op, raw.slots, raw.results, self.checked_attributes(raw.attributes))

    def _check_shape(self, slots: Sequence[str | None], results: Sequence[str]) -> None:
        present = [slot for slot in slots if slot is not None]
        self._check_names("operand", present, self.slot_names)
        self._check_names("result", results, self.results)
        for slot in self.operands:
            if not slot.optional and slot.kind != "state" and slot.name not in present:
                raise HintcError(f"{self.name}: operand '{slot.name}' is missing")

    def _check_names(self, what: str, given: Sequence[str], known: Sequence[str]) -> None:
        for number, name in enumerate(given):
            if not self.variadic and name not in known:
                raise HintcError(
                    f"{self.name} has no {what} '{name}'", why="it has " + ", ".join(known)
                )
            if name in given[:number]:
                raise HintcError(f"{self.name}: {what} '{name}' is given twice")
