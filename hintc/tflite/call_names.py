"""Names of fused calls, for the operators that they have become: the converter forgets them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hintc.flexbuffer import load_attributes
from hintc.ops import PREFIX
from hintc.tflite.flatbuffer import Model, Operator, Subgraph

_NAMELESS = "tfl.custom"
"""How the converter calls the result of every fused call."""
_Calls = dict[tuple[str, object], list[str]]


def name_calls(model: Model, graph_def: Any) -> None:
    """Gives the results of each fused call the name that the call has in the graph.

    An operator belongs to a call with the same spec: to the one whose name the names of its
    operands begin with, else to the next one in the graph.

    Args:
        model: just converted; it is changed.
        graph_def: what it was converted from.
    """
    calls = _calls(graph_def)
    nameless = [
        (subgraph, op)
        for subgraph, op in model.operators()
        if (model.custom_code(op) or "").startswith(PREFIX)
        and op.outputs
        and subgraph.tensor_name(op.outputs[0]).partition(":")[0].startswith(_NAMELESS)
    ]
    for by_operands in (True, False):
        left = []
        for subgraph, op in nameless:
            names = calls.get((str(model.custom_code(op)), _spec(op)), [])
            found = _of_operands(names, subgraph, op) if by_operands else next(iter(names), None)
            if found is None:
                left.append((subgraph, op))
                continue
            names.remove(found)
            for place, result in enumerate(op.outputs):
                name = f"{found}:{place}" if place else found
                subgraph.tensor(result).name = name.encode()
        nameless = left


def _of_operands(names: list[str], subgraph: Subgraph, op: Operator) -> str | None:
    operands = [subgraph.tensor_name(index) for index in op.inputs if index >= 0]
    return next((n for n in names if any(o.startswith(f"{n}/") for o in operands)), None)


def _spec(op: Operator) -> object:
    data = b"" if op.customOptions is None else bytes(bytearray(op.customOptions))
    return load_attributes(data).get("spec") if data else None


def _calls(graph_def: Any) -> _Calls:
    """Custom code and spec -> the names of such calls, in order."""
    marked: dict[str, tuple[str, object]] = {}
    for function in graph_def.library.function:
        marking = function.attr["_implements"].func if "_implements" in function.attr else None
        if marking is not None and marking.name.startswith(PREFIX) and "spec" in marking.attr:
            spec = marking.attr["spec"].s.decode("utf-8", "replace")
            marked[function.signature.name] = marking.name, spec
    found: _Calls = {}
    for node in _nodes(graph_def):
        key = marked.get(node.attr["f"].func.name) if "f" in node.attr else None
        if key is not None:
            found.setdefault(key, []).append(node.name)
    return found


def _nodes(graph_def: Any) -> Iterator[Any]:
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def
