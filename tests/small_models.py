"""Small models for the tests of sources and drivers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hintc.runtime.session import Session

Array = npt.NDArray[Any]


def dense_graph(*, frozen: bool = True) -> Any:
    """GraphDef ``y = relu(x @ w + b)``: x [?, 3], y [?, 2]."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 3], "x")
        if frozen:
            w = tf.constant(random.standard_normal((3, 2)), tf.float32, name="w")
        else:
            w = tf.compat.v1.get_variable("w", [3, 2])
        b = tf.constant([0.5, -0.5], name="b")
        tf.nn.relu(tf.matmul(x, w) + b, name="y")
    return graph.as_graph_def()


def two_headed_graph() -> Any:
    """GraphDef with inputs b, a (in this order) and outputs first, second: sums and products."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        b = tf.compat.v1.placeholder(tf.float32, [None, 4], "b")
        a = tf.compat.v1.placeholder(tf.float32, [None, 4], "a")
        tf.add(a, 2.0 * b, name="first")
        tf.multiply(a, b, name="second")
    return graph.as_graph_def()


def split_graph() -> Any:
    """GraphDef ``parts = split(x, 2)`` with x [?, 4]."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        tf.split(tf.compat.v1.placeholder(tf.float32, [None, 4], "x"), 2, axis=1, name="parts")
    return graph.as_graph_def()


def unknown_op_graph() -> Any:
    """GraphDef with an op that TensorFlow does not know: ``y = MyOwnOp(x)``."""
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef()
    x = graph_def.node.add(name="x", op="Placeholder")
    x.attr["dtype"].type = tf.float32.as_datatype_enum
    x.attr["shape"].shape.dim.add().size = 2
    graph_def.node.add(name="y", op="MyOwnOp", input=["x"])
    return graph_def


def write(graph_def: Any, path: Path) -> Path:
    """A GraphDef as a binary file."""
    path.write_bytes(graph_def.SerializeToString(deterministic=True))
    return path


def run(graph_def: Any, feeds: dict[str, Array], fetches: tuple[str, ...]) -> list[Array]:
    """Values of `fetches`, in order."""
    with Session(graph_def) as session:
        return list(session.run(feeds, fetches).values())
