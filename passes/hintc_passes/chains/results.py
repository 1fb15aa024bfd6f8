"""What is read of a chain's steps, and how it is had from the Scan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hintc.graphdef.emit import Emitter
from hintc.graphdef.shapes import infer_shapes
from hintc.ir import AttributeValue, Graph, Module, Node, Port
from hintc.ir.scan import dtype_of
from hintc_passes.chains.lanes import Chain, Kind, Lane, Lockstep
from hintc_passes.chains.sequences import transpose
from hintc_passes.chains.unrolled import Unrolled

_FEW = 2
"""So many rows are read one by one; more by one Unpack."""


@dataclass(frozen=True)
class Output:
    """Values of all steps that become an output of the Scan, in the order of the steps or not."""

    lane: Lane
    backwards: bool


class ChainResults:
    """The values of a chain that others read.

    Args:
        unrolled: what is known of the graph.
        chain: the steps.
        lockstep: knows which step computes a value.
        inside: the nodes of the chain.
        backwards: the steps read sequences from the end; single values are then taken from an
            output in the order of the sequences, so that the next chain reads both alike.
    """

    def __init__(
        self,
        unrolled: Unrolled,
        chain: Chain,
        lockstep: Lockstep,
        inside: set[Node],
        *,
        backwards: bool,
    ) -> None:
        self._unrolled, self._chain, self._lockstep = unrolled, chain, lockstep
        self._graph: Graph = unrolled.graph
        self._inside, self._backwards = inside, backwards
        self._finals = {lane[-1] for lane in chain.following.values() if lane[-1] is not None}
        self._stacks: dict[Lane, list[Node]] = {}
        self._rows: dict[Lane, list[int]] = {}
        found: dict[Output, None] = {}
        self._seen: set[Port] = set()
        nexts = set(chain.following.values())
        # an output of the first step may be the first state, too: its readers read the outputs
        for lane in sorted(self._recurrent(), key=nexts.__contains__):
            found.update(dict.fromkeys(self._outputs(lane)))
        self.ys = list(found)

    def _recurrent(self) -> list[Lane]:
        """Lanes that depend on a carried value; whoever reads others goes on reading them."""
        chain = self._chain
        found: dict[Lane, bool] = {}
        for start in chain.of_kind(Kind.COMPUTED):
            todo = [(start, False)]
            while todo:
                lane, is_ready = todo.pop()
                if lane in found:
                    continue
                read = chain.operands.get(lane, [])
                if is_ready or not read:
                    kinds = [chain.lanes[p] for p in read]
                    found[lane] = Kind.CARRIED in kinds or any(found.get(p) for p in read)
                else:
                    todo.append((lane, True))
                    todo.extend((p, False) for p in read)
        return [lane for lane in chain.of_kind(Kind.COMPUTED) if found[lane]]

    def _outputs(self, lane: Lane) -> list[Output]:
        """Which outputs it takes to give others what they read of a lane."""
        outputs: list[Output] = []
        stacks: dict[Node, bool] = {}
        rows: list[int] = []
        for k, port in enumerate(lane):
            if port is None or port in self._seen or self._lockstep.step(port) != k:
                continue  # reads nothing of this chain, or is not computed, or is had already
            self._seen.add(port)
            readers = self._outside_readers(port)
            for node in readers if k == 0 else ():
                if self._is_stack(node, lane):
                    stacks[node] = self._is_stack(node, lane, backwards=True)
            if any(node not in stacks for node in readers) or self._is_unread(port):
                rows.append(k)
        outputs = [Output(lane, backwards) for backwards in dict.fromkeys(stacks.values())]
        self._stacks[lane] = list(stacks)
        self._rows[lane] = rows
        needs_rows = [k for k in rows if lane[k] not in self._finals]
        if needs_rows and not outputs:
            outputs.append(Output(lane, self._backwards))
        return outputs

    def _outside_readers(self, port: Port) -> list[Node]:
        readers = self._unrolled.readers.get(port, ())
        return [n for n in readers if n not in self._inside]

    def _is_unread(self, port: Port) -> bool:
        """True for what may be an output of a graph that does not say which it has."""
        graph = self._graph
        return not graph.results and not graph.uses(port.node) and not self._named(port)

    def _named(self, port: Port) -> list[Port]:
        return self._unrolled.equals.get(port, [])

    def _is_stack(self, node: Node, lane: Lane, *, backwards: bool | None = None) -> bool:
        """True if a node packs the lane in one order or the other."""
        if node.op != "Pack" or len(node.operands) != len(lane) or node.controls:
            return False
        same = self._unrolled.same
        read = tuple(same.get(p, p) for p in node.operands)
        return (backwards is not True and read == lane) or (
            backwards is not False and read == lane[::-1]
        )

    # -- connecting --------------------------------------------------------------------------

    def connect(self, module: Module, emit: Emitter, scan: Node, states: Sequence[Lane]) -> None:
        """Let others read the Scan."""
        ports = {y: Port(scan, len(states) + k) for k, y in enumerate(self.ys)}
        finals = {
            self._chain.following[s][-1]: Port(scan, k)
            for k, s in reversed(list(enumerate(states)))
        }
        doomed = self._unrolled.doomed
        doomed += self._dead()
        for lane, stacks in self._stacks.items():
            for stack in stacks:
                forwards = self._is_stack(stack, lane, backwards=False)
                rows = ports.get(Output(lane, not forwards)) or ports[Output(lane, forwards)]
                self._replace(Port(stack), self._stacked(module, emit, stack, rows))
                doomed.append(stack)
            self._connect_rows(emit, lane, ports, finals)

    def _stacked(self, module: Module, emit: Emitter, stack: Node, rows: Port) -> Port:
        axis = stack.attributes.get("axis", 0)
        assert isinstance(axis, int)
        if axis == 0:
            return rows
        rank = infer_shapes(module, self._graph, [Port(stack)])[Port(stack)].rank
        if rank is None:
            parts = emit.unpack(rows, len(stack.operands), "rows")
            values = [Port(parts, k) for k in range(len(stack.operands))]
            return emit.pack(values, "stack", axis)
        axis %= rank
        order = [*range(1, axis + 1), 0, *range(axis + 1, rank)]
        return transpose(emit, rows, order)

    def _connect_rows(
        self,
        emit: Emitter,
        lane: Lane,
        ports: dict[Output, Port],
        finals: dict[Port | None, Port],
    ) -> None:
        wanted = {k: port for k in self._rows[lane] if (port := lane[k]) is not None}
        if all(port in finals for port in wanted.values()):
            for port in wanted.values():
                self._replace(port, finals[port])
            return
        output = next(y for y in ports if y.lane == lane)
        rows, trip = ports[output], len(lane)
        parts = emit.unpack(rows, trip, "rows") if len(wanted) > _FEW else None
        for k, port in wanted.items():
            place = trip - 1 - k if output.backwards else k
            if parts is not None:
                self._replace(port, Port(parts, place))
            else:
                index = emit.constant(np.int32(place), "row/index")
                self._replace(port, emit.gather(rows, index))

    def _replace(self, old: Port, new: Port) -> None:
        """Let all readers outside of the chain read `new`; keep the name of an unread value."""
        graph = self._graph
        if not graph.results and not graph.uses(old.node):
            name = old.node.name
            graph.rename(old.node, graph.unique_name(f"{name}/unrolled"))
            attributes: dict[str, AttributeValue] = {"T": dtype_of(old)}
            graph.add("Identity", [new], attributes, name=name, origin=(name,))
            return
        self._unrolled.moved[old] = new
        for port in (old, *self._named(old)):
            graph.replace_uses(port, new, where=lambda use: use.node not in self._inside)

    def _dead(self) -> Iterable[Node]:
        """The nodes of the chain and what equals them; the last step last."""
        found: dict[Node, None] = {}
        for lane in self._chain.of_kind(Kind.COMPUTED):
            for port in lane:
                if port is not None:
                    found.update(dict.fromkeys(p.node for p in (port, *self._named(port))))
        return found
