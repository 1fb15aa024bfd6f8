"""GraphDef → Module. Takes a snapshot; bodies, attributes and tensors are read on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hintc.collector import collector_paused
from hintc.errors import HintcError
from hintc.graphdef.spelling import BodySpelling, GraphSpelling, Spelling
from hintc.ir import ARG, Attributes, DType, Function, Graph, Module, Node, Port
from hintc.ir.wire import attributes_of

if TYPE_CHECKING:
    from tensorflow.core.framework import function_pb2, graph_pb2


def lift(graph_def: graph_pb2.GraphDef) -> Module:
    """Read a GraphDef into a Module.

    Args:
        graph_def: any GraphDef: control flow v1 (cyclic) or v2, frozen or not, with a library or
            without. It is neither changed nor kept: the module reads a snapshot.

    Raises:
        HintcError: `graph_def` is no GraphDef, two nodes or functions share a name, or an
            operand names a node that is not there.
    """
    with collector_paused():
        return _lift(_snapshot(graph_def))


def _lift(snapshot: graph_pb2.GraphDef) -> Module:
    module = Module(source=snapshot)
    library = {f.signature.name: f for f in snapshot.library.function}
    if len(library) != len(snapshot.library.function):
        raise HintcError(
            "two library functions have the same name",
            node=_twice(snapshot),
            remedy="Rename one of them and its callers; merging graphs may have copied it twice.",
        )
    for name, definition in library.items():
        module.functions[name] = _function(definition, library)
    fill_graph(module.graph, snapshot.node, GraphSpelling())
    return module


def _snapshot(graph_def: graph_pb2.GraphDef) -> graph_pb2.GraphDef:
    from google.protobuf.message import Message

    if (
        not isinstance(graph_def, Message)
        or graph_def.DESCRIPTOR.full_name != "tensorflow.GraphDef"
    ):
        raise HintcError(
            f"expected a GraphDef, got a {type(graph_def).__name__}",
            remedy="Pass a tf.compat.v1.GraphDef, or let hintc.convert read the source.",
        )
    snapshot = type(graph_def)()
    snapshot.CopyFrom(graph_def)
    return snapshot


def _twice(graph_def: graph_pb2.GraphDef) -> str:
    names = Counter(str(f.signature.name) for f in graph_def.library.function)
    return names.most_common(1)[0][0]


def _function(
    definition: function_pb2.FunctionDef,
    library: Mapping[str, function_pb2.FunctionDef],
) -> Function:
    return Function(
        definition.signature.name,
        attributes_of(definition.attr),
        lift_body=lambda: _lift_body(definition, library),
        source=definition,
    )


def _lift_body(
    definition: function_pb2.FunctionDef,
    library: Mapping[str, function_pb2.FunctionDef],
) -> Graph:
    graph = Graph()
    for index, arg in enumerate(definition.signature.input_arg):
        graph.args.append(graph.append(arg.name, ARG, Attributes(_arg_attributes(arg, index))))
    spelling = BodySpelling(library)
    fill_graph(graph, definition.node_def, spelling)
    for result in definition.signature.output_arg:
        text = definition.ret.get(result.name)
        if text is None:
            raise HintcError(
                f"result '{result.name}' of function '{definition.signature.name}' has no value"
            )
        graph.add_result(result.name, _resolve(graph, text, spelling, f"result {result.name}"))
    for name in definition.signature.control_output:
        graph.control_results[name] = _node(graph, definition.control_ret[name], f"result {name}")
    return graph


def _arg_attributes(arg: Any, index: int) -> dict[str, DType | int | bytes]:
    attributes: dict[str, DType | int | bytes] = {"index": index}
    if arg.type:
        attributes["T"] = DType(arg.type)
    else:  # polymorphic signature: which attribute of the function gives the type
        attributes["type_attr"] = arg.type_attr.encode()
    return attributes


def fill_graph(graph: Graph, node_defs: Any, spelling: Spelling) -> None:
    """Append nodes for `node_defs`, then their edges; `spelling` resolves operands."""
    added: list[tuple[Node, Any]] = []
    for node_def in node_defs:
        node = graph.append(node_def.name, node_def.op, attributes_of(node_def.attr))
        node.device = node_def.device
        node.source = node_def
        added.append((node, node_def))
    for node, node_def in added:
        operands: list[Port] = []
        controls: list[Node] = []
        for text in node_def.input:
            if text.startswith("^"):
                controls.append(_node(graph, text[1:], node.name))
            elif controls:
                raise HintcError(
                    f"operand '{text}' comes after a control operand",
                    node=node.name,
                    remedy="Data operands must come first; the file may be damaged.",
                )
            else:
                operands.append(_resolve(graph, text, spelling, node.name))
        if operands:
            graph.set_operands(node, operands)
        if controls:
            graph.set_controls(node, controls)


def _resolve(graph: Graph, text: str, spelling: Spelling, reader: str) -> Port:
    found = spelling.port(graph, text)
    if found is None:
        raise _missing(text, reader)
    return found


def _node(graph: Graph, name: str, reader: str) -> Node:
    node = graph.find(name)
    if node is None:
        raise _missing(f"^{name}", reader)
    return node


def _missing(text: str, reader: str) -> HintcError:
    return HintcError(
        f"operand '{text}' names a node or result that is not in the graph",
        node=reader,
        remedy="Was the graph cut? Extract it again with all that its outputs need.",
    )
