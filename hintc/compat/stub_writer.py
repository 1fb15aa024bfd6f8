"""Collected calls of a main graph become stubs, in upstream's format plus what hintc adds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hintc.graphdef.emit import known_array
from hintc.graphdef.shapes import infer_shapes
from hintc.hints.protocol import (
    AGGREGATE,
    CONSTANT_PREFIX,
    FUNCTION_NAME,
    FUNCTION_UUID,
    INPUT_INDEX,
    LEVEL,
    OUTPUT_INDEX,
    SORT_INDEX,
    STACK,
    HintRecord,
    called_function,
    hint_call_record,
)
from hintc.hints.sequence import SequenceCall, last_step, sequence_call
from hintc.hints.stub import (
    BODY,
    CELL,
    LOOP,
    OUTPUT_QUANTIZED,
    OUTPUT_SHAPES,
    OUTPUT_TYPES,
    UNRECOGNISED,
    CellAttributes,
    LoopParts,
)
from hintc.ir import (
    SCAN,
    AttributeValue,
    DType,
    FunctionRef,
    Graph,
    Module,
    Node,
    Port,
    Scan,
    Shape,
    Tensor,
)
from hintc.ir.opdefs import STUB_INDICES
from hintc.ir.scan import dtype_of


@dataclass(frozen=True)
class _Form:
    """What a stub is made of.

    Attributes:
        operands: argument index -> value.
        extras: values after the last argument.
        outputs: for each value that a result replaces, the result's index.
        constants: the hint's constant attributes, typed as they were given.
        attributes: beyond those that every stub has.
    """

    operands: Mapping[int, Port]
    extras: Sequence[Port]
    outputs: Mapping[Port, int]
    constants: Mapping[str, AttributeValue]
    attributes: Mapping[str, AttributeValue]


class StubWriter:
    """Replaces the collected calls of a module's main graph by stubs.

    Args:
        module: changed in place.
        cells: Scan name -> attributes of the kernel that it was recognised as.
        left: names of calls that must stay calls.
        after_each: called after each stub.
    """

    def __init__(
        self,
        module: Module,
        cells: Mapping[str, CellAttributes],
        left: frozenset[str],
        after_each: Callable[[], None] | None,
    ) -> None:
        self.module = module
        self.graph = module.graph
        self.cells = cells
        self.after_each = after_each
        self._nodes = [
            node
            for node in self.graph.topological()
            if node.op == SCAN
            or (node.name not in left and hint_call_record(module, node) is not None)
        ]
        ports = [Port(n, at) for n in self._nodes for at in range(_result_count(n))]
        # All at once, and before the first stub: TensorFlow cannot import a graph with stubs.
        self._shapes = infer_shapes(module, self.graph, ports)

    def run(self) -> None:
        """Replace them all."""
        for node in self._nodes:
            if node.op == SCAN:
                found = sequence_call(self.module, node)
                self._replace(node, found.record, self._loop_form(node, found))
            else:
                record = hint_call_record(self.module, node)
                assert record is not None
                self._replace(node, record, self._call_form(node, record))

    def _call_form(self, call: Node, record: HintRecord) -> _Form:
        function = called_function(self.module, call)
        assert function is not None
        pairs = list(zip(record.inputs, call.operands, strict=True))
        return _Form(
            {index: port for (index, _), port in pairs if index >= 0},
            [port for (index, _), port in pairs if index < 0],
            {Port(call, at): index for at, (index, _) in enumerate(record.outputs)},
            self._constants(call),
            {BODY: FunctionRef(function.name)},
        )

    def _loop_form(self, node: Node, found: SequenceCall) -> _Form:
        record, scan = found.record, Scan.of(node)
        self._read_last_steps(node, found)
        operands = {
            index: self._outside(port)
            for (index, _), port in zip(record.inputs, found.operands, strict=True)
            if index >= 0
        }
        extras: list[Port] = []

        def place(port: Port) -> int:
            """Which operand of the stub a value is; it becomes an extra one if it is none yet."""
            for index, known in operands.items():
                if known == port:
                    return index
            if port not in extras:
                extras.append(port)
            return max(operands, default=-1) + 1 + extras.index(port)

        outputs: dict[Port, int] = {}
        for at, result in enumerate(found.results):
            if result is not None and not result.is_last_step:
                outputs[Port(node, at)] = record.outputs[result.result][0]
        steps = known_array(scan.trip_count)
        parts = LoopParts(
            -1 if steps is None else int(steps),
            tuple(map(place, scan.xs)),
            tuple(map(place, scan.states)),
            tuple(map(place, scan.invariants)),
            len(scan.reverse_ys),
            tuple(outputs.get(Port(node, at), -1) for at in range(len(found.results))),
        )
        attributes: dict[str, AttributeValue] = {
            BODY: FunctionRef(scan.body),
            LOOP: parts.to_bytes(),
        }
        cell = self.cells.get(node.name)
        if cell is not None:
            attributes[CELL] = json.dumps(dict(cell), sort_keys=True).encode()
        elif record.is_cell:
            attributes[UNRECOGNISED] = True
        constants = self._constants(found.node)
        return _Form(operands, extras, outputs, constants, attributes)

    def _outside(self, port: Port) -> Port:
        """The value in the main graph; a constant of a loop's body is copied there."""
        inner = port.node
        if inner.graph is self.graph:
            return port
        copy = self.graph.add("Const", (), inner.attributes.copy(), name=inner.name)
        copy.source = inner.source
        return Port(copy)

    def _read_last_steps(self, node: Node, found: SequenceCall) -> None:
        """A final state that is the last step of a stacked result is read off that result."""
        stacks = {r.result: at for at, r in enumerate(found.results) if r and not r.is_last_step}
        for at, result in enumerate(found.results):
            port = Port(node, at)
            if result and result.is_last_step and self.graph.uses(port):
                stack = Port(node, stacks[result.result])
                name = f"{node.name}/last_state"
                self.graph.replace_uses(port, last_step(self.graph, stack, dtype_of(port), name))

    def _replace(self, node: Node, record: HintRecord, form: _Form) -> None:
        by_index = {index: port for port, index in form.outputs.items()}
        attributes = {
            STUB_INDICES: tuple(sorted(form.operands)),
            OUTPUT_TYPES: _filled(by_index, dtype_of, DType.INVALID),
            OUTPUT_SHAPES: _filled(by_index, self._shapes.__getitem__, Shape(None)),
            OUTPUT_QUANTIZED: False,
            **form.constants,
            **form.attributes,
        }
        stub = self.graph.add(
            record.function,
            self._operands(record, form),
            attributes,
            name=record.uuid,
            controls=node.controls,
            device=node.device,
            origin=node.origin or (node.name,),
        )
        for port, index in form.outputs.items():
            self.graph.replace_uses(port, Port(stub, index))
        self.graph.replace_control_uses(node, [stub])
        self._mark_outputs(stub, record, form.constants)
        self.graph.remove(node)
        if self.after_each is not None:
            self.after_each()

    def _constants(self, call: Node) -> dict[str, AttributeValue]:
        function = called_function(self.module, call)
        assert function is not None
        return {
            name: value
            for name, value in function.attributes.items()
            if name.startswith(CONSTANT_PREFIX)
        }

    def _operands(self, record: HintRecord, form: _Form) -> list[Port]:
        names = dict(zip((i for i, _ in record.inputs), record.input_names, strict=False))
        aggregates = dict(record.inputs)
        operands: list[Port] = []
        missing: Port | None = None
        for index in range(max(form.operands, default=-1) + 1):
            if index not in form.operands:
                missing = missing or _missing(self.graph, record)
                operands.append(missing)
                continue
            port = form.operands[index]
            if aggregates[index] != STACK and index in names:
                port = self._hint(record, index, names[index], port, form.constants)
            operands.append(port)
        return [*operands, *form.extras]

    def _hint(
        self,
        record: HintRecord,
        index: int,
        name: str,
        port: Port,
        constants: Mapping[str, AttributeValue],
    ) -> Port:
        marks = _hint_attributes(record, INPUT_INDEX, index)
        attributes = {"T": dtype_of(port), **marks, **constants}
        return Port(self.graph.add("Identity", [port], attributes, name=name))

    def _mark_outputs(
        self, stub: Node, record: HintRecord, constants: Mapping[str, AttributeValue]
    ) -> None:
        """Hints on results that are still there say again what they are, as upstream's do."""
        for (index, aggregate), name in zip(record.outputs, record.output_names, strict=False):
            node = self.graph.find(name)
            if node is None or node.op != "Identity" or aggregate == STACK:
                continue
            if node.operands[0] == Port(stub, index):
                marks = {**_hint_attributes(record, OUTPUT_INDEX, index), **constants}
                for key, value in marks.items():
                    node.attributes[key] = value


