"""Removing from a TFLite model what an edit has left unused."""

from __future__ import annotations

from collections.abc import Iterable

from hintc.tflite.flatbuffer import Model, Operator, Subgraph

_EFFECTS = (
    "ASSIGN_VARIABLE",
    "CALL",
    "CALL_ONCE",
    "CUSTOM",
    "HASHTABLE",
    "IF",
    "RANDOM",
    "STABLEHLO_RNG",
    "MULTINOMIAL",
    "READ_VARIABLE",
    "STABLEHLO_COMPOSITE",
    "VAR_HANDLE",
    "WHILE",
)
"""Beginnings of the names of operators that do more than give results."""


def remove_unused_producers(subgraph: Subgraph, tensors: Iterable[int]) -> int:
    """Removes the operators that only served to make `tensors`, and then theirs.

    Operators with effects stay, and so does everything that had no readers before. Returns how
    many went.
    """
    waiting, removed = list(tensors), 0
    while waiting:
        op = subgraph.producer(waiting.pop())
        if op is None or _has_effect(subgraph.model, op) or _is_used(subgraph, op):
            continue
        subgraph.operators = [kept for kept in subgraph.operators if kept is not op]
        waiting.extend(index for index in op.inputs if index >= 0)
        removed += 1
    return removed


def remove_unused_storage(model: Model) -> None:
    """Removes tensors, buffers and operator codes without a user and renumbers the others.

    Signatures and metadata follow. Subgraphs keep their numbers.
    """
    _remove_unused_codes(model)
    for number, subgraph in enumerate(model.subgraphs):
        _keep_tensors(model, subgraph, number)
    _keep_buffers(model)


def _has_effect(model: Model, op: Operator) -> bool:
    return model.op_name(op).startswith(_EFFECTS)


def _is_used(subgraph: Subgraph, op: Operator) -> bool:
    read = subgraph.read_tensors()
    return any(index in read or subgraph.tensor(index).isVariable for index in op.outputs)


def _remove_unused_codes(model: Model) -> None:
    """Removes operator codes that no operator has."""
    used = sorted({op.opcodeIndex for _, op in model.operators()})
    new = {old: number for number, old in enumerate(used)}
    model.root.operatorCodes = [model.root.operatorCodes[old] for old in used]
    for _, op in model.operators():
        op.opcodeIndex = new[op.opcodeIndex]


def _keep_tensors(model: Model, subgraph: Subgraph, number: int) -> None:
    graph = subgraph.graph
    used = set(graph.inputs) | set(graph.outputs)
    lists = ("inputs", "outputs", "intermediates")
    for op in graph.operators:
        for name in lists:
            used.update(int(index) for index in _listed(op, name) if index >= 0)
    new = {old: place for place, old in enumerate(sorted(used))}
    new[-1] = -1
    graph.tensors = [graph.tensors[old] for old in sorted(used)]
    graph.inputs = [new[index] for index in graph.inputs]
    graph.outputs = [new[index] for index in graph.outputs]
    for op in graph.operators:
        for name in lists:
            if getattr(op, name) is not None:
                setattr(op, name, [new[int(index)] for index in _listed(op, name)])
    for signature in model.root.signatureDefs or []:
        if signature.subgraphIndex == number:
            for entry in [*(signature.inputs or []), *(signature.outputs or [])]:
                entry.tensorIndex = new[int(entry.tensorIndex)]


def _keep_buffers(model: Model) -> None:
    root = model.root
    tensors = [tensor for subgraph in model.subgraphs for tensor in subgraph.graph.tensors]
    metadata = root.metadata or []
    # Buffer 0 is the schema's empty one: tensors without data point at it.
    used = {0} | {int(owner.buffer) for owner in [*tensors, *metadata]}
    listed = [] if root.metadataBuffer is None else [int(index) for index in root.metadataBuffer]
    order = sorted(used | set(listed))
    new = {old: place for place, old in enumerate(order)}
    root.buffers = [root.buffers[old] for old in order]
    for owner in [*tensors, *metadata]:
        owner.buffer = new[int(owner.buffer)]
    if listed:
        root.metadataBuffer = [new[index] for index in listed]


def _listed(op: Operator, name: str) -> list[int]:
    value = getattr(op, name)
    return [] if value is None else [int(index) for index in value]
