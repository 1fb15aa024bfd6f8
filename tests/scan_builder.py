"""Modules with one Scan whose step is written in TensorFlow, for tests of passes on Scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hintc.graphdef import lift
from hintc.ir import AttributeValue, DType, Module, Node, Port, Scan, Shape, Tensor

Array = npt.NDArray[np.float32]


def scan_module(
    step: Callable[..., Any],
    *,
    x: Sequence[int] = (5,),
    states: Sequence[int] = (8, 8),
    weights: Sequence[Array] = (),
    steps: int = 7,
) -> tuple[Module, Node]:
    """A module whose main graph has one Scan of `step(t, *xs, *states, *weights)`.

    `x` and `states` are widths; all have a dynamic batch. `step` returns ``(*states, *ys)``. The
    main graph's results are ``out0``, ``out1``, … for the Scan's results in order.
    """
    import tensorflow as tf

    specs = [tf.TensorSpec([], tf.int32)]
    specs += [tf.TensorSpec([None, width], tf.float32) for width in (*x, *states)]
    specs += [tf.TensorSpec(w.shape, tf.float32) for w in weights]
    concrete = tf.function(step).get_concrete_function(*specs)
    graph_def = concrete.graph.as_graph_def()
    graph_def.ClearField("node")
    graph_def.library.function.append(concrete.function_def)
    module = lift(graph_def)
    graph = module.graph
    body = module.functions[concrete.function_def.signature.name]

    def placeholder(name: str, shape: tuple[int, ...]) -> Port:
        attributes: dict[str, AttributeValue] = {"dtype": DType.FLOAT, "shape": Shape(shape)}
        node = graph.add("Placeholder", (), attributes, name=name)
        graph.args.append(node)
        return Port(node)

    def constant(name: str, value: Tensor) -> Port:
        return Port(graph.add("Const", (), {"dtype": value.dtype, "value": value}, name=name))

    ys = len(body.graph.results) - len(states)
    scan = Scan(
        body=body.name,
        trip_count=constant("steps", Tensor.of(steps, DType.INT32)),
        xs=tuple(placeholder(f"x{i}", (steps, -1, w)) for i, w in enumerate(x)),
        states=tuple(placeholder(f"state{i}", (-1, w)) for i, w in enumerate(states)),
        invariants=tuple(constant(f"w{i}", Tensor.of(w)) for i, w in enumerate(weights)),
        reverse_xs=(False,) * len(x),
        reverse_ys=(False,) * ys,
    )
    node = scan.add_to(module, graph, name="layer")
    for index in range(len(body.graph.results)):
        graph.add_result(f"out{index}", Port(node, index))
    return module, node
