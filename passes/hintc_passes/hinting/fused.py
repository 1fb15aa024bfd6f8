"""A hinted call of a user's own function, or of a kernel's step, as a fused call."""

from __future__ import annotations

from collections.abc import Sequence

from hintc.errors import HintcError
from hintc.hints.protocol import CONSTANT_PREFIX, RECORD, HintRecord, called_function
from hintc.hints.sequence import SequenceCall, last_step
from hintc.ir import Fusion, Graph, Module, Node, Port
from hintc.ir.scan import dtype_of
from hintc.ops import BuiltinLowering, FusedOp, Quantize, Target, declared
from hintc.ops.references import REFERENCES
from hintc_passes.hinting.kernel_proof import check_kernel
from hintc_passes.hinting.refusal import NotFusedError


def mark_fused(
    module: Module,
    node: Node,
    record: HintRecord,
    target: Target,
    quantize: Quantize | None = None,
) -> None:
    """Say on the called function that it implements the user's op, or the kernel of that name.

    Raises:
        NotFusedError: the kernel could not compute it, or computes something else, or the op's
            declaration excludes it.
        HintcError: the op is declared with other operands, results or attributes.
    """
    op = own_op(record.function)
    if isinstance(op.lowering, BuiltinLowering) and not op.lowering.states:
        raise NotFusedError(
            "hint-built-in",
            f"The hint names the built-in operator '{op.name}', and a hint does not prove what is "
            "inside.",
            "Remove the hint: TensorFlow's converter, or fuse-conv, recognises the maths.",
        )
    slots = [slot_name(op, index) for index in _declared_inputs(node, record)]
    results = [result_name(op, index) for index, _ in record.outputs]
    if op.name in REFERENCES:
        check_kernel(module, node, record, op, slots, results)
    _check_constraints(op, record, slots, target, quantize)
    marking = op.implements(slots, results, record.attributes)
    function = called_function(module, node)
    assert function is not None
    function.attributes["_implements"] = marking
    for name in list(function.attributes):
        if name == RECORD or name.startswith(CONSTANT_PREFIX):
            del function.attributes[name]


def sequence_fusion(
    node: Node, found: SequenceCall, target: Target, quantize: Quantize | None = None
) -> Fusion:
    """What makes a Scan one fused call on sequences; final states are read off stacks if need be.

    Raises:
        NotFusedError, HintcError: as `mark_fused`.
    """
    record, op = found.record, own_op(found.record.function)
    if op.name in REFERENCES:
        raise NotFusedError(
            "hint-not-the-kernel",
            f"The hint '{record.function}' has the name of a kernel of TensorFlow Lite, and loops "
            "around it are not checked against that kernel.",
            "Leave the hint out: fuse-lstm and fuse-rnn recognise such loops by their maths.",
        )
    indices = _declared_inputs(found.node, record)
    slots = [slot_name(op, index) for index in indices]
    _check_constraints(op, record, slots, target, quantize)
    operands = {
        slot: _outside(node.graph, port) for slot, port in zip(slots, found.operands, strict=True)
    }
    _read_last_steps(node, found)
    results: list[str | None] = []
    for at, result in enumerate(found.results):
        index = None if result is None or result.is_last_step else record.outputs[result.result][0]
        name = None if index is None else result_name(op, index)
        results.append(None if name in results or not node.graph.uses(Port(node, at)) else name)
    op.spec(slots, [r for r in results if r is not None], record.attributes)
    attributes: dict[str, bool | int | float | str] = {}
    for key, value in op.checked_attributes(record.attributes).items():
        if isinstance(value, tuple):
            raise NotFusedError(
                "hint-list-in-loop",
                f"The constant '{key}' of the hint '{record.function}' is a list, which a call on "
                "sequences cannot carry.",
                "Pass single numbers or text.",
            )
        attributes[key] = value
    return Fusion(op.name, operands, tuple(results), attributes)


def own_op(function: str) -> FusedOp:
    """The op of a hinted function: its declaration, or one that takes what it gets."""
    return declared(function) or FusedOp.custom(function)


def slot_name(op: FusedOp, index: int) -> str:
    """Name of the operand slot of a hint's argument `index`."""
    return _name("input", op.slot_names, op, index)


def result_name(op: FusedOp, index: int) -> str:
    """Name of the result of a hint's result `index`."""
    return _name("output", op.results, op, index)


def _name(side: str, names: Sequence[str], op: FusedOp, index: int) -> str:
    if index < len(names):
        return names[index]
    if not op.variadic:
        raise HintcError(
            f"the op '{op.name}' is declared with {len(names)} {side}s",
            why=f"its hint has {side} {index}",
        )
    return f"{side}_{index}"


def _declared_inputs(node: Node, record: HintRecord) -> list[int]:
    for (index, _), port in zip(record.inputs, node.operands, strict=True):
        if index < 0:
            raise NotFusedError(
                "hint-undeclared-input",
                f"'{port.node.name}' is read inside the hint '{record.function}', call "
                f"{record.uuid}, but was not declared: its kernel would not get it.",
                f"Pass '{port.node.name}' through add_input.",
            )
    return [index for index, _ in record.inputs]


def _check_constraints(
    op: FusedOp,
    record: HintRecord,
    slots: Sequence[str],
    target: Target,
    quantize: Quantize | None,
) -> None:
    reasons = op.refusals(slots, record.attributes, target=target, quantize=quantize)
    if reasons:
        raise NotFusedError(
            "hint-constraint",
            f"The op '{op.name}' cannot run on target '{target}': {'; '.join(reasons)}.",
            "",
        )


def _outside(graph: Graph, port: Port) -> Port:
    """The value in the outer graph; a constant of the body is copied there."""
    if port.node.graph is graph:
        return port
    inner = port.node
    copy = graph.add("Const", (), inner.attributes.copy(), name=inner.name, origin=(inner.name,))
    copy.source = inner.source
    return Port(copy)


def _read_last_steps(node: Node, found: SequenceCall) -> None:
    """Let readers of a final state that the op does not give read the last of a stack."""
    graph = node.graph
    for at, result in enumerate(found.results):
        if result is None or not result.is_last_step or not graph.uses(Port(node, at)):
            continue
        stacks = [
            k
            for k, other in enumerate(found.results)
            if other is not None and not other.is_last_step and other.result == result.result
        ]
        if not stacks:
            raise NotFusedError(
                "hint-final-state",
                f"The final state {at} of '{node.name}' is the last element of a result that the "
                "loop does not stack.",
                "Use the loop's outputs, not its final state.",
            )
        stack = Port(node, stacks[0])
        last = last_step(graph, stack, dtype_of(stack), f"{node.name}/last_state")
        graph.replace_uses(Port(node, at), last)
