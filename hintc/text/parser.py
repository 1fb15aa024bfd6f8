"""Text → Module. Linear; errors say line, column and what was expected."""

from __future__ import annotations

import functools

from hintc.ir import (
    ARG,
    Attributes,
    AttributeValue,
    DType,
    Function,
    Graph,
    Module,
    Node,
    Port,
    Unbound,
)
from hintc.text import source
from hintc.text.lexer import Cursor, Token
from hintc.text.printer import VERSION
from hintc.text.values import Values


def parse_module(text: str) -> Module:
    """Read what `print_module` wrote, or a text written by hand.

    By hand the line ``hintc.ir 1`` and the braces of ``module { … }`` may be left out, and so may
    result counts (``%y:2 = …``); where a count is written, reading a further result is an error.

    Raises:
        HintcError: the text is wrong; says line, column and what was expected.
    """
    cursor = Cursor(text)
    values = Values(cursor)
    _read_version(cursor)
    module = Module()
    if cursor.accept("module"):
        rest = values.source()
        if rest is not None:
            module = Module(make_source=functools.partial(source.read_module, rest))
        cursor.expect("{")
        _read_graphs(cursor, values, module)
        cursor.expect("}")
    else:
        _read_graphs(cursor, values, module)
    values.skip_blobs()
    if cursor.next.kind != "end":
        cursor.fail(f"expected 'graph', 'func' or the end of the text, found {cursor.next}")
    return module


def _read_version(cursor: Cursor) -> None:
    if not cursor.accept("hintc.ir"):
        return
    token = cursor.next
    version = cursor.integer()
    if version != VERSION:
        cursor.fail(
            f"the text has version {version}, expected {VERSION}",
            token,
            remedy="Print it again with this version of hintc.",
        )


def _read_graphs(cursor: Cursor, values: Values, module: Module) -> None:
    seen_main = False
    while cursor.next.text in ("graph", "func"):
        token = cursor.take()
        if token.text == "func":
            _read_function(cursor, values, module)
        elif seen_main:
            cursor.fail("a module has one main graph, this is the second", token)
        else:
            seen_main = True
            body = _Body(cursor, values)
            if cursor.next.text == "(":
                body.read_args()
            body.read()
            module.graph = body.graph


def _read_function(cursor: Cursor, values: Values, module: Module) -> None:
    token = cursor.next
    name = cursor.name("function")
    if name in module.functions:
        cursor.fail(f"there already is a function {token}", token)
    body = _Body(cursor, values)
    body.read_args()
    rest = values.source()
    attributes = values.attributes() if cursor.accept("attributes") else {}
    body.read()
    module.functions[name] = Function(
        name,
        Attributes(attributes),
        graph=body.graph,
        make_source=None if rest is None else functools.partial(source.read_function, rest),
    )


