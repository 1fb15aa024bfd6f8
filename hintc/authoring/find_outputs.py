"""The results of hinted calls, which a freezer must keep."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hintc.authoring.hint import OpHint
from hintc.errors import HintError

# call -> result index -> (aggregate or "", [(sort index, node name)])
_Results = dict[str, dict[int, tuple[str, list[tuple[int, str]]]]]


def find_all_hinted_output_nodes(session: Any = None, graph_def: Any = None) -> list[str]:
    """Names of the nodes that carry the results of the hinted calls of a graph.

    Give them to the freezer as further outputs, or it drops results that nobody reads and the
    call can no longer be replaced. Of a result aggregated by "first" or "last" only the chosen
    member is named. Hints inside function bodies are not: no freezer can be asked for them.

    Args:
        session: a `tf.compat.v1.Session` whose graph is searched, or
        graph_def: a `GraphDef`, which is not changed. Exactly one of the two.

    Returns:
        Node names: calls in the order in which the graph first mentions them, results by index,
        members by sort index. Empty if the graph has no hints.

    Raises:
        HintError: not exactly one source, or it is of another kind (also a ValueError).
    """
    if (session is None) == (graph_def is None):
        given = "neither" if session is None else "both"
        raise HintError(
            f"find_all_hinted_output_nodes needs one of session and graph_def, got {given}",
            remedy="Pass session= for the graph of a session, or graph_def= for a GraphDef",
        )
    return [
        name
        for call in _collect(_nodes(session, graph_def)).values()
        for _, (aggregate, members) in sorted(call.items())
        for name in _chosen(aggregate, [member for _, member in sorted(members)])
    ]


def _nodes(session: Any, graph_def: Any) -> Iterable[Any]:
    source = session if graph_def is None else graph_def
    try:
        found = session.graph.as_graph_def() if graph_def is None else graph_def
        nodes: Iterable[Any] = found.node
        return nodes
    except AttributeError as error:
        wanted = "a tf.compat.v1.Session" if graph_def is None else "a GraphDef"
        raise HintError(
            f"find_all_hinted_output_nodes: expected {wanted}, got a {type(source).__name__}"
        ) from error


def _collect(nodes: Iterable[Any]) -> _Results:
    calls: _Results = {}
    for node in nodes:
        # `in` first: reading an absent key of a protobuf map inserts it.
        if OpHint.FUNCTION_UUID_ATTR not in node.attr:
            continue
        call = calls.setdefault(node.attr[OpHint.FUNCTION_UUID_ATTR].s.decode(), {})
        if OpHint.FUNCTION_OUTPUT_INDEX_ATTR not in node.attr:
            continue
        index = node.attr[OpHint.FUNCTION_OUTPUT_INDEX_ATTR].i
        sort = _attr(node, OpHint.FUNCTION_SORT_INDEX_ATTR)
        aggregate = _attr(node, OpHint.FUNCTION_AGGREGATE_ATTR)
        # The first member's aggregate decides.
        result = call.setdefault(index, (aggregate.s.decode() if aggregate else "", []))
        result[1].append((sort.i if sort else -1, node.name))
    return calls


def _attr(node: Any, name: str) -> Any:
    return node.attr.get(name)


def _chosen(aggregate: str, members: list[str]) -> list[str]:
    if aggregate == OpHint.AGGREGATE_FIRST:
        return members[:1]
    if aggregate == OpHint.AGGREGATE_LAST:
        return members[-1:]
    return members
