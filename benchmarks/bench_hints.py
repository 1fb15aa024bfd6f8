"""Collecting, fusing and lowering hinted ops beside TensorFlow's own convert_op_hints_to_stubs.

Processor time. Each hinted op is a convolution with bias and relu. TensorFlow's function copies the
whole graph for each hint, so it is measured on the smaller graphs only, or, with ``--all``, on
1,000 hints too.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

from measuring import cpu_seconds, exponent

SIZES = (100, 200, 400, 1_000, 2_000)
THEIRS = (100, 200, 400)
PIPELINES = ("collect-hints,fuse-hints", "default")
"""What TensorFlow's function does, collecting, fusing and lowering; and everything hintc does."""
THEIRS_ALL = (*THEIRS, 1_000)


def chain(hints: int) -> Any:
    """A GraphDef of `hints` hinted ops in a row."""
    import tensorflow as tf

    import hintc

    with tf.Graph().as_default() as graph:
        y = tf.compat.v1.placeholder(tf.float32, [None, 4, 4, 2], "x")
        weights, bias = tf.ones([3, 3, 2, 2]), tf.ones([2])
        for _ in range(hints):
            hint = hintc.OpHint("my_conv", stride=1)
            image, kernel, shift = hint.add_inputs(y, weights, bias)
            conv = tf.nn.bias_add(tf.nn.conv2d(image, kernel, 1, "SAME"), shift)
            (y,) = hint.add_outputs(tf.nn.relu(conv))
        tf.identity(y, "y")
    return graph.as_graph_def()


def theirs(graph_def: Any) -> None:
    """TensorFlow's own conversion to stubs."""
    from tensorflow.lite.python import op_hint

    op_hint.convert_op_hints_to_stubs(graph_def=graph_def)


def main() -> None:
    """Print the table."""
    import hintc

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="TensorFlow's on 1,000 hints: minutes")
    peers = THEIRS_ALL if parser.parse_known_args()[0].all else THEIRS
    out = sys.stdout
    heads = ("hints alone", "default", "TensorFlow stubs", "ratios")
    out.write(f"{'hints':>8}" + "".join(f"{head:>18}" for head in heads) + "\n")
    times: dict[str, list[float]] = {pipeline: [] for pipeline in PIPELINES}
    hintc.compile(chain(2), ["x"], ["y"])  # registries are read on first use
    for count in SIZES:
        graph_def = chain(count)
        out.write(f"{count:8}")
        for pipeline, taken in times.items():
            run = partial(hintc.compile, graph_def, ["x"], ["y"], pipeline=pipeline)
            taken.append(cpu_seconds(run))
            out.write(f"{taken[-1]:16.3f} s")
        if count in peers:
            other = cpu_seconds(partial(theirs, graph_def), rounds=1)
            ratios = " ".join(f"{other / taken[-1]:8.1f}" for taken in times.values())
            out.write(f"{other:16.3f} s{ratios:>18}")
        out.write("\n")
    grown = ", ".join(f"{exponent(SIZES, taken):.2f}" for taken in times.values())
    out.write(f"growth exponents of hintc.compile: {grown}\n")


if __name__ == "__main__":
    main()