class _Body:
    """Reads one graph: first all statements, then, as references may point forward, the edges."""

    def __init__(self, cursor: Cursor, values: Values) -> None:
        self.graph = Graph()
        self._cursor = cursor
        self._values = values
        self._counts: dict[Node, int] = {}
        self._args: list[Token | Node] = []
        self._data: list[tuple[Node, list[tuple[Token, int]]]] = []
        self._controls: list[tuple[Node, list[Token]]] = []
        self._results: list[tuple[str, Token, int]] = []
        self._control_results: list[tuple[str, Token]] = []

    def read_args(self) -> None:
        """Arguments in parentheses."""
        self._cursor.expect("(")
        self._args = self._cursor.list_of(self._read_arg, ")")
        for index, node in enumerate(self._args):
            if isinstance(node, Node) and "index" not in node.attributes:
                node.attributes["index"] = index

    def _read_arg(self) -> Token | Node:
        cursor = self._cursor
        token = cursor.expect_kind("node")
        if not cursor.accept(":"):
            return token
        kind = cursor.next
        given: dict[str, AttributeValue] = {}
        match self._values.value():
            case DType() as dtype:
                given["T"] = dtype
            case Unbound(name):
                given["type_attr"] = name.encode()
            case _:
                cursor.fail(f"expected an element type such as float, found {kind}", kind)
        if cursor.next.text == "{":
            given.update(self._values.attributes())
        return self._append(token, ARG, given)

    def read(self) -> None:
        """The statements in braces."""
        cursor = self._cursor
        cursor.expect("{")
        while cursor.next.kind == "node":
            self._read_node()
        if cursor.accept("return"):
            self._read_results()
        if cursor.accept("return_control"):
            self._read_control_results()
        if not cursor.accept("}"):
            cursor.fail(f"expected a node, 'return' or '}}', found {cursor.next}")
        self._connect()

    def _append(self, token: Token, op: str, attributes: dict[str, AttributeValue]) -> Node:
        name = self._cursor.bare(token)
        if name in self.graph:
            self._cursor.fail(f"there already is a node {token}", token)
        return self.graph.append(name, op, Attributes(attributes))

    def _read_node(self) -> None:
        cursor = self._cursor
        token = cursor.take()
        count = cursor.integer() if cursor.accept(":") else None
        cursor.expect("=")
        op = cursor.word()
        cursor.expect("(")
        operands = cursor.list_of(self._read_port, ")")
        attributes = self._values.attributes() if cursor.next.text == "{" else {}
        node = self._append(token, op, attributes)
        if operands:
            self._data.append((node, operands))
        if count is not None:
            self._counts[node] = count
        self._read_clauses(node)

    def _read_clauses(self, node: Node) -> None:
        cursor = self._cursor
        if cursor.accept("device"):
            node.device = cursor.text()
        if cursor.accept("after"):
            cursor.expect("(")
            self._controls.append((node, cursor.list_of(self._read_ref, ")")))
        if cursor.accept("results"):
            cursor.expect("(")
            node.result_names = tuple(cursor.list_of(cursor.text, ")"))
        if cursor.accept("origin"):
            cursor.expect("(")
            node.origin = tuple(cursor.list_of(cursor.text, ")"))

    def _read_ref(self) -> Token:
        return self._cursor.expect_kind("node")

    def _read_port(self) -> tuple[Token, int]:
        token = self._read_ref()
        return token, self._cursor.integer() if self._cursor.accept(":") else 0

    def _read_results(self) -> None:
        cursor = self._cursor
        while True:
            if cursor.next.kind == "node":
                self._results.append(("", cursor.take(), 0))
            else:
                name = cursor.word()
                cursor.expect("=")
                self._results.append((name, *self._read_port()))
            if not cursor.accept(","):
                return

    def _read_control_results(self) -> None:
        cursor = self._cursor
        while True:
            name = cursor.word()
            cursor.expect("=")
            self._control_results.append((name, self._read_ref()))
            if not cursor.accept(","):
                return

    def _connect(self) -> None:
        graph = self.graph
        for node, operands in self._data:
            graph.set_operands(node, [self._port(*operand) for operand in operands])
        for node, controls in self._controls:
            graph.set_controls(node, [self._node(token) for token in controls])
        graph.args = [a if isinstance(a, Node) else self._node(a) for a in self._args]
        for name, token, index in self._results:
            if name:
                graph.add_result(name, self._port(token, index))
            else:
                graph.results.append(self._node(token))
        graph.control_results = {n: self._node(token) for n, token in self._control_results}

    def _node(self, token: Token) -> Node:
        node = self.graph.find(self._cursor.bare(token))
        if node is None:
            self._cursor.fail(f"there is no node {token} in this graph", token)
        return node

    def _port(self, token: Token, index: int) -> Port:
        node = self._node(token)
        count = self._counts.get(node, index + 1)
        if not 0 <= index < count:
            self._cursor.fail(f"{token} has {count} results, this reads number {index + 1}", token)
        return Port(node, index)
