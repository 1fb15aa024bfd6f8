"""Pass: a named transformation of a module. RewritePass: one that replaces what fits a pattern."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy.typing as npt

from hintc.call_graph import reachable
from hintc.emitter import Emitter
from hintc.errors import HintcError
from hintc.ir import ARG, RESULT, Attributes, Graph, Module, Node, Port, Tensor
from hintc.ir.opdefs import is_stateful
from hintc.ir.scan import dtype_of
from hintc.pattern import Match, Matcher, OpBuilder, Pattern, trace
from hintc.remark import NearMiss, PassReport, Refused

__all__ = ["Emitter", "Pass", "Refused", "RewritePass", "remove_unread"]


@dataclass(frozen=True)
class Pass:
    """Base of all passes. Subclass it as a frozen dataclass; the fields are the options.

    Attributes:
        name: what the pass is called in pipelines; kebab-case.
    """

    name: ClassVar[str]

    def run(self, module: Module) -> PassReport:
        """Change the module in place and report.

        Raises:
            HintcError: the input is wrong; what the pass merely does not understand it leaves
                alone, with a remark.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class RewritePass(Pass):
    """A pass that replaces each place in the module that fits a pattern.

    Subclasses give `pattern` and `rewrite`, and `accept` where a match may still be refused. It
    runs on the main graph and on the bodies of all functions it needs, the last nodes first, so
    that of optional nodes at the end of a pattern as many fit as there are; a fused call stays
    what it is, its body too. An interior node whose
    value is also read outside the match makes the match refused, unless `keep_escaping`. Each
    rewrite consumes at least one node that no rewrite made, so a pass ends even where its output
    fits its pattern.

    Attributes:
        keep_escaping: rewrite also where an interior value is read outside; the nodes that
            compute it then stay.
    """

    keep_escaping: ClassVar[bool] = False

    @abstractmethod
    def pattern(self, op: OpBuilder, /, *values: Any) -> Any:
        """The pattern, as a function of the op builder and of named open values.

        Returns one root or several: the values that `rewrite` replaces. Override it with named
        parameters, e.g. ``def pattern(self, op, x, bias)``. See `hintc.pattern`.
        """

    def accept(self, match: Match) -> Refused | None:
        """Why this match is left alone; None if it is to be rewritten."""
        return None

    @abstractmethod
    def rewrite(self, match: Match, new: Emitter) -> Port | Node | Sequence[Port | Node]:
        """Add what replaces the match, and return the value for each root, in order.

        Raises:
            Refused: the match is to be left alone after all.
        """

    def run(self, module: Module) -> PassReport:
        """Rewrite in every graph; counts ``rewritten``.

        Raises:
            HintcError: the pattern or the rewrite is wrong.
        """
        report = PassReport()
        pattern = trace(self.pattern)
        functions = [module.functions[name] for name in reachable(module)]
        bodies = [f.graph for f in functions if "_implements" not in f.attributes]
        for graph in (module.graph, *bodies):
            _Engine(self, module, graph, pattern, report).run()
        return report


