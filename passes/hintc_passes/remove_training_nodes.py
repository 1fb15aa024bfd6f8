"""remove-training-nodes: take out what only training, or checking, needs.

In the main graph and in all functions that it needs:

* conditions on whether one trains: an If or Case whose choice is constant becomes the branch that
  is taken;
* control edges that hold nothing: from a node that has no side effects and waits for none.
  `Assert` and summaries count as having none, so they go, as do NoOps that only gather such edges;
* `Identity`, `CheckNumerics`, `StopGradient`, `PreventGradient`: readers read the operand;
* `PlaceholderWithDefault` becomes its default, if inputs are declared and it is not one of them;
* dropout that keeps everything (rate 0), and multiplication by ones that cannot broadcast.

Left alone: FakeQuant ops, which say how to quantise; Identities of hints (they carry ``_tflite_*``
attributes); nodes in `protected` or whose name a declared result bears; in a main graph without
declared results also what nobody reads; what reads a reference variable; what other nodes, or the
node itself, wait for where the edge cannot be moved. Such a node becomes an Identity if it is not
one. Library functions are kept, but for branches that are taken never or always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hintc.call_graph import (
    CONTROL_FLOW_V1,
    Effects,
    functions_of,
    needed_graphs,
    reachable,
)
from hintc.graft import COLOCATION, colocated_with, rename_colocations
from hintc.graphdef.scan_lowering import remove_unused_functions
from hintc.inlining import inline_branch
from hintc.ir import ARG, RESULT, FunctionRef, Graph, Module, Node, Port, Tensor
from hintc.ir.opdefs import IF_OPS
from hintc.ir.scan import dtype_of
from hintc.pattern import Match, OpBuilder, constant_of
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Emitter, Pass, Refused, RewritePass, remove_unread

_CONDITIONS = (*IF_OPS, "Case", "StatelessCase")
PASS_THROUGH = frozenset(("Identity", "CheckNumerics", "StopGradient", "PreventGradient"))
"""Ops whose result is their operand."""
_SUMMARIES = (
    *("CloseSummaryWriter", "CreateSummaryDbWriter", "CreateSummaryFileWriter"),
    *("FlushSummaryWriter", "ImportEvent", "SummaryWriter", "WriteAudioSummary"),
    *("WriteGraphSummary", "WriteHistogramSummary", "WriteImageSummary", "WriteRawProtoSummary"),
    *("WriteScalarSummary", "WriteSummary"),
)
_CHECKS = frozenset(("Assert", "NoOp", *_SUMMARIES))
_HINT_PREFIX = "_tflite_"
_REFERENCES = ("Variable", "VariableV2", "TemporaryVariable", "Assign", "AssignAdd", "AssignSub")


@register
@dataclass(frozen=True)
class RemoveTrainingNodes(Pass):
    """Takes out what only training, or checking, needs.

    Attributes:
        protected: names of nodes of the main graph that stay.
    """

    name: ClassVar[str] = "remove-training-nodes"
    protected: tuple[str, ...] = ()

    def run(self, module: Module) -> PassReport:
        """Control edges first: they are what keeps other nodes from going."""
        report = PassReport()
        _use_defaults(module, report)
        _take_known_branches(module, report)
        effects = Effects(module, but=("Assert", *_SUMMARIES))
        bodies = [module.functions[name].graph for name in reachable(module)]
        for graph in (module.graph, *bodies):
            kept = set(self.protected) if graph is module.graph else set()
            _drop_idle_controls(graph, effects, kept, report)
            _bypass_all(module, graph, kept, report)
            _make_ones_scalar(graph)
        for rule in (_IdleDropout(), _TimesOne()):
            found = rule.run(module)
            if found.changed:
                report.count(rule.name, found.counts["rewritten"])
            report.remarks.extend(found.remarks)
        return report


def _use_defaults(module: Module, report: PassReport) -> None:
    graph = module.graph
    for node in graph:
        if node.op != "PlaceholderWithDefault" or node in graph.args:
            continue
        if not graph.args:
            report.refused(
                "inputs-not-declared",
                node.name,
                "a value may be fed to this placeholder instead of its default",
                "Declare the inputs.",
            )
            continue
        node.op = "Identity"
        node.attributes["T"] = node.attributes["dtype"]
        for key in ("dtype", "shape"):
            node.attributes.pop(key, None)
        report.count("placeholders")


# -- conditions whose choice is known ----------------------------------------------------------


def _take_known_branches(module: Module, report: PassReport) -> None:
    left: dict[str, None] = {}
    for graph in reversed(needed_graphs(module)):
        todo = [node for node in graph if node.op in _CONDITIONS]
        while todo:
            node = todo.pop()
            branch = _known_branch(node)
            if branch is None or (graph is module.graph and not graph.is_used(node)):
                continue
            left.update(dict.fromkeys(functions_of(node)))
            todo += [n for n in inline_branch(module, graph, node, branch) if n.op in _CONDITIONS]
            report.count("conditions")
    remove_unused_functions(module, left)


def _known_branch(node: Node) -> FunctionRef | None:
    """The branch that a condition always takes; None if that is not known."""
    if node.op in IF_OPS:
        holds = _truth(node.operands[0])
        name = "then_branch" if holds else "else_branch"
        branch = None if holds is None else node.attributes.get(name)
    else:
        index, branches = constant_of(node.operands[0]), node.attributes.get("branches")
        if index is None or not isinstance(branches, tuple) or not branches:
            return None
        # an index out of range takes the last branch
        at = int(index) if 0 <= int(index) < len(branches) else -1
        branch = branches[at]
    return branch if isinstance(branch, FunctionRef) else None


def _truth(port: Port) -> bool | None:
    """The value of a scalar truth value that is constant, or combined of such."""
    array = constant_of(port)
    if array is not None:
        return bool(array) if array.ndim == 0 and array.dtype.kind == "b" else None
    return _combined(port.node.op, [_truth(operand) for operand in port.node.operands])


def _combined(op: str, known: Sequence[bool | None]) -> bool | None:
    deciding = {"LogicalAnd": False, "LogicalOr": True}
    if op in deciding:
        if deciding[op] in known:
            return deciding[op]
        return None if None in known else not deciding[op]
    if op not in ("Identity", "StopGradient", "LogicalNot") or known[0] is None:
        return None
    return known[0] != (op == "LogicalNot")


# -- control edges -----------------------------------------------------------------------------


def _drop_idle_controls(graph: Graph, effects: Effects, kept: set[str], report: PassReport) -> None:
    acting = _acting(graph, effects)
    in_frames = any(node.op in CONTROL_FLOW_V1 for node in graph)
    freed: dict[Node, None] = {}
    for node in graph:
        # in a v1 loop or branch, a node without operands runs where its control operands run
        if not node.controls or (in_frames and not node.operands):
            continue
        idle = [
            c
            for c in node.controls
            if c not in acting and (not in_frames or c.op in _CHECKS) and c.name not in kept
        ]
        if idle:
            freed.update(dict.fromkeys(idle))
            graph.set_controls(node, [c for c in node.controls if c not in idle])
            report.count("control edges", len(idle))
    for name, node in list(graph.control_results.items()):
        if node not in acting and _is_check(node):
            freed[node] = None
            del graph.control_results[name]
            report.count("control edges")
    _remove_checks(graph, [n for n in freed if n.name not in kept], report)


def _is_check(node: Node) -> bool:
    """True for what is only there to raise; of branches those without an effect are asked for."""
    return node.op in _CHECKS or node.op in IF_OPS


def _acting(graph: Graph, effects: Effects) -> set[Node]:
    """Nodes with side effects, and all that run after one."""
    todo = [node for node in graph if effects.of(node)]
    acting, readers = set(todo), graph.nx.adj
    while todo:
        for consumer in readers[todo.pop()]:
            if consumer not in acting:
                acting.add(consumer)
                todo.append(consumer)
    return acting


def _remove_checks(graph: Graph, freed: list[Node], report: PassReport) -> None:
    """Remove checks that nobody waits for any more, and what only they read."""
    todo = freed
    while todo:
        node = todo.pop()
        if node not in graph or graph.is_used(node) or node.op == RESULT:
            continue
        if not _is_check(node):
            remove_unread(graph, [node])
            continue
        before = [*(p.node for p in node.operands), *node.controls]
        graph.remove(node)
        report.count("checks")
        todo.extend(before)


# -- nodes that hand on their operand ----------------------------------------------------------


def _bypass_all(module: Module, graph: Graph, kept: set[str], report: PassReport) -> None:
    names = {_result_tensor(result) for result in graph.results} if graph is module.graph else set()
    is_open = graph is module.graph and not graph.results
    replaced: dict[str, str] = {}
    for node in graph:
        if node.op not in PASS_THROUGH or len(node.operands) != 1 or _is_hint(node):
            continue
        stays = node.name in kept or node.name in names or (is_open and not graph.is_used(node))
        if stays or not _can_bypass(graph, node):
            _make_identity(node, report)
            continue
        value = node.operands[0]
        if value.node.op != ARG:
            replaced[node.name] = value.node.name
        report.count(node.op)
        _bypass(graph, node, value)
    if replaced:
        _move_colocations(graph, replaced)


def _result_tensor(result: Node) -> str:
    declared = result.attributes.get("result", b"")
    assert isinstance(declared, bytes)
    return declared.decode().removesuffix(":0")


def _is_hint(node: Node) -> bool:
    return any(key.startswith(_HINT_PREFIX) for key in node.attributes)


def _can_bypass(graph: Graph, node: Node) -> bool:
    producer = node.operands[0].node
    if producer.op in _REFERENCES or producer.op.startswith(("Ref", "Scatter")):
        return False
    # what waits for a Switch does not know which branch is dead; what waits for its reader does
    if producer.op in CONTROL_FLOW_V1 and (
        graph.control_uses(node) or any(n is node for n in graph.control_results.values())
    ):
        return False
    if not node.controls:
        return True
    readers = graph.uses(node)
    return len(readers) == 1 and readers[0].node.op != RESULT and not graph.control_uses(node)


def _make_identity(node: Node, report: PassReport) -> None:
    if node.op == "Identity":
        return
    report.count(node.op)
    node.op = "Identity"
    node.attributes.pop("message", None)


def _bypass(graph: Graph, node: Node, value: Port) -> None:
    readers = [use.node for use in graph.uses(node)]
    graph.replace_uses(Port(node), value)
    for reader in dict.fromkeys(readers):
        if node.controls:
            graph.set_controls(reader, list(dict.fromkeys((*reader.controls, *node.controls))))
    heirs = [] if value.node.op == ARG else [value.node]
    graph.replace_control_uses(node, heirs)
    for name, end in list(graph.control_results.items()):
        if end is node and heirs:
            graph.control_results[name] = value.node
        elif end is node:
            del graph.control_results[name]
    graph.remove(node)


def _move_colocations(graph: Graph, replaced: dict[str, str]) -> None:
    for node in graph:
        if COLOCATION not in node.attributes:
            continue
        names = {}
        for name in colocated_with(node):
            now = name
            while now in replaced:
                now = replaced[now]
            names[name] = now
        if any(now != name for name, now in names.items()):
            rename_colocations(node, names)


# -- arithmetic that changes nothing -----------------------------------------------------------


@dataclass(frozen=True)
class _IdleDropout(RewritePass):
    """Dropout whose rate is 0: TF2's, the older one with Cast, and TF1's with Floor."""

    name: ClassVar[str] = "dropouts"

    def pattern(self, op: OpBuilder, x: Any, scale: Any, rate: Any, keep: Any, shape: Any) -> Any:
        """``where(noise >= rate, x * scale, 0)`` or ``x * scale * floor(keep + noise)``."""
        noise = op.RandomUniform(shape)
        scaled = op.any_of(op.RealDiv(x, scale), op.Mul(x, scale))
        stays = op.GreaterEqual(noise, rate)
        return op.any_of(
            op["SelectV2", "Select"](stays, scaled, op.constant(0)),
            op.Mul(scaled, op.Cast(stays)),
            op.Mul(scaled, op.Floor(op["Add", "AddV2"](keep, noise))),
        )

    def accept(self, match: Match) -> Refused | None:
        """Only if nothing is dropped and nothing scaled. Noise is in [0, 1)."""
        rate, keep = match.get("rate"), match.get("keep")
        drops = _number(rate) != 0 if rate is not None else keep is None or _number(keep) != 1
        if not drops and _number(match["scale"]) == 1:
            return None
        return Refused(
            "dropout-active",
            "this dropout is not known to keep everything: its rate is not the constant 0",
            "Export the model for inference (training=False, rate 0).",
        )

    def rewrite(self, match: Match, new: Emitter) -> Port:
        """The value itself."""
        return match["x"]


@dataclass(frozen=True)
class _TimesOne(RewritePass):
    """``x * 1`` and ``x * ones_like(x)``: what Keras leaves of a dropout mask."""

    name: ClassVar[str] = "multiplications by one"
    keep_escaping: ClassVar[bool] = True  # gates of a cell share their mask

    def pattern(self, op: OpBuilder, x: Any) -> Any:
        """Ones of another shape might broadcast, so only a scalar one is surely harmless."""
        return op.Mul(x, op.any_of(op.OnesLike(x), op.constant(where=_is_scalar_one)))

    def rewrite(self, match: Match, new: Emitter) -> Port:
        """The value itself."""
        return match["x"]


def _make_ones_scalar(graph: Graph) -> None:
    """Multiply by 1 instead of by ones like another element of what the operand is an element of.

    An unrolled layer of Keras makes its dropout mask once, like its first step's input.
    """
    for node in [n for n in graph if n.op == "Mul"]:
        for slot, ones in enumerate(node.operands):
            one, other = ones.node, node.operands[1 - slot].node
            if one.op != "OnesLike" or one.controls or other.op != "Unpack":
                continue
            if one.operands[0].node is other:
                dtype = dtype_of(ones)
                value = Tensor.of(np.ones((), dtype.numpy), dtype)
                scalar = graph.add(
                    "Const", (), {"dtype": dtype, "value": value}, name=f"{one.name}/scalar"
                )
                graph.set_operand(node, slot, Port(scalar))
                remove_unread(graph, [one])


def _is_scalar_one(array: Any) -> bool:
    return bool(array.ndim == 0 and array == 1)


def _number(port: Port) -> float | None:
    """The value of a scalar that is constant, or a difference or quotient of such."""
    array = constant_of(port)
    if array is not None:
        return float(array) if array.ndim == 0 and array.dtype.kind in "fiu" else None
    if port.node.op not in ("Sub", "RealDiv") or len(port.node.operands) != 2:
        return None
    left, right = (_number(operand) for operand in port.node.operands)
    if left is None or right is None:
        return None
    with np.errstate(all="ignore"):
        found = np.subtract(left, right) if port.node.op == "Sub" else np.divide(left, right)
    return float(found)
