"""fuse-hints: hinted calls of people's own ops become fused calls; what no kernel takes is undone.

Recognises the calls that collect-hints made. A call of a user's function becomes a fused call of
the op of that name (declared with `hintc.ops.declare`, or made up on the fly), a call named LSTM,
RNN or SVDF that kernel of a single step, if the two compute the same; and so does a Scan
whose body is exactly one such call on sequences. A call inside a fused one stays in its body. A
hinted recurrent cell that no pass fused is put back into its graph, with a remark.

Refuses a user's call that reads a value its hint does not declare, which no kernel would get, and a
call with the name of a kernel that computes something else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from hintc.call_graph import callees_of
from hintc.hints.protocol import CELLS, HintRecord, hint_call_record
from hintc.hints.sequence import NotASequenceCallError, sequence_call
from hintc.inlining import inline_call
from hintc.ir import SCAN, Graph, Module, Node, Scan
from hintc.ops import Quantize, Target
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass
from hintc_passes.hinting.fused import mark_fused, sequence_fusion
from hintc_passes.hinting.refusal import NotFusedError

_FRAMES = ("Enter", "RefEnter", "Switch", "RefSwitch")


@register
@dataclass(frozen=True)
class FuseHints(Pass):
    """Calls of hinted functions become fused calls.

    Attributes:
        target: what shall run the model; an op's declaration may exclude it.
        quantize: how the weights will be stored; the same.
    """

    name: ClassVar[str] = "fuse-hints"
    target: Target = "tflite"
    quantize: Quantize | None = None

    def run(self, module: Module) -> PassReport:
        """Fuse in the main graph and in all functions it reaches."""
        report = PassReport()
        todo, seen = [module.graph], {module.graph}
        while todo:
            graph = todo.pop()
            fused = set(self._fuse(module, graph, report))
            for name in _functions_below(module, graph, fused):
                body = module.functions[name].graph
                if body not in seen:
                    seen.add(body)
                    todo.append(body)
        return report

    def _fuse(self, module: Module, graph: Graph, report: PassReport) -> Iterator[Node]:
        """Fuse or undo every hinted call of one graph; the nodes whose bodies are done with."""
        prefix = None if any(n.op in _FRAMES for n in graph) else ""
        todo = list(graph)
        for node in todo:
            if node.op == SCAN:
                if self._fuse_scan(module, node, report):
                    yield node
            elif (record := hint_call_record(module, node)) is not None:
                if self._fuse_call(module, node, record, report):
                    yield node
                else:
                    todo += inline_call(module, graph, node, prefix=prefix)

    def _fuse_call(
        self, module: Module, node: Node, record: HintRecord, report: PassReport
    ) -> bool:
        if record.is_cell:
            report.refused(
                "cell-not-fused",
                node.name,
                f"The hint says '{record.function}', but no pass recognised "
                f"{CELLS[record.function]} in it; it stays as it was written.",
                "The remarks of fuse-lstm, fuse-rnn and raise-loops say what differs.",
            )
            report.count("undone")
            return False
        try:
            mark_fused(module, node, record, self.target, self.quantize)
        except NotFusedError as reason:
            report.refused(reason.code, node.name, str(reason), reason.remedy)
            report.count("undone")
            return False
        report.fused("hint", node.name, f"It is '{record.function}', as its hint says.")
        report.count("fused")
        return True

    def _fuse_scan(self, module: Module, node: Node, report: PassReport) -> bool:
        scan = Scan.of(node)
        if scan.fusion is not None:
            return True
        body = scan.body_function(module).graph
        records = [r for n in body if (r := hint_call_record(module, n)) is not None]
        if not any(r.is_sequence and not r.is_cell for r in records):
            return False
        try:
            found = sequence_call(module, node)
            fusion = sequence_fusion(node, found, self.target, self.quantize)
        except NotASequenceCallError as reason:
            report.refused(
                "hint-in-loop",
                node.name,
                f"The loop is not one call of its hinted function because {reason}.",
                "Hint the whole step, and tag its sequences and its states.",
            )
            return False
        except NotFusedError as reason:
            report.refused(reason.code, node.name, str(reason), reason.remedy)
            return False
        scan = Scan.of(node)
        scan.with_fusion(fusion).write_to(module, node)
        report.fused(
            "hint-sequence",
            node.name,
            f"The loop is '{found.record.function}' on sequences, as its hint says.",
        )
        report.count("fused")
        return True


def _functions_below(module: Module, graph: Graph, done: set[Node]) -> list[str]:
    return [name for n in graph if n not in done for name in callees_of(module, n)]