class _Engine:
    """One RewritePass on one graph. Only nodes near a rewrite are tried again."""

    def __init__(
        self,
        rule: RewritePass,
        module: Module,
        graph: Graph,
        pattern: Pattern,
        report: PassReport,
    ) -> None:
        self._rule = rule
        self._module = module
        self._graph = graph
        self._pattern = pattern
        self._report = report
        self._matcher = Matcher(pattern, graph)
        self._own: set[Node] = set()
        self._refused: dict[str, tuple[str, str]] = {}
        self._todo = deque(reversed(graph.of_ops(pattern.anchor_ops)))
        self._waiting = set(self._todo)

    def run(self) -> None:
        """Until nothing more is to be tried."""
        misses: dict[str, NearMiss] = {}
        while self._todo:
            node = self._todo.popleft()
            self._waiting.discard(node)
            if node not in self._graph:
                continue
            found = self._matcher.match(node)
            misses.pop(node.name, None)
            if isinstance(found, Match):
                self._try(found)
            elif found.matched:
                misses[node.name] = found
        self._report.near_misses.extend(misses.values())

    def _try(self, match: Match) -> None:
        escaping = self._escaping(match)
        if self._own.issuperset(n for n in match.interior if n not in escaping):
            return
        refusal = self._rule.accept(match) or self._structural_refusal(match, escaping)
        if refusal is None:
            refusal = self._apply(match)
        if refusal is None:
            self._report.count("rewritten")
            return
        key = match.root.name, refusal.code
        if self._refused.get(match.root.name) != key:
            self._refused[match.root.name] = key
            self._report.refused(*key[::-1], refusal.reason, refusal.remedy)

    # -- what may not be rewritten -----------------------------------------------------------

    def _escaping(self, match: Match) -> dict[Node, Node]:
        """Interior nodes with a value that is read outside and is no root, with one reader."""
        interior, roots = set(match.interior), set(match.roots)
        found: dict[Node, Node] = {}
        for node in match.interior:
            for use in self._graph.each_use(node):
                if use.node not in interior and use.node.operands[use.slot] not in roots:
                    found[node] = use.node
                    break  # a constant may have as many readers as there are matches
        return found

    def _structural_refusal(self, match: Match, escaping: Mapping[Node, Node]) -> Refused | None:
        if escaping and not self._rule.keep_escaping:
            node, reader = next(iter(escaping.items()))
            what = "is a result" if reader.op == RESULT else f"is also read by '{reader.name}'"
            return Refused("value-escapes", f"the inner value '{node.name}' {what}")
        stays = self._path_back(match, escaping)
        if stays is not None:
            return Refused(
                "not-convex", f"'{stays.name}' lies between two nodes that would become one"
            )
        return None

    def _path_back(self, match: Match, escaping: Mapping[Node, Node]) -> Node | None:
        """A node outside from which a path leads back into the match, if there is one.

        With one root such a path from it would be a cycle already; from other nodes it does no
        harm, since those with readers outside stay as they are.
        """
        interior = set(match.interior)
        going = interior - escaping.keys()
        waiting = {c for n in going for c in self._graph.control_uses(n) if c not in interior}
        if len(match.roots) == 1 and not waiting:
            return None
        readers = {u.node for n in interior for u in self._graph.uses(n)} - interior
        todo = list(readers | waiting)
        seen = set(todo)
        while todo:
            node = todo.pop()
            if node.op in ("NextIteration", "RefNextIteration"):
                continue
            after = [u.node for u in self._graph.uses(node)] + self._graph.control_uses(node)
            for consumer in after:
                if consumer in interior:
                    return node
                if consumer not in seen:
                    seen.add(consumer)
                    todo.append(consumer)
        return None

    # -- the rewrite -------------------------------------------------------------------------

    def _apply(self, match: Match) -> Refused | None:
        emitter = Emitter(self._module, match, getattr(self._rule, "target", "tflite"))
        try:
            values = _as_ports(self._rule.rewrite(match, emitter))
        except Refused as refused:
            self._graph.remove(emitter.added)
            return refused
        self._replace(match, values, emitter)
        for call, op in emitter.fused:
            self._report.fused("fused-call", call.name, f"becomes one call of '{op.name}'")
        return None

    def _replace(self, match: Match, values: list[Port], emitter: Emitter) -> None:
        if len(values) != len(match.roots):
            raise HintcError(
                f"the rewrite returned {len(values)} values for {len(match.roots)} roots",
                node=match.root.name,
                pass_name=self._rule.name,
            )
        self._own.update(emitter.added)
        values = self._hold_controls(match, values, emitter)
        values = self._keep_output(match, values, emitter)
        names = [root.node.name for root in match.roots]
        moved = [use.node for old in match.roots for use in self._graph.uses(old)]
        for old, new in zip(match.roots, values, strict=True):
            self._graph.replace_uses(old, new)
        dead = self._dead(match)
        producers = list(dict.fromkeys(v.node for v in values))
        for node in dead:
            self._graph.replace_control_uses(node, producers)
        self._move_control_results(dead, producers[0])
        inputs = [p.node for n in dead for p in n.operands]
        self._graph.remove(dead)
        remove_unread(self._graph, inputs)
        self._keep_names(names, values, emitter)
        # where values may escape, other readers of the new value fit as they did
        self._retry([*emitter.added, *(moved if self._rule.keep_escaping else producers)])

    def _hold_controls(self, match: Match, values: list[Port], emitter: Emitter) -> list[Port]:
        """What the interior waited for, the new nodes wait for."""
        interior = set(match.interior)
        controls = dict.fromkeys(c for n in match.interior for c in n.controls)
        held = [c for c in controls if c not in interior]
        if not held:
            return values
        new = set(emitter.added)
        first = [n for n in emitter.added if not any(p.node in new for p in n.operands)]
        for node in first:
            self._graph.set_controls(node, list(dict.fromkeys((*node.controls, *held))))
        return [
            value if value.node in new else self._identity(value, emitter, held) for value in values
        ]

    def _keep_output(self, match: Match, values: list[Port], emitter: Emitter) -> list[Port]:
        """In a main graph without declared results, what nobody reads may be an output."""
        graph = self._graph
        if graph is not self._module.graph or graph.results:
            return values
        return [
            self._identity(value, emitter, ())
            if value.node not in emitter.added and not graph.is_used(root.node)
            else value
            for root, value in zip(match.roots, values, strict=True)
        ]

    def _identity(self, value: Port, emitter: Emitter, controls: Sequence[Node]) -> Port:
        node = emitter.add("Identity", [value], {"T": dtype_of(value)})
        self._own.add(node)
        self._graph.set_controls(node, controls)
        return Port(node)

    def _dead(self, match: Match) -> list[Node]:
        """The interior nodes that no node outside needs any more, in reverse topological order."""
        interior = match.interior
        needed: set[Node] = set()
        todo = [n for n in interior if any(u.node not in interior for u in self._graph.each_use(n))]
        while todo:
            node = todo.pop()
            if node not in needed:
                needed.add(node)
                todo.extend(p.node for p in node.operands if p.node in interior)
                todo.extend(c for c in node.controls if c in interior)
        return [n for n in interior if n not in needed]

    def _move_control_results(self, dead: Sequence[Node], heir: Node) -> None:
        results = self._graph.control_results
        for name, node in list(results.items()):
            if node in dead:
                results[name] = heir

    def _keep_names(self, names: Sequence[str], values: Sequence[Port], emitter: Emitter) -> None:
        renamed: set[Node] = set()
        for name, value in zip(names, values, strict=True):
            node = value.node
            if node in emitter.added and node not in renamed and name not in self._graph:
                self._graph.rename(node, name)
                renamed.add(node)

    def _retry(self, changed: Iterable[Node]) -> None:
        """What is new, and what reads it as far up as the pattern is deep, may fit now."""
        level = dict.fromkeys(changed)
        for _ in range(self._pattern.depth + 1):
            for node in level:
                if node.op in self._pattern.anchor_ops and node not in self._waiting:
                    self._waiting.add(node)
                    self._todo.append(node)
            level = dict.fromkeys(u.node for n in level for u in self._graph.uses(n))


