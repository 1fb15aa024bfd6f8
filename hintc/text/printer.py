"""Module → text. Linear; the same module always prints the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hintc.errors import HintcError
from hintc.ir import (
    ARG,
    RESULT,
    Attributes,
    AttributeValue,
    DType,
    Function,
    FunctionRef,
    Graph,
    Module,
    Node,
    Port,
    Shape,
    Tensor,
    Unbound,
)
from hintc.text import names, source
from hintc.text.tensors import Blobs, encode_blob, print_shape, print_tensor

VERSION = 1
"""Version of the text form; a reader refuses any other."""
_INDENT = "  "


def print_module(module: Module, *, elide: bool = False) -> str:
    """The whole module, bodies included (they are lifted).

    Args:
        module: what to print.
        elide: leave out the elements of long constants and what the source held beyond the
            graphs. Shorter, but such a text cannot be parsed back.

    Returns:
        Text that `parse_module` reads back exactly: ``print(parse(print(m))) == print(m)``.
    """
    blobs = Blobs(elide=elide)
    printer = _Printer(blobs)
    rest = source.rest_of_module(module.source) if not elide else b""
    clause = f" source{blobs.put(rest)}" if rest else ""
    lines = [f"hintc.ir {VERSION}", f"module{clause} {{"]
    lines += [_INDENT + line for line in printer.graph(module.graph)]
    for function in module.functions.values():
        lines += [_INDENT + line for line in printer.function(function)]
    lines += ["}", *_print_blobs(blobs)]
    return "\n".join(lines) + "\n"


def print_graph(graph: Graph, *, elide: bool = True) -> str:
    """One graph, as in a module. By default without the elements of long constants."""
    blobs = Blobs(elide=elide)
    lines = list(_Printer(blobs).graph(graph))
    return "\n".join([*lines, *_print_blobs(blobs)]) + "\n"


def print_node(node: Node) -> str:
    """One node on one line, without the elements of long constants."""
    read = [use.node.operands[use.slot].index for use in node.graph.uses(node)]
    return _Printer(Blobs(elide=True)).node(node, 1 + max(read, default=0))


def print_attribute(value: AttributeValue) -> str:
    """One attribute value, without the elements of long constants."""
    return _Printer(Blobs(elide=True)).value(value)


def _print_blobs(blobs: Blobs) -> Iterator[str]:
    if not blobs.content:
        return
    yield "blobs {"
    for key, content in blobs.content.items():
        yield f'{_INDENT}#{key} = "{encode_blob(content)}"'
    yield "}"


class _Printer:
    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def graph(self, graph: Graph) -> Iterator[str]:
        """Lines of a main graph."""
        args = f" ({self._args(graph)})" if graph.args else ""
        yield f"graph{args} {{"
        yield from self._body(graph)

    def function(self, function: Function) -> Iterator[str]:
        """Lines of a function."""
        head = f"func @{names.name(function.name)}({self._args(function.graph)})"
        rest = source.rest_of_function(function.source) if not self._blobs.elide else b""
        if rest:
            head += f" source{self._blobs.put(rest)}"
        if len(function.attributes):
            head += f" attributes {self.attributes(function.attributes)}"
        yield f"{head} {{"
        yield from self._body(function.graph)

    def _args(self, graph: Graph) -> str:
        return ", ".join(
            self._arg(node) if _is_plain_arg(node, at) else _ref(node)
            for at, node in enumerate(graph.args)
        )

    def _body(self, graph: Graph) -> Iterator[str]:
        in_head = {n for at, n in enumerate(graph.args) if _is_plain_arg(n, at)}
        in_return = {n for n in graph.results if _is_plain_result(n)}
        counts = _result_counts(graph)
        for node in graph:
            if node not in in_head and node not in in_return:
                yield _INDENT + self.node(node, counts.get(node, 1))
        if graph.results:
            yield f"{_INDENT}return " + ", ".join(
                f"{names.word(_declared(n))} = {_port(n.operands[0])}"
                if n in in_return
                else _ref(n)
                for n in graph.results
            )
        if graph.control_results:
            yield f"{_INDENT}return_control " + ", ".join(
                f"{names.word(key)} = {_ref(n)}" for key, n in graph.control_results.items()
            )
        yield "}"

    def _arg(self, node: Node) -> str:
        dtype, polymorphic = node.attributes.get("T"), node.attributes.get("type_attr")
        if isinstance(dtype, DType):
            spelled = self.value(dtype)
        else:
            assert isinstance(polymorphic, bytes)
            spelled = "$" + names.name(polymorphic.decode())
        others = {k: v for k, v in node.attributes.items() if k not in ("T", "type_attr", "index")}
        return f"{_ref(node)}: {spelled}" + (f" {self.attributes(others)}" if others else "")

    def node(self, node: Node, count: int) -> str:
        """The line of a node, `count` of whose results are read."""
        many = f":{count}" if count > 1 else ""
        parts = [
            f"{_ref(node)}{many} = {names.word(node.op)}({', '.join(map(_port, node.operands))})"
        ]
        if len(node.attributes):
            parts.append(self.attributes(node.attributes))
        if node.device:
            parts.append(f"device {names.quote(node.device.encode())}")
        if node.controls:
            parts.append(f"after ({', '.join(map(_ref, node.controls))})")
        if node.result_names:
            parts.append(f"results ({_strings(node.result_names)})")
        if node.origin:
            parts.append(f"origin ({_strings(node.origin)})")
        return " ".join(parts)

    def attributes(self, attributes: Mapping[str, AttributeValue] | Attributes) -> str:
        """Attributes in braces, sorted by name."""
        return (
            "{"
            + ", ".join(
                f"{names.word(key)} = {self.value(attributes[key])}" for key in sorted(attributes)
            )
            + "}"
        )

    def value(self, value: AttributeValue) -> str:
        """An attribute's value."""
        if isinstance(value, tuple):
            return "[" + ", ".join(map(self.value, value)) + "]"
        for kind, spell in _SPELLINGS:
            if isinstance(value, kind):
                return spell(value)
        if isinstance(value, Tensor):
            return print_tensor(value, self._blobs)
        if isinstance(value, FunctionRef):
            ref = f"@{names.name(value.name)}"
            return ref + self.attributes(dict(value.attributes)) if value.attributes else ref
        raise HintcError(f"an attribute cannot be a {type(value).__name__}")


