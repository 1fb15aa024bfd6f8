"""A fused call as it stands in the converted model: one CUSTOM operator and its spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hintc.errors import HintcError
from hintc.flexbuffer import load_attributes
from hintc.ops import PREFIX, AttributeValue, BuiltinLowering, FusedOp, Spec, declared, parse_spec
from hintc.tflite.flatbuffer import Operator, Subgraph
from hintc.tflite.schema import is_builtin


@dataclass(frozen=True)
class FusedCall:
    """One fused call, its operands and results bound to tensors of its subgraph.

    Args:
        subgraph: where it stands.
        op: the CUSTOM operator.
        fused: its op's declaration.
        spec: its spec, checked.
        operands: slot name -> tensor index, in the order of the call; null slots are left out.
        results: result name -> tensor index.
    """

    subgraph: Subgraph
    op: Operator
    fused: FusedOp
    spec: Spec
    operands: Mapping[str, int]
    results: Mapping[str, int]

    @property
    def name(self) -> str:
        """Name of the call: that of its first result's tensor."""
        return self.subgraph.tensor_name(self.op.outputs[0])

    @property
    def attributes(self) -> Mapping[str, AttributeValue]:
        """The spec's attributes."""
        return self.spec.attributes

    def error(self, what: str, *, why: str | None = None, remedy: str | None = None) -> HintcError:
        """A `HintcError` that names this call."""
        return HintcError(f"{self.fused.name}: {what}", node=self.name, why=why, remedy=remedy)

    def sizes(self) -> dict[str, int]:
        """The size behind each symbol of the declaration's shapes; -1 where dynamic.

        Raises:
            HintcError: an operand that is not float32, or whose shape does not fit.
        """
        found: dict[str, int] = {}
        for slot in self.fused.operands:
            index = self.operands.get(slot.name)
            if index is None or slot.kind == "state" or not slot.shape:
                continue
            is_kernel = isinstance(self.fused.lowering, BuiltinLowering)
            if is_kernel and self.subgraph.dtype(index) != np.float32:
                raise self.error(f"operand '{slot.name}' is not float32")
            shape = self.subgraph.shape(index)
            if shape is None or len(shape) != len(slot.shape):
                raise self.error(
                    f"operand '{slot.name}' has shape {shape}", why=f"expected {slot.shape}"
                )
            for symbol, size in zip(slot.shape, shape, strict=True):
                known = found.get(symbol, -1)
                if symbol != "?" and min(known, size) >= 0 and known != size:
                    raise self.error(
                        f"operand '{slot.name}' has shape {list(shape)}",
                        why=f"{symbol} is {known} in another operand",
                    )
                found[symbol] = max(known, size)
        return found

    def checked_shapes(self) -> dict[str, tuple[int, ...] | None]:
        """What the op's shape rule says of each result, by name; empty if there is no rule.

        Raises:
            HintcError: the model has it otherwise, or the rule fails.
        """
        if self.fused.shapes is None:
            return {}
        given = {slot: self.subgraph.shape(index) for slot, index in self.operands.items()}
        try:
            shapes = [None if s is None else tuple(s) for s in self._ruled(given)]
        except Exception as error:  # whatever a user's rule raises
            raise self.error("its shape rule fails", why=f"{type(error).__name__}: {error}") from (
                error
            )
        found = dict(zip(self.fused.results, shapes, strict=True))
        for name, shape in found.items():
            there = self.subgraph.shape(self.results[name]) if name in self.results else None
            if shape is not None and there is not None and not _agree(shape, there):
                raise self.error(
                    f"result '{name}' has shape {list(there)}",
                    why=f"the op's shape rule says {list(shape)}",
                )
        return found

    def _ruled(self, given: Mapping[str, tuple[int, ...] | None]) -> Sequence[Any]:
        assert self.fused.shapes is not None
        shapes = self.fused.shapes(given, self.attributes)
        if len(shapes) != len(self.fused.results):
            raise ValueError(f"{len(shapes)} shapes for {len(self.fused.results)} results")
        return shapes


def _agree(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """True if no size is known to differ."""
    return len(one) == len(other) and all(
        min(a, b) < 0 or a == b for a, b in zip(one, other, strict=True)
    )


def fused_call(subgraph: Subgraph, op: Operator) -> FusedCall | None:
    """The fused call that `op` is; None for any other operator.

    Raises:
        HintcError: a ``hintc.`` operator whose spec is missing, damaged or does not fit it.
    """
    code = subgraph.model.custom_code(op)
    if code is None or not code.startswith(PREFIX):
        return None
    name = subgraph.tensor_name(op.outputs[0]) if op.outputs else ""
    try:
        data = b"" if op.customOptions is None else bytes(bytearray(op.customOptions))
        text = load_attributes(data).get("spec")
        if not isinstance(text, str):
            raise HintcError("it carries no spec")
        fused = _declaration(parse_spec(text).op, code.removeprefix(PREFIX))
        spec = fused.parse_spec(text)
    except HintcError as error:
        raise HintcError(
            f"the fused call '{code}' is malformed",
            node=name,
            why=str(error),
            remedy="Make its spec with FusedOp.spec.",
        ) from error
    for what, given, there in (
        ("operands", len(spec.slots), len(op.inputs)),
        ("results", len(spec.results), len(op.outputs)),
    ):
        if given != there:
            raise HintcError(
                f"the fused call '{code}' is malformed",
                node=name,
                why=f"its spec lists {given} {what}, it has {there}",
            )
    operands = {s: i for s, i in zip(spec.slots, op.inputs, strict=True) if s is not None}
    results = dict(zip(spec.results, op.outputs, strict=True))
    return FusedCall(subgraph, op, fused, spec, operands, results)


def _declaration(name: str, marked: str) -> FusedOp:
    """The op's declaration; an undeclared name that no built-in has is a user's own op."""
    if name != marked:
        raise HintcError(f"it is marked '{marked}' and its spec is of '{name}'")
    known = declared(name)
    if known is not None:
        return known
    if is_builtin(name):
        raise HintcError(
            f"the built-in operator {name} is not declared", remedy="Declare it first."
        )
    return FusedOp.custom(name)
