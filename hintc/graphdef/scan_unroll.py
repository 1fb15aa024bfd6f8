"""Scan → its steps, one after the other."""

from __future__ import annotations

import numpy as np

from hintc.errors import HintcError
from hintc.graft import graft
from hintc.graphdef.emit import Emitter, known_array
from hintc.graphdef.scan_step import checked_scan, step_nodes
from hintc.ir import Graph, Module, Node, Port, Scan
from hintc.ir.opdefs import is_stateful


def known_trip_count(scan: Scan) -> int | None:
    """The number of steps if it is a constant, else None."""
    trip = known_array(scan.trip_count)
    return None if trip is None else int(trip)


def unroll_scan(module: Module, graph: Graph, node: Node, *, max_trip: int | None = None) -> None:
    """Replace one Scan of `graph` by its steps, in scopes ``<name>/step_<t>``.

    Sequences are unpacked and outputs packed along axis 0; what no step changes is computed once.

    Raises:
        HintcError: the trip count is not a known positive number or exceeds `max_trip`, or
            operands and body of the Scan disagree.
    """
    scan = checked_scan(module, node)
    trip = known_trip_count(scan)
    if trip is None or trip < 1 or (max_trip is not None and trip > max_trip):
        what = "not known" if trip is None else str(trip)
        limit = "" if max_trip is None else f", at most {max_trip}"
        raise HintcError(
            "the recurrence cannot be unrolled",
            node=node.name,
            why=f"its trip count is {what}",
            remedy=f"Unrolling needs a constant number of steps{limit}; use form=while.",
        )
    _Unroller(module, graph, node, scan, trip).run()


class _Unroller:
    def __init__(self, module: Module, graph: Graph, node: Node, scan: Scan, trip: int) -> None:
        self._graph, self._node, self._scan, self._trip = graph, node, scan, trip
        self._body = scan.body_function(module).graph
        self._emit = Emitter(graph, node.name, node.origin or (node.name,))
        states = len(scan.states)
        self._live = [k for k in range(len(scan.reverse_ys)) if graph.uses(Port(node, states + k))]
        self._results = [r.operands[0] for r in self._body.results]

    def run(self) -> None:
        scan, node, graph = self._scan, self._node, self._graph
        states = len(scan.states)
        wanted = [*self._results[:states], *(self._results[states + k] for k in self._live)]
        once, each = self._split(step_nodes(self._body, wanted))
        values = {
            Port(arg): port
            for arg, port in zip(
                self._body.args[1 + len(scan.xs) + states :], scan.invariants, strict=True
            )
        }
        shared = graft(once, graph, values, prefix=node.name)
        values |= {
            Port(n, at): Port(copy, at) for n, copy in shared.items() for at in self._read(n)
        }
        finals, outputs = self._steps(each, values, self._rows())
        for at, final in enumerate(finals):
            graph.replace_uses(Port(node, at), final)
        for k, rows in zip(self._live, outputs, strict=True):
            old = Port(node, states + k)
            self._give_rows(old, rows)
            if graph.uses(old):
                graph.replace_uses(old, self._emit.pack(rows, f"y_{k}"))
        last = [p.node for p in (*finals, *(rows[-1] for rows in outputs))]
        graph.replace_control_uses(node, list(dict.fromkeys(last)))
        graph.remove(node)

    def _read(self, node: Node) -> list[int]:
        read = {use.node.operands[use.slot].index for use in self._body.uses(node)}
        return sorted(read)

    def _split(self, nodes: list[Node]) -> tuple[list[Node], list[Node]]:
        """Nodes that no step changes, and the others."""
        varying = set(self._body.args[: 1 + len(self._scan.xs) + len(self._scan.states)])
        once, each = [], []
        for node in nodes:
            before = (*(p.node for p in node.operands), *node.controls)
            if is_stateful(node) or any(p in varying for p in before):
                varying.add(node)
                each.append(node)
            else:
                once.append(node)
        return once, each

    def _give_rows(self, output: Port, rows: list[Port]) -> None:
        """Who takes single rows off an output reads the steps."""
        graph = self._graph
        for reader in [use.node for use in graph.uses(output) if use.slot == 0]:
            if not graph.uses(reader):  # perhaps an output of the graph
                continue
            taken: list[int] = []
            if reader.op == "Unpack" and reader.attributes.get("axis", 0) == 0:
                taken = list(range(self._trip))
            elif reader.op == "GatherV2" and not reader.attributes.get("batch_dims"):
                index, axis = (known_array(p) for p in reader.operands[1:])
                if index is not None and index.ndim == 0 and axis is not None and axis == 0:
                    taken = [int(index)]
            for at, row in enumerate(taken):
                graph.replace_uses(Port(reader, at), rows[row])
            if taken and not graph.is_used(reader):
                graph.remove(reader)

    def _rows(self) -> list[list[Port]]:
        """For each sequence, its elements in the order of the steps."""
        found = []
        for k, (x, backwards) in enumerate(zip(self._scan.xs, self._scan.reverse_xs, strict=True)):
            if x.node.op == "Pack" and x.node.attributes.get("axis", 0) == 0:
                rows = list(x.node.operands)
            elif x.node.op == "ExpandDims" and known_array(x.node.operands[1]) == 0:
                rows = [x.node.operands[0]]
            else:
                unpacked = self._emit.unpack(x, self._trip, f"x_{k}")
                rows = [Port(unpacked, t) for t in range(self._trip)]
            found.append(rows[::-1] if backwards else rows)
        return found

    def _steps(
        self, each: list[Node], shared: dict[Port, Port], rows: list[list[Port]]
    ) -> tuple[list[Port], list[list[Port]]]:
        scan, body = self._scan, self._body
        states, xs = len(scan.states), len(scan.xs)
        carried = list(scan.states)
        outputs: list[list[Port]] = [[] for _ in self._live]
        reads_t = bool(body.uses(body.args[0]))
        for t in range(self._trip):
            scope = f"{self._node.name}/step_{t}"
            values = dict(shared)
            if reads_t:
                values[Port(body.args[0])] = self._emit.constant(np.int32(t), f"step_{t}/t")
            values |= {Port(body.args[1 + k]): rows[k][t] for k in range(xs)}
            values |= {Port(body.args[1 + xs + k]): carried[k] for k in range(states)}
            copies = graft(each, self._graph, values, prefix=scope)
            found = {
                at: values.get(p) or Port(copies[p.node], p.index)
                for at, p in enumerate(self._results)
                if p in values or p.node in copies
            }
            carried = [found[at] for at in range(states)]
            for row, k in zip(outputs, self._live, strict=True):
                row.append(found[states + k])
        ordered = [
            rows_of[::-1] if scan.reverse_ys[k] else rows_of
            for rows_of, k in zip(outputs, self._live, strict=True)
        ]
        return carried, ordered