def _hint_attributes(record: HintRecord, side: str, index: int) -> dict[str, AttributeValue]:
    pairs = record.inputs if side == INPUT_INDEX else record.outputs
    aggregate = dict(pairs)[index]
    attributes: dict[str, AttributeValue] = {
        FUNCTION_NAME: record.function.encode(),
        FUNCTION_UUID: record.uuid.encode(),
        LEVEL: 1,
        side: index,
    }
    if aggregate:
        attributes[AGGREGATE] = aggregate.encode()
        attributes[SORT_INDEX] = 0
    return attributes


def _missing(graph: Graph, record: HintRecord) -> Port:
    """What stands for an argument that is not there: a float32 [-1], as upstream has it."""
    attributes: dict[str, AttributeValue] = {
        "value": Tensor.of([-1.0], DType.FLOAT),
        "dtype": DType.FLOAT,
    }
    return Port(graph.add("Const", (), attributes, name=f"Const{record.uuid}"))


def _result_count(node: Node) -> int:
    listed = node.attributes.get("Tout", ())
    return len(listed) if isinstance(listed, tuple) else 1


def _filled(
    outputs: Mapping[int, Port],
    value: Callable[[Port], DType | Shape],
    missing: DType | Shape,
) -> AttributeValue:
    """One entry for each result up to the last."""
    return tuple(
        value(outputs[index]) if index in outputs else missing
        for index in range(max(outputs, default=-1) + 1)
    )
