"""lift + lower beside TensorFlow's own remove_training_nodes, and how both grow with the graph.

Each round measures one after the other, so that both see the same machine; the ratio is that of
the fastest rounds.
"""

from __future__ import annotations

import sys
from typing import Any

from measuring import exponent, seconds

SIZES = (5_000, 10_000, 25_000, 50_000, 100_000)
ROUNDS = 3


def chain(nodes: int) -> Any:
    """A GraphDef of about `nodes` nodes: constant, sum, Identity and Relu, again and again."""
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef()
    with tf.Graph().as_default() as graph:
        y = tf.compat.v1.placeholder(tf.float32, [None, 8], "x")
        tf.nn.relu(tf.identity(y + 1.0))
    seed = graph.as_graph_def()
    graph_def.versions.CopyFrom(seed.versions)
    graph_def.node.append(seed.node[0])
    last = seed.node[0].name
    for at in range((nodes - 1) // 4):
        for node in seed.node[1:]:
            added = graph_def.node.add()
            added.CopyFrom(node)
            added.name = f"{node.name}_{at}"
            added.input[:] = [last if i == "x" else f"{i}_{at}" for i in node.input]
        last = graph_def.node[-1].name
    return graph_def


def measure(nodes: int, rounds: int = ROUNDS) -> tuple[float, float]:
    """Seconds of lift + lower and of remove_training_nodes, on the same graph, each the fastest."""
    import tensorflow as tf

    from hintc.graphdef import lift, lower

    graph_def = chain(nodes)
    theirs_of = tf.compat.v1.graph_util.remove_training_nodes
    pairs = [
        (seconds(lambda: lower(lift(graph_def))), seconds(lambda: theirs_of(graph_def)))
        for _ in range(rounds)
    ]
    ours, theirs = (min(times) for times in zip(*pairs, strict=True))
    return ours, theirs


def main() -> None:
    """Print the table."""
    rows = [(nodes, *measure(nodes)) for nodes in SIZES]
    out = sys.stdout
    out.write(f"{'nodes':>8} {'lift+lower':>12} {'remove_training_nodes':>22} {'ratio':>6}\n")
    for nodes, ours, theirs in rows:
        out.write(f"{nodes:8} {ours:10.3f} s {theirs:20.3f} s {ours / theirs:6.2f}\n")
    for name, column in (("lift+lower", 1), ("remove_training_nodes", 2)):
        found = exponent(SIZES, [row[column] for row in rows])
        out.write(f"growth exponent of {name}: {found:.2f}\n")


if __name__ == "__main__":
    main()
