"""Makes sure that a graph is frozen, and that each of its inputs is a Placeholder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hintc.errors import HintcError
from hintc.ir import DType, Graph, Node
from hintc.near import some
from hintc.source.endpoints import PLACEHOLDERS, find_port, needed_by

VARIABLES = frozenset(
    {"Variable", "VariableV2", "VarHandleOp", "AutoReloadVariable", "TemporaryVariable"}
)


def check_frozen(graph: Graph, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Refuses a graph whose outputs read variables.

    Raises:
        HintcError: names the variables and says how to freeze.
    """
    roots = [find_port(graph, name, "output").node for name in outputs]
    stop = [find_port(graph, name, "input").node for name in inputs]
    needed = needed_by(graph, roots, stop)
    found = [node for node in graph if node in needed and _is_variable(node)]
    if found:
        raise HintcError(
            "the graph is not frozen",
            node=found[0].name,
            why=f"variables: {some([n.name for n in found])}",
            remedy="Give hintc the Session, the SavedModel or the Keras model, which it freezes; "
            "or freeze it yourself with "
            "tf.compat.v1.graph_util.convert_variables_to_constants(session, graph_def, outputs).",
        )


def _is_variable(node: Node) -> bool:
    return node.op in VARIABLES or (
        node.op in PLACEHOLDERS and node.attributes.get("dtype") is DType.RESOURCE
    )


def with_placeholders(graph_def: Any, graph: Graph, inputs: Sequence[str]) -> Any:
    """The graph with each input that is another op replaced by a Placeholder of its name.

    Args:
        graph_def: not changed.
        graph: the same, lifted.
        inputs: tensor names.

    Returns:
        `graph_def` itself if there is nothing to replace.

    Raises:
        HintcError: an input is not the only result of its node, or TensorFlow cannot tell its
            shape.
    """
    inner = [p.node for p in (find_port(graph, name, "input") for name in inputs)]
    inner = [node for node in inner if node.op not in PLACEHOLDERS]
    if not inner:
        return graph_def
    tensors = _tensors(graph_def, inner)
    cut = type(graph_def)()
    cut.CopyFrom(graph_def)
    for node in cut.node:
        tensor = tensors.get(node.name)
        if tensor is not None:
            node.op = "Placeholder"
            del node.input[:]
            node.attr.clear()
            node.attr["dtype"].type = tensor.dtype.as_datatype_enum
            node.attr["shape"].shape.CopyFrom(tensor.shape.as_proto())
    return cut


def _tensors(graph_def: Any, nodes: Sequence[Node]) -> dict[str, Any]:
    import tensorflow as tf

    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.import_graph_def(graph_def, name="")
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise HintcError(
            "TensorFlow refuses the graph",
            why=" ".join(str(error).split())[:400],
            remedy="Name Placeholders as inputs.",
        ) from error
    tensors = {}
    for node in nodes:
        results = graph.get_operation_by_name(node.name).outputs
        if len(results) != 1:
            raise HintcError(
                f"{node.op} cannot be an input",
                node=node.name,
                why=f"it has {len(results)} results",
                remedy="Name a Placeholder, or a node with one result.",
            )
        tensors[node.name] = results[0]
    return tensors
