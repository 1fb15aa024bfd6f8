"""Strip mining: a Scan of T steps becomes one of T / k tiles, each of k steps written out.

A loop's own cost (its condition, its index, the copies of what it carries) is then paid once in k
steps. Sequences ``[T, …]`` are read and written as ``[T / k, k, …]``. Where k does not divide T the
last tile reads zeros beyond the end: its rows there are cut off, and final states are those of step
T, picked from all states of the tile.
Source: M. Wolfe, "More iteration space tiling", Supercomputing 1989.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hintc.graphdef.emit import Emitter
from hintc.graphdef.scan_lowering import known_trip_count, unroll_scan
from hintc.graphdef.shapes import infer_shapes
from hintc.ir import AttributeValue, DType, Function, Graph, Module, Node, Port, Scan
from hintc.ir.opdefs import side_effects
from hintc.ir.scan import dtype_of
from hintc_passes.scans.outputs import ELEMENTWISE
from hintc_passes.scans.step import Step, add_in_place_of, new_step

_TOTAL = ELEMENTWISE | {"Identity", "Const", "MatMul", "ConcatV2", "Pack", "Select", "SelectV2"}
"""Ops that nothing in their operands' elements can make fail, so they may run on what is padded."""
_SHAPING = frozenset(
    ("Split", "SplitV", "Slice", "StridedSlice", "ExpandDims", "Squeeze", "Reshape", "Unpack")
)
"""Likewise, if what says how they cut and shape is the same in every step."""
_PADDED = (DType.FLOAT, DType.INT32)


def tile_scan(module: Module, graph: Graph, node: Node, steps: int) -> Node | None:
    """Replace a Scan by one that does `steps` steps at a time.

    Args:
        module: gets the new step function.
        graph: has the Scan.
        node: the Scan; it has no fusion.
        steps: in each tile, at least 2.

    Returns:
        The new Scan; None, and nothing is changed, if it cannot be tiled: a step reads its index
        or has side effects, ranks are not known, or padding could make a step fail.
    """
    tiling = _Tiling(module, graph, node, steps)
    return tiling.run() if tiling.is_possible() else None


