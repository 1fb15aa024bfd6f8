"""What is wrong with a GraphDef before TensorFlow's converter sees it.

The converter would fail on all of this too, or let it through, with a message that names neither
the node nor the remedy. Only what the outputs depend on is looked at: libraries are full of
functions that nobody calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hintc.errors import HintcError

_VARIABLES = (
    "Variable",
    "VariableV2",
    "VarHandleOp",
    "ReadVariableOp",
    "AssignVariableOp",
    "AutoReloadVariable",
)


def check_convertible(graph_def: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Refuses a graph that cannot be converted; returns if no reason was found.

    Args:
        graph_def: the GraphDef.
        inputs: names of input tensors.
        outputs: names of output tensors.

    Raises:
        HintcError: not a GraphDef; names it does not have; Placeholders that are no inputs;
            variables; missing functions; operators that TensorFlow does not know.
    """
    if not (hasattr(graph_def, "node") and hasattr(graph_def, "library")):
        raise HintcError(f"a {type(graph_def).__name__} is not a GraphDef")
    if not outputs:
        raise HintcError("no outputs are given", remedy="Name at least one.")
    nodes = {node.name: node for node in graph_def.node}
    for name in (*inputs, *outputs):
        if _node_name(name) not in nodes:
            raise HintcError(
                f"the graph has no node '{_node_name(name)}'",
                remedy="Name an existing input or output.",
            )
    _check_sources(nodes, inputs, outputs)
    used = list(_used(graph_def, nodes, inputs, outputs))
    _check_operators(used, {function.signature.name for function in graph_def.library.function})


def trimmed(graph_def: Any, names: Sequence[str]) -> Any:
    """The GraphDef without nodes that none of `names` depends on; itself if there are none."""
    nodes = {node.name: node for node in graph_def.node}
    kept = {node.name for node in _reached(nodes, (), names, control=True)}
    if len(kept) == len(graph_def.node):
        return graph_def
    result = type(graph_def)()
    result.library.CopyFrom(graph_def.library)
    result.versions.CopyFrom(graph_def.versions)
    result.node.extend(node for node in graph_def.node if node.name in kept)
    return result


def some_names(what: str, names: Sequence[str], limit: int = 5) -> str:
    """``what: a, b, c and 4 more``."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{what}: " + ", ".join(names[:limit]) + more


def _check_sources(nodes: dict[str, Any], inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Refuses Placeholders, beside `inputs`, that the outputs are computed from."""
    reached = _reached(nodes, inputs, outputs, control=False)
    needed = sorted(node.name for node in reached if node.op == "Placeholder")
    if needed:
        raise HintcError(
            "the outputs need a Placeholder that is no input",
            node=needed[0],
            why=some_names("nodes", needed),
            remedy="List it among the inputs.",
        )


def _check_operators(nodes: Sequence[Any], functions: set[str]) -> None:
    from tensorflow.python.framework import op_def_registry

    unknown: dict[str, list[str]] = {}
    variables: list[str] = []
    for node in nodes:
        if node.op in _VARIABLES:
            variables.append(node.name)
        elif node.op not in functions and op_def_registry.get(node.op) is None:
            unknown.setdefault(node.op, []).append(node.name)
        for name in _called(node):
            if name not in functions:
                raise HintcError(
                    f"it calls the function '{name}', which the graph does not have",
                    node=node.name,
                    remedy="Keep the function library when you edit a GraphDef.",
                )
    if variables:
        raise HintcError(
            "the graph has variables",
            node=variables[0],
            why=some_names("nodes", variables),
            remedy="Freeze it first (tf.compat.v1.graph_util.convert_variables_to_constants).",
        )
    for op, names in sorted(unknown.items()):
        raise HintcError(
            f"TensorFlow knows no operator '{op}'",
            node=names[0],
            why=some_names("nodes", names),
            remedy="Load the library that defines it, or make it a fused call with a body.",
        )


def _used(
    graph_def: Any, nodes: dict[str, Any], inputs: Sequence[str], outputs: Sequence[str]
) -> Iterator[Any]:
    """The nodes that the outputs depend on, and those of every function that they call."""
    bodies = {function.signature.name: function for function in graph_def.library.function}
    entered: set[str] = set()
    waiting = _reached(nodes, inputs, outputs, control=True)
    while waiting:
        node = waiting.pop()
        yield node
        for name in (node.op, *_called(node)):
            if name in bodies and name not in entered:
                entered.add(name)
                waiting.extend(bodies[name].node_def)


def _reached(
    nodes: dict[str, Any], inputs: Sequence[str], outputs: Sequence[str], *, control: bool
) -> list[Any]:
    """The nodes of the main graph that `outputs` depend on, up to `inputs`."""
    seen = {_node_name(name) for name in inputs}
    waiting = [_node_name(name) for name in outputs]
    found = []
    while waiting:
        name = waiting.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        found.append(nodes[name])
        waiting.extend(
            _node_name(source)
            for source in nodes[name].input
            if control or not source.startswith("^")
        )
    return found


def _called(node: Any) -> Iterator[str]:
    """The functions that a node's attributes name; private attributes do not call."""
    for name, value in node.attr.items():
        if name.startswith("_"):
            continue
        if value.HasField("func"):
            yield value.func.name
        for entry in value.list.func:
            yield entry.name


def _node_name(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]
