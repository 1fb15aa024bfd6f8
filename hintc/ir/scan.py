"""Scan: the one form of a recurrence, as a typed view of a node with the op `Scan`.

``results = Scan(trip_count, *xs, *states, *invariants, *fused_operands)`` means::

    s = states
    for t in range(trip_count):
        x = [X[trip_count - 1 - t if reversed else t] for X in xs]
        s, y = body(t, *x, *s, *invariants)
        Y[trip_count - 1 - t if reversed else t] = y
    results = (*s, *Y)

`xs` and `ys` are time-major, ``[T, ...]``, and T is `trip_count`: whoever makes a Scan proves that
or cuts the sequences. `trip_count` and `t` are int32 scalars. Recognition
adds *fused operands*: what a fused kernel reads beside or instead of the others (weights in the
kernel's layout). Only the fused form reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hintc.errors import VerifyError
from hintc.ir.attributes import AttributeValue, FunctionRef
from hintc.ir.dtypes import DType
from hintc.ir.graph import Graph
from hintc.ir.module import Function, Module
from hintc.ir.node import Node, Port
from hintc.ir.opdefs import SCAN, result_dtypes


@dataclass(frozen=True)
class Fusion:
    """What recognition found: the fused op that computes a Scan, and how its slots are filled.

    Attributes:
        op: name of the declared FusedOp.
        operands: slot name -> the Port in the outer graph that fills it (None: slot absent).
        results: for each result of the Scan, the FusedOp's result name; None where the fused op
            does not produce it (then nothing may use that result).
        attributes: the FusedOp's attributes, ready for its spec.
    """

    op: str
    operands: Mapping[str, Port]
    results: tuple[str | None, ...]
    attributes: Mapping[str, bool | int | float | str]


@dataclass(frozen=True)
class Scan:
    """The parts of a recurrence.

    Attributes:
        body: name of the step function ``(t, *xs, *states, *invariants) -> (*states, *ys)``.
        trip_count: int32 scalar.
        xs: sequences read along axis 0.
        states: initial values of the carried states.
        invariants: values that every step reads unchanged.
        reverse_xs, reverse_ys: True where step `t` reads or writes index ``trip_count - 1 - t``.
        fusion: set by recognition.
        form: ``""`` (not decided), ``"fused"``, ``"unroll"`` or ``"while"``.
        hint: name of the hint that marked it, "" for none.
        unrolled: its steps were written one after the other in the source.
    """

    body: str
    trip_count: Port
    xs: tuple[Port, ...]
    states: tuple[Port, ...]
    invariants: tuple[Port, ...]
    reverse_xs: tuple[bool, ...]
    reverse_ys: tuple[bool, ...]
    fusion: Fusion | None = None
    form: str = ""
    hint: str = ""
    unrolled: bool = False

    @classmethod
    def of(cls, node: Node) -> Scan:
        """Read the parts off a node.

        Raises:
            VerifyError: it is not a Scan, or its operands and attributes disagree.
        """
        if node.op != SCAN:
            raise VerifyError(f"expected a Scan, found a {node.op}", node=node.name)
        at = node.attributes
        counts = [at.get(key) for key in ("xs", "states", "invariants")]
        body, reverse_xs, reverse_ys = (
            at.get("body"),
            at.get("reverse_xs"),
            at.get("reverse_ys"),
        )
        slots = at.get("fused_slots", ())
        form, hint = at.get("form", b""), at.get("hint", b"")
        if (
            not all(isinstance(c, int) and c >= 0 for c in counts)
            or not isinstance(body, FunctionRef)
            or not isinstance(reverse_xs, tuple)
            or not isinstance(reverse_ys, tuple)
            or not isinstance(slots, tuple)
            or not all(isinstance(slot, bytes) for slot in slots)
            or not isinstance(form, bytes)
            or not isinstance(hint, bytes)
            or len(node.operands) != 1 + sum(c for c in counts if isinstance(c, int)) + len(slots)
        ):
            raise VerifyError("operands and attributes of the Scan disagree", node=node.name)
        parts: list[tuple[Port, ...]] = []
        start = 1
        for count in counts:
            assert isinstance(count, int)
            parts.append(node.operands[start : start + count])
            start += count
        return cls(
            body.name,
            node.operands[0],
            parts[0],
            parts[1],
            parts[2],
            tuple(bool(r) for r in reverse_xs),
            tuple(bool(r) for r in reverse_ys),
            _read_fusion(node, slots, node.operands[start:]),
            form.decode(),
            hint.decode(),
            at.get("unrolled") is True,
        )

    def body_function(self, module: Module) -> Function:
        """The step function."""
        return module.function(self.body)

    @property
    def operands(self) -> tuple[Port, ...]:
        """All operands of the node, in order."""
        fused = tuple(self.fusion.operands.values()) if self.fusion else ()
        return (self.trip_count, *self.xs, *self.states, *self.invariants, *fused)

    def attributes(self, module: Module) -> dict[str, AttributeValue]:
        """All attributes of the node."""
        body = self.body_function(module).graph
        found: dict[str, AttributeValue] = {
            "body": FunctionRef(self.body),
            "Tin": tuple(dtype_of(p) for p in self.operands[1:]),
            "Tout": tuple(dtype_of(r.operands[0]) for r in body.results),
            "xs": len(self.xs),
            "states": len(self.states),
            "invariants": len(self.invariants),
            "ys": len(self.reverse_ys),
            "reverse_xs": self.reverse_xs,
            "reverse_ys": self.reverse_ys,
        }
        if self.form:
            found["form"] = self.form.encode()
        if self.hint:
            found["hint"] = self.hint.encode()
        if self.unrolled:
            found["unrolled"] = True
        if self.fusion:
            found["fused_op"] = self.fusion.op.encode()
            found["fused_slots"] = tuple(slot.encode() for slot in self.fusion.operands)
            found["fused_results"] = tuple((r or "").encode() for r in self.fusion.results)
            for key, value in self.fusion.attributes.items():
                found[f"fused.{key}"] = value.encode() if isinstance(value, str) else value
        return found

    def add_to(
        self,
        module: Module,
        graph: Graph,
        *,
        name: str | None = None,
        origin: Sequence[str] = (),
    ) -> Node:
        """Append a Scan node with these parts to `graph`."""
        return graph.add(
            SCAN,
            self.operands,
            self.attributes(module),
            name=name or "scan",
            origin=origin,
        )

    def write_to(self, module: Module, node: Node) -> None:
        """Make an existing Scan node say this (its results keep their number)."""
        node.graph.set_operands(node, self.operands)
        wanted = self.attributes(module)
        for key in [k for k in node.attributes if k not in wanted]:
            del node.attributes[key]
        for key, value in wanted.items():
            node.attributes[key] = value

    def with_fusion(self, fusion: Fusion | None) -> Scan:
        """The same recurrence, annotated."""
        return replace(self, fusion=fusion)


def dtype_of(port: Port) -> DType:
    """Element type of a value, from its node's definition and attributes.

    Raises:
        VerifyError: the op is not known, or has no such result.
    """
    dtypes = result_dtypes(port.node)
    dtype = dtypes[port.index] if dtypes is not None and port.index < len(dtypes) else None
    if dtype is None:
        raise VerifyError(
            f"the element type of result {port.index} is not known", node=port.node.name
        )
    return dtype.base


def _read_fusion(
    node: Node, slots: tuple[AttributeValue, ...], operands: tuple[Port, ...]
) -> Fusion | None:
    op = node.attributes.get("fused_op")
    if not isinstance(op, bytes):
        return None
    results = node.attributes.get("fused_results", ())
    assert isinstance(results, tuple)
    attributes: dict[str, bool | int | float | str] = {}
    for key in node.attributes:
        if key.startswith("fused."):
            value = node.attributes[key]
            if isinstance(value, bytes):
                attributes[key.removeprefix("fused.")] = value.decode()
            elif isinstance(value, bool | int | float):
                attributes[key.removeprefix("fused.")] = value
    return Fusion(
        op.decode(),
        {s.decode(): p for s, p in zip(slots, operands, strict=True) if isinstance(s, bytes)},
        tuple(r.decode() or None for r in results if isinstance(r, bytes)),
        attributes,
    )
