"""The step of a recognised cell, spelled the way loops run it fastest.

One product of h with the recurrent matrices of all gates side by side, and one split of the sum.
(One sigmoid over three gates needs two slices and a split: measured, that takes 1.1 to 1.4 times as
long.) The product of x with its matrices stands by itself, so that `hoist_inputs` can take it out
of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hintc.graphdef.emit import Emitter, known_array
from hintc.ir import DType, Function, Fusion, Graph, Module, Node, Port, Scan
from hintc.ops.sequence_lstm import GATES
from hintc_passes.scans.step import add_in_place_of

Matrix = npt.NDArray[np.float32]

_ACTIVATIONS = {"TANH": "Tanh", "RELU": "Relu", "RELU6": "Relu6"}
_NOT_PACKED = ("layer_norm", "cell_to_")
"""Gates with these operands are not one sigmoid of one sum."""


def spell_packed(module: Module, graph: Graph, node: Node) -> Node | None:
    """Replace a recognised Scan by the same recurrence with a packed step, not recognised.

    Returns:
        The new Scan; None, and nothing is changed, if there is no such spelling of the cell.
    """
    scan = Scan.of(node)
    fusion = scan.fusion
    if fusion is None or not _gives_what_is_read(graph, node, fusion):
        return None
    build, weights = _SPELLINGS.get(fusion.op), _weights(fusion)
    if build is None or weights is None or not _runs_forward(scan, fusion):
        return None
    step = _PackedStep(f"{scan.body}_packed", fusion, weights)
    results = build(step)
    if results is None:
        return None
    body = module.add_function(step.function(scan, results))
    outer = Emitter(graph, f"{node.name}/packed", (node.name,))
    new = replace(
        scan,
        body=body.name,
        xs=(fusion.operands["input"],),
        invariants=tuple(outer.constant(array, name) for name, array in step.matrices.items()),
        reverse_xs=(False,),
        fusion=None,
    )
    return _replace(module, graph, node, new)


def _replace(module: Module, graph: Graph, node: Node, new: Scan) -> Node:
    name = node.name
    graph.rename(node, graph.unique_name(f"{name}/recognised"))
    made = add_in_place_of(module, node, new, name)
    for at in range(len(new.states) + len(new.reverse_ys)):
        graph.replace_uses(Port(node, at), Port(made, at))
    graph.replace_control_uses(node, [made])
    graph.remove(node)
    return made


def _runs_forward(scan: Scan, fusion: Fusion) -> bool:
    time_major = fusion.attributes.get("time_major", True) is True
    return time_major and not any((*scan.reverse_xs, *scan.reverse_ys))


def _gives_what_is_read(graph: Graph, node: Node, fusion: Fusion) -> bool:
    """True if the op has every final state, and every output that is read."""
    states = len(Scan.of(node).states)
    return all(
        name is not None or (at >= states and not graph.uses(Port(node, at)))
        for at, name in enumerate(fusion.results)
    )


def _weights(fusion: Fusion) -> dict[str, Matrix] | None:
    """The constant operands by slot; None if a weight is computed."""
    found = {}
    for slot, port in fusion.operands.items():
        if slot == "input" or slot.endswith("_state"):
            continue
        array = known_array(port)
        if array is None:
            return None
        found[slot] = array
    return found


class _PackedStep:
    """A step function in the making.

    Args:
        name: of the function.
        fusion: the op, its operands and attributes.
        weights: its constants, by slot.
    """

    def __init__(self, name: str, fusion: Fusion, weights: Mapping[str, Matrix]) -> None:
        self.fusion, self.weights = fusion, weights
        self.matrices: dict[str, Matrix] = {}
        """The constants of the packed step, which become its invariants."""
        self._made = Function(name)
        self._made.add_arg("t", DType.INT32)
        self.emit = Emitter(self._made.graph, "", ())
        self.x = Port(self._made.add_arg("x", DType.FLOAT))
        self._finals = [name for name in fusion.results if (name or "").startswith("final_")]
        self._states = {
            name: Port(self._made.add_arg(name or "", DType.FLOAT)) for name in self._finals
        }

    def state(self, name: str) -> Port:
        """The state whose final value is the op's result `name`."""
        return self._states[name]

    def constant(self, name: str, array: Matrix) -> Port:
        """One more invariant."""
        self.matrices[name] = np.ascontiguousarray(array, np.float32)
        return Port(self._made.add_arg(name, DType.FLOAT))

    def unary(self, op: str, value: Port) -> Port:
        """An op with one float operand."""
        return self.emit.node(op, [value], {"T": DType.FLOAT})

    def product(self, value: Port, matrix: Port) -> Port:
        """``value matrix``."""
        return self.emit.node("MatMul", [value, matrix], {"T": DType.FLOAT})

    def add_bias(self, value: Port, bias: Port) -> Port:
        """``value + bias``, the bias a vector."""
        return self.emit.node("BiasAdd", [value, bias], {"T": DType.FLOAT})

    def activated(self, value: Port) -> Port:
        """The op's activation of a value."""
        op = _ACTIVATIONS.get(str(self.fusion.attributes.get("activation", "TANH")))
        return value if op is None else self.unary(op, value)

    def clipped(self, value: Port, limit: str) -> Port:
        """The value within what the attribute `limit` says; 0 is no limit."""
        bound = float(self.fusion.attributes.get(limit, 0.0))
        if bound <= 0:
            return value
        low, high = (self.emit.constant(np.float32(b), limit) for b in (-bound, bound))
        return self.emit.binary("Maximum", self.emit.binary("Minimum", value, high), low)

    def split(self, value: Port, count: int) -> list[Port]:
        """The value in `count` equal parts of its columns."""
        axis = self.emit.constant(np.int32(1), "axis")
        attributes = {"T": DType.FLOAT, "num_split": count}
        parts = self.emit.node("Split", [axis, value], dict(attributes))
        return [Port(parts.node, at) for at in range(count)]

    def function(self, scan: Scan, results: Mapping[str, Port]) -> Function:
        """The step function, its results in the order of the Scan's."""
        for at, name in enumerate(self.fusion.results[: len(scan.states)]):
            self._made.graph.add_result(f"next_{at}", results[name or ""])
        for at in range(len(scan.reverse_ys)):
            self._made.graph.add_result(f"y_{at}", results["output"])
        return self._made


