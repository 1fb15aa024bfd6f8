"""Graphs with many loops or many steps, made fast: one is traced, its NodeDefs are multiplied."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

UNITS = 8
"""Width of all inputs and layers."""
_STEPS = 3
"""Steps that are traced; the last is the one that is multiplied."""


def hinted_loop() -> Any:
    """A hinted LSTM over 7 steps, control flow v2."""
    import tensorflow as tf

    import hintc

    x = tf.compat.v1.placeholder(tf.float32, [7, None, UNITS], "x")
    return hintc.dynamic_rnn(hintc.TFLiteLSTMCell(UNITS), x, dtype=tf.float32)[0]


def loop() -> Any:
    """An LSTM over 7 steps without hints, control flow as it is enabled."""
    import tensorflow as tf
    from tf_keras.src.layers.rnn.legacy_cells import LSTMCell

    v1 = tf.compat.v1
    x = v1.placeholder(tf.float32, [7, None, UNITS], "x")
    return v1.nn.dynamic_rnn(LSTMCell(UNITS), x, dtype=tf.float32, time_major=True)[0]


def frames_loop() -> Any:
    """`loop` in control flow v1: Switch, Merge, Enter, Exit."""
    import tensorflow as tf

    v1 = tf.compat.v1
    v1.disable_control_flow_v2()
    try:
        return loop()
    finally:
        v1.enable_control_flow_v2()


def hinted_steps() -> Any:
    """A hinted LSTM, one call of the cell for each step."""
    import hintc

    return _static_rnn(hintc.TFLiteLSTMCell(UNITS))


def steps() -> Any:
    """An LSTM without hints, its steps one after the other."""
    from tf_keras.src.layers.rnn.legacy_cells import LSTMCell

    return _static_rnn(LSTMCell(UNITS))


def _static_rnn(cell: Any) -> Any:
    import tensorflow as tf

    v1 = tf.compat.v1
    x = v1.placeholder(tf.float32, [_STEPS, None, UNITS], "x")
    return tf.stack(v1.nn.static_rnn(cell, tf.unstack(x, name="unstack"), dtype=tf.float32)[0])


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


def in_a_row(seed: Any, count: int) -> Any:
    """`count` copies of a model, each with functions of its own and reading the one before."""
    graph_def = type(seed)()
    graph_def.versions.CopyFrom(seed.versions)
    own = {f.signature.name for f in seed.library.function}
    for at in range(count):
        for function in seed.library.function:
            added = graph_def.library.function.add()
            added.CopyFrom(function)
            added.signature.name += f"_{at}"
            for node in added.node_def:
                _rename_functions(node, own, at)
        for node in seed.node:
            if at and node.op == "Placeholder":
                continue
            added = graph_def.node.add()
            added.CopyFrom(node)
            added.name = _of_copy(node.name, at)
            added.input[:] = [_of_copy(name, at) for name in node.input]
            _rename_functions(added, own, at)
            for key in ("_tflite_function_uuid", "frame_name"):
                if key in added.attr:
                    added.attr[key].s += f"_{at}".encode()
            added.attr.pop("_class", None)
    _identity(graph_def, f"m{count - 1}/y", "y")
    return graph_def


def _of_copy(name: str, at: int) -> str:
    control, plain = name.startswith("^"), name.removeprefix("^")
    plain = (f"m{at - 1}/y" if at else "x") if plain == "x" else f"m{at}/{plain}"
    return f"^{plain}" if control else plain


def _rename_functions(node: Any, own: Iterable[str], at: int) -> None:
    for value in node.attr.values():
        if value.WhichOneof("value") == "func" and value.func.name in own:
            value.func.name += f"_{at}"


def _identity(graph_def: Any, operand: str, name: str) -> None:
    added = graph_def.node.add()
    added.name, added.op = name, "Identity"
    added.input.append(operand)
    added.attr["T"].type = 1


def with_steps(seed: Any, count: int) -> Any:
    """A static RNN of three traced steps, made one of `count` steps, three at least."""
    graph_def = type(seed)()
    graph_def.CopyFrom(seed)
    nodes = {node.name: node for node in graph_def.node}
    pack = next(node for node in graph_def.node if node.op == "Pack")
    last, before = _nodes_of_step(seed, _STEPS - 1), _nodes_of_step(seed, _STEPS - 2)
    names = {node.name for node in last}
    follower = {b.name: a.name for a, b in zip(last, before, strict=True)}

    def of_step(text: str, at: int) -> str:
        name, colon, port = text.partition(":")
        if name == "unstack":
            return f"unstack:{at}"
        if name in follower:
            name, at = follower[name], at - 1
        suffix = f"/{at}" if name in names and at >= _STEPS else ""
        return name + suffix + colon + port

    for at in range(_STEPS, count):
        for node in last:
            added = graph_def.node.add()
            added.CopyFrom(node)
            added.name = f"{node.name}/{at}"
            added.input[:] = [of_step(text, at) for text in node.input]
            if "_tflite_function_sort_index" in added.attr:
                added.attr["_tflite_function_sort_index"].i = at
        pack.input.append(of_step(pack.input[_STEPS - 1], at))
    pack.attr["N"].i = nodes["unstack"].attr["num"].i = count
    nodes["x"].attr["shape"].shape.dim[0].size = count
    for node in graph_def.node:
        node.attr.pop("_output_shapes", None)
    return graph_def


def _nodes_of_step(seed: Any, at: int) -> list[Any]:
    """What is computed from element `at` and from no later one, and what only that reads."""
    step_of: dict[str, int] = {}
    readers: dict[str, set[int]] = {}
    for node in seed.node:
        read = [text.partition(":") for text in node.input]
        steps = [int(port or 0) if n == "unstack" else step_of.get(n, -1) for n, _, port in read]
        if "_tflite_function_sort_index" in node.attr:
            steps = [node.attr["_tflite_function_sort_index"].i]
        step_of[node.name] = max(steps, default=-1)
    for node in reversed(seed.node):
        if step_of[node.name] == -1 and readers.get(node.name) == {at}:
            step_of[node.name] = at
        for text in node.input:
            readers.setdefault(text.partition(":")[0], set()).add(step_of[node.name])
    beside = ("Pack", "Unpack", "Placeholder")
    return [n for n in seed.node if step_of[n.name] == at and n.op not in beside and n.name != "y"]
