"""Module and Function: a main graph and the library of function bodies it calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hintc.errors import HintcError
from hintc.ir.attributes import Attributes
from hintc.ir.dtypes import DType
from hintc.ir.graph import Graph
from hintc.ir.node import ARG, Node


class _Sourced:
    """Holds `source`, which may be made when it is first read."""

    def __init__(self, source: Any, make_source: Callable[[], Any] | None) -> None:
        self._source = source
        self._make_source = make_source

    @property
    def source(self) -> Any:
        """What lowering may reuse; None if there is nothing."""
        if self._make_source is not None:
            self._source = self._make_source()
            self._make_source = None
        return self._source

    @source.setter
    def source(self, source: Any) -> None:
        self._source, self._make_source = source, None


class Function(_Sourced):
    """A function of the library. Its body is lifted when `graph` is first read.

    In the body, arguments are `_Arg` nodes (named as the arguments) and results are `_Retval`
    nodes (their attribute ``result`` holds the result's name).

    Attributes:
        name: the name in the library.
        attributes: of the function itself, e.g. ``_implements``.
        source: what lowering may reuse if the function is unchanged (the FunctionDef).

    Args:
        name: the name in the library.
        attributes: of the function itself.
        graph: the body; empty if neither this nor `lift_body` is given.
        lift_body: makes the body when it is first read.
        source: see above.
        make_source: makes the source when it is first read, in place of `source`.
    """

    def __init__(
        self,
        name: str,
        attributes: Attributes | None = None,
        *,
        graph: Graph | None = None,
        lift_body: Callable[[], Graph] | None = None,
        source: Any = None,
        make_source: Callable[[], Any] | None = None,
    ) -> None:
        super().__init__(source, make_source)
        self.name = name
        self.attributes = attributes if attributes is not None else Attributes()
        self._graph = graph
        self._lift_body = lift_body
        if graph is None and lift_body is None:
            self._graph = Graph()

    @property
    def is_lifted(self) -> bool:
        """True once the body has been read."""
        return self._graph is not None

    @property
    def graph(self) -> Graph:
        """The body."""
        if self._graph is None:
            assert self._lift_body is not None
            self._graph = self._lift_body()
            self._lift_body = None
        return self._graph

    def copy(self) -> Function:
        """An independent copy; a body not lifted yet stays so."""
        return Function(
            self.name,
            self.attributes.copy(),
            graph=None if self._graph is None else self._graph.copy(),
            lift_body=self._lift_body,
            source=self._source,
            make_source=self._make_source,
        )

    def add_arg(self, name: str, dtype: DType) -> Node:
        """Append an argument; its name is made unique in the body."""
        node = self.graph.add(ARG, (), {"T": dtype, "index": len(self.graph.args)}, name=name)
        self.graph.args.append(node)
        return node

    def drop_args(self, args: Iterable[Node]) -> None:
        """Take away arguments that nothing in the body reads.

        Raises:
            HintcError: something does read one.
        """
        self.graph.remove(args)
        for index, node in enumerate(self.graph.args):
            node.attributes["index"] = index

    def __repr__(self) -> str:
        return f"<Function '{self.name}'>"


class Module(_Sourced):
    """A main graph and its functions.

    Attributes:
        graph: the main graph.
        functions: the library by name, in order.
        source: the snapshot that lowering takes versions and other fields from.
    """

    def __init__(
        self,
        graph: Graph | None = None,
        source: Any = None,
        make_source: Callable[[], Any] | None = None,
    ) -> None:
        super().__init__(source, make_source)
        self.graph = graph if graph is not None else Graph()
        self.functions: dict[str, Function] = {}
        self._suffixes: dict[str, int] = {}

    def add_function(self, function: Function) -> Function:
        """Put a function into the library, under a name made unique (the function is renamed)."""
        base = function.name
        if base in self.functions:
            at = self._suffixes.get(base, 0) + 1
            while f"{base}_{at}" in self.functions:
                at += 1
            self._suffixes[base] = at
            function.name = f"{base}_{at}"
        self.functions[function.name] = function
        return function

    def function(self, name: str, *, node: Node | None = None) -> Function:
        """The function of that name.

        Raises:
            HintcError: there is none.
        """
        try:
            return self.functions[name]
        except KeyError:
            raise HintcError(
                f"the library has no function '{name}'",
                node=node.name if node is not None else None,
                remedy="Keep the function library when you cut a graph.",
            ) from None

    def copy(self) -> Module:
        """An independent copy that shares only immutable values and the snapshot."""
        twin = Module(self.graph.copy(), self._source, self._make_source)
        twin.functions = {name: f.copy() for name, f in self.functions.items()}
        return twin

    def graphs(self) -> Iterator[Graph]:
        """The main graph, then every function body (lifting them)."""
        yield self.graph
        for function in list(self.functions.values()):
            yield function.graph
