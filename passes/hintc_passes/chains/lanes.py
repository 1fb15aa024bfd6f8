"""Unrolled steps read in lockstep.

A lane is a tuple of T values, one for each step, that play the same role. Starting from the lanes
that an output packs, the operands of a lane's nodes form lanes again, and each is of one kind:

* fixed: the same value in every step;
* index: the constant k in step k;
* element: the elements of an unpacked sequence, in order;
* computed: equal ops with equal attributes, the node of step k needing element k but none later,
  or needing no element at all, but the index;
* carried: the value of step k was computed in step k - 1, that of step 0 is the initial one.

If every lane is of a kind, the steps are provably the same function. The last value of a lane may
be missing (None) where only the next step would have read it.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hintc.ir import DType, Graph, Node, Port
from hintc.remark import Refused
from hintc_passes.analysis.merging import attributes_key
from hintc_passes.analysis.products import PRODUCTS
from hintc_passes.analysis.values import known_scalar

Lane = tuple[Port | None, ...]
NEVER = -1
"""The step of a value that needs no element of a sequence."""


_ONE_BEFORE = "Let all steps share their weights, and read of earlier steps the last only."


class Kind(enum.Enum):
    """What the values of a lane are."""

    FIXED = enum.auto()
    INDEX = enum.auto()
    ELEMENT = enum.auto()
    COMPUTED = enum.auto()
    CARRIED = enum.auto()


@dataclass
class Chain:
    """T equal steps.

    Attributes:
        trip: T.
        lanes: every lane with its kind; those that others are computed from come later.
        following: for each carried lane the lane of the values carried on.
        operands: for each computed lane those that it is computed from.
    """

    trip: int
    lanes: dict[Lane, Kind] = field(default_factory=dict)
    following: dict[Lane, Lane] = field(default_factory=dict)
    operands: dict[Lane, list[Lane]] = field(default_factory=dict)

    def of_kind(self, kind: Kind) -> list[Lane]:
        """The lanes of one kind, in order of discovery."""
        return [lane for lane, found in self.lanes.items() if found is kind]


def steps_in(
    graph: Graph, same: Mapping[Port, Port], sequences: Sequence[Lane]
) -> Callable[[Port], int]:
    """What `Lockstep` asks for, in a graph that is one chain."""
    found: dict[Port | Node, int] = {}
    for lane in sequences:
        found |= {port: k for k, port in enumerate(lane) if port is not None}

    def step(port: Port) -> int:
        own = found.get(port)
        return own if own is not None else found.get(port.node, NEVER)

    for node in graph.topological():
        found[node] = max((step(same.get(p, p)) for p in node.operands), default=NEVER)
    return step


class Lockstep:
    """Finds the chain that some outputs belong to.

    Args:
        step: the last element that a value needs, `NEVER` for none; more than the last step for
            a value that no step may read.
        same: equal values, see `merge_equal`.
        sequences: lanes that are elements of sequences, in the order of the steps.
        trip: number of steps.
    """

    def __init__(
        self,
        step: Callable[[Port], int],
        same: Mapping[Port, Port],
        sequences: Sequence[Lane],
        trip: int,
    ) -> None:
        self.step = step
        self._same = same
        self._elements = set(sequences)
        self._chain = Chain(trip)
        self._by_start: dict[Lane, Lane] = {lane[:-1]: lane for lane in sequences}

    def operands(self, node: Node) -> list[Port]:
        """What a node reads, equal values merged."""
        return [self._same.get(p, p) for p in node.operands]

    def run(self, outputs: Sequence[Lane]) -> Chain:
        """Follow the lanes back from `outputs`.

        A lane that lags one step behind may be carried, or computed from what is carried alone.
        It is carried if it continues a lane that is known; so such lanes are settled last.

        Raises:
            Refused: two steps differ, or depend on each other in a way that no recurrence has.
        """
        pending, lagging = list(reversed(outputs)), deque[Lane]()
        while pending or lagging:
            settle = not pending
            lane = self._whole(lagging.popleft() if settle else pending.pop())
            if lane in self._chain.lanes:
                continue
            kind = self._kind(lane, settle=settle)
            if kind is None:
                lagging.append(lane)
                continue
            self._chain.lanes[lane] = kind
            if lane[-1] is not None:
                self._by_start.setdefault(lane[:-1], lane)
            if kind is Kind.COMPUTED:
                read = self._chain.operands[lane] = self._operand_lanes(lane)
                pending.extend(reversed(read))
            elif kind is Kind.CARRIED:
                following = self._whole((*lane[1:], None))
                self._chain.following[lane] = following
                pending.append(following)
        self._chain.following = {
            lane: self._whole(following) for lane, following in self._chain.following.items()
        }
        self._chain.operands = {
            lane: [self._whole(p) for p in read] for lane, read in self._chain.operands.items()
        }
        return self._chain

    def is_computed_from(self, chain: Chain, lane: Lane) -> bool:
        """True if each step computes the lane from lanes of a chain, elements and fixed values."""
        todo, seen = [lane], set[Lane]()
        while todo:
            lane = todo.pop()
            if lane in seen or self._is_known(chain, lane):
                continue
            seen.add(lane)
            ports = [port for port in lane if port is not None]
            if len(ports) < chain.trip or not _alike(ports):
                return False
            steps = [self.step(port) for port in ports]
            if steps != list(range(chain.trip)) and set(steps) != {NEVER}:
                return False
            todo.extend(self._operand_lanes(lane))
        return True

    def _is_known(self, chain: Chain, lane: Lane) -> bool:
        first = lane[0]
        if lane in chain.lanes or (*lane[:-1], None) in chain.lanes or lane in self._elements:
            return True
        if first is not None and set(lane) == {first}:
            return self.step(first) == NEVER
        return _is_index([port for port in lane if port is not None])

    def _whole(self, lane: Lane) -> Lane:
        """The lane with its last value, if a lane with that one is known."""
        return lane if lane[-1] is not None else self._by_start.get(lane[:-1], lane)

    def _kind(self, lane: Lane, *, settle: bool) -> Kind | None:
        known = [port for port in lane if port is not None]
        if lane in self._elements or _is_index(known):
            return Kind.ELEMENT if lane in self._elements else Kind.INDEX
        if all(port == known[0] for port in known):
            if self.step(known[0]) == NEVER:
                return Kind.FIXED
            raise Refused(
                "chain-order",
                f"every step reads '{known[0]}', which one of the steps computes",
                _ONE_BEFORE,
            )
        steps = [self.step(port) for port in known]
        is_constant = all(step == NEVER for step in steps) and _alike(known)
        if is_constant or all(step == k for k, step in enumerate(steps)):
            self._check_equal(known)
            return Kind.COMPUTED
        if steps[0] <= 0 and all(step == k for k, step in enumerate(steps[1:])):
            if lane[1:] in self._by_start and not self._is_same_product(known):
                return Kind.CARRIED
            if not settle:
                return None
            return Kind.COMPUTED if _alike(known) else Kind.CARRIED
        k = next((k for k, s in enumerate(steps) if s not in (k, k - 1)), 0)
        raise Refused(
            "chain-order",
            f"step {k} reads '{known[k]}' where step 0 reads '{known[0]}', and it is no value of "
            "its own or of the step before",
            _ONE_BEFORE,
        )

    def _is_same_product(self, ports: Sequence[Port]) -> bool:
        """True for ``h R`` of each step: rather h is carried, which R multiplies in each."""
        if ports[0].node.op not in PRODUCTS or not _alike(ports):
            return False
        read = [self.operands(port.node) for port in ports]
        return any(all(p == slot[0] for p in slot) for slot in zip(*read, strict=True))

    def _check_equal(self, ports: Sequence[Port]) -> None:
        first = ports[0].node
        for k, port in enumerate(ports):
            if not _alike((ports[0], port)):
                node = port.node
                what = (
                    f"the {node.op} '{node.name}' of step {k} has other attributes than "
                    f"'{first.name}' of step 0"
                    if node.op == first.op
                    else f"step {k} has the {node.op} '{node.name}' where step 0 has the "
                    f"{first.op} '{first.name}'"
                )
                raise Refused(
                    "chain-differs",
                    what,
                    "Only steps that compute the same can become one recurrence.",
                )

    def _operand_lanes(self, lane: Lane) -> list[Lane]:
        nodes = [None if port is None else self.operands(port.node) for port in lane]
        first = nodes[0]
        assert first is not None
        return [
            tuple(None if node is None else node[slot] for node in nodes)
            for slot in range(len(first))
        ]


def _is_index(ports: Sequence[Port]) -> bool:
    return len(ports) > 1 and all(
        known_scalar(port) == k and port.node.attributes.get("dtype") is DType.INT32
        for k, port in enumerate(ports)
    )


def _alike(ports: Sequence[Port]) -> bool:
    """True if the values are the same result of nodes that differ in their operands only."""
    first = ports[0]
    wanted = (first.node.op, first.index, len(first.node.operands))
    if any((p.node.op, p.index, len(p.node.operands)) != wanted for p in ports):
        return False
    if first.node.op == "_Arg":
        return False
    attributes = attributes_key(first.node)
    return all(attributes_key(p.node) == attributes for p in ports)
