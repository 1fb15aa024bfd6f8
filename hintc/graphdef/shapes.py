"""Static shapes of values, as TensorFlow infers them from a lowered part of a module."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from hintc.errors import HintcError
from hintc.graft import graft
from hintc.inlining import callee, inline_call
from hintc.ir import ARG, RESULT, DType, FunctionRef, Graph, Module, Node, Port, Shape, Tensor
from hintc.ir.opdefs import lookup

UNKNOWN = Shape(None)
"""The shape of a value about which nothing is known."""
_CYCLIC = frozenset({"NextIteration", "RefNextIteration"})
_LARGE = 256
"""Constants with more elements than this enter the inference as their shape only."""


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
        args: shapes of the graph's arguments, if it is a function body; default: unknown.

    Returns:
        A shape for each wanted port, `UNKNOWN` where TensorFlow cannot tell or cannot import the
        graph (e.g. an unknown op).
    """
    ports = list(dict.fromkeys(wanted))
    known = {port: shape for port in ports if (shape := _stated(port)) is not None}
    rest = [port for port in ports if port not in known]
    if rest:
        known.update(_ask_tensorflow(module, graph, rest, args))
    return {port: known.get(port, UNKNOWN) for port in ports}


def infer_results(module: Module, graph: Graph, args: Sequence[Shape]) -> list[Shape]:
    """Shapes of the results of a function body called with arguments of shapes `args`."""
    ports = [result.operands[0] for result in graph.results]
    shapes = infer_shapes(module, graph, ports, args)
    return [shapes[port] for port in ports]


def producers(ports: Iterable[Port]) -> set[Node]:
    """The nodes that the values depend on through data, those that compute them included."""
    found: set[Node] = set()
    pending = [port.node for port in ports]
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending.extend(operand.node for operand in node.operands)
    return found


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
        needed = producers(wanted)
        if any(node.op in _CYCLIC for node in needed):
            return {}
        values = _stand_ins(part.graph, graph, needed, args)
        inner = [node for node in graph if node in needed and Port(node) not in values]
        copies = graft(inner, part.graph, values)
        ports = {port: values.get(port) or Port(copies[port.node], port.index) for port in wanted}
        # a node that only reads the wanted values keeps track of them while calls are inlined
        holders = {p: part.graph.add(RESULT, [value], name="wanted") for p, value in ports.items()}
        _add_functions(module, part)
        _inline_all(part)
        part = _without_scans(part)
        ports = {port: part.graph[h.name].operands[0] for port, h in holders.items()}
        return _import(part, ports)
    except (HintcError, KeyError, ValueError):
        return {}


def _stand_ins(
    part: Graph, graph: Graph, needed: set[Node], args: Sequence[Shape] | None
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


def _without_scans(part: Module) -> Module:
    """A copy in which Scans are loops; `part` itself, which shares functions, if it has none."""
    from hintc.graphdef.scan_lowering import expand_scans, has_scans

    if has_scans(part):
        part = part.copy()
        expand_scans(part)
    return part


def _elements(node: Node) -> int:
    shape = _stated(Port(node))
    return math.prod(shape.dims) if shape is not None and shape.dims is not None else 0


def functions_used(module: Module, graph: Graph) -> list[str]:
    """Names of the library functions that nodes of `graph` refer to, directly."""
    found: dict[str, None] = {}
    for node in graph:
        if node.op in module.functions:
            found[node.op] = None
            continue
        schema = lookup(node.op)
        for spec in schema.attributes if schema is not None else ():
            if "func" in spec.type:
                value = node.attributes.get(spec.name)
                for ref in value if isinstance(value, tuple) else (value,):
                    if isinstance(ref, FunctionRef):
                        found[ref.name] = None
    return list(found)


def _add_functions(module: Module, part: Module) -> None:
    """Give `part` the library functions that it needs; they are shared, so it is only read."""
    pending = functions_used(module, part.graph)
    while pending:
        name = pending.pop()
        if name not in part.functions and name in module.functions:
            part.functions[name] = module.functions[name]
            pending.extend(functions_used(module, module.functions[name].graph))


def _import(part: Module, ports: Mapping[Port, Port]) -> dict[Port, Shape]:
    import tensorflow as tf

    from hintc.graphdef.lower import lower

    lowered = lower(part)
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
