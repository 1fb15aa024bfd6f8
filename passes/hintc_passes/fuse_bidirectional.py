"""fuse-bidirectional: a forward and a backward layer on one sequence become one kernel's call.

Recognises two fused calls of UNIDIRECTIONAL_SEQUENCE_LSTM, or of the RNN, of which one reads the
other's sequence reversed in time: same attributes, same operands in the same sizes, neither needs
the other's results. Makes: one call of BIDIRECTIONAL_SEQUENCE_LSTM (or RNN) whose body is the two;
its outputs are merged if the two are only ever concatenated. Transpositions may stand between.

Leaves a pair as it is, with a note, where the kernel is missing or known to be wrong: sizes or
options that differ, sequence lengths, RNNs with int8 weights, TFLite Micro. Two kernels compute the
same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from hintc.call_graph import CONTROL_FLOW_V1, needed_graphs
from hintc.graphdef.scan_lowering import remove_unused_functions
from hintc.graphdef.shapes import shapes_remembered
from hintc.ir import FunctionRef, Graph, Module
from hintc.ops import (
    BIDIRECTIONAL_SEQUENCE_LSTM,
    BIDIRECTIONAL_SEQUENCE_RNN,
    UNIDIRECTIONAL_SEQUENCE_LSTM,
    UNIDIRECTIONAL_SEQUENCE_RNN,
    Quantize,
    Target,
)
from hintc.ops.directions import BACKWARD, FORWARD
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass
from hintc_passes.directions.joining import Joining
from hintc_passes.directions.layer import Layer, find_layers
from hintc_passes.directions.precedence import Precedence

_PAIRS = {
    UNIDIRECTIONAL_SEQUENCE_LSTM.name: BIDIRECTIONAL_SEQUENCE_LSTM,
    UNIDIRECTIONAL_SEQUENCE_RNN.name: BIDIRECTIONAL_SEQUENCE_RNN,
}
_ONE_WAY = {op.name: op for op in (UNIDIRECTIONAL_SEQUENCE_LSTM, UNIDIRECTIONAL_SEQUENCE_RNN)}

Pair = tuple[Layer, Layer]


@register
@dataclass(frozen=True)
class FuseBidirectional(Pass):
    """Join a forward and a backward layer into one bidirectional call.

    Attributes:
        target: what shall run the model; TFLite Micro has no bidirectional kernels.
        quantize: how the weights will be stored; one kernel is wrong with int8 weights.
    """

    name: ClassVar[str] = "fuse-bidirectional"
    target: Target = "tflite"
    quantize: Quantize | None = None

    @shapes_remembered()
    def run(self, module: Module) -> PassReport:
        """Join the pairs in every graph that the main graph needs."""
        report = PassReport()
        freed: dict[str, None] = {}
        for graph in needed_graphs(module):
            layers = find_layers(module, graph, _ONE_WAY)
            _note_lengths(layers, report)
            pairs = list(_pairs(layers))
            if pairs:
                self._join_all(module, graph, pairs, report, freed)
        remove_unused_functions(module, freed)
        return report

    def _join_all(
        self,
        module: Module,
        graph: Graph,
        pairs: list[Pair],
        report: PassReport,
        freed: dict[str, None],
    ) -> None:
        order = Precedence(graph)
        in_frames = any(node.op in CONTROL_FLOW_V1 for node in graph)
        for forward, backward in pairs:
            # with frames, where a node runs is not seen from what it reads
            reason = "the graph has control flow of version 1" if in_frames else ""
            reason = reason or self._refusal(forward, backward)
            first, second = order.first(forward.node, backward.node)
            moved = None if reason else order.between(first, second)
            if moved is None:
                report.note(
                    "bidirectional-not-joined",
                    forward.node.name,
                    f"Stays a kernel of its own beside '{backward.node.name}', which reads the "
                    f"same sequence backwards: {reason or 'one needs a result of the other'}.",
                )
                continue
            freed.update(dict.fromkeys(_function(layer) for layer in (forward, backward)))
            op = _PAIRS[forward.spec.op]
            names = (forward.node.name, backward.node.name)
            joint = Joining(module, forward, backward, op).run()
            order.join(first, moved, joint)
            for name, other in (names, names[::-1]):
                report.fused("bidirectional", name, f"becomes one {op.name} with '{other}'")
            report.count("joined")

    def _refusal(self, forward: Layer, backward: Layer) -> str:
        """Why the kernel cannot run the two, "" if it can."""
        if forward.kind != backward.kind:
            return "the two differ in sizes, options or operands"
        op = _PAIRS[forward.spec.op]
        slots = [
            prefix + slot
            for prefix, layer in ((FORWARD, forward), (BACKWARD, backward))
            for slot, _ in layer.operands()
        ]
        for slot in slots:
            if slot not in op.slot_names:
                return f"{op.name} has no operand '{slot}'"
        attributes = forward.spec.attributes
        reasons = op.refusals(slots, attributes, target=self.target, quantize=self.quantize)
        return "; ".join(reasons)


def _note_lengths(layers: list[Layer], report: PassReport) -> None:
    """Say of pairs with sequence lengths why they stay two."""
    forward: dict[object, Layer] = {x.place: x for x in layers if not x.is_backward}
    for backward in layers:
        found = forward.get(backward.place_by_lengths)
        if found is not None:
            report.note(
                "bidirectional-not-joined",
                found.node.name,
                f"Stays a kernel of its own beside '{backward.node.name}', which reads each row of "
                "the same sequence backwards from its length: the kernel reverses whole rows.",
            )


def _function(layer: Layer) -> str:
    ref = layer.node.attributes["f"]
    assert isinstance(ref, FunctionRef)
    return ref.name


def _pairs(layers: list[Layer]) -> Iterator[Pair]:
    """(forward, backward) layers on one sequence, those of one kind first, each layer once."""
    keys: list[Callable[[Layer], object]] = [lambda x: (x.place, x.kind), lambda x: x.place]
    for key in keys:
        waiting: dict[object, deque[Layer]] = {}
        for layer in layers:
            others = waiting.get((key(layer), not layer.is_backward))
            if others:
                other = others.popleft()
                yield (other, layer) if layer.is_backward else (layer, other)
            else:
                waiting.setdefault((key(layer), layer.is_backward), deque()).append(layer)
        layers = [layer for left in waiting.values() for layer in left]
