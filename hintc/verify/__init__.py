"""verify: the rules of the IR, one function each, and the error that lists all that are broken.

A rule looks at one graph and yields what is wrong with it. What hintc cannot know is no problem:
an op that nobody registered, a type that depends on the caller. Rules that need the definition of
one of TensorFlow's ops ask its registry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hintc.call_graph import functions_of
from hintc.collector import collector_paused
from hintc.errors import VerifyError
from hintc.ir import Function, Graph, Module, Snapshot
from hintc.verify.calls import (
    calls_match_signatures,
    functions_exist,
    fused_calls_match_declarations,
    scans_are_consistent,
)
from hintc.verify.definitions import (
    attributes_match_definition,
    operands_match_definition,
    ports_exist,
)
from hintc.verify.scope import Rule, Scope
from hintc.verify.structure import (
    acyclic,
    arguments_and_results,
    operands_agree_with_edges,
    unique_names,
)

__all__ = ["RULES", "Problem", "Rule", "Scope", "Sound", "problems", "verify"]

RULES: tuple[Rule, ...] = (
    unique_names,
    operands_agree_with_edges,
    acyclic,
    arguments_and_results,
    ports_exist,
    operands_match_definition,
    attributes_match_definition,
    functions_exist,
    calls_match_signatures,
    fused_calls_match_declarations,
    scans_are_consistent,
)
"""All rules, in the order in which they are checked."""


@dataclass(frozen=True)
class Problem:
    """A breach of a rule.

    Attributes:
        rule: name of the rule's function, with hyphens.
        function: the function whose body it is in, "" for the main graph.
        node: name of the node, "" if it is about the whole graph.
        what: one clause.
    """

    rule: str
    function: str
    node: str
    what: str

    def __str__(self) -> str:
        place = f"function '{self.function}', " if self.function else ""
        node = f"node '{self.node}': " if self.node else ""
        return f"[{self.rule}] {place}{node}{self.what}"


@dataclass(frozen=True)
class _Reference:
    """A function that a graph refers to, at one moment; None if the library has none so named."""

    function: Function | None
    touched: frozenset[str] | None

    @classmethod
    def of(cls, module: Module, name: str) -> _Reference:
        function = module.functions.get(name)
        return _NONE if function is None else cls(function, function.attributes.touched)

    def holds(self, module: Module, name: str) -> bool:
        """True if the name still refers to it, and no attribute of it was assigned."""
        now = module.functions.get(name)
        return now is self.function and (now is None or now.attributes.touched is self.touched)


_NONE = _Reference(None, None)


class Sound:
    """What was found without problems, so that only what was edited since is checked again.

    A graph is checked again if it was edited, or if a function that it refers to was.
    """

    def __init__(self) -> None:
        self._graphs: dict[Graph, tuple[Snapshot, dict[str, _Reference]]] = {}

    def graphs(self, module: Module) -> set[Graph]:
        """The graphs of `module` that need not be checked again."""
        held = {g: refs for g, (was, refs) in self._graphs.items() if was.holds(g)}
        return {
            graph
            for graph, refs in held.items()
            if all(
                then.holds(module, name) and (then.function is None or then.function.graph in held)
                for name, then in refs.items()
            )
        }

    def add(self, module: Module, graph: Graph) -> None:
        """Remember that `graph` has no problem."""
        names = {node.op for node in graph}
        names.update(name for node in graph for name in functions_of(node))
        refs = {name: _Reference.of(module, name) for name in names}
        self._graphs[graph] = (Snapshot(graph), refs)


def verify(module: Module, *, bodies: bool = False, sound: Sound | None = None) -> None:
    """Check all rules.

    Args:
        module: what to check: its main graph, the bodies that were lifted, and what these call.
        bodies: check every function of the library, also those that nothing reaches.
        sound: what an earlier call found without problems; it is kept up to date.

    Raises:
        VerifyError: rules are broken; it lists every problem, the first one as its head.
    """
    found = problems(module, bodies=bodies, sound=sound)
    if found:
        first = found[0]
        place = f"function '{first.function}': " if first.function else ""
        raise VerifyError(
            f"{place}{first.what} [{first.rule}]", node=first.node or None, why=_more(found[1:])
        )


def _more(others: Sequence[Problem]) -> str | None:
    return "\n  ".join([f"and {len(others)} more:", *map(str, others)]) if others else None


def problems(module: Module, *, bodies: bool = False, sound: Sound | None = None) -> list[Problem]:
    """All breaches of all rules, by graph, rule and node; see `verify`."""
    with collector_paused():  # what is decoded and remembered stays
        return _problems(module, bodies, sound)


def _problems(module: Module, bodies: bool, sound: Sound | None) -> list[Problem]:
    found: list[Problem] = []
    waiting: list[Function | None] = [None]
    waiting += [f for f in module.functions.values() if bodies or f.is_lifted]
    seen = set(waiting)
    unchanged = sound.graphs(module) if sound is not None else set()
    for function in waiting:  # grows while it is walked
        graph = module.graph if function is None else function.graph
        if graph in unchanged:
            continue  # what it calls was lifted when it was checked
        scope = Scope(module, graph, function)
        breaches = list(_breaches(scope))
        found += breaches
        if sound is not None and not breaches:
            sound.add(module, graph)
        new = [f for f in _called(scope) if f not in seen]
        seen.update(new)
        waiting.extend(dict.fromkeys(new))
    return found


def _breaches(scope: Scope) -> Iterator[Problem]:
    where = "" if scope.function is None else scope.function.name
    for rule in RULES:
        name = rule.__name__.replace("_", "-")
        for node, what in rule(scope):
            yield Problem(name, where, node, what)


def _called(scope: Scope) -> Iterator[Function]:
    functions = scope.module.functions
    for node in scope.graph:
        if node.op in functions:
            yield functions[node.op]
    for _, _, ref in scope.calls:
        if ref.name in functions:
            yield functions[ref.name]
