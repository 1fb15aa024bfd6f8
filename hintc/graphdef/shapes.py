"""Static shapes of values, as TensorFlow infers them from a lowered part of a module."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias
from weakref import WeakKeyDictionary

from hintc.call_graph import callees, functions_of, reachable
from hintc.errors import HintcError
from hintc.graft import graft
from hintc.graphdef.write import write_graph_def
from hintc.inlining import callee, inline_call
from hintc.ir import (
    ARG,
    RESULT,
    SCAN,
    AttributeValue,
    DType,
    Function,
    FunctionRef,
    Graph,
    Module,
    Node,
    Port,
    Scan,
    Shape,
    Snapshot,
    Tensor,
)
from hintc.ir.opdefs import WHILE_OPS, result_dtypes
from hintc.ir.scan import dtype_of

_State: TypeAlias = tuple[tuple[Port, ...], frozenset[str]]
_Memory: TypeAlias = WeakKeyDictionary[Node, tuple[_State, dict[int, Shape]]]
"""Shapes found, by node and result, with the operands and attributes that they were found for."""
_memory: ContextVar[_Memory | None] = ContextVar("shapes", default=None)
_Asked: TypeAlias = tuple[tuple[Port, ...], tuple[Shape, ...]]
_BodyMemory: TypeAlias = dict[Graph, tuple["_Body", dict[_Asked, dict[Port, Shape]]]]
"""Shapes found in function bodies, by wanted values and shapes of arguments."""
_body_memory: ContextVar[_BodyMemory | None] = ContextVar("body shapes", default=None)
_FLOATS = (DType.FLOAT, DType.HALF, DType.DOUBLE, DType.BFLOAT16)
UNKNOWN = Shape(None)
"""The shape of a value about which nothing is known."""
_CYCLIC = frozenset({"NextIteration", "RefNextIteration"})
_LARGE = 256
"""Constants with more elements than this enter the inference as their shape only."""


@contextmanager
def shapes_remembered() -> Iterator[None]:
    """Within it, what was found of a main graph is not asked again: a pass stays linear.

    For passes, which keep what values mean: only a node that is itself changed is forgotten, not
    those that read it.
    """
    token = _memory.set(WeakKeyDictionary())
    try:
        with body_shapes_remembered():
            yield
    finally:
        _memory.reset(token)


@contextmanager
def body_shapes_remembered() -> Iterator[None]:
    """Within it, a function body that is not edited is asked once for arguments of these shapes.

    For a whole pipeline: what is remembered is what would be found again.
    """
    if _body_memory.get() is not None:
        yield
        return
    token = _body_memory.set({})
    try:
        yield
    finally:
        _body_memory.reset(token)


def infer_shapes(
    module: Module,
    graph: Graph,
    wanted: Iterable[Port],
    args: Sequence[Shape] | None = None,
) -> Mapping[Port, Shape]:
    """Shapes of the `wanted` values of `graph`, a graph of `module`.

    Only what they depend on is looked at; calls are looked through; the module is not changed.

    Args:
        module: has the functions that `graph` calls.
        graph: the main graph or a function body.
        wanted: values of `graph`.
        args: shapes of the graph's arguments, if it is a function body; default: what the one
            loop or Scan tells that runs it, else unknown.

    Returns:
        A shape for each wanted port, `UNKNOWN` where TensorFlow cannot tell or cannot import the
        graph (e.g. an unknown op).
    """
    ports = list(dict.fromkeys(wanted))
    known = {port: shape for port in ports if (shape := _known(port, args)) is not None}
    rest = [port for port in ports if port not in known]
    if rest:
        is_body = any(arg.op == ARG for arg in graph.args)
        if is_body and args is None:
            args = _given_by_caller(module, graph)
        if is_body and args is not None:
            found = _of_body(module, graph, tuple(rest), tuple(args))
        else:
            found = _ask_tensorflow(module, graph, rest, args)
        if graph is module.graph:
            _remember(found)
        known.update(found)
    return {port: known.get(port, UNKNOWN) for port in ports}


def infer_results(module: Module, graph: Graph, args: Sequence[Shape]) -> list[Shape]:
    """Shapes of the results of a function body called with arguments of shapes `args`."""
    ports = [result.operands[0] for result in graph.results]
    shapes = infer_shapes(module, graph, ports, args)
    return [shapes[port] for port in ports]


def common_shape(one: Shape, other: Shape) -> Shape:
    """What both are instances of."""
    if one.dims is None or other.dims is None or len(one.dims) != len(other.dims):
        return UNKNOWN
    return Shape(tuple(a if a == b else -1 for a, b in zip(one.dims, other.dims, strict=True)))


def kept_shapes(module: Module, body: Graph, first: Sequence[Shape]) -> list[Shape]:
    """Shapes that a loop's variables keep, whatever the number of steps.

    Args:
        module: has the loop.
        body: its body.
        first: shapes before the loop.
    """
    kept = list(first)
    while True:  # each round forgets a dimension at least, or is the last
        nexts = infer_results(module, body, kept)
        common = [common_shape(one, other) for one, other in zip(kept, nexts, strict=True)]
        if common == kept:
            return kept
        kept = common


def _given_by_caller(module: Module, graph: Graph) -> list[Shape] | None:
    """Shapes of the arguments of a function that one loop or Scan runs."""
    functions = {n: module.functions[n].graph for n in reachable(module)}
    name = next((n for n, body in functions.items() if body is graph), None)
    graphs = [module.graph, *functions.values()]
    callers = [(g, n) for g in graphs for n in g if name in functions_of(n)]
    if len(callers) != 1 or callers[0][0] is graph:
        return None
    outer, node = callers[0]
    if node.op == SCAN:
        return argument_shapes(module, outer, node)
    body = node.attributes.get("body")
    if node.op not in WHILE_OPS or not isinstance(body, FunctionRef):
        return None
    found = infer_shapes(module, outer, node.operands)
    first = [found[port] for port in node.operands]
    return kept_shapes(module, module.function(body.name, node=node).graph, first)


def argument_shapes(module: Module, graph: Graph, node: Node) -> list[Shape]:
    """Shapes of the arguments of a Scan's step, as far as `graph`, which has the Scan, tells."""
    scan = Scan.of(node)
    shapes = infer_shapes(module, graph, (*scan.xs, *scan.states, *scan.invariants))
    rows = [Shape(s.dims[1:] if s.dims else None) for s in (shapes[x] for x in scan.xs)]
    return [Shape(()), *rows, *(shapes[p] for p in (*scan.states, *scan.invariants))]


