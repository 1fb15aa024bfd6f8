"""Matching and rewriting over the size of the graph: a fixed pattern must cost in proportion.

The graph is made of blocks of five nodes: a matrix product, a bias, a relu, and two operations in
which nothing fits. One pattern fits in each block, one nowhere but nearly.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import hintc
from hintc.ir import DType, Module, Node, Port
from hintc.ops import FusedOp
from hintc.pattern import Match
from hintc.rewrite import Emitter
from measuring import exponent, seconds

SIZES = (1_000, 10_000, 100_000)
CALLS = 10_000
"""Fused calls, each with a function of its own, are made in graphs of so many nodes at most."""
OP = FusedOp.custom("BenchDense", operands=("x", "w", "b"), results=("y",))


@dataclass(frozen=True)
class Dense(hintc.RewritePass):
    """One node for product, bias and relu."""

    name: ClassVar[str] = "bench-dense"

    def pattern(self, op: Any, x: Any, w: Any, b: Any) -> Any:
        """Optional copies and two spellings, as real passes have them."""
        product = op.MatMul(x, w)
        return op.optional(op.Relu, op["Add", "BiasAdd"](op.through(product), b))

    def rewrite(self, match: Match, new: Emitter) -> Node:
        """A plain node."""
        return new.add("BenchDense", [match["x"], match["w"], match["b"]], {"T": DType.FLOAT})


@dataclass(frozen=True)
class Calls(Dense):
    """A fused call with its body instead."""

    name: ClassVar[str] = "bench-calls"

    def rewrite(self, match: Match, new: Emitter) -> Node:
        """The call."""
        return new.call(OP, {"x": match["x"], "w": match["w"], "b": match["b"]})


@dataclass(frozen=True)
class Nowhere(Dense):
    """Fits up to its last operation, everywhere."""

    name: ClassVar[str] = "bench-nowhere"

    def pattern(self, op: Any, x: Any, w: Any, b: Any) -> Any:
        """The product's first operand is never a sigmoid."""
        return op.Relu(op.BiasAdd(op.MatMul(op.Sigmoid(x), w), b))


def blocks(nodes: int) -> Module:
    """A chain of blocks with shared weights."""
    module = Module()
    graph = module.graph
    typed = {"T": DType.FLOAT}
    x = Port(graph.add("Placeholder", (), {"dtype": DType.FLOAT}, name="x"))
    w, b = (graph.add("Placeholder", (), {"dtype": DType.FLOAT}, name=n) for n in "wb")
    for _ in range(nodes // 5):
        product = graph.add("MatMul", [x, w], typed)
        relu = graph.add("Relu", [graph.add("BiasAdd", [product, b], typed)], typed)
        x = Port(graph.add("Tanh", [graph.add("Neg", [relu], typed)], typed))
    module.graph.add_result("y", x)
    return module


def main() -> None:
    """Print the table."""
    out = sys.stdout
    rules = (Nowhere(), Dense(), Calls())
    for rule in rules:
        rule.run(blocks(50))  # definitions are looked up on first use
    out.write(f"{'nodes':>8}" + "".join(f"{rule.name:>18}" for rule in rules) + "\n")
    times: dict[str, list[float]] = {rule.name: [] for rule in rules}
    for size in SIZES:
        out.write(f"{size:8}")
        for rule in rules[: 3 if size <= CALLS else 2]:
            times[rule.name].append(seconds(partial(rule.run, blocks(size))))
            out.write(f"{times[rule.name][-1]:16.3f} s")
        out.write("\n")
    grown = (f"{name} {exponent(SIZES[: len(t)], t):.2f}" for name, t in times.items())
    out.write(f"growth exponents: {', '.join(grown)}\n")


if __name__ == "__main__":
    main()
