"""Which operators of a model belong to layers or nodes that somebody names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hintc.errors import HintcError
from hintc.meant import Path, meant, meant_perhaps, path_of
from hintc.tflite.flatbuffer import Model, Operator, Subgraph


def float_tensors(
    model: Model, names: Sequence[str], made_by: Mapping[str, str] | None = None
) -> list[str]:
    """The names of the results of all operators that `names` mean.

    Args:
        model: legalised, not yet quantised. Results in the bodies of loops are named anew: the
            quantiser is given names alone, and each body may have the same ones.
        names: layers or nodes, see `meant`. An operator has the names of its results and of its
            constants, in a body behind that of the body.
        made_by: result -> the node that gives it: outputs have the names of outputs in the model.

    Raises:
        HintcError: one of them means nothing.
    """
    found: dict[str, None] = {}
    operators = [
        ((subgraph, op), _paths(subgraph, op, made_by or {}))
        for subgraph, op in model.operators()
        if op.outputs
    ]
    for name in names:
        those = meant(name, operators)
        if not those:
            raise HintcError(
                f"keep_float names '{name}', which is no layer or node of the model",
                remedy=meant_perhaps(name, operators),
            )
        for subgraph, op in those:
            if _is_body(subgraph):
                _name_after_body(subgraph, op)
            found.update(dict.fromkeys(map(subgraph.tensor_name, op.outputs)))
    return list(found)


def _is_body(subgraph: Subgraph) -> bool:
    return subgraph is not subgraph.model.subgraphs[0]


def _name_after_body(subgraph: Subgraph, op: Operator) -> None:
    for tensor in op.outputs:
        name = subgraph.tensor_name(tensor)
        if not name.startswith(f"{subgraph.name}/"):
            subgraph.tensor(tensor).name = f"{subgraph.name}/{name}".encode()


def held_tensors(model: Model, nodes: frozenset[str]) -> list[str]:
    """The names of the results of all operators that were made of one of these nodes."""
    if not nodes:
        return []
    names = (s.tensor_name(tensor) for s, op in model.operators() for tensor in op.outputs)
    return [name for name in names if any(_is_of(part, nodes) for part in name.split(";"))]


def _is_of(name: str, nodes: frozenset[str]) -> bool:
    """True for a node's name, also with the number by which the converter tells loops apart."""
    while name not in nodes and name[-1:].isdigit():
        name = name[:-1]
    return name in nodes


def _paths(subgraph: Subgraph, op: Operator, made_by: Mapping[str, str]) -> list[Path]:
    """What the operator is called; a joined name (``a;b``) is several."""
    constants = [t for t in op.inputs if t >= 0 and subgraph.constant(t) is not None]
    tensors = [*op.outputs, *constants]
    names = [name for t in tensors for name in subgraph.tensor_name(t).split(";")]
    if _is_body(subgraph):
        return [path_of(f"{subgraph.name}/{name}") for name in names]
    names += [made_by[name] for name in names if name in made_by]
    return [path_of(name) for name in names]
