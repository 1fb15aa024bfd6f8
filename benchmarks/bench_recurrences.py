"""How the cost of raising, re-rolling and fusing recurrences grows with their number and length."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from measuring import exponent, seconds

LOOPS = (10, 30, 100)
STEPS = (28, 100, 300)
CHAIN_STEPS = (28, 300, 1000, 5000)


def frozen(build: Callable[[], Any]) -> Any:
    """The frozen GraphDef of the model that `build` makes; its result is `y`."""
    import tensorflow as tf

    import hintc

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session() as session:
        tf.identity(build(), "y")
        session.run(v1.global_variables_initializer())
        kept = ["y", *hintc.find_all_hinted_output_nodes(session=session)]
        return v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), kept)


def one_loop() -> Any:
    """A hinted LSTM of 8 units over 7 steps, its output as wide as its input."""
    import tensorflow as tf

    import hintc

    x = tf.compat.v1.placeholder(tf.float32, [7, None, 8], "x")
    return hintc.dynamic_rnn(hintc.TFLiteLSTMCell(8), x, dtype=tf.float32)[0]


def unrolled(steps: int) -> Any:
    """A hinted LSTM of 8 units, one call of the cell for each step."""
    import tensorflow as tf

    import hintc

    v1 = tf.compat.v1
    x = v1.placeholder(tf.float32, [steps, None, 8], "x")
    cell = hintc.TFLiteLSTMCell(8)
    return tf.stack(v1.nn.static_rnn(cell, tf.unstack(x), dtype=tf.float32)[0])


def chain(steps: int) -> Any:
    """An LSTM of 8 units without hints, its steps one after the other."""
    import tensorflow as tf
    from tf_keras.src.layers.rnn.legacy_cells import LSTMCell

    v1 = tf.compat.v1
    x = v1.placeholder(tf.float32, [steps, None, 8], "x")
    return tf.stack(v1.nn.static_rnn(LSTMCell(8), tf.unstack(x), dtype=tf.float32)[0])


def stacked(seed: Any, loops: int) -> Any:
    """`loops` copies of a model, each reading the one before; their functions are shared."""
    graph_def = type(seed)()
    graph_def.versions.CopyFrom(seed.versions)
    graph_def.library.CopyFrom(seed.library)
    for at in range(loops):
        for node in seed.node:
            if node.op == "Placeholder" and at:
                continue
            added = graph_def.node.add()
            added.CopyFrom(node)
            added.name = _renamed(node.name, at)
            added.input[:] = [_renamed(name, at) for name in node.input]
            if "_tflite_function_uuid" in added.attr:
                added.attr["_tflite_function_uuid"].s += str(at).encode()
    last = graph_def.node.add()
    last.name, last.op = "y", "Identity"
    last.input.append(f"m{loops - 1}/y")
    last.attr["T"].type = 1
    return graph_def


def _renamed(name: str, at: int) -> str:
    control, plain = name.startswith("^"), name.removeprefix("^")
    plain = (f"m{at - 1}/y" if at else "x") if plain == "x" else f"m{at}/{plain}"
    return f"^{plain}" if control else plain


def table(title: str, sizes: tuple[int, ...], graph_of: Callable[[int], Any]) -> None:
    """Time `hintc.compile` for each size and print it with the exponent."""
    import hintc

    out = sys.stdout
    out.write(f"{title:>16} {'hintc.compile':>14}\n")
    times = []
    for size in sizes:
        graph_def = graph_of(size)
        times.append(seconds(partial(hintc.compile, graph_def, ["x"], ["y"])))
        out.write(f"{size:16} {times[-1]:12.3f} s\n")
    out.write(f"growth exponent: {exponent(sizes, times):.2f}\n")


def main() -> None:
    """Print all tables."""
    import hintc

    seed = frozen(one_loop)
    hintc.compile(seed, ["x"], ["y"])  # registries are read on first use
    table("layers in a row", LOOPS, lambda loops: stacked(seed, loops))
    table("unrolled steps", STEPS, lambda steps: frozen(lambda: unrolled(steps)))
    table("without hints", CHAIN_STEPS, lambda steps: frozen(lambda: chain(steps)))


if __name__ == "__main__":
    main()