def _remember(found: Mapping[Port, Shape]) -> None:
    """Only float values: of an integer the elements may matter to a shape, not its own alone."""
    kept = _memory.get()
    if kept is None:
        return
    for port, shape in found.items():
        dtypes = result_dtypes(port.node)
        if dtypes is not None and dtypes[port.index] in _FLOATS:
            at, shapes = _memory_of(port.node)
            kept[port.node] = (at, {**shapes, port.index: shape})


def replace_uses(graph: Graph, old: Port, new: Port) -> None:
    """Let readers of `old` read `new`, the same value: what is remembered of all stays."""
    held = {use.node: _memory_of(use.node)[1] for use in graph.uses(old)}
    shape = _memory_of(old.node)[1].get(old.index)
    if shape is not None:
        held[new.node] = {**_memory_of(new.node)[1], new.index: shape}
    graph.replace_uses(old, new)
    kept = _memory.get()
    if kept is not None:
        kept.update({node: (_state_of(node), found) for node, found in held.items()})


def _state_of(node: Node) -> _State:
    return (node.operands, node.attributes.touched)


def _memory_of(node: Node) -> tuple[_State, dict[int, Shape]]:
    """What is remembered of a node that has not been changed since."""
    state = _state_of(node)
    kept = _memory.get()
    at, shapes = kept.get(node, (state, {})) if kept is not None else (state, {})
    return (at, shapes) if all(a is b for a, b in zip(at, state, strict=True)) else (state, {})


