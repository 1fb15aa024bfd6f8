"""Hints of level 2 and above: they say how the calls inside a loop connect, then they go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hintc.call_graph import callees_of
from hintc.hints.protocol import OUTPUT_INDEX, HintCall, hint_call_record, strip_hint
from hintc.ir import Graph, Module, Node, Port
from hintc.remark import PassReport

# list of the mappings -> (key of the child's index, which child, which side of it)
_CHECKED = (
    ("parent_first_child_input", "first_child_ophint_input_index", 0, "inputs"),
    ("parent_last_child_output", "child_output_index", -1, "outputs"),
)

Indices = dict[str, list[int]]


def dissolve(
    module: Module,
    graph: Graph,
    wrapper: HintCall,
    interior: Sequence[Node],
    calls: Sequence[HintCall],
    report: PassReport,
) -> None:
    """Remove a wrapper's hint nodes; check what it said about its children against them.

    Args:
        module: has the functions that the interior calls.
        graph: has the wrapper.
        wrapper: of level 2 or above.
        interior: what lies in it, in topological order.
        calls: the open calls of the same graph.
        report: gets a remark that names the children, and one if the mappings do not fit.
    """
    children = [*_inner_calls(module, interior), *_own_calls(interior, calls)]
    name = wrapper.outputs[0].members[0].name if wrapper.outputs else wrapper.nodes[0].name
    found = ", ".join(f"'{function}'" for function, _ in children) or "no hinted call"
    report.note(
        "wrapper-dissolved",
        name,
        f"The hint '{wrapper.function}' of level {wrapper.level} wraps {found}.",
    )
    problem = _mismatch(wrapper, [indices for _, indices in children])
    if problem:
        report.note(
            "wrapper-mapping",
            name,
            f"The hint '{wrapper.function}' {problem}; the graph's own edges are used.",
        )
    remove_identities(graph, wrapper.nodes)


def remove_identities(graph: Graph, nodes: Sequence[Node]) -> None:
    """Let readers of hint nodes read what those read; a node that nothing needs then goes.

    In a graph without declared results the node of a result stays where it is, without its hint:
    it may be what the user is going to ask for.
    """
    for node in nodes:
        is_output = OUTPUT_INDEX in node.attributes
        strip_hint(node)
        if node.controls or (is_output and not graph.results):
            continue
        graph.replace_uses(Port(node), node.operands[0])
        if not graph.is_used(node):
            graph.remove(node)


def _inner_calls(module: Module, interior: Sequence[Node]) -> Iterator[tuple[str, Indices]]:
    """Collected calls in the functions that the interior calls: name and indices."""
    seen: set[str] = set()
    todo = [name for node in reversed(interior) for name in callees_of(module, node)]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in module.functions[name].graph.topological():
            record = hint_call_record(module, node)
            if record is not None:
                yield (
                    record.function,
                    {
                        "inputs": [i for i, _ in record.inputs if i >= 0],
                        "outputs": [i for i, _ in record.outputs],
                    },
                )
            else:
                todo.extend(callees_of(module, node))


def _own_calls(
    interior: Sequence[Node], calls: Sequence[HintCall]
) -> Iterator[tuple[str, Indices]]:
    inside = set(interior)
    for call in calls:
        if call.level == 1 and any(n in inside for n in call.nodes):
            yield (
                call.function,
                {
                    "inputs": [a.index for a in call.inputs],
                    "outputs": [a.index for a in call.outputs],
                },
            )


def _mismatch(wrapper: HintCall, children: Sequence[Indices]) -> str:
    """Why the mappings of a wrapper do not fit its children; "" if they do."""
    if not children:
        return "has no children, yet its level says so"
    for key, child_key, which, side in _CHECKED:
        entries: Any = wrapper.mappings.get(key, ())
        for entry in entries if isinstance(entries, list) else ():
            index = entry.get(child_key, -1) if isinstance(entry, dict) else -1
            if index != -1 and index not in children[which][side]:
                return f"maps to {side[:-1]} {index} of a child that has none"
    return ""
