"""expand-block-cells: cells that TensorFlow has as one op become ordinary ops.

LSTMBlockCell and GRUBlockCell become their formulas in place. BlockLSTM and BlockLSTMV2 become a
Scan whose step has them; the last row of their cell states is its final state. From then on they
are cells like any other. Left alone, with a remark: other types than float32, and a sequence length
that is not provably that of the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hintc.call_graph import needed_graphs
from hintc.graphdef.emit import Emitter
from hintc.graphdef.final_rows import reads_last
from hintc.graphdef.shapes import infer_shapes, shapes_remembered
from hintc.ir import DType, Function, Graph, Module, Node, Port, Scan
from hintc.ir.scan import dtype_of
from hintc.registry import register
from hintc.remark import PassReport, Refused
from hintc.rewrite import Pass
from hintc_passes.analysis.values import dimension_of, known_int, source_of, sweep
from hintc_passes.cells.block_ops import LSTM_RESULTS, LstmOptions, gru_step, lstm_step

_CELL = ("x", "cs_prev", "h_prev", "w", "wci", "wcf", "wco", "b")
_OPERANDS = {
    "LSTMBlockCell": _CELL,
    "GRUBlockCell": ("x", "h_prev", "w_ru", "w_c", "b_ru", "b_c"),
    "BlockLSTM": ("seq_len_max", *_CELL),
    "BlockLSTMV2": ("seq_len_max", *_CELL),
}


@register
@dataclass(frozen=True)
class ExpandBlockCells(Pass):
    """Replace ops that are whole cells or layers by their formulas."""

    name: ClassVar[str] = "expand-block-cells"

    @shapes_remembered()
    def run(self, module: Module) -> PassReport:
        """Expand every such op that the main graph reaches."""
        report = PassReport()
        for graph in needed_graphs(module):
            for node in [n for n in graph if n.op in _OPERANDS and graph.is_used(n)]:
                name, op = node.name, node.op
                try:
                    _expand(module, graph, node)
                except Refused as refusal:
                    report.refused(refusal.code, name, refusal.reason, refusal.remedy)
                    continue
                report.count("expanded")
                report.note("block-expanded", name, f"is a {op}, its formulas stand here now")
        return report


def _expand(module: Module, graph: Graph, node: Node) -> None:
    values = dict(zip(_OPERANDS[node.op], node.operands, strict=True))
    if dtype_of(values["x"]) is not DType.FLOAT:
        raise Refused(
            "block-type", f"the {node.op} computes in another type than float32", "Use float32."
        )
    trip = _trip_count(module, graph, node, values) if "seq_len_max" in values else None
    name = node.name
    graph.rename(node, graph.unique_name(f"{name}/block"))
    emit = Emitter(graph, name, node.origin or (name,))
    if trip is not None:
        found = _layer(module, graph, node, values, trip, name)
    elif node.op == "GRUBlockCell":
        found = dict(enumerate(gru_step(emit, values)))
    else:
        step = lstm_step(emit, LstmOptions.of(node), values)
        found = {at: step[result] for at, result in enumerate(LSTM_RESULTS)}
    _place_like(graph, node, [value.node for value in found.values()])
    for at, value in found.items():
        graph.replace_uses(Port(node, at), value)
    graph.replace_control_uses(node, [found[max(found)].node])
    graph.remove(node)
    sweep(graph, [value.node for value in found.values()])


def _place_like(graph: Graph, old: Node, results: list[Node]) -> None:
    """Give the nodes between the operands of `old` and `results` its device and controls."""
    given = {p.node for p in old.operands}
    seen: set[Node] = set()
    pending = list(results)
    while pending:
        node = pending.pop()
        if node in seen or node in given:
            continue
        seen.add(node)
        node.device = old.device
        before = [p.node for p in node.operands]
        if old.controls and not set(before) - given:
            graph.set_controls(node, old.controls)
        pending.extend(before)


def _trip_count(module: Module, graph: Graph, node: Node, values: dict[str, Port]) -> int | None:
    """The number of steps, -1 where it is the input's length at run time.

    Raises:
        Refused: the op may stop before the end of its input.
    """
    x, given = source_of(values["x"]), source_of(values["seq_len_max"])
    dims = infer_shapes(module, graph, [x])[x].dims
    steps = dims[0] if dims is not None and len(dims) == 3 else -1
    if steps >= 0 and known_int(given) == steps:
        return steps
    length = source_of(given.node.operands[0]) if given.node.op == "Cast" else given
    if dimension_of(length) == (x, 0):
        return steps
    raise Refused(
        "block-length",
        f"the {node.op} may stop before the end of its input",
        "Give the time dimension a fixed size and seq_len_max the same.",
    )


def _layer(
    module: Module, graph: Graph, node: Node, values: dict[str, Port], steps: int, name: str
) -> dict[int, Port]:
    """The Scan of a BlockLSTM; for each result that is read what takes its place."""
    emit = Emitter(graph, name, node.origin or (name,))
    x, states = values["x"], (values["cs_prev"], values["h_prev"])
    options = LstmOptions.of(node)
    fixed = ["w", "b", *(("wci", "wcf", "wco") if options.peephole else ())]
    last = _last_rows(graph, node)
    read = [at for at in range(len(LSTM_RESULTS)) if graph.uses(Port(node, at)) and at not in last]
    ys = read or [LSTM_RESULTS.index("h")]
    body = module.add_function(Function(f"{node.op}_step"))
    body.add_arg("t", DType.INT32)
    names = ("x", "cs_prev", "h_prev", *fixed)
    args = {arg: Port(body.add_arg(arg, DType.FLOAT)) for arg in names}
    made = lstm_step(Emitter(body.graph, "", ()), options, args)
    for at, result in enumerate(("cs", "h", *(LSTM_RESULTS[at] for at in ys))):
        body.graph.add_result(f"result_{at}", made[result])
    trip = emit.element(emit.shape(x), 0) if steps < 0 else emit.constant(np.int32(steps))
    scan = Scan(
        body.name,
        trip,
        (x,),
        states,
        tuple(values[arg] for arg in fixed),
        (False,),
        (False,) * len(ys),
    ).add_to(module, graph, name=name, origin=node.origin or (name,))
    for at, readers in last.items():
        final = Port(scan, ("cs", "h").index(LSTM_RESULTS[at]))
        for reader in readers:
            graph.replace_uses(Port(reader), final)
            graph.replace_control_uses(reader, [scan])
            sweep(graph, [reader])
    return {at: Port(scan, 2 + number) for number, at in enumerate(ys)}


def _last_rows(graph: Graph, node: Node) -> dict[int, list[Node]]:
    """The results cs and h of which only the last row is read, and what reads it."""
    found: dict[int, list[Node]] = {}
    for at, result in enumerate(LSTM_RESULTS):
        uses = graph.uses(Port(node, at))
        if result in ("cs", "h") and uses and all(u.slot == 0 and reads_last(u.node) for u in uses):
            found[at] = [use.node for use in uses]
    return found
