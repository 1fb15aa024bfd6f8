"""Which functions a graph refers to, and which nodes do more than compute their results."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from hintc.ir import Graph, Module, Node
from hintc.ir.opdefs import IF_OPS, WHILE_OPS, is_stateful

CONTROL_FLOW_V1 = frozenset(
    prefix + op
    for prefix in ("", "Ref")
    for op in ("Enter", "Exit", "LoopCond", "Merge", "NextIteration", "Switch")
)
"""Ops that make frames and dead branches: there a control edge also says where a node runs."""
_BY_BODY = frozenset(
    (
        *("Case", "For", "PartitionedCall", "Scan", "StatefulPartitionedCall", "StatelessCase"),
        *(*IF_OPS, *WHILE_OPS),
    )
)
_UNOBSERVED = frozenset(
    (
        *("Multinomial", "ParameterizedTruncatedNormal", "RandomGamma", "RandomPoisson"),
        *("RandomPoissonV2", "RandomShuffle", "RandomStandardNormal", "RandomUniform"),
        *("RandomUniformInt", "ReadVariableOp", "TruncatedNormal", "VarHandleOp"),
        *("VarIsInitializedOp", "Variable", "VariableV2"),
    )
)
"""Declared stateful, but nobody can tell whether they ran."""


def functions_of(node: Node) -> tuple[str, ...]:
    """Names of the functions that the attributes of a node refer to; its op may be one as well."""
    return node.attributes.functions


def callees_of(module: Module, node: Node) -> list[str]:
    """Names of the library functions that a node refers to."""
    return [name for name in (node.op, *functions_of(node)) if name in module.functions]


def callees(module: Module, graph: Graph) -> list[str]:
    """Names of the library functions that a graph refers to, each once."""
    library, found = module.functions, dict[str, None]()
    for node in graph:
        if node.op in library:
            found[node.op] = None
        for name in functions_of(node):
            if name in library:
                found[name] = None
    return list(found)


def reachable(module: Module, *, also: Iterable[str] = ()) -> list[str]:
    """Names of the functions that the main graph, or a function in `also`, needs, callees first.

    Functions that call each other come in an order that does not matter. Gradient functions that
    the library declares count as needed.
    """
    order: dict[str, None] = {}
    started: set[str] = set()
    roots = [*callees(module, module.graph), *_gradients(module), *also]
    todo = [(name, False) for name in reversed(roots)]
    while todo:
        name, is_done = todo.pop()
        if is_done:
            order[name] = None
        elif name not in started and name in module.functions:
            started.add(name)
            todo.append((name, True))
            inner = callees(module, module.functions[name].graph)
            todo.extend((callee, False) for callee in reversed(inner))
    return list(order)


def needed_graphs(module: Module) -> list[Graph]:
    """The bodies of the functions that the main graph needs, callees first; then itself."""
    return [*(module.functions[name].graph for name in reachable(module)), module.graph]


def _gradients(module: Module) -> list[str]:
    if module.source is None:
        return []
    pairs = module.source.library.gradient
    return [name for pair in pairs for name in (pair.function_name, pair.gradient_func)]


class Effects:
    """Answers whether nodes of a module have side effects; remembers what it found.

    An op is taken to have none if it is declared stateless, or only reads, or draws random
    numbers; a call, loop or branch if the functions it runs have none. Unknown ops have some.

    Args:
        module: has the functions.
        but: further ops whose effects do not count.
    """

    def __init__(self, module: Module, *, but: Collection[str] = ()) -> None:
        self._module = module
        self._none = _UNOBSERVED.union(but)
        self._functions: dict[str, bool] = {}

    def of(self, node: Node) -> bool:
        """True if running the node may be noticed otherwise than by its results."""
        if node.op in self._none:
            return False
        if node.op in self._module.functions:
            return self._of_function(node.op)
        if node.op in _BY_BODY:
            return any(self._of_function(name) for name in functions_of(node))
        return is_stateful(node)

    def _of_function(self, name: str) -> bool:
        if name not in self._functions:
            self._functions[name] = False  # a recursive call adds no effect of its own
            function = self._module.functions.get(name)
            self._functions[name] = function is None or any(
                self.of(node) for node in function.graph
            )
        return self._functions[name]
