"""What the tests of the simple passes share: run on text, print short, compare meaning in TF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hintc.graphdef import lift, lower
from hintc.ir import RESULT, Graph, Module, Port
from hintc.pipeline import PassPipeline, PipelineReport
from hintc.text import parse_module


def run(pipeline: str, text: str) -> tuple[Module, PipelineReport]:
    """Parse, run with verification after each pass."""
    module = parse_module(text)
    return module, PassPipeline.parse(pipeline).run(module)


def lines(graph: Graph) -> list[str]:
    """Nodes but placeholders, in order: ``name = Op(operand, ^control)``."""
    found = []
    for node in graph:
        if node.op not in ("Placeholder", "_Arg"):
            read = [*map(str, node.operands), *(f"^{c.name}" for c in node.controls)]
            name = "" if node.op == RESULT else f"{node.name} = "
            found.append(f"{name}{node.op}({', '.join(read)})")
    return found


def evaluate(graph_def: Any, feeds: Mapping[str, Any], fetches: Sequence[str]) -> list[Any]:
    """Values of tensors of a GraphDef."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            found: list[Any] = session.run(list(fetches), feeds)
            return found


def check_meaning(
    pipeline: str,
    graph_def: Any,
    feeds: Mapping[str, Any],
    fetches: Sequence[str],
    *,
    declare: bool = True,
    rtol: float = 1e-6,
    atol: float = 1e-6,
) -> tuple[Module, PipelineReport]:
    """Run a pipeline on a GraphDef and assert that TensorFlow computes the same afterwards.

    With `declare` the fed nodes become the main graph's inputs and the fetched tensors its
    results.
    """
    module = lift(graph_def)
    graph = module.graph
    if declare:
        graph.args = [graph[name.partition(":")[0]] for name in feeds]
        for name in fetches:
            node, _, index = name.partition(":")
            graph.add_result(f"{node}:{index or 0}", Port(graph[node], int(index or 0)))
    report = PassPipeline.parse(pipeline).run(module)
    before = evaluate(graph_def, feeds, fetches)
    after = evaluate(lower(module), feeds, fetches)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_allclose(new, old, rtol=rtol, atol=atol)
    return module, report
