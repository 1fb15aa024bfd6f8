"""SourceModel: what every kind of source becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hintc.graphdef import lift
from hintc.ir import Module
from hintc.source.endpoints import find_port


@dataclass(frozen=True)
class SourceModel:
    """A frozen graph with its inputs and outputs.

    Attributes:
        graph_def: a GraphDef without variables. Nobody but hintc holds it.
        inputs: tensor names in order, ``:0`` left out; each is a Placeholder.
        outputs: tensor names in order, likewise.
        input_keys: input -> the name by which a signature or a Keras model knows it; empty for
            sources that have no such names.
        output_keys: output -> likewise.
        description: the source in a few words, for reports.
        carried: variables in which the model keeps a state from one call to the next; here each
            run starts from their values.
    """

    graph_def: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_keys: Mapping[str, str] = field(default_factory=dict)
    output_keys: Mapping[str, str] = field(default_factory=dict)
    description: str = "GraphDef"
    carried: tuple[str, ...] = ()
    _unused: list[Module] = field(default_factory=list, repr=False, compare=False)
    """The graph as it was lifted to check it, for the first `lift`."""

    def lift(self) -> Module:
        """A fresh Module whose main graph has these inputs and outputs as args and results."""
        module = self._unused.pop() if self._unused else lift(self.graph_def)
        graph = module.graph
        graph.args = [find_port(graph, name, "input").node for name in self.inputs]
        for name in self.outputs:
            graph.add_result(name, find_port(graph, name, "output"))
        return module
