"""Rules about functions and the nodes that call them, Scans included."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from hintc.errors import HintcError
from hintc.ir import SCAN, DType, FunctionRef, Node, Scan
from hintc.ops import PREFIX, declared
from hintc.verify.definitions import compare
from hintc.verify.scope import DTypes, Finding, Scope, function_refs


def functions_exist(scope: Scope) -> Iterator[Finding]:
    """What a node calls, by an attribute that its op declares as a function, is in the library."""
    for node, attribute, ref in scope.calls:
        if ref.name not in scope.module.functions:
            yield node.name, f"attribute '{attribute}': there is no function '{ref.name}'"


def calls_match_signatures(scope: Scope) -> Iterator[Finding]:
    """Number and element types at a call are those of the function's arguments and results."""
    for node in scope.graph:
        call = _CALLS.get(node.op)
        if call is not None:
            yield from call(scope, node)
        elif node.op in scope.module.functions:
            yield from _match(scope, node, node.op, scope.operands(node), None)


def _call(scope: Scope, node: Node) -> Iterator[Finding]:
    yield from _match_all(scope, node, ("f",), scope.operands(node), scope.results(node))


def _while(scope: Scope, node: Node) -> Iterator[Finding]:
    operands = scope.operands(node)
    yield from _match_all(scope, node, ("body",), operands, scope.results(node))
    yield from _match_all(scope, node, ("cond",), operands, (None,))


def _branches(scope: Scope, node: Node) -> Iterator[Finding]:
    names = ("then_branch", "else_branch", "branches")
    yield from _match_all(scope, node, names, scope.operands(node)[1:], scope.results(node))


_CALLS: dict[str, Callable[[Scope, Node], Iterator[Finding]]] = {
    "PartitionedCall": _call,
    "StatefulPartitionedCall": _call,
    "While": _while,
    "StatelessWhile": _while,
    "If": _branches,
    "StatelessIf": _branches,
    "Case": _branches,
    "StatelessCase": _branches,
}


def _match_all(
    scope: Scope, node: Node, names: Sequence[str], given: DTypes, wanted: DTypes | None
) -> Iterator[Finding]:
    for attribute, ref in function_refs(node, scope.schema(node)):
        if attribute in names:
            yield from _match(scope, node, ref.name, given, wanted)


def _match(
    scope: Scope, node: Node, function: str, given: DTypes, wanted: DTypes | None
) -> Iterator[Finding]:
    signature = scope.signature(function)
    if signature is None:
        return
    yield from compare(node, "operand", f"'{function}' takes", given, signature[0])
    if wanted is not None:
        yield from compare(node, "result", f"'{function}' returns", wanted, signature[1])


def fused_calls_match_declarations(scope: Scope) -> Iterator[Finding]:
    """A call that implements a declared op fits its declaration: operands, results, attributes."""
    for node, attribute, ref in scope.calls:
        function = scope.module.functions.get(ref.name)
        marking = function.attributes.get("_implements") if function is not None else None
        if attribute == "f" and isinstance(marking, FunctionRef):
            yield from _marked(scope, node, marking)


def _marked(scope: Scope, node: Node, marking: FunctionRef) -> Iterator[Finding]:
    op = declared(marking.name.removeprefix(PREFIX)) if marking.name.startswith(PREFIX) else None
    text = dict(marking.attributes).get("spec")
    if op is None or not isinstance(text, bytes):
        return
    try:
        spec = op.parse_spec(text.decode("utf-8", "replace"))
    except HintcError as error:
        yield node.name, f"it does not fit its op: {error.what}"
        return
    results = scope.results(node)
    for what, listed, given in (
        ("operands", spec.slots, scope.operands(node)),
        ("results", spec.results, results or spec.results),
    ):
        if len(listed) != len(given):
            yield node.name, f"its spec lists {len(listed)} {what}, it has {len(given)}"


def scans_are_consistent(scope: Scope) -> Iterator[Finding]:
    """The parts of a Scan agree with each other and with its body."""
    for node in scope.graph:
        if node.op == SCAN:
            try:
                scan = Scan.of(node)
            except HintcError as error:
                yield node.name, error.what
            else:
                yield from _parts(scope, node, scan)
                yield from _body(scope, node, scan)


def _parts(scope: Scope, node: Node, scan: Scan) -> Iterator[Finding]:
    results = scope.results(node) or ()
    ys = node.attributes.get("ys")
    if len(scan.reverse_xs) != len(scan.xs):
        yield node.name, f"there are {len(scan.xs)} xs, {len(scan.reverse_xs)} flags 'reverse_xs'"
    if len(scan.reverse_ys) != ys:
        yield node.name, f"there are {ys!r} ys, {len(scan.reverse_ys)} flags 'reverse_ys'"
    if len(results) != len(scan.states) + len(scan.reverse_ys):
        yield node.name, f"there are {len(results)} results, not one for each state and each y"
    if scan.fusion is not None and len(scan.fusion.results) != len(results):
        yield node.name, f"'fused_results' names {len(scan.fusion.results)} of {len(results)}"


def _body(scope: Scope, node: Node, scan: Scan) -> Iterator[Finding]:
    operands = scope.operands(node)
    states = 1 + len(scan.xs)
    end = states + len(scan.states) + len(scan.invariants)
    results = scope.results(node) or ()
    yield from _match(scope, node, scan.body, (DType.INT32, *operands[1:end]), results)
    initial = operands[states : states + len(scan.states)]
    yield from compare(node, "state", "its result is", initial, results[: len(initial)])