class _Tiling:
    def __init__(self, module: Module, graph: Graph, node: Node, steps: int) -> None:
        self._module, self._graph, self._node, self._steps = module, graph, node, steps
        self._step, self._scan = Step.of(module, node), Scan.of(node)
        self._trip = known_trip_count(self._scan)
        self._pads = self._trip is None or self._trip % steps != 0
        ys = [Port(node, len(self._scan.states) + k) for k in range(len(self._scan.reverse_ys))]
        self._ys = {k: y for k, y in enumerate(ys) if graph.uses(y)}
        self._shapes = infer_shapes(module, graph, [*self._scan.xs, *self._ys.values()])
        self._emit = Emitter(graph, f"{node.name}/tiles", node.origin or (node.name,))

    def is_possible(self) -> bool:
        """True if tiling is exact."""
        body = self._step.graph
        if body.uses(self._step.t) or side_effects(body) or body.control_results:
            return False
        if any(not shape.rank for shape in self._shapes.values()):
            return False
        if not self._pads:
            return self._trip is not None and self._trip > 0
        return all(self._cannot_fail(n) for n in body if not n.op.startswith("_")) and all(
            dtype_of(x) in _PADDED for x in self._scan.xs
        )

    def _cannot_fail(self, node: Node) -> bool:
        if node.op in _SHAPING:
            return sum(not self._step.is_fixed(p) for p in node.operands) <= 1
        return node.op in _TOTAL

    def run(self) -> Node:
        graph, node, scan = self._graph, self._node, self._scan
        name = node.name
        graph.rename(node, graph.unique_name(f"{name}/steps"))
        tiles, padding = self._counts()
        finals = [k for k in range(len(scan.states)) if graph.uses(Port(node, k))]
        picked = finals if self._pads else []
        new = replace(
            scan,
            body=self._module.add_function(self._tile(picked)).name,
            trip_count=tiles,
            xs=tuple(self._tiled(k, x, padding) for k, x in enumerate(scan.xs)),
            invariants=(*scan.invariants, *([scan.trip_count] if picked else [])),
            reverse_ys=tuple(scan.reverse_ys[k] for k in self._ys),
        )
        made = add_in_place_of(self._module, node, new, name)
        for at in finals:
            graph.replace_uses(Port(node, at), Port(made, at))
        for at, k in enumerate(self._ys):
            graph.replace_uses(
                self._ys[k], self._joined(k, Port(made, len(scan.states) + at), padding)
            )
        graph.replace_control_uses(node, [made])
        graph.remove(node)
        return made

    # -- outside of the loop -------------------------------------------------------------------

    def _counts(self) -> tuple[Port, Port | None]:
        """The number of tiles, and of rows that are missing from the last (None: none are)."""
        emit, steps = self._emit, self._steps
        if self._trip is not None:
            tiles = -(-self._trip // steps)
            missing = tiles * steps - self._trip
            padding = emit.constant(np.int32(missing), "padding") if missing else None
            return emit.constant(np.int32(tiles), "count"), padding
        size = emit.constant(np.int32(steps), "steps")
        more = emit.add(self._scan.trip_count, emit.constant(np.int32(steps - 1), "more"))
        count = emit.binary("FloorDiv", more, size, "count")
        whole = emit.binary("Mul", count, size, "whole")
        return count, emit.subtract(whole, self._scan.trip_count, "padding")

    def _tiled(self, k: int, x: Port, padding: Port | None) -> Port:
        dims = self._shapes[x].dims
        assert dims is not None
        if padding is not None:
            x = self._padded(x, len(dims), padding, first=self._scan.reverse_xs[k])
        tiles = -1 if self._trip is None else -(-self._trip // self._steps)
        return self._emit.reshape(x, (tiles, self._steps), 1, dims[1:], f"x_{k}")

    def _padded(self, x: Port, rank: int, padding: Port, *, first: bool) -> Port:
        emit = self._emit
        zero = emit.constant(np.int32(0), "none")
        none = emit.pack([zero, zero], "no_rows")
        rows = emit.pack([padding, zero] if first else [zero, padding], "rows")
        amounts = emit.pack([rows, *([none] * (rank - 1))], "amounts")
        kind: dict[str, AttributeValue] = {"T": dtype_of(x), "Tpaddings": DType.INT32}
        return emit.node("Pad", [x, amounts], kind, "padded")

    def _joined(self, k: int, tiles: Port, padding: Port | None) -> Port:
        """``[tiles, steps, …]`` as the rows that there were."""
        emit, dims = self._emit, self._shapes[self._ys[k]].dims
        assert dims is not None
        count = -1 if self._trip is None else -(-self._trip // self._steps) * self._steps
        rows = emit.reshape(tiles, (count,), 2, dims[1:], f"y_{k}")
        if padding is None:
            return rows
        zero = emit.constant(np.int32(0), "none")
        start = padding if self._scan.reverse_ys[k] else zero
        begin = emit.pack([start, *([zero] * (len(dims) - 1))], "begin")
        minus_one = emit.constant(np.int32(-1), "all")
        size = emit.pack([self._scan.trip_count, *([minus_one] * (len(dims) - 1))], "size")
        kind: dict[str, AttributeValue] = {"T": dtype_of(rows), "Index": DType.INT32}
        return emit.node("Slice", [rows, begin, size], kind, "cut")

    # -- one tile ------------------------------------------------------------------------------

    def _tile(self, picked: Sequence[int]) -> Function:
        """The step function of the new Scan."""
        scan, step = self._scan, self._step
        function = Function(f"{scan.body}_by_{self._steps}")
        graph = function.graph
        args = [
            Port(function.add_arg(p.node.name, dtype_of(p)))
            for p in (step.t, *step.xs, *step.states, *step.invariants)
        ]
        last = [Port(function.add_arg("steps", DType.INT32))] if picked else []
        emit = Emitter(graph, "", self._node.origin or (self._node.name,))
        xs, states = len(scan.xs), len(scan.states)
        body = self._with_states(picked) if picked else scan.body
        inner = Scan(
            body,
            emit.constant(np.int32(self._steps), "trip_count"),
            tuple(args[1 : 1 + xs]),
            tuple(args[1 + xs : 1 + xs + states]),
            tuple(args[1 + xs + states :]),
            scan.reverse_xs,
            (*scan.reverse_ys, *([False] * len(picked))),
        ).add_to(self._module, graph, name="step")
        nexts = [Port(inner, k) for k in range(states)]
        for at, k in enumerate(picked):
            rows = Port(inner, states + len(scan.reverse_ys) + at)
            nexts[k] = emit.gather(rows, self._last(emit, args[0], last[0]), f"final_{k}")
        for k, port in enumerate(nexts):
            graph.add_result(f"next_{k}", port)
        for k in self._ys:
            graph.add_result(f"y_{k}", Port(inner, states + k))
        unroll_scan(self._module, graph, inner)
        if picked:
            del self._module.functions[body]
        return function

    def _with_states(self, picked: Sequence[int]) -> str:
        """The step function that also gives the picked states of each step."""
        step = self._step
        results = [(f"next_{k}", p) for k, p in enumerate(step.nexts)]
        results += [(f"y_{k}", p) for k, p in enumerate(step.ys)]
        results += [(f"state_{k}", step.nexts[k]) for k in picked]
        ports = (*step.xs, *step.states, *step.invariants)
        nodes = [n for n in step.graph if not n.op.startswith("_")]
        named = [(p.node.name, p) for p in ports]
        made = new_step(f"{self._scan.body}_states", nodes, step.t, named, results)
        return self._module.add_function(made).name

    def _last(self, emit: Emitter, tile: Port, trip: Port) -> Port:
        """The step of this tile whose states are to be kept: its last, or the last there is."""
        done = emit.binary("Mul", tile, emit.constant(np.int32(self._steps), "size"), "done")
        one = emit.constant(np.int32(1), "one")
        left = emit.subtract(emit.subtract(trip, done, "left"), one, "last_left")
        most = emit.constant(np.int32(self._steps - 1), "most")
        # that it is a scalar shows: the picked state has the shape of the states it is picked from
        return emit.reshape(emit.binary("Minimum", left, most, "last"), (), 0, (), "scalar")
