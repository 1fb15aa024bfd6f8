"""Takes out assignments to variables, where the outputs cannot tell; then TensorFlow can freeze.

A variable that becomes a constant cannot be assigned to: TensorFlow's own freezing raises, or
writes an invalid graph. At inference the assignments are the seeds of dropout that keeps
everything, the statistics of normalisation, and the states of ``stateful=True`` layers, for the
next call. Each run of a converted model starts from the variables' values, so these go. An
assignment stays out of reach of this, and is an error, if its own result is used or if something
that the outputs need reads the variable after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hintc.call_graph import CONTROL_FLOW_V1, callees_of
from hintc.errors import HintcError
from hintc.graphdef import lift, lower
from hintc.inlining import CALL_OPS
from hintc.ir import ARG, RESULT, DType, Graph, Module, Node, Port, producers
from hintc.ir.opdefs import IF_OPS, WHILE_OPS, ArgSpec, schema_of
from hintc.source.endpoints import find_port

_ASSIGNING = ("Assign", "Resource", "Rng", "Scatter", "Stateful")
_READS = frozenset(
    (
        *("IsVariableInitialized", "LookupTableFind", "LookupTableFindV2", "LookupTableSize"),
        *("LookupTableSizeV2", "ReadVariableOp", "ResourceGather", "ResourceGatherNd"),
        *("VarIsInitializedOp", "VariableShape"),
    )
)
_HANDS_ON = CONTROL_FLOW_V1 | {"Identity", "IdentityN", "RefIdentity"}
_ENTERS = ("Enter", "RefEnter")
_BRANCHES = (*IF_OPS, "Case", "StatelessCase")


class _Use(NamedTuple):
    """How a node uses a variable: the handle's origin, and which of its operands it is."""

    origin: Node
    slot: int
    reads: bool
    writes: bool


@dataclass(frozen=True)
class _Touched:
    """Which arguments a function reads for the sake of its results, and which it assigns to."""

    read: frozenset[int] = frozenset()
    written: frozenset[int] = frozenset()


def assigns(graph_def: Any) -> bool:
    """False if a graph and its functions surely assign to no variable. Cheap."""
    bodies = [graph_def.node, *(f.node_def for f in graph_def.library.function)]
    return any(
        node.op.startswith(_ASSIGNING) and node.op not in (*_READS, *CALL_OPS)
        for body in bodies
        for node in body
    )


def without_assignments(
    graph_def: Any, outputs: Sequence[str], variables: Mapping[str, str] | None = None
) -> tuple[Any, list[str]]:
    """A graph that assigns to no variable, in its functions neither, and has the same outputs.

    Args:
        graph_def: not changed.
        outputs: tensor names.
        variables: node that holds a variable -> the variable's name, where they differ.

    Returns:
        The graph (the same object if nothing assigns), and the variables whose new values the
        outputs of a next run would have shown.

    Raises:
        HintcError: the outputs show an assignment of the same run.
    """
    module = lift(graph_def)
    names = variables or {}
    needed = producers(find_port(module.graph, name, "output") for name in outputs)
    pruning = _Pruning(module, names)
    carried = pruning.prune(module.graph, needed)
    if not pruning.removed:
        return graph_def, []
    return lower(module), list(dict.fromkeys(names.get(name, name) for name in carried))


class _Pruning:
    """Removes from graphs the nodes that assign and that the results do not need.

    Args:
        module: has the functions; they are changed.
        variables: see `without_assignments`.

    Attributes:
        removed: how many nodes.
    """

    def __init__(self, module: Module, variables: Mapping[str, str]) -> None:
        self._module = module
        self._variables = variables
        self.removed = 0
        self._touched: dict[str, _Touched] = {}
        self._pruned: set[str] = set()

    def prune(self, graph: Graph, needed: set[Node]) -> list[str]:
        """Prune a graph and the functions it needs; names of the variables carried over.

        Raises:
            HintcError: the results show an assignment.
        """
        uses = self._uses(graph)
        writers = {n: [u for u in found if u.writes] for n, found in uses.items()}
        writers = {n: found for n, found in writers.items() if found}
        written = {use.origin for found in writers.values() for use in found}
        shown = {
            use.origin
            for node in needed
            for use in uses.get(node, ())
            if use.reads and use.origin in written
        }
        for origin in shown:
            name = self._variables.get(origin.name, origin.name)
            _check_order(self._module, graph, (origin, name), uses, needed)
        for node in needed.intersection(writers):
            self._prune_callees(node)
        self.removed += _remove(graph, [node for node in writers if node not in needed])
        return [node.name for node in graph if node in shown]

    def _prune_callees(self, node: Node) -> None:
        names = callees_of(self._module, node)
        if not names and node.op.startswith(_ASSIGNING):
            raise HintcError(
                f"the outputs need the result of {node.op}",
                node=node.name,
                why="a converted model cannot assign to variables",
                remedy="Compute the new value without the variable, as an input and an output.",
            )
        for name in names:
            if name not in self._pruned:
                self._pruned.add(name)
                body = self._module.functions[name].graph
                self.prune(body, producers(map(Port, body.results)))

    def _uses(self, graph: Graph) -> dict[Node, list[_Use]]:
        """The variables that each node reads or assigns to, itself or in its functions."""
        origins: dict[Port, tuple[Node, ...]] = {}
        found: dict[Node, list[_Use]] = {}
        for node in graph.topological():
            handles = {s: origins[p] for s, p in enumerate(node.operands) if p in origins}
            every = tuple(dict.fromkeys(o for some in handles.values() for o in some))
            results = _handles(node)
            origins.update({Port(node, at): every or (node,) for at in results})
            if not handles or (node.op in _HANDS_ON and results) or node.op == RESULT:
                continue
            found[node] = [
                _Use(origin, slot, *self._effect(node, slot))
                for slot, some in handles.items()
                for origin in some
            ]
        return found

    def _effect(self, node: Node, slot: int) -> tuple[bool, bool]:
        """Whether a node reads the variable of an operand, and whether it assigns to it."""
        names = callees_of(self._module, node)
        if names:
            at = slot - 1 if node.op in _BRANCHES else slot
            if node.op not in (*CALL_OPS, *WHILE_OPS, *_BRANCHES) and node.op not in names:
                return True, True
            touched = [self._of_function(name) for name in names]
            return any(at in t.read for t in touched), any(at in t.written for t in touched)
        spec = _spec(node, slot)
        if node.op in _READS or (spec is not None and not spec.is_ref and not _is_resource(spec)):
            return True, False
        return node.op != "AssignVariableOp", True

    def _of_function(self, name: str) -> _Touched:
        known = self._touched.get(name)
        if known is not None:
            return known
        self._touched[name] = _Touched()  # a recursive call adds nothing of its own
        body = self._module.functions[name].graph
        needed = producers(map(Port, body.results))
        index = {arg: at for at, arg in enumerate(body.args)}
        read, written = set(), set()
        for node, uses in self._uses(body).items():
            for use in uses:
                if use.origin in index and use.reads and node in needed:
                    read.add(index[use.origin])
                if use.origin in index and use.writes:
                    written.add(index[use.origin])
        self._touched[name] = _Touched(frozenset(read), frozenset(written))
        return self._touched[name]