def remove_unread(graph: Graph, nodes: Iterable[Node]) -> list[str]:
    """Remove those of `nodes`, which lost a reader, that nobody needs now; then what they read.

    Args:
        graph: has the nodes; those that are in it no more are passed over.
        nodes: where to begin. Arguments, results, placeholders and stateful nodes stay.

    Returns:
        The names of the removed nodes.
    """
    removed = []
    todo = list(dict.fromkeys(nodes))
    while todo:
        node = todo.pop()
        if node not in graph or graph.is_used(node) or node in graph.args:
            continue
        if node.op in (ARG, RESULT, "Placeholder", "PlaceholderWithDefault") or is_stateful(node):
            continue
        todo += [p.node for p in node.operands] + list(node.controls)
        graph.remove(node)
        removed.append(node.name)
    return removed


def become_constant(node: Node, value: npt.NDArray[Any], controls: Iterable[Node] = ()) -> None:
    """Turn a node with one result into a constant, under its name.

    Args:
        node: the node; its operands are dropped, and constants among them that nobody else reads.
        value: what it gives.
        controls: nodes that have to run before it, beside those that had to already.
    """
    graph = node.graph
    tensor = Tensor.of(value)
    producers = [p.node for p in node.operands]
    graph.set_operands(node, ())
    if controls:
        graph.set_controls(node, tuple(dict.fromkeys((*node.controls, *controls))))
    node.origin = node.origin or (node.name,)
    node.op, node.source, node.result_names = "Const", None, ()
    node.attributes = Attributes({"dtype": tensor.dtype, "value": tensor})
    remove_unread(graph, [n for n in producers if n.op == "Const"])


def _as_ports(returned: Port | Node | Sequence[Port | Node]) -> list[Port]:
    # a Port is a tuple too
    values = [returned] if isinstance(returned, Port | Node) else list(returned)
    return [value if isinstance(value, Port) else Port(value) for value in values]
