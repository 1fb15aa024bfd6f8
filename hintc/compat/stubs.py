"""`convert_op_hints_to_stubs` and its companions, with the names and the format they always had."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from hintc.authoring.find_outputs import find_all_hinted_output_nodes
from hintc.call_graph import callees_of, reachable
from hintc.compat.stub_writer import StubWriter
from hintc.errors import HintError
from hintc.graphdef import lift, lower
from hintc.hints.protocol import (
    FUNCTION_UUID,
    INPUT_INDEX,
    OUTPUT_INDEX,
    hint_call_record,
)
from hintc.hints.sequence import NotASequenceCallError, sequence_call
from hintc.hints.stub import CellAttributes
from hintc.ir import SCAN, Graph, Module, Scan
from hintc.ir.opdefs import STUB_INDICES, WHILE_OPS
from hintc.pipeline import PassPipeline
from hintc.remark import Remark, RemarkKind

__all__ = ["convert_op_hints_to_stubs", "find_all_hinted_output_nodes", "is_ophint_converted"]

_SET_ASIDE = "_hintc.set_aside."
_RAISE = "raise-loops,split-states,peel-lengths,split-scans"
_RECOGNISE = "fuse-lstm,fuse-rnn"

WriteCallback = Callable[[Any, str], None]


class HintWarning(UserWarning):
    """A hint that did not become a stub, and why; the graph computes the same without."""


def convert_op_hints_to_stubs(
    session: Any = None,
    graph_def: Any = None,
    write_callback: WriteCallback | None = None,
) -> Any:
    """Replace every hinted call of a graph by one stub operation.

    Args:
        session: a `tf.compat.v1.Session` whose graph is converted as it is (variables stay), or
        graph_def: a GraphDef, frozen or not. Exactly one of the two. It is not changed.
        write_callback: called as ``write_callback(graph_def, comment)`` with the graph after each
            call that became a stub, then with the final one.

    Returns:
        A new GraphDef, the same for the same input. Without open hints it equals the input. TF
        cannot run it: stubs are not known ops. `hintc.convert` and `hintc.TFLiteConverter` take
        it, also after `remove_training_nodes`. A hint that cannot become a stub stays, with a
        `HintWarning` that says why.

    Raises:
        HintError: not exactly one source, or a hint is incomplete (also a ValueError).
    """
    given = _source(session, graph_def)
    module = lift(given)
    if not _has_open_hints(given):
        return lower(module)
    sinks = {node.name for node in module.graph if not module.graph.is_used(node)}
    functions = set(reachable(module))
    remarks = _run(module, "collect-hints")
    plan = _plan(module)
    remarks += plan.remarks
    with _SetAside(module, plan.loops):
        _run(module, _RAISE)
    callback = None
    if write_callback is not None:

        def callback() -> None:
            write_callback(lower(module), "initial")

    StubWriter(module, plan.cells, plan.left, callback).run()
    _sweep(module.graph, sinks)
    for name in functions - set(reachable(module)):
        del module.functions[name]
    for remark in remarks:
        if remark.kind is RemarkKind.REFUSED:
            warnings.warn(str(remark), HintWarning, stacklevel=2)
    converted = lower(module)
    if write_callback is not None:
        write_callback(converted, "final")
    return converted


def is_ophint_converted(graph_def: Any) -> bool:
    """True exactly when a graph has stubs and no open hints.

    Args:
        graph_def: a GraphDef; it is not changed.

    Raises:
        HintError: it is None, or no GraphDef (also a ValueError).
    """
    if graph_def is None:
        raise HintError("is_ophint_converted needs a GraphDef, got None")
    if not hasattr(graph_def, "node"):
        raise HintError(f"is_ophint_converted needs a GraphDef, got a {type(graph_def).__name__}")
    has_stubs = any(STUB_INDICES in node.attr for node in graph_def.node)
    return has_stubs and not _has_open_hints(graph_def)


def _source(session: Any, graph_def: Any) -> Any:
    if (session is None) == (graph_def is None):
        given = "neither" if session is None else "both"
        raise HintError(
            f"convert_op_hints_to_stubs needs one of session and graph_def, got {given}",
            remedy="Pass session= for the graph of a session, or graph_def= for a GraphDef",
        )
    if session is None:
        return graph_def
    try:
        return session.graph.as_graph_def()
    except AttributeError as error:
        raise HintError(
            "convert_op_hints_to_stubs: expected a tf.compat.v1.Session, got a "
            f"{type(session).__name__}"
        ) from error


def _has_open_hints(graph_def: Any) -> bool:
    """True if a hint of the graph, or of a function of its library, belongs to no stub."""
    bodies = [graph_def.node, *(f.node_def for f in graph_def.library.function)]
    return any(_has_open(body) for body in bodies)


def _has_open(nodes: Any) -> bool:
    stubs = {node.name for node in nodes if STUB_INDICES in node.attr}
    for node in nodes:
        # `in` first: reading an absent key of a protobuf map inserts it
        if FUNCTION_UUID in node.attr and (INPUT_INDEX in node.attr or OUTPUT_INDEX in node.attr):
            uuid = node.attr[FUNCTION_UUID].s.decode(errors="replace")
            if uuid and uuid not in stubs:
                return True
    return False


def _run(module: Module, passes: str) -> list[Remark]:
    return PassPipeline.parse(passes).run(module, verify_each=False).remarks


class _Plan:
    """What becomes of the loops of a main graph: found out on a copy.

    Attributes:
        loops: names of the loops that are nothing but hinted calls on sequences.
        cells: Scan name -> attributes of the kernel it was recognised as.
        left: names of calls that cannot be stubs because they are in a loop of v1 control flow.
        remarks: why other hinted loops stay as they are.
    """

    def __init__(self) -> None:
        self.loops: set[str] = set()
        self.cells: dict[str, CellAttributes] = {}
        self.left: frozenset[str] = frozenset()
        self.remarks: list[Remark] = []


def _plan(module: Module) -> _Plan:
    plan = _Plan()
    trial = module.copy()
    raised = _run(trial, _RAISE)
    _plan_scans(trial, plan)
    _plan_other_loops(trial, raised, plan)
    calls_in_frames = _in_frames(trial)
    plan.left = frozenset(calls_in_frames)
    for name in calls_in_frames:
        plan.remarks.append(_left(name, "it is in a loop of v1 control flow"))
    _run(trial, _RECOGNISE)
    for node in trial.graph:
        if node.op == SCAN and (fusion := Scan.of(node).fusion) is not None:
            plan.cells[node.name] = dict(fusion.attributes)
    return plan


def _plan_scans(trial: Module, plan: _Plan) -> None:
    refused: set[str] = set()
    for node in trial.graph:
        if node.op != SCAN:
            continue
        loop = node.origin[0] if node.origin else node.name
        try:
            sequence_call(trial, node)
            plan.loops.add(loop)
        except NotASequenceCallError as reason:
            refused.add(loop)
            if _hinted(trial, Scan.of(node).body_function(trial).graph):
                plan.remarks.append(_left(loop, str(reason)))
    plan.loops -= refused


def _plan_other_loops(trial: Module, raised: list[Remark], plan: _Plan) -> None:
    why = {r.node: r.reason for r in raised if r.kind is RemarkKind.REFUSED}
    for node in trial.graph:
        if node.op == SCAN or hint_call_record(trial, node) is not None:
            continue
        names = [n for n in callees_of(trial, node) if _hinted(trial, trial.functions[n].graph)]
        if names:
            reason = why.get(node.name, f"it is inside '{node.name}' ({node.op})")
            plan.remarks.append(_left(node.name, reason))


def _hinted(module: Module, graph: Graph) -> bool:
    return any(hint_call_record(module, node) is not None for node in graph)


def _left(name: str, reason: str) -> Remark:
    return Remark(
        RemarkKind.REFUSED,
        "hint-not-stubbed",
        name,
        f"A hinted call in it did not become a stub: {reason.rstrip('.')}.",
        "The graph computes the same; hintc.convert still tries to fuse it.",
        "convert_op_hints_to_stubs",
    )


def _in_frames(module: Module) -> list[str]:
    """Hinted calls on a cycle: they run once for each turn of a v1 loop."""
    import networkx as nx

    graph = module.graph
    if not any(n.op in ("NextIteration", "RefNextIteration") for n in graph):
        return []
    looping = {
        n for part in nx.strongly_connected_components(graph.nx) if len(part) > 1 for n in part
    }
    return [n.name for n in graph if n in looping and hint_call_record(module, n) is not None]


class _SetAside:
    """Hides all loops but those named from passes, while active."""

    def __init__(self, module: Module, raised: set[str]) -> None:
        self._hidden = [
            node
            for graph in module.graphs()
            for node in graph
            if node.op in WHILE_OPS and not (graph is module.graph and node.name in raised)
        ]

    def __enter__(self) -> None:
        for node in self._hidden:
            node.op = _SET_ASIDE + node.op

    def __exit__(self, *_: object) -> None:
        for node in self._hidden:
            node.op = node.op.removeprefix(_SET_ASIDE)


def _sweep(graph: Graph, sinks: Mapping[str, None] | set[str]) -> None:
    """Remove what only the replaced loops read: nobody can have asked for it."""
    todo = list(graph)
    while todo:
        node = todo.pop()
        kept = (
            node not in graph
            or graph.is_used(node)
            or node.name in sinks
            or node.op.startswith("Placeholder")
            or STUB_INDICES in node.attributes
            or "OutputHint-" in node.name
        )
        if not kept:
            producers = [*(p.node for p in node.operands), *node.controls]
            graph.remove(node)
            todo.extend(producers)
