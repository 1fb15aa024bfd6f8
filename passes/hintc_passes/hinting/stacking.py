"""Packs and unpacks around collected calls, and those that cancel each other.

``Pack(Unpack(x))`` goes away only where it is provably `x`, or a transpose of `x`: one source, its
results complete and in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hintc.ir import Attributes, AttributeValue, DType, Graph, Node, Port, Shape, Tensor
from hintc.ir.scan import dtype_of


def add_pack(graph: Graph, values: Sequence[Port], name: str, origin: Sequence[str] = ()) -> Node:
    """A Pack of `values` along a new first axis."""
    dtype = dtype_of(values[0])
    attributes = {"N": len(values), "T": dtype, "axis": 0}
    return graph.add("Pack", values, attributes, name=name, origin=origin)


def add_unpack(
    graph: Graph, value: Port, count: int, name: str, origin: Sequence[str] = ()
) -> Node:
    """An Unpack of `value` along its first axis, which has `count` elements."""
    attributes = {"num": count, "T": dtype_of(value), "axis": 0}
    return graph.add("Unpack", [value], attributes, name=name, origin=origin)


def through_identities(port: Port) -> Port:
    """The value behind Identities that wait for nothing."""
    while port.node.op == "Identity" and not port.node.controls:
        port = port.node.operands[0]
    return port


def cancel_own_packs(graph: Graph, packs: Iterable[Node]) -> int:
    """Let the readers of the given Packs read what was unpacked, where that is the same."""
    count = 0
    for pack in packs:
        source = _repacked(pack)
        if source is None:
            continue
        value, unpacked, packed = source
        if unpacked != packed:
            value = Port(_add_transpose(graph, value, unpacked, packed, pack.name))
        graph.replace_uses(Port(pack), value)
        if not graph.is_used(pack):
            graph.remove(pack)
        count += 1
    return count


def cancel_readers(graph: Graph, unpacks: Iterable[Node]) -> int:
    """Turn Packs of what the given Unpacks unpacked into Identity or Transpose; names stay."""
    count = 0
    for unpack in unpacks:
        for pack in _pack_readers(graph, unpack):
            source = _repacked(pack)
            if source is None or _producer(pack) is not unpack:
                continue
            value, unpacked, packed = source
            dtype = dtype_of(value)
            if unpacked == packed:
                _become(graph, pack, "Identity", [value], {"T": dtype})
            else:
                perm = _add_permutation(graph, value, unpacked, packed, f"{pack.name}/perm")
                _become(graph, pack, "Transpose", [value, perm], {"T": dtype, "Tperm": DType.INT32})
            count += 1
    return count


def _pack_readers(graph: Graph, unpack: Node) -> list[Node]:
    found: dict[Node, None] = {}
    todo = [unpack]
    while todo:
        for use in graph.uses(todo.pop()):
            if use.node.op == "Pack":
                found[use.node] = None
            elif use.node.op == "Identity" and not use.node.controls:
                todo.append(use.node)
    return list(found)


def _producer(pack: Node) -> Node:
    return through_identities(pack.operands[0]).node


def _repacked(pack: Node) -> tuple[Port, int, int] | None:
    """What a Pack packs again: the value, the axis it was unpacked and the one it is packed on."""
    unpack = _producer(pack)
    if unpack.op != "Unpack" or pack.controls or len(pack.operands) == 1:
        return None  # a stack of one is a step in a loop's body: its steps pass values, not stacks
    complete = [Port(unpack, at) for at in range(_integer(unpack, "num", -1))]
    if [through_identities(p) for p in pack.operands] != complete:
        return None
    unpacked, packed = _integer(unpack, "axis", 0), _integer(pack, "axis", 0)
    if unpacked != packed and min(unpacked, packed) < 0:
        return None  # a negative axis counts from a rank that need not be known
    return unpack.operands[0], unpacked, packed


def _integer(node: Node, name: str, default: int) -> int:
    value = node.attributes.get(name, default)
    return value if isinstance(value, int) else default


def _become(
    graph: Graph,
    node: Node,
    op: str,
    operands: Sequence[Port],
    attributes: dict[str, DType],
) -> None:
    graph.set_operands(node, operands)
    node.op, node.attributes, node.source = op, Attributes(attributes), None


def _add_transpose(graph: Graph, value: Port, source: int, target: int, name: str) -> Node:
    perm = _add_permutation(graph, value, source, target, f"{name}/perm")
    attributes = {"T": dtype_of(value), "Tperm": DType.INT32}
    return graph.add("Transpose", [value, perm], attributes, name=f"{name}/transpose")


def _add_permutation(graph: Graph, value: Port, source: int, target: int, name: str) -> Port:
    """The int32 permutation that moves axis `source` of `value` to `target`."""
    rank = _rank(value)
    known = rank if rank is not None else max(source, target) + 1
    order = [axis for axis in range(known) if axis != source]
    order.insert(target, source)
    leading = _constant(graph, order, name)
    if rank is not None:
        return leading
    rank_of = graph.add("Rank", [value], {"T": dtype_of(value)}, name=f"{name}/rank")
    first, step = _constant(graph, known, f"{name}/first"), _constant(graph, 1, f"{name}/step")
    others = graph.add(
        "Range", [first, rank_of, step], {"Tidx": DType.INT32}, name=f"{name}/others"
    )
    axis = _constant(graph, 0, f"{name}/axis")
    attributes = {"N": 2, "T": DType.INT32, "Tidx": DType.INT32}
    return Port(graph.add("ConcatV2", [leading, Port(others), axis], attributes, name=name))


def _constant(graph: Graph, value: int | list[int], name: str) -> Port:
    attributes: dict[str, AttributeValue] = {
        "value": Tensor.of(value, DType.INT32),
        "dtype": DType.INT32,
    }
    return Port(graph.add("Const", (), attributes, name=name))


def _rank(port: Port) -> int | None:
    """The rank of a value, where the graph says it."""
    port = through_identities(port)
    at = port.node.attributes
    said: AttributeValue | None = None
    shapes = at.get("_output_shapes")
    if isinstance(shapes, tuple) and port.index < len(shapes):
        said = shapes[port.index]
    elif port.node.op == "Placeholder":
        said = at.get("shape")
    elif port.node.op == "Const":
        value = at.get("value")
        said = value.shape if isinstance(value, Tensor) else None
    return said.rank if isinstance(said, Shape) else None