_SPELLINGS: tuple[tuple[type, Callable[[Any], str]], ...] = (
    (bool, lambda value: "true" if value else "false"),  # before int: they are ints to Python
    (DType, lambda value: str(value.name.lower())),
    (int, str),
    (float, names.print_float),
    (bytes, names.quote),
    (Shape, print_shape),
    (Unbound, lambda value: f"${names.name(value.name)}"),
)


def _ref(node: Node) -> str:
    return f"%{names.name(node.name)}"


def _port(port: Port) -> str:
    return _ref(port.node) if port.index == 0 else f"{_ref(port.node)}:{port.index}"


def _strings(texts: Sequence[str]) -> str:
    return ", ".join(names.quote(text.encode()) for text in texts)


def _result_counts(graph: Graph) -> dict[Node, int]:
    """How many results of each node are read (what its op has, nobody knows here)."""
    counts: dict[Node, int] = {}
    for node in graph:
        for producer, index in node.operands:
            if index >= counts.get(producer, 1):
                counts[producer] = index + 1
    return counts


def _is_plain_arg(node: Node, position: int) -> bool:
    """True for an argument that its place and type in the head say completely."""
    at = node.attributes
    typed = isinstance(at.get("T"), DType) != isinstance(at.get("type_attr"), bytes)
    bare = not (node.operands or node.controls or node.device or node.origin or node.result_names)
    return node.op == ARG and typed and bare and at.get("index") == position


def _is_plain_result(node: Node) -> bool:
    """True for a result that ``name = value`` says completely."""
    bare = not (node.controls or node.device or node.origin or node.result_names)
    return (
        node.op == RESULT
        and bare
        and len(node.operands) == 1
        and list(node.attributes) == ["result"]
        and isinstance(node.attributes["result"], bytes)
        and node.name == f"ret/{_declared(node)}"
    )


def _declared(node: Node) -> str:
    name = node.attributes["result"]
    assert isinstance(name, bytes)
    return name.decode()
