"""A chain of equal steps → a Scan."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hintc.graphdef.emit import Emitter
from hintc.graphdef.shapes import infer_shapes
from hintc.ir import DType, Module, Node, Port, Scan
from hintc.remark import Refused
from hintc_passes.analysis.values import is_small
from hintc_passes.chains.lanes import NEVER, Chain, Kind, Lane, Lockstep
from hintc_passes.chains.results import ChainResults
from hintc_passes.chains.sequences import Elements
from hintc_passes.chains.step_function import a_value, nodes_of, step_function
from hintc_passes.chains.unrolled import Unrolled
from hintc_passes.scans.state_shapes import check_kept


class FoundChain:
    """A chain in a graph, proved to be one; `replace` makes it a Scan."""

    def __init__(
        self,
        unrolled: Unrolled,
        chain: Chain,
        lockstep: Lockstep,
        elements: Mapping[Lane, Elements],
        joined: Mapping[Lane, tuple[list[Lane], int]],
        backwards: bool,
    ) -> None:
        self.graph, self.trip = unrolled.graph, chain.trip
        self._unrolled, self._chain, self._lockstep = unrolled, chain, lockstep
        self._states = chain.of_kind(Kind.CARRIED)
        self._xs = chain.of_kind(Kind.ELEMENT)
        self._elements, self._joined, self._backwards = elements, joined, backwards
        self._inside = {
            n for lane in chain.of_kind(Kind.COMPUTED) for n in nodes_of(lane) if n is not None
        }
        self.node = a_value(chain.following[self._states[0]]).node

    @property
    def tensors(self) -> frozenset[Port]:
        """The tensors whose elements the steps take turns with."""
        return frozenset(elements.tensor for elements in self._elements.values())

    def replace(self, module: Module) -> Node:
        """Put a Scan in its place.

        Raises:
            Refused: a state changes its shape, or depends on the chain; nothing was changed.
        """
        self._check_states(module)
        chain, graph = self._chain, self.graph
        name = graph.unique_name(f"{self.node.name}/recurrence")
        origin = tuple(dict.fromkeys(o for n in self._steady() for o in n.origin or (n.name,)))
        emit = Emitter(graph, name, origin)
        results = ChainResults(
            self._unrolled, chain, self._lockstep, self._inside, backwards=self._backwards
        )
        fixed = [a_value(lane) for lane in chain.of_kind(Kind.FIXED)]
        small = [p.node for p in dict.fromkeys(fixed) if is_small(p.node)]
        invariants = list(dict.fromkeys(p for p in fixed if not is_small(p.node)))
        body = step_function(
            f"{_identifier(name)}_step",
            chain,
            self._xs,
            self._states,
            [y.lane for y in results.ys],
            invariants,
            small,
            self._unrolled.same,
        )
        now = self._unrolled.now
        xs = [self._sequence(module, emit, x) for x in self._xs]
        scan = Scan(
            module.add_function(body).name,
            emit.constant(np.int32(chain.trip), "trip_count"),
            tuple(xs),
            tuple(now(a_value(s)) for s in self._states),
            tuple(now(p) for p in invariants),
            (self._backwards,) * len(xs),
            tuple(y.backwards for y in results.ys),
            unrolled=True,
        ).add_to(module, graph, name=name, origin=origin)
        scan.device = self.node.device
        results.connect(module, emit, scan, self._states)
        return scan

    def _sequence(self, module: Module, emit: Emitter, lane: Lane) -> Port:
        """The time-major tensor whose elements a lane is."""
        if lane in self._joined:
            parts, axis = self._joined[lane]
            rows = [self._sequence(module, emit, part) for part in parts]
            return emit.concat(rows, "joined", axis if axis < 0 else axis + 1)
        elements = self._elements[lane]
        tensor = self._unrolled.now(elements.tensor)
        shape = infer_shapes(module, self.graph, [tensor])[tensor]
        self._read_shape_of(emit, elements, tensor, shape.rank)
        return elements.time_major(emit, tensor, shape)

    def _read_shape_of(
        self, emit: Emitter, elements: Elements, tensor: Port, rank: int | None
    ) -> None:
        """Let what reads the shape of an element (a zero state, say) read the sequence's."""
        unrolled = self._unrolled
        shapes = [
            node
            for port in elements.ports
            for node in unrolled.readers.get(port, ())
            if node.op == "Shape" and node.attributes.get("out_type", DType.INT32) is DType.INT32
        ]
        if rank is None or not shapes:
            return
        axes = np.array([a for a in range(rank) if a != elements.axis], np.int32)
        rest = emit.gather(emit.shape(tensor), emit.constant(axes, "axes"), "element_shape")
        for node in shapes:
            self.graph.replace_uses(Port(node), rest)
            unrolled.doomed.append(node)

    def _steady(self) -> list[Node]:
        """The nodes of the first step."""
        lanes = self._chain.of_kind(Kind.COMPUTED)
        return list(dict.fromkeys(a_value(lane).node for lane in lanes))

    def _depends(self, port: Port) -> bool:
        """True if a value is computed by the chain, or from what is."""
        pending, seen = [port], set[Node]()
        while pending:
            node = pending.pop().node
            if node in self._inside:
                return True
            if node not in seen:
                seen.add(node)
                pending.extend(p for p in node.operands if self._lockstep.step(p) != NEVER)
        return False

    def _check_states(self, module: Module) -> None:
        pairs = [(a_value(s), a_value(self._chain.following[s])) for s in self._states]
        for first, _ in pairs:
            if self._depends(first):
                raise Refused(
                    "chain-order", f"the initial state '{first}' depends on the first step"
                )
        now = self._unrolled.now
        pairs = [(now(first), following) for first, following in pairs]
        shapes = infer_shapes(module, self.graph, [p for pair in pairs for p in pair])
        for at, (first, following) in enumerate(pairs):
            check_kept(at, shapes[first], shapes[following])
            if shapes[first].rank is None or shapes[following].rank is None:
                raise Refused(
                    "state-changes-shape",
                    f"the shape of state {at} is not known",
                    "Give the model's inputs static shapes but for the batch.",
                )


def _identifier(name: str) -> str:
    cleaned = "".join(c if c.isalnum() else "_" for c in name.lower()).strip("_")
    return cleaned if cleaned[:1].isalpha() else f"v{cleaned}"
