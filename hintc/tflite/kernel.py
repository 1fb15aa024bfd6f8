"""Kernels with recurrent states, as they stand in a legalised model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hintc.errors import HintcError
from hintc.ops import AttributeValue, BuiltinLowering, FusedOp, Quantize, Target, Use, declared
from hintc.tflite.flatbuffer import Operator, Subgraph
from hintc.tflite.schema import schema


@dataclass(frozen=True)
class Kernel:
    """A built-in operator that keeps states.

    Args:
        subgraph: where it stands.
        op: the operator.
        fused: its op's declaration.
        lowering: how that became the operator.
    """

    subgraph: Subgraph
    op: Operator
    fused: FusedOp
    lowering: BuiltinLowering

    @property
    def name(self) -> str:
        """Name of its first result."""
        return self.subgraph.tensor_name(self.op.outputs[0])

    @property
    def layer(self) -> str:
        """The path that its weights' names have in common with the source, else its name."""
        names = map(self.subgraph.tensor_name, self.op.inputs[1:])
        paths = (name.rpartition("/")[0] for name in names)
        return next((path for path in paths if path), self.name)

    @property
    def operands(self) -> dict[str, int]:
        """Slot -> tensor; absent ones are left out."""
        pairs = zip(self.fused.slot_names, self.op.inputs, strict=True)
        return {slot: tensor for slot, tensor in pairs if tensor >= 0}

    @property
    def states(self) -> dict[str, int]:
        """Slot of each state -> its variable tensor, in the declared order."""
        operands = self.operands
        return {state.slot: operands[state.slot] for state in self.lowering.states}

    @property
    def given_states(self) -> dict[str, int]:
        """Slot of each state that does not start from zero -> the tensor it is copied from."""
        found = {}
        for slot, variable in self.states.items():
            writer = self.subgraph.producer(variable)
            if writer is not None and self.subgraph.model.op_name(writer) != "FILL":
                found[slot] = int(writer.inputs[0])
        return found

    @property
    def intermediates(self) -> list[int]:
        """The tensors that integer kernels need for values inside."""
        there = self.op.intermediates
        return [] if there is None else [int(tensor) for tensor in there]

    @property
    def attributes(self) -> dict[str, AttributeValue]:
        """The attributes, as the op declares them."""
        found: dict[str, AttributeValue] = {}
        for name, spec in self.fused.attributes.items():
            value = getattr(self.op.builtinOptions, self.lowering.fields[name])
            enum = self.lowering.enums.get(name)
            if enum is not None:
                (value,) = (k for k, v in vars(getattr(schema(), enum)).items() if v == value)
            found[name] = spec.checked(self.fused.name, name, value)
        return found

    @property
    def no_integers(self) -> str:
        """Why the kernel does not run on int8 values; "" where it does so, rightly."""
        violated = [c for c in self.lowering.integer if not c.holds(self._use("int8"))]
        return "; ".join(constraint.reason for constraint in violated)

    def violated(self, quantize: Quantize | None, target: Target) -> str:
        """Why the kernel is not legal so; "" where it is."""
        violated = self.fused.violated(self._use(quantize, target))
        return "; ".join(constraint.reason for constraint in violated)

    def _use(self, quantize: Quantize | None, target: Target = "tflite") -> Use:
        shape = self.subgraph.shape(self.operands[self.fused.slot_names[0]])
        dynamic = shape is None or min(shape, default=0) < 0
        return Use(frozenset(self.operands), self.attributes, target, quantize, dynamic)

    def error(self, what: str, *, why: str | None = None, remedy: str | None = None) -> HintcError:
        """A `HintcError` that names this kernel."""
        return HintcError(f"{self.fused.name}: {what}", node=self.name, why=why, remedy=remedy)


def state_kernels(subgraph: Subgraph) -> Iterator[Kernel]:
    """The kernels with states of a subgraph, in the order they run."""
    for op in subgraph.operators:
        fused = declared(subgraph.model.op_name(op))
        if fused is None or not isinstance(fused.lowering, BuiltinLowering):
            continue
        if fused.lowering.states:
            yield Kernel(subgraph, op, fused, fused.lowering)