def _rnn(step: _PackedStep) -> dict[str, Port] | None:
    """The plain cell: h' = act(x W + b + h R)."""
    of_x = step.product(step.x, step.constant("w", step.weights["input_weights"].T))
    of_x = step.add_bias(of_x, step.constant("b", step.weights["bias"]))
    of_h = step.product(
        step.state("final_hidden_state"), step.constant("r", step.weights["recurrent_weights"].T)
    )
    h = step.activated(step.emit.add(of_x, of_h))
    return {"output": h, "final_hidden_state": h}


def _lstm(step: _PackedStep) -> dict[str, Port] | None:
    """The formulas are those of `hintc.ops.sequence_lstm.reference`."""
    given = step.weights
    if any(mark in slot for slot in given for mark in _NOT_PACKED):
        return None
    gates = [g for g in GATES if f"input_to_{g}_weights" in given]
    packed = {
        "w": [given[f"input_to_{g}_weights"].T for g in gates],
        "r": [given[f"recurrent_to_{g}_weights"].T for g in gates],
        "b": [given[f"{g}_gate_bias"] for g in gates],
    }
    w, r, b = (step.constant(name, np.concatenate(a, -1)) for name, a in packed.items())
    of_x = step.add_bias(step.product(step.x, w), b)
    z = step.emit.add(of_x, step.product(step.state("final_output_state"), r))
    sums = dict(zip(gates, step.split(z, len(gates)), strict=True))
    new = step.activated(sums.pop("cell"))
    opened = {name: step.unary("Sigmoid", value) for name, value in sums.items()}
    forget, output = opened["forget"], opened["output"]
    write = opened.get("input")
    if write is None:  # coupled gates
        write = step.emit.subtract(step.emit.constant(np.float32(1), "one"), forget)
    kept = step.emit.binary("Mul", forget, step.state("final_cell_state"))
    c = step.emit.add(kept, step.emit.binary("Mul", write, new))
    c = step.clipped(c, "cell_clip")
    h = step.emit.binary("Mul", output, step.activated(c))
    return _projected(step, h) | {"final_cell_state": c}


def _projected(step: _PackedStep, h: Port) -> dict[str, Port]:
    """The output and the state that is the output, behind the projection, if there is one."""
    weights: Sequence[Matrix | None] = [
        step.weights.get(f"projection_{part}") for part in ("weights", "bias")
    ]
    matrix, bias = weights
    if matrix is not None:
        h = step.product(h, step.constant("projection", matrix.T))
        if bias is not None:
            h = step.add_bias(h, step.constant("projection_bias", bias))
        h = step.clipped(h, "proj_clip")
    return {"output": h, "final_output_state": h}


_SPELLINGS: Mapping[str, Callable[[_PackedStep], dict[str, Port] | None]] = {
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm,
    "UNIDIRECTIONAL_SEQUENCE_RNN": _rnn,
}
