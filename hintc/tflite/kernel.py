"""Kernels with recurrent states, as they stand in a legalised model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hintc.errors import HintcError
from hintc.ops import UNIDIRECTIONAL_SEQUENCE_LSTM, BuiltinLowering, FusedOp, declared
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
    def intermediates(self) -> list[int]:
        """The tensors that integer kernels need for values inside."""
        there = self.op.intermediates
        return [] if there is None else [int(tensor) for tensor in there]

    @property
    def knows_integers(self) -> bool:
        """Whether the kernel computes rightly in integers, and TensorFlow's quantiser knows how.

        In integers the LSTM's activation is tanh, whatever its options say. Coupled gates with
        layer normalisation give nonsense (measured: errors as large as the values), and so do
        peepholes with a projection (a third of the values); a projection is clipped without regard
        to its zero point.
        """
        if self.fused is not UNIDIRECTIONAL_SEQUENCE_LSTM:
            return False
        has = self.operands.keys()
        coupled = "input_to_input_weights" not in has
        tanh = schema().ActivationFunctionType.TANH
        return (
            self.option("activation") == tanh
            and not (coupled and "forget_layer_norm_coefficients" in has)
            and not {"cell_to_forget_weights", "projection_weights"} <= has
            and self.option("proj_clip") == 0
        )

    def option(self, attribute: str) -> object:
        """An attribute as the operator's options table has it."""
        return getattr(self.op.builtinOptions, self.lowering.fields[attribute])

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
