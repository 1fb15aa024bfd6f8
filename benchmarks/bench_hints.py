"""Collecting, fusing and lowering hinted ops beside TensorFlow's own convert_op_hints_to_stubs.

Each hinted op is a bias and a relu. TensorFlow's converter copies the whole graph for each hint,
so it is measured on the smaller graphs only.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from measuring import exponent, seconds

SIZES = (100, 200, 400, 1_000, 2_000)
THEIRS = (100, 200, 400)


def chain(hints: int) -> Any:
    """A GraphDef of `hints` hinted ops in a row."""
    import tensorflow as tf

    import hintc

    with tf.Graph().as_default() as graph:
        y = tf.compat.v1.placeholder(tf.float32, [None, 8], "x")
        for _ in range(hints):
            hint = hintc.OpHint("my_relu")
            (y,) = hint.add_inputs(y)
            (y,) = hint.add_outputs(tf.nn.relu(y + 0.5))
        tf.identity(y, "y")
    return graph.as_graph_def()


def theirs(graph_def: Any) -> None:
    """TensorFlow's own conversion to stubs."""
    from tensorflow.lite.python import op_hint

    op_hint.convert_op_hints_to_stubs(graph_def=graph_def)


def main() -> None:
    """Print the table."""
    import hintc

    out = sys.stdout
    out.write(f"{'hints':>8} {'hintc.compile':>14} {'TensorFlow stubs':>18} {'ratio':>8}\n")
    times = []
    hintc.compile(chain(2), ["x"], ["y"])  # registries are read on first use
    for count in SIZES:
        graph_def = chain(count)
        ours = seconds(partial(hintc.compile, graph_def, ["x"], ["y"]))
        times.append(ours)
        out.write(f"{count:8} {ours:12.3f} s")
        if count in THEIRS:
            other = seconds(partial(theirs, graph_def))
            out.write(f" {other:16.3f} s {ours / other:8.3f}")
        out.write("\n")
    out.write(f"growth exponent of hintc.compile: {exponent(SIZES, times):.2f}\n")


if __name__ == "__main__":
    main()