def _handles(node: Node) -> list[int]:
    """Which results of a node are handles of variables: resources, or references."""
    if node.op == ARG or node.op.startswith("Placeholder"):
        dtype = node.attributes.get("T" if node.op == ARG else "dtype")
        return [0] if dtype is DType.RESOURCE else []
    return [at for at, spec in _specs(node, "results") if spec.is_ref or _is_resource(spec)]


def _spec(node: Node, slot: int) -> ArgSpec | None:
    return next((spec for at, spec in _specs(node, "operands") if at == slot), None)


def _specs(node: Node, side: str) -> list[tuple[int, ArgSpec]]:
    """Each operand or result with what the op declares of it, its type filled in."""
    schema = schema_of(node)
    found: list[tuple[int, ArgSpec]] = []
    for spec in getattr(schema, side) if schema is not None else ():
        for dtype in spec.dtypes(node.attributes):
            found.append((len(found), ArgSpec(spec.name, dtype, is_ref=spec.is_ref)))
    return found


def _is_resource(spec: ArgSpec) -> bool:
    return spec.type is DType.RESOURCE


def _check_order(
    module: Module,
    graph: Graph,
    variable: tuple[Node, str],
    uses: Mapping[Node, Sequence[_Use]],
    needed: set[Node],
) -> None:
    """Refuses an assignment that runs, or may run, before a read that the results need."""
    origin, name = variable
    found = {n: [u for u in some if u.origin is origin] for n, some in uses.items()}
    writers = [n for n, some in found.items() if any(u.writes for u in some)]
    readers = [n for n, some in found.items() if n in needed and any(u.reads for u in some)]
    after = _after(graph, writers)
    looping = _after(graph, [n for n in graph if n.op in _ENTERS])
    if any(node in looping for node in writers):
        after |= looping  # control flow v1: the next iteration reads
    for node in readers:
        if node in after or not _reads_first(module, node, found[node]):
            raise HintcError(
                f"the outputs depend on an assignment to the variable '{name}'",
                node=node.name,
                why="the variable is read after it was assigned to, in the same run",
                remedy="Hand the new value on instead of the variable.",
            )


def _reads_first(module: Module, node: Node, uses: Sequence[_Use]) -> bool:
    """True if one node does not assign and then read; of a call, its function's graph tells."""
    written = {use.slot for use in uses if use.writes}
    if not written:
        return True
    if callees_of(module, node) and node.op not in (*CALL_OPS, *_BRANCHES, *module.functions):
        return False  # a loop, or what may be one: the next iteration reads
    return written == {use.slot for use in uses if use.reads} and len(written) == 1


def _after(graph: Graph, writers: Sequence[Node]) -> set[Node]:
    """What runs after one of `writers`, as far as edges say."""
    seen: set[Node] = set()
    waiting = list(writers)
    while waiting:
        for consumer in graph.nx.adj[waiting.pop()]:
            if consumer not in seen:
                seen.add(consumer)
                waiting.append(consumer)
    return seen


def _remove(graph: Graph, writers: Sequence[Node]) -> int:
    """Remove nodes and all that reads them; what waited for them need not wait. How many."""
    doomed: dict[Node, None] = dict.fromkeys(writers)
    waiting = list(writers)
    while waiting:
        for use in graph.uses(waiting.pop()):
            if use.node not in doomed:
                doomed[use.node] = None
                waiting.append(use.node)
    in_frames = any(node.op in CONTROL_FLOW_V1 for node in graph)
    for node in doomed:
        # in a frame of control flow v1, a control edge also says where a node runs
        before = (*node.controls, *(p.node for p in node.operands)) if in_frames else ()
        graph.replace_control_uses(node, [n for n in before if n not in doomed])
    graph.remove(doomed)
    return len(doomed)
