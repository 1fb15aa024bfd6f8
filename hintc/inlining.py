"""Replacing a call by the body of the function it calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from weakref import WeakKeyDictionary

from hintc.errors import HintcError
from hintc.graft import graft
from hintc.ir import (
    ARG,
    RESULT,
    AttributeValue,
    Function,
    FunctionRef,
    Graph,
    Module,
    Node,
    Port,
    Unbound,
)
from hintc.ir.opdefs import is_stateful
from hintc.ir.scan import dtype_of

CALL_OPS = ("PartitionedCall", "StatefulPartitionedCall")
"""Ops that call the function their attribute ``f`` refers to."""
_UUID = "_tflite_function_uuid"
_SWITCHES = ("Switch", "RefSwitch")
_ENTERS = ("Enter", "RefEnter")

_control_flow_v1: WeakKeyDictionary[Graph, bool] = WeakKeyDictionary()
"""Whether a graph has frames or dead branches: asked once for each graph, not for each call."""


def callee(module: Module, node: Node) -> Function | None:
    """The function that a call node calls: by attribute ``f``, or by its name as op."""
    if node.op in CALL_OPS:
        ref = node.attributes.get("f")
        return module.functions.get(ref.name) if isinstance(ref, FunctionRef) else None
    return module.functions.get(node.op)


def inline_call(
    module: Module, graph: Graph, call: Node, *, prefix: str | None = None
) -> list[Node]:
    """Put the body of the called function in the place of `call`; the call is removed.

    The body's nodes are named ``prefix/name`` (made unique), keep their device or get the call's,
    and have the call as `origin`. What waited for the call waits for the body's results and
    control results; body nodes that read nothing wait for what the call waited for. Nodes with
    side effects that no result depends on are held by the results. Hints and loop frames of the
    body get names of their own, so a function can be inlined many times. Costs as much as the
    body is large. The function stays in the library.

    Args:
        module: has the function.
        graph: has the call: the main graph or a body.
        call: PartitionedCall, StatefulPartitionedCall, or a node whose op is a function's name.
        prefix: scope of the new nodes; the call's name by default.

    Returns:
        The new nodes, in the body's order.

    Raises:
        HintcError: the function is not in the library, or takes another number of operands.
    """
    function = _callee_of(module, call)
    body = function.graph
    values = {Port(arg): operand for arg, operand in zip(body.args, call.operands, strict=True)}
    scope = call.name if prefix is None else prefix
    inner = [node for node in body if node.op not in (ARG, RESULT)]
    copies = graft(inner, graph, values, prefix=scope)
    _settle(copies.values(), call, scope)
    _bind(copies.values(), _bindings(call))
    results = [
        values[r.operands[0]]
        if r.operands[0] in values
        else Port(copies[r.operands[0].node], r.operands[0].index)
        for r in body.results
    ]
    new = list(copies.values())
    new += _hold_sources(graph, call, list(copies.values()), results, scope)
    effects = _unheld_effects(body, call)
    waited = [
        copies.get(n) or values[Port(n)].node for n in (*body.control_results.values(), *effects)
    ]
    if effects:
        holders = [_hold(graph, r, [copies[n] for n in effects], scope) for r in results]
        results = [Port(holder) for holder in holders]
        new += holders
    _replace(module, graph, call, results, waited)
    return new


def inline_branch(module: Module, graph: Graph, node: Node, branch: FunctionRef) -> list[Node]:
    """Put one branch in the place of a condition, as if it were always taken.

    Args:
        module: has the branch.
        graph: has the condition.
        node: If, StatelessIf, Case or StatelessCase; it is removed.
        branch: the function that its attributes refer to.

    Returns:
        The new nodes; see `inline_call`.
    """
    name = node.name
    graph.rename(node, graph.unique_name(f"{name}/if"))
    call = graph.add(
        "PartitionedCall",
        node.operands[1:],
        {"f": branch, "Tin": node.attributes["Tin"], "Tout": node.attributes["Tout"]},
        name=name,
        controls=node.controls,
        device=node.device,
        origin=node.origin or (name,),
    )
    for index in {use.node.operands[use.slot].index for use in graph.uses(node)}:
        graph.replace_uses(Port(node, index), Port(call, index))
    graph.replace_control_uses(node, [call])
    graph.remove(node)
    return inline_call(module, graph, call)


def _callee_of(module: Module, call: Node) -> Function:
    function = callee(module, call)
    if function is None:
        ref = call.attributes.get("f")
        name = ref.name if isinstance(ref, FunctionRef) else call.op
        return module.function(name, node=call)
    if len(function.graph.args) != len(call.operands):
        raise HintcError(
            f"the call has {len(call.operands)} operands",
            node=call.name,
            why=f"function '{function.name}' takes {len(function.graph.args)}",
        )
    return function


def _settle(copies: Iterable[Node], call: Node, scope: str) -> None:
    """Devices, provenance, and names that must differ from call to call."""
    origin = call.origin or (call.name,)
    for node in copies:
        node.device = node.device or call.device
        node.origin = origin
        # freezing leaves wrong ones in bodies, where TensorFlow does not compare them
        node.attributes.pop("_output_shapes", None)
        for key in (_UUID, "frame_name") if node.op in _ENTERS else (_UUID,):
            name = node.attributes.get(key)
            if isinstance(name, bytes) and name:
                node.attributes[key] = f"{scope}/".encode() + name


def _bindings(call: Node) -> Mapping[str, AttributeValue]:
    """What the attributes of a polymorphic function stand for at this call."""
    if call.op not in CALL_OPS:
        return call.attributes
    ref = call.attributes.get("f")
    return dict(ref.attributes) if isinstance(ref, FunctionRef) else {}


def _bind(copies: Iterable[Node], bindings: Mapping[str, AttributeValue]) -> None:
    if not bindings:
        return
    for node in copies:
        for key, value in list(node.attributes.items()):
            if isinstance(value, Unbound) and value.name in bindings:
                node.attributes[key] = bindings[value.name]


def _hold_sources(
    graph: Graph, call: Node, copies: Sequence[Node], results: list[Port], scope: str
) -> list[Node]:
    """What the call waited for, all of the body waits for; returns nodes added for that.

    A node without operands must also run in the frame, and on the branch, where the call ran.
    """
    own = set(copies)
    switches = any(n.op in (*_ENTERS, *_SWITCHES) for n in copies)
    in_frame = _has_control_flow_v1(graph)
    _control_flow_v1[graph] = in_frame or switches
    added: list[Node] = []
    if call.controls:
        for node in copies:
            before = {p.node for p in node.operands}.union(node.controls)
            if own.isdisjoint(before):
                _wait_for(graph, node, call.controls)
        for at, value in enumerate(results):
            if value.node not in own:
                holder = _hold(graph, value, call.controls, scope)
                results[at] = Port(holder)
                added.append(holder)
        return added
    sources = [n for n in copies if not n.operands and not n.controls]
    if sources and in_frame and call.operands:
        # a control edge from a Switch does not carry deadness, one from its reader does
        pivot = _hold(graph, call.operands[0], (), scope)
        added.append(pivot)
        for node in sources:
            _wait_for(graph, node, (pivot,))
    return added


def _wait_for(graph: Graph, node: Node, controls: Sequence[Node]) -> None:
    graph.set_controls(node, list(dict.fromkeys((*node.controls, *controls))))


def _hold(graph: Graph, value: Port, controls: Sequence[Node], scope: str) -> Node:
    """An Identity of `value` that waits for `controls`."""
    dtype = dtype_of(value)
    return graph.add("Identity", [value], {"T": dtype}, name=f"{scope}/held", controls=controls)


def _has_control_flow_v1(graph: Graph) -> bool:
    if graph not in _control_flow_v1:
        _control_flow_v1[graph] = any(n.op in (*_ENTERS, *_SWITCHES) for n in graph)
    return _control_flow_v1[graph]


def _unheld_effects(body: Graph, call: Node) -> list[Node]:
    """Nodes of the body with side effects that none of its results depends on."""
    if call.op == "PartitionedCall":  # its function is stateless by contract
        return []
    seen: set[Node] = set()
    todo = list(body.results)
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo.extend(p.node for p in node.operands)
            todo.extend(node.controls)
    return [n for n in body if n not in seen and n.op not in (ARG, RESULT) and is_stateful(n)]


def _replace(
    module: Module, graph: Graph, call: Node, results: list[Port], waited: list[Node]
) -> None:
    """Rewire all that read or waited for the call, and remove it."""
    if not (waited := _waitable([*waited, *(r.node for r in results)])):
        waited = _waitable([*call.controls, *(o.node for o in call.operands)])
    is_output = graph is module.graph and not graph.results and not graph.is_used(call)
    for index, value in enumerate(results):
        graph.replace_uses(Port(call, index), value)
    graph.replace_control_uses(call, waited)
    ends = {k: n for k, n in graph.control_results.items() if n is call}
    name = call.name
    graph.remove(call)
    if ends:
        end = waited[0] if len(waited) == 1 else graph.add("NoOp", name=name, controls=waited)
        graph.control_results.update(dict.fromkeys(ends, end))
    elif is_output and results:
        # nobody reads it, so this is what the user will ask for, by this name
        dtypes = tuple(dtype_of(r) for r in results)
        if len(results) == 1:
            graph.add("Identity", results, {"T": dtypes[0]}, name=name)
        else:
            graph.add("IdentityN", results, {"T": dtypes}, name=name)


def _waitable(nodes: Iterable[Node]) -> list[Node]:
    """Each node once, without arguments: they have run before anything else does."""
    return [n for n in dict.fromkeys(nodes) if n.op != ARG]
