"""A Scan whose body is exactly one hinted call, read as that call on whole sequences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hintc.hints.protocol import FIRST, LAST, STACK, HintRecord, hint_call_record
from hintc.ir import (
    ARG,
    RESULT,
    AttributeValue,
    DType,
    Function,
    Graph,
    Module,
    Node,
    Port,
    Scan,
    Tensor,
)

_PLUMBING = frozenset({ARG, RESULT, "Identity", "Pack", "Unpack", "Const"})


@dataclass(frozen=True)
class SequenceResult:
    """What one result of the Scan is in terms of the call.

    Attributes:
        result: which result of the call.
        is_last_step: it is the last element of that stacked result, not the result itself.
    """

    result: int
    is_last_step: bool


@dataclass(frozen=True)
class SequenceCall:
    """The call on whole sequences that a Scan is.

    Attributes:
        node: the hinted call, in the Scan's body.
        record: its hint; a stacked argument is a sequence.
        operands: for each operand of the call: the value outside of the Scan, or the constant in
            the body (to be moved out).
        results: for each result of the Scan what it is; None: something else, which is harmless
            where nothing reads it.
    """

    node: Node
    record: HintRecord
    operands: tuple[Port, ...]
    results: tuple[SequenceResult | None, ...]


class NotASequenceCallError(Exception):
    """Why a Scan is no such call: `str()` completes "because ..."."""


def sequence_call(module: Module, node: Node) -> SequenceCall:
    """Read a Scan as one hinted call on sequences.

    Raises:
        NotASequenceCallError: it is something else.
    """
    scan = Scan.of(node)
    function = scan.body_function(module)
    call, record = _only_call(module, function.graph)
    if not record.is_sequence:
        raise NotASequenceCallError("the hint has no stacked argument, so it is one step's")
    if not scan.xs:
        raise NotASequenceCallError("it reads no sequence, so a call would not know its length")
    if any((*scan.reverse_xs, *scan.reverse_ys)):
        raise NotASequenceCallError("the loop runs backwards")
    values = _outer_values(scan, function)
    operands = tuple(_operand(record, at, port, values) for at, port in enumerate(call.operands))
    found = [_result(call, record, r.operands[0]) for r in function.graph.results]
    states = len(scan.states)
    # a state's final value is the last of a stack; of what is stacked there is the stack itself
    results = tuple(
        _of_stack(result) if at >= states else result for at, result in enumerate(found)
    )
    _check_results(node, results)
    return SequenceCall(call, record, operands, results)


def _only_call(module: Module, body: Graph) -> tuple[Node, HintRecord]:
    calls = [(n, r) for n in body if (r := hint_call_record(module, n)) is not None]
    if len(calls) != 1:
        raise NotASequenceCallError(f"the loop's body has {len(calls)} hinted calls, not one")
    call = calls[0][0]
    for node in body:
        if node is not call and node.op not in _PLUMBING:
            raise NotASequenceCallError(
                f"the loop's body also has '{node.name}' ({node.op}), outside of the hint"
            )
    return calls[0]


def _outer_values(scan: Scan, function: Function) -> Mapping[Node, tuple[str, Port]]:
    """Argument of the body -> what kind it is, and its value outside."""
    args = function.graph.args
    kinds = [("x", p) for p in scan.xs]
    kinds += [("state", p) for p in scan.states]
    kinds += [("invariant", p) for p in scan.invariants]
    return dict(zip(args[1:], kinds, strict=True))


def _operand(
    record: HintRecord, at: int, port: Port, values: Mapping[Node, tuple[str, Port]]
) -> Port:
    index, aggregate = record.inputs[at]
    port = _plain(port)
    if aggregate == STACK:
        if port.node.op != "Pack" or len(port.node.operands) != 1:
            raise NotASequenceCallError(f"its argument {index} is not one step of a stack")
        port = _plain(port.node.operands[0])
    if port.node.op == "Const":
        kind, outer = "invariant", port
    else:
        kind, outer = values.get(port.node, ("", port))
    expected = {STACK: "x", FIRST: "state", "": "invariant"}.get(aggregate)
    if kind == expected:
        return outer
    if index < 0:
        raise NotASequenceCallError(
            "the hint reads a value that changes from step to step and was not declared"
        )
    raise NotASequenceCallError(
        f"its argument {index} ({aggregate or 'not tagged'}) is "
        f"{_KINDS.get(kind, 'not one of the loop')}"
    )


_KINDS = {
    "x": "read along the sequence",
    "state": "carried from step to step",
    "invariant": "the same in every step",
}


def _result(call: Node, record: HintRecord, port: Port) -> SequenceResult | None:
    """What a value of the body is; `is_last_step` still says "one step of a stack" here."""
    port = _plain(port)
    stacked = port.node.op == "Unpack"
    if stacked:
        port = _plain(port.node.operands[0])
    if port.node is not call:
        return None
    aggregate = record.outputs[port.index][1]
    if aggregate != (STACK if stacked else LAST):
        return None
    return SequenceResult(port.index, stacked)


def _of_stack(result: SequenceResult | None) -> SequenceResult | None:
    if result is None or not result.is_last_step:
        return None  # each step's value of what the hint gives only for the last one
    return SequenceResult(result.result, False)


def _check_results(node: Node, results: tuple[SequenceResult | None, ...]) -> None:
    scan, graph = Scan.of(node), node.graph
    for at, result in enumerate(results):
        if result is None and graph.uses(Port(node, at)):
            what = "final state" if at < len(scan.states) else "stacked result"
            raise NotASequenceCallError(f"{what} {at} of the loop is no result of the hint")


def _plain(port: Port) -> Port:
    while port.node.op == "Identity" and not port.node.controls:
        port = port.node.operands[0]
    return port


def last_step(graph: Graph, value: Port, dtype: DType, name: str) -> Port:
    """A new StridedSlice ``value[-1]``; `dtype` is the value's element type."""
    bounds = [
        _index(graph, at, f"{name}/{part}") for part, at in (("begin", -1), ("end", 0), ("step", 1))
    ]
    attributes: dict[str, AttributeValue] = {
        "T": dtype,
        "Index": DType.INT32,
        "begin_mask": 0,
        "end_mask": 1,
        "ellipsis_mask": 0,
        "new_axis_mask": 0,
        "shrink_axis_mask": 1,
    }
    return Port(graph.add("StridedSlice", [value, *bounds], attributes, name=name))


def _index(graph: Graph, value: int, name: str) -> Port:
    attributes: dict[str, AttributeValue] = {
        "value": Tensor.of([value], DType.INT32),
        "dtype": DType.INT32,
    }
    return Port(graph.add("Const", (), attributes, name=name))
