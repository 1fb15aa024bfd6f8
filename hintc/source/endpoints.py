"""Inputs and outputs of a graph: what the user named, or what is meant without doubt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hintc.errors import HintcError, VerifyError
from hintc.ir import DType, Graph, Node, Port
from hintc.ir.opdefs import result_dtypes
from hintc.near import did_you_mean, some

PLACEHOLDERS = ("Placeholder", "PlaceholderV2")
_NO_OUTPUT = frozenset(
    {*PLACEHOLDERS, "PlaceholderWithDefault", "Const", "NoOp", "Assert", "Print", "PrintV2"}
)
_HINT_MARK = "_tflite_function_uuid"


def endpoint_names(given: Any, side: str) -> tuple[str, ...] | None:
    """Tensor names, ``:0`` left out, of what a user gave as inputs or outputs.

    Args:
        given: None, a name or tensor, or a sequence of them.
        side: ``"input"`` or ``"output"``, for messages.

    Raises:
        HintcError: one of them is neither name nor symbolic tensor, or comes twice.
    """
    if given is None:
        return None
    if isinstance(given, str) or not isinstance(given, (list, tuple)):
        given = [given]
    names = tuple(_name_of(item, side) for item in given)
    if not names:
        raise HintcError(f"the list of {side}s is empty", remedy="Leave it out to have it guessed.")
    for at, name in enumerate(names):
        if name in names[:at]:
            raise HintcError(f"{side} '{name}' is named twice", remedy="Name each tensor once.")
    return names


def _name_of(item: Any, side: str) -> str:
    if isinstance(item, str):
        return short_name(item, side)
    if hasattr(item, "numpy") and _is_eager(item):
        raise HintcError(
            f"an eager tensor cannot be an {side}",
            why="it is a value, not a place in a graph",
            remedy="Name a tensor of the graph.",
        )
    name = getattr(item, "name", None)
    if not isinstance(name, str):
        raise HintcError(
            f"an {side} is a {type(item).__name__}",
            remedy="Give tensors of the graph or their names.",
        )
    return short_name(name, side)


def _is_eager(item: Any) -> bool:
    import tensorflow as tf

    return bool(tf.is_tensor(item)) and not hasattr(item, "op")


def short_name(name: str, side: str = "tensor") -> str:
    """A tensor name without ``:0``.

    Raises:
        HintcError: it is empty or has no number after the colon.
    """
    stem, colon, index = name.strip().rpartition(":")
    if not colon:
        stem, index = index, "0"
    if not stem or not index.isdecimal() or stem.startswith("^"):
        raise HintcError(
            f"'{name}' is no name of an {side}", remedy="Write 'node' or 'node:result number'."
        )
    return stem if int(index) == 0 else f"{stem}:{int(index)}"


def find_port(graph: Graph, name: str, side: str, keys: Iterable[str] = ()) -> Port:
    """The value called `name`.

    Args:
        graph: the main graph.
        name: of a tensor, ``:0`` left out.
        side: ``"input"`` or ``"output"``, for messages.
        keys: what the source calls its own ends, for messages.

    Raises:
        HintcError: no such node (near matches are listed) or the node has no such result.
    """
    stem, _, index = name.rpartition(":")
    if not stem:
        stem, index = index, "0"
    node = graph.find(stem)
    if node is None:
        ends = likely_outputs(graph) if side == "output" else placeholders(graph)
        candidates = list(keys) or [node.name for node in ends]
        near = did_you_mean(stem, [*candidates, *(n.name for n in graph)], f"{side}s")
        if not near.startswith("Did"):
            near = f"Candidates: {some(candidates or ['none'], 12)}"
        raise HintcError(f"the graph has no {side} '{name}'", remedy=near)
    dtypes = result_dtypes(node)
    if dtypes is not None and int(index) >= len(dtypes):
        count = f"{len(dtypes)} result{'s' if len(dtypes) != 1 else ''}"
        raise HintcError(f"'{name}' cannot be an {side}", node=stem, why=f"{node.op} has {count}")
    return Port(node, int(index))


def placeholders(graph: Graph, needed: set[Node] | None = None) -> list[Node]:
    """Placeholders in graph order; only those in `needed` where it is given."""
    return [n for n in graph if n.op in PLACEHOLDERS and (needed is None or n in needed)]


def needed_by(graph: Graph, roots: Iterable[Node], stop: Iterable[Node] = ()) -> set[Node]:
    """What `roots` need, by data or control, themselves included; nothing beyond `stop`."""
    stops = set(stop)
    seen: set[Node] = set()
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node not in stops:
            waiting += [port.node for port in node.operands]
            waiting += node.controls
    return seen


def _fed(graph: Graph) -> set[Node]:
    """Nodes whose value depends on a Placeholder."""
    seen: set[Node] = set()
    waiting = placeholders(graph)
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += [use.node for use in graph.uses(node)]
    return seen


def likely_outputs(graph: Graph) -> list[Node]:
    """Nodes that look like outputs: nobody reads them, and they depend on a Placeholder.

    Results of hinted calls that nobody reads count only if there is nothing else.
    """
    fed = _fed(graph)
    sinks = [
        node
        for node in graph
        if node in fed
        and node.op not in _NO_OUTPUT
        and not graph.uses(node)
        and _gives_values(node)
    ]
    return [n for n in sinks if _HINT_MARK not in n.attributes] or sinks


def _gives_values(node: Node) -> bool:
    dtypes = result_dtypes(node)
    if dtypes is None:
        return True
    return bool(dtypes) and not any(d in (DType.RESOURCE, DType.VARIANT) for d in dtypes)


def guess_outputs(graph: Graph) -> tuple[str, ...]:
    """The one tensor that must be the output.

    Raises:
        HintcError: there is none, or several could be meant; they are listed.
    """
    names = [
        node.name if index == 0 else f"{node.name}:{index}"
        for node in likely_outputs(graph)
        for index in range(len(result_dtypes(node) or (None,)))
    ]
    if len(names) == 1:
        return (names[0],)
    if not names:
        raise HintcError(
            "no output was named, and no tensor looks like one", remedy="Name the outputs."
        )
    raise HintcError(
        f"no output was named, and {len(names)} tensors could be meant",
        why=some(names, 12),
        remedy="Name the outputs.",
    )


def guess_inputs(graph: Graph, outputs: Sequence[str]) -> tuple[str, ...]:
    """The Placeholders that the outputs need, in graph order.

    Raises:
        HintcError: there is none.
    """
    roots = [find_port(graph, name, "output").node for name in outputs]
    found = placeholders(graph, needed_by(graph, roots))
    if not found:
        every = placeholders(graph)
        raise HintcError(
            f"no input was named, and {some(outputs)} need no Placeholder",
            why=f"placeholders: {some([n.name for n in every])}" if every else None,
            remedy="Name the inputs, or other outputs.",
        )
    return tuple(node.name for node in found)


def check_acyclic(graph: Graph) -> None:
    """Refuses a graph with a cycle that no loop of control flow v1 makes.

    Raises:
        HintcError: names a node on it. (The verifier's own error blames a pass, not the source.)
    """
    try:
        graph.topological()
    except VerifyError as error:
        raise HintcError(
            "the graph has a cycle", node=error.node, remedy="Build or export the graph again."
        ) from error


def check_complete(graph: Graph, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Refuses inputs that leave some Placeholder of the outputs without a value.

    Raises:
        HintcError: names the missing ones.
    """
    given = [find_port(graph, name, "input").node for name in inputs]
    for name in outputs:
        root = find_port(graph, name, "output").node
        needed = needed_by(graph, [root], given)
        missing = [n.name for n in placeholders(graph, needed) if n not in given]
        if missing:
            raise HintcError(
                f"output '{name}' needs {some(missing)} too",
                why="no such input was named",
                remedy="Add it to the inputs.",
            )
