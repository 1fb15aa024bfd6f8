"""import-stubs: stubs, the wire form of hinted calls, become what they stand for again.

Recognises the nodes that carry `_tflite_input_indices`, hintc's and TensorFlow's own. With
`_hintc_body` the call or the loop comes back as it was. Without it, or without the library, a
recurrent cell is written out from the declaration of its kernel, and a user's op becomes a call of
a function that has its types and shapes but no values.

Raises an error for a stub that nobody can give a meaning to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from hintc.errors import HintError
from hintc.hints.protocol import (
    CALL_OP,
    CELLS,
    CONSTANT_PREFIX,
    FUNCTION_UUID,
    RECORD,
    HintRecord,
    is_hint,
    is_stub,
    plain_value,
    record_of,
)
from hintc.hints.stub import (
    BODY,
    CELL,
    LOOP,
    UNRECOGNISED,
    LoopParts,
    stub_indices,
    stub_shapes,
    stub_types,
)
from hintc.ir import DType, Function, FunctionRef, Graph, Module, Node, Port, Scan
from hintc.ir.scan import dtype_of
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass
from hintc_passes.hinting.cell_step import CellOptions, lstm_scan, rnn_scan, step_count
from hintc_passes.hinting.opaque import opaque_function
from hintc_passes.hinting.wrapper import remove_identities

_CELL_SCANS = {"UnidirectionalSequenceLstm": lstm_scan, "UnidirectionalSequenceRnn": rnn_scan}
_ACTIVATIONS = {"tanh": "TANH", "relu": "RELU", "relu6": "RELU6", "linear": "NONE"}
_KEEP_LIBRARY = (
    "Keep the function library: hintc.remove_training_nodes does, TensorFlow's drops it."
)


@register
@dataclass(frozen=True)
class ImportStubs(Pass):
    """Stubs become calls and Scans again."""

    name: ClassVar[str] = "import-stubs"

    def run(self, module: Module) -> PassReport:
        """Import the stubs of the main graph."""
        report = PassReport()
        graph = module.graph
        stubs = [node for node in graph.topological() if is_stub(node)]
        if stubs:
            _remove_hints(graph, {node.name for node in stubs})
        for stub in stubs:
            how, values = _import(module, stub)
            _replace(graph, stub, values)
            report.note("stub-imported", stub.name, f"The stub of '{stub.op}' {how}.")
            report.count("imported")
        return report


def _import(module: Module, stub: Node) -> tuple[str, Mapping[int, Port]]:
    """How a stub was imported, and the value of each of its results."""
    ref = stub.attributes.get(BODY)
    function = module.functions.get(ref.name) if isinstance(ref, FunctionRef) else None
    if function is not None:
        loop = stub.attributes.get(LOOP)
        if isinstance(loop, bytes):
            return "is its loop again", _loop(module, stub, function, LoopParts.from_bytes(loop))
        return "is its call again", _call(module, stub, function)
    if stub.op in CELLS:
        return "has no body and is computed as its kernel's declaration says", _cell(module, stub)
    return "has no body; only a kernel can compute it", _opaque(module, stub)


def _replace(graph: Graph, stub: Node, values: Mapping[int, Port]) -> None:
    for use in graph.uses(stub):
        index = use.node.operands[use.slot].index
        if index not in values:
            raise _error(
                stub,
                f"its result {index} is read by '{use.node.name}' but not known",
                _KEEP_LIBRARY,
            )
        graph.set_operand(use.node, use.slot, values[index])
    makers = list(dict.fromkeys(port.node for port in values.values()))
    graph.replace_control_uses(stub, makers)
    for maker in makers:
        if stub.controls and not maker.controls:
            graph.set_controls(maker, stub.controls)
    graph.remove(stub)


def _remove_hints(graph: Graph, uuids: set[str]) -> None:
    """The hint nodes around stubs have done their duty."""
    closed = []
    for node in graph:
        if is_hint(node):
            uuid = node.attributes[FUNCTION_UUID]
            if isinstance(uuid, bytes) and uuid.decode() in uuids:
                closed.append(node)
    remove_identities(graph, closed)


def _call(module: Module, stub: Node, function: Function) -> Mapping[int, Port]:
    record = record_of(function)
    if record is None:
        raise _error(stub, f"its body '{function.name}' does not say what it is", _KEEP_LIBRARY)
    extras = iter(stub.operands[max(stub_indices(stub), default=-1) + 1 :])
    operands = [next(extras) if index < 0 else stub.operands[index] for index, _ in record.inputs]
    node = _add_call(stub, function, operands)
    return {index: Port(node, at) for at, (index, _) in enumerate(record.outputs)}


def _add_call(stub: Node, function: Function, operands: list[Port]) -> Node:
    results = [r.operands[0] for r in function.graph.results]
    return stub.graph.add(
        CALL_OP,
        operands,
        {
            "Tin": tuple(dtype_of(p) for p in operands),
            "Tout": tuple(dtype_of(p) for p in results),
            "f": FunctionRef(function.name),
        },
        name=stub.op,
        device=stub.device,
        origin=(stub.name,),
    )


def _loop(module: Module, stub: Node, function: Function, parts: LoopParts) -> Mapping[int, Port]:
    def values(at: tuple[int, ...]) -> tuple[Port, ...]:
        return tuple(stub.operands[k] for k in at)

    try:
        scan = Scan(
            function.name,
            step_count(stub.graph, stub.operands[parts.xs[0]], parts.steps, stub.op),
            values(parts.xs),
            values(parts.states),
            values(parts.invariants),
            (False,) * len(parts.xs),
            (False,) * parts.ys,
            hint=stub.op,
        )
    except IndexError as error:
        raise _error(stub, "an operand that its loop needs is missing", _KEEP_LIBRARY) from error
    node = scan.add_to(module, stub.graph, name=stub.op, origin=(stub.name,))
    found: dict[int, Port] = {}
    for at, index in enumerate(parts.results):
        if index >= 0:
            found[index] = Port(node, at)
    return found


def _cell(module: Module, stub: Node) -> Mapping[int, Port]:
    if stub.attributes.get(UNRECOGNISED):
        raise _error(
            stub,
            "its body is lost, and it was not recognised as the cell that its hint says",
            _KEEP_LIBRARY,
        )
    operands = {index: stub.operands[index] for index in stub_indices(stub)}
    for index, port in operands.items():
        if dtype_of(port) is not DType.FLOAT:
            raise _error(
                stub, f"its argument {index} is not float32", "The kernel takes float32 only."
            )
    return _CELL_SCANS[stub.op](module, stub, operands, _options(stub))


def _options(stub: Node) -> CellOptions:
    recognised = stub.attributes.get(CELL)
    if isinstance(recognised, bytes):
        said: dict[str, Any] = json.loads(recognised)
        return CellOptions(
            str(said.get("activation", "TANH")),
            float(said.get("cell_clip", 0)),
            float(said.get("proj_clip", 0)),
        )
    constants = _constants(stub)
    name = str(constants.get("activation", "tanh"))
    if name not in _ACTIVATIONS:
        raise _error(
            stub, f"its body is lost, and no kernel has the activation '{name}'", _KEEP_LIBRARY
        )
    clips = [constants.get(key, 0) for key in ("cell_clip", "proj_clip")]
    numbers = [float(c) if isinstance(c, int | float) else 0.0 for c in clips]
    return CellOptions(_ACTIVATIONS[name], *numbers)


def _constants(stub: Node) -> dict[str, Any]:
    return {
        name.removeprefix(CONSTANT_PREFIX): plain_value(value)
        for name, value in stub.attributes.items()
        if name.startswith(CONSTANT_PREFIX)
    }


def _opaque(module: Module, stub: Node) -> Mapping[int, Port]:
    indices, types, shapes = stub_indices(stub), stub_types(stub), stub_shapes(stub)
    present = [at for at, dtype in enumerate(types) if dtype is not DType.INVALID]
    if (
        not present
        or not indices
        or len(shapes) != len(types)
        or any(shapes[at].dims is None for at in present)
    ):
        raise _error(
            stub,
            "it has no body, and its results' types and shapes are not given",
            f"Declare _output_types and _output_shapes on it. {_KEEP_LIBRARY}",
        )
    operands = [stub.operands[index] for index in indices]
    function = opaque_function(stub.op, operands, [(types[at], shapes[at]) for at in present])
    record = HintRecord(
        stub.op,
        stub.name,
        tuple((index, "") for index in indices),
        tuple((at, "") for at in present),
        _constants(stub),
    )
    function.attributes[RECORD] = record.to_bytes()
    for name, value in stub.attributes.items():
        if name.startswith(CONSTANT_PREFIX):
            function.attributes[name] = value
    module.add_function(function)
    node = _add_call(stub, function, operands)
    return {index: Port(node, at) for at, index in enumerate(present)}


def _error(stub: Node, what: str, remedy: str) -> HintError:
    return HintError(f"stub '{stub.op}', call {stub.name}: {what}", node=stub.name, remedy=remedy)