def _known(port: Port, args: Sequence[Shape] | None) -> Shape | None:
    """The shape that the node states, that was found before, or that an argument is given."""
    stated = _stated(port)
    if stated is None and args is not None and port.node.op == ARG:
        at = port.node.graph.args.index(port.node)
        return args[at] if at < len(args) else UNKNOWN
    return stated if stated is not None else _memory_of(port.node)[1].get(port.index)


def _stated(port: Port) -> Shape | None:
    """The shape that the node itself states."""
    if port.node.op == "Const":
        value = port.node.attributes.get("value")
        return value.shape if isinstance(value, Tensor) else None
    if port.node.op == "Placeholder":
        shape = port.node.attributes.get("shape")
        return shape if isinstance(shape, Shape) else None
    return None


def _ask_tensorflow(
    module: Module, graph: Graph, wanted: Sequence[Port], args: Sequence[Shape] | None
) -> dict[Port, Shape]:
    part = Module()
    try:
        needed, known = _needed(wanted)
        if any(node.op in _CYCLIC for node in needed):
            return {}
        values = _stand_ins(part.graph, graph, needed, args)
        inner = [node for node in needed if Port(node) not in values]
        for port, shape in known.items():
            attributes: dict[str, AttributeValue] = {"dtype": dtype_of(port), "shape": shape}
            values[port] = Port(part.graph.add("Placeholder", (), attributes, name="known"))
        copies = graft(inner, part.graph, values)
        ports = {port: values.get(port) or Port(copies[port.node], port.index) for port in wanted}
        # a node that only reads the wanted values keeps track of them while calls are inlined
        holders = {p: part.graph.add(RESULT, [value], name="wanted") for p, value in ports.items()}
        # shared, so they are only read
        part.functions.update(_functions_needed(module, part.graph))
        _inline_all(part)
        has_scans = _replace_scans(part)
        ports = {port: part.graph[h.name].operands[0] for port, h in holders.items()}
        if not has_scans:
            return _import(part, ports)
        found = infer_shapes(part, part.graph, ports.values())  # what Scans read is known by now
        return {port: found[p] for port, p in ports.items() if found[p].dims is not None}
    except (HintcError, KeyError, ValueError):
        return {}


def _of_body(
    module: Module, graph: Graph, wanted: tuple[Port, ...], args: tuple[Shape, ...]
) -> dict[Port, Shape]:
    """`_ask_tensorflow`, or what it said of the same body before."""
    memory = _body_memory.get()
    if memory is None:
        return _ask_tensorflow(module, graph, wanted, args)
    entry = memory.get(graph)
    if entry is None or not entry[0].holds(module, graph):
        entry = memory[graph] = (_Body(module, graph), {})
    known = entry[1]
    if (wanted, args) not in known:
        known[wanted, args] = _ask_tensorflow(module, graph, wanted, args)
    return known[wanted, args]


class _Body:
    """A function body and all that it calls, at one moment."""

    def __init__(self, module: Module, graph: Graph) -> None:
        self._snapshot = Snapshot(graph)
        self._callees = {
            name: (function, Snapshot(function.graph))
            for name, function in _functions_needed(module, graph).items()
        }

    def holds(self, module: Module, graph: Graph) -> bool:
        """True if nothing was edited since."""
        return self._snapshot.holds(graph) and all(
            module.functions.get(name) is function and snapshot.holds(function.graph)
            for name, (function, snapshot) in self._callees.items()
        )


