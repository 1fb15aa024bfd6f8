"""Which operations work on which TensorArray, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hintc.ir import Node, Port
from hintc_passes.analysis.values import source_of
from hintc_passes.frames.regions import Regions

ARRAY = "TensorArrayV3"
FLOW_SLOTS = {
    "TensorArrayGatherV3": 2,
    "TensorArrayReadV3": 2,
    "TensorArrayScatterV3": 3,
    "TensorArraySizeV3": 1,
    "TensorArrayWriteV3": 3,
}
"""Operand that is the flow, of the ops that have a functional form and read one."""
ARRAY_OPS = frozenset((ARRAY, "TensorArrayCloseV3", *FLOW_SLOTS))
"""Ops whose side effects are in order once the array is a list."""
_WRITERS = ("TensorArrayScatterV3", "TensorArrayWriteV3")
_PASSES_HANDLE = ("Enter", "Identity", "Switch")
_PASSES_FLOW = ("Enter", "Exit", "Identity", "Merge", "NextIteration", "Switch")


@dataclass(eq=False)
class Array:
    """A TensorArray.

    Attributes:
        node: what makes it.
        handles: the values that name it, those that `node` gives first.
        flows: the values that order its operations.
        ops: its operations.
        carriers: the nodes that pass its flow on.
        trouble: why it cannot be a list; "" or a sentence.
    """

    node: Node
    handles: dict[Port, None] = field(default_factory=dict)
    flows: dict[Port, None] = field(default_factory=dict)
    ops: dict[Node, None] = field(default_factory=dict)
    carriers: dict[Node, None] = field(default_factory=dict)
    trouble: str | None = None

    def blame(self, reason: str) -> None:
        """Note that it stays, unless that is known already."""
        self.trouble = self.trouble or reason


def find_arrays(regions: Regions) -> list[Array]:
    """All TensorArrays of a graph, with what is wrong with them."""
    arrays = [Array(node) for node in regions.order if node.op == ARRAY]
    owner: dict[Port, Array] = {}
    for array in arrays:
        _follow_handle(regions, array)
        _follow_flow(regions, array, owner)
    for array in arrays:
        _check_owner(array, owner)
        if array.trouble is None:
            _check_order(regions, array)
    return arrays


def _follow_handle(regions: Regions, array: Array) -> None:
    pending = [Port(array.node)]
    for port in pending:  # grows meanwhile
        array.handles[port] = None
        for reader, slot in regions.graph.uses(port):
            if slot == 0 and reader.op in _PASSES_HANDLE:
                sides = (0, 1) if reader.op == "Switch" else (0,)
                pending.extend(Port(reader, side) for side in sides)
            elif slot == 0 and (reader.op in FLOW_SLOTS or reader.op == "TensorArrayCloseV3"):
                array.ops[reader] = None
            else:
                array.blame(f"{reader.op} '{reader.name}' has no form that works on a TensorList")


def _follow_flow(regions: Regions, array: Array, owner: dict[Port, Array]) -> None:
    pending = [Port(array.node, 1)]
    while pending:
        port = pending.pop()
        if port in array.flows:
            continue
        if owner.setdefault(port, array) is not array:
            array.blame(f"'{port}' may be this array or another one")
            owner[port].blame(f"'{port}' may be this array or another one")
            continue
        array.flows[port] = None
        for reader, slot in regions.graph.uses(port):
            if reader.op in _PASSES_FLOW and (slot == 0 or reader.op == "Merge"):
                array.carriers[reader] = None
                sides = (0, 1) if reader.op == "Switch" else (0,)
                pending.extend(Port(reader, side) for side in sides)
            elif reader in array.ops and FLOW_SLOTS.get(reader.op) == slot:
                if reader.op in _WRITERS:
                    pending.append(Port(reader))
            else:
                array.blame(f"{reader.op} '{reader.name}' reads what orders its operations")


def _check_owner(array: Array, owner: dict[Port, Array]) -> None:
    for node in array.ops:
        slot = FLOW_SLOTS.get(node.op)
        if slot is not None and owner.get(node.operands[slot]) is not array:
            array.blame(f"the order of '{node.name}' comes from another array")
    for node in array.carriers:
        if any(owner.get(port) is not array for port in node.operands[: _data_operands(node)]):
            array.blame(f"'{node.name}' may pass on another array")


def _data_operands(node: Node) -> int:
    return len(node.operands) if node.op == "Merge" else 1


def _check_order(regions: Regions, array: Array) -> None:
    """Each version of the array may be changed once, and is read before that."""
    writers = [node for node in array.ops if node.op in _WRITERS]
    if len(writers) == 1 and regions.of[writers[0]] is regions.of[array.node]:
        readers = regions.graph.uses(Port(array.node, 1))
        if [use.node for use in readers] == writers:
            return  # written once, before all else
    for port in array.flows:
        if port.node.op not in ("Identity", "Switch"):
            _check_version(regions, array, [port])


def _check_version(regions: Regions, array: Array, ports: Sequence[Port]) -> None:
    """A version, given by all of `ports`, may be changed once, and is read before that."""
    followers, reads = _followers(regions, ports)
    switches: dict[Port, list[Node]] = {}
    for node in followers:
        if node.op == "Switch":
            switches.setdefault(source_of(node.operands[1]), []).append(node)
    changes = [node for node in followers if node.op != "Switch"]
    changes += [group[0] for group in switches.values()]
    if len(changes) > 1:
        array.blame(f"'{changes[0].name}' and '{changes[1].name}' change the same version")
    elif changes and any(node.controls for node in reads):
        array.blame(f"'{changes[0].name}' changes a version that is read later")
    for group in switches.values():
        for side in (0, 1):
            _check_version(regions, array, [Port(node, side) for node in group])


def _followers(regions: Regions, ports: Sequence[Port]) -> tuple[list[Node], list[Node]]:
    """Nodes that may change or pass on a version of the array, and nodes that read it."""
    followers: list[Node] = []
    reads: list[Node] = []
    pending = list(ports)
    while pending:
        for reader, _ in regions.graph.uses(pending.pop()):
            if reader.op == "Identity":
                pending.append(Port(reader))
            elif reader.op in _WRITERS or (
                reader.op in _PASSES_FLOW and not reader.attributes.get("is_constant")
            ):
                followers.append(reader)
            else:
                reads.append(reader)
    return followers, reads
