"""Which operators of a model belong to layers or nodes that somebody names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hintc.errors import HintcError
from hintc.near import did_you_mean
from hintc.tflite.flatbuffer import Model, Operator, Subgraph

_NUMBERED = re.compile(r"_\d+$")
"""What freezing adds to the names of Keras layers."""


def float_tensors(model: Model, names: Sequence[str]) -> list[str]:
    """The names of the results of all operators that `names` mean.

    Args:
        model: legalised, not yet quantised.
        names: layers or nodes: a path's beginning (``block/dense``) or one of its parts
            (``dense``). An operator has the names of its results and of its constants.

    Raises:
        HintcError: one of them means nothing.
    """
    found: dict[str, None] = {}
    operators = [
        (subgraph, op, _paths(subgraph, op)) for subgraph, op in model.operators() if op.outputs
    ]
    for name in names:
        meant = [(s, op) for s, op, paths in operators if any(_is(name, p) for p in paths)]
        if not meant:
            meant = [(s, op) for s, op, p in operators if any(_is(name, _plain(x)) for x in p)]
        if not meant:
            parts = [part for _, _, paths in operators for path in paths for part in path]
            raise HintcError(
                f"keep_float names '{name}', which is no layer or node of the model",
                remedy=did_you_mean(name, map(_plain_part, parts), "layers"),
            )
        for subgraph, op in meant:
            found.update(dict.fromkeys(map(subgraph.tensor_name, op.outputs)))
    return list(found)


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


def _paths(subgraph: Subgraph, op: Operator) -> list[tuple[str, ...]]:
    """What the operator is called; a joined name (``a;b``) is several."""
    constants = [t for t in op.inputs if t >= 0 and subgraph.constant(t) is not None]
    tensors = [*op.outputs, *constants]
    names = [name for t in tensors for name in subgraph.tensor_name(t).split(";")]
    return [tuple(name.split("/")) for name in names]


def _is(name: str, path: tuple[str, ...]) -> bool:
    parts = tuple(name.removesuffix(":0").split("/"))
    return name in path or path[: len(parts)] == parts


def _plain(path: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_plain_part, path))


def _plain_part(part: str) -> str:
    return _NUMBERED.sub("", part)