def _needed(wanted: Sequence[Port]) -> tuple[dict[Node, None], dict[Port, Shape]]:
    """The nodes that `wanted` depend on, up to values whose shape is remembered; ordered."""
    known: dict[Port, Shape] = {}
    found: dict[Node, None] = {}
    pending = [port.node for port in wanted]
    while pending:
        node = pending.pop()
        if node in found:
            continue
        found[node] = None
        for port in node.operands:
            shape = _memory_of(port.node)[1].get(port.index)
            if shape is None:
                pending.append(port.node)
            else:
                known[port] = shape
    return found, known


def _stand_ins(
    part: Graph, graph: Graph, needed: Iterable[Node], args: Sequence[Shape] | None
) -> dict[Port, Port]:
    """Placeholders for arguments and large constants, whose elements no shape depends on."""
    found = {}
    for node in needed:
        shape, dtype = UNKNOWN, node.attributes.get("T")
        if node.op == ARG:
            index = graph.args.index(node)
            shape = args[index] if args is not None and index < len(args) else UNKNOWN
        elif node.op == "Const" and _elements(node) > _LARGE:
            value = node.attributes["value"]
            assert isinstance(value, Tensor)
            shape, dtype = value.shape, value.dtype
        else:
            continue
        if not isinstance(dtype, DType):
            raise HintcError("the argument has no fixed type", node=node.name)
        stand_in = part.add("Placeholder", (), {"dtype": dtype, "shape": shape}, name=node.name)
        found[Port(node)] = Port(stand_in)
    return found


def _inline_all(part: Module) -> None:
    pending = [node for node in part.graph if callee(part, node) is not None]
    while pending:
        new = inline_call(part, part.graph, pending.pop())
        pending.extend(node for node in new if callee(part, node) is not None)


def _replace_scans(part: Module) -> bool:
    """Let results of Scans be placeholders of their shapes, in order; False if there are none."""
    scans = part.graph.of_ops((SCAN,))
    for node in scans:
        for index, shape in enumerate(_scan_shapes(part, node)):
            result = Port(node, index)
            attributes: dict[str, AttributeValue] = {"dtype": dtype_of(result), "shape": shape}
            stand_in = part.graph.add("Placeholder", (), attributes, name=f"{node.name}/{index}")
            part.graph.replace_uses(result, Port(stand_in))
        part.graph.replace_control_uses(node, ())
        part.graph.remove(node)
    return bool(scans)


def _scan_shapes(part: Module, node: Node) -> list[Shape]:
    scan = Scan.of(node)
    args = argument_shapes(part, part.graph, node)
    body = infer_results(part, scan.body_function(part).graph, args)
    states = len(scan.states)
    trip = scan.trip_count.node.attributes.get("value")
    steps = int(trip.array) if isinstance(trip, Tensor) else -1
    ys = [Shape(None if y.dims is None else (steps, *y.dims)) for y in body[states:]]
    return [*body[:states], *ys]


def _elements(node: Node) -> int:
    shape = _stated(Port(node))
    return math.prod(shape.dims) if shape is not None and shape.dims is not None else 0


def _functions_needed(module: Module, graph: Graph) -> dict[str, Function]:
    """The library functions that a graph calls, and those that they call."""
    found: dict[str, Function] = {}
    pending = callees(module, graph)
    while pending:
        name = pending.pop()
        if name not in found:
            found[name] = module.functions[name]
            pending.extend(callees(module, found[name].graph))
    return found


def _import(part: Module, ports: Mapping[Port, Port]) -> dict[Port, Shape]:
    import tensorflow as tf

    lowered = write_graph_def(part)
    with tf.Graph().as_default() as graph:
        try:
            tf.graph_util.import_graph_def(lowered, name="")
        except (ValueError, TypeError, tf.errors.OpError):
            return {}
        found = {}
        for asked, port in ports.items():
            shape = graph.get_tensor_by_name(f"{port.node.name}:{port.index}").shape
            if shape.rank is not None:
                dims = tuple(-1 if dim is None else int(dim) for dim in shape.as_list())
                found[asked] = Shape(dims)
        return found
