"""What the tests of hints and stubs share: small hinted graphs, passes on them, their values."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

import hintc
from hintc.graphdef import lift, lower
from hintc.hints.protocol import HintRecord, hint_call_record
from hintc.ir import Module, Node
from hintc.pipeline import PassPipeline, PipelineReport

v1 = tf.compat.v1


def build(make: Callable[[], Any]) -> Any:
    """The GraphDef of what `make` builds."""
    with tf.Graph().as_default() as graph:
        make()
        return graph.as_graph_def()


def x_placeholder(shape: Sequence[int | None] = (None, 4), name: str = "x") -> Any:
    return v1.placeholder(tf.float32, shape, name)


def run(graph_def: Any, fetches: Sequence[str], feeds: Mapping[str, Any]) -> list[Any]:
    with tf.Graph().as_default(), v1.Session() as session:
        tf.graph_util.import_graph_def(graph_def, name="")
        found: list[Any] = session.run(
            [f"{name}:0" for name in fetches], {f"{k}:0": v for k, v in feeds.items()}
        )
        return found


def random(*shape: int) -> Any:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def passes(
    graph_def: Any, pipeline: str, outputs: Sequence[str] = ()
) -> tuple[Module, PipelineReport]:
    """Run passes with verification; `outputs` become declared results."""
    module = lift(graph_def)
    graph = module.graph
    graph.args = [n for n in graph if n.op == "Placeholder"]
    for name in outputs:
        graph.add_result(name, graph[name].port())
    return module, PassPipeline.parse(pipeline).run(module)


def calls(module: Module) -> list[tuple[Node, HintRecord]]:
    """All collected calls, main graph first."""
    return [
        (node, record)
        for graph in module.graphs()
        for node in graph
        if (record := hint_call_record(module, node)) is not None
    ]


def check_equal(graph_def: Any, module: Module, fetches: Sequence[str], feeds: Any) -> None:
    """The module computes what the graph did."""
    wanted = run(graph_def, fetches, feeds)
    for got, want in zip(run(lower(module), fetches, feeds), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def stubs(graph_def: Any) -> list[Any]:
    return [n for n in graph_def.node if "_tflite_input_indices" in n.attr]


def bytes_of(graph_def: Any) -> bytes:
    data: bytes = graph_def.SerializeToString(deterministic=True)
    return data


def fused_specs(module: Module) -> list[dict[str, Any]]:
    """The specs of all fused calls."""
    found = []
    for function in module.functions.values():
        mark = function.attributes.get("_implements")
        if mark is not None:
            spec = dict(mark.attributes)["spec"]  # type: ignore[union-attr]
            assert isinstance(spec, bytes)
            found.append(json.loads(spec))
    return found


def conv_chain(count: int) -> Any:
    """`count` hinted convolutions in a row, x to y."""

    def make() -> None:
        x = x_placeholder((None, 4, 4, 2))
        kernel = np.full((3, 3, 2, 2), 0.1, np.float32)
        for _ in range(count):
            hint = hintc.OpHint("my_conv")
            a, k, b = hint.add_inputs(x, tf.constant(kernel), tf.constant([0.1, -0.1]))
            (x,) = hint.add_outputs(tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(a, k, 1, "SAME"), b)))
        tf.identity(x, name="y")

    return build(make)
