"""A region becomes one call: members packed before, unpacked after, the interior a function."""

from __future__ import annotations

from dataclasses import dataclass, field

from hintc.hints.protocol import (
    CONSTANT_PREFIX,
    RECORD,
    STACK,
    HintArgument,
    HintRecord,
    called_function,
    plain_value,
    strip_hint,
)
from hintc.ir import Graph, Module, Node, Port
from hintc.outlining import outline
from hintc_passes.hinting.constants import Constants, constants_into
from hintc_passes.hinting.region import Region
from hintc_passes.hinting.stacking import add_pack, add_unpack


@dataclass
class MadeCall:
    """A collected call.

    Attributes:
        node: the PartitionedCall.
        packs: nodes that pack its stacked operands.
        unpacks: nodes that unpack its stacked results.
    """

    node: Node
    packs: list[Node] = field(default_factory=list)
    unpacks: list[Node] = field(default_factory=list)


def make_call(module: Module, graph: Graph, region: Region, constants: Constants) -> MadeCall:
    """Replace a closed region by a call of a new function that has it as body."""
    call = region.call
    builder = _Builder(graph, region)
    inputs = [builder.operand(argument) for argument in call.inputs]
    builder.bind_sinks()
    outputs = [builder.result(argument) for argument in call.outputs]
    interior = constants_into(graph, builder.interior, builder.packs, constants)
    scope = call.outputs[0].members[0].name.partition("OutputHint-")[0]
    for node in interior:
        if node in builder.own:
            strip_hint(node)
    # A library function must not be called like the hinted function: a stub of it has that name
    # as op, and a node whose op is a function's name calls this function.
    name = f"{scope}{call.function}"
    node = outline(module, graph, list(interior), inputs, outputs, name=f"{name}_hinted_body")
    graph.rename(node, graph.unique_name(name))
    builder.connect_results(node)
    _record(module, node, region, len(inputs))
    return MadeCall(node, builder.packs, builder.unpacks)


def _record(module: Module, node: Node, region: Region, declared: int) -> None:
    call, function = region.call, called_function(module, node)
    assert function is not None
    captured = len(node.operands) - declared
    record = HintRecord(
        call.function,
        call.uuid,
        (*((a.index, a.aggregate) for a in call.inputs), *(((-1, ""),) * captured)),
        tuple((a.index, a.aggregate) for a in call.outputs),
        {name: plain_value(value) for name, value in call.attributes.items()},
        tuple(a.chosen[0].name for a in call.inputs),
        tuple(a.chosen[0].name for a in call.outputs),
    )
    function.attributes[RECORD] = record.to_bytes()
    for name, value in call.attributes.items():
        function.attributes[CONSTANT_PREFIX + name] = value


class _Builder:
    """Rewires a region so that each argument and each result is one value."""

    def __init__(self, graph: Graph, region: Region) -> None:
        self.graph = graph
        self.region = region
        self.interior: dict[Node, None] = dict(region.interior)
        self.own = set(region.call.nodes)
        self.packs: list[Node] = []
        self.unpacks: list[Node] = []
        self._inner: dict[Node, Port] = {}
        """Stacked input hint -> its value inside."""
        self._readers: list[Node] = []
        """For each result the node outside that reads it."""

    def operand(self, argument: HintArgument) -> Port:
        """The value that the call reads for an argument."""
        chosen = argument.chosen
        if argument.aggregate != STACK:
            return Port(chosen[0])
        name = chosen[0].name
        origin = [n.name for n in chosen]
        pack = add_pack(self.graph, [n.operands[0] for n in chosen], f"OpHintStack-{name}", origin)
        unpack = add_unpack(self.graph, Port(pack), len(chosen), f"{name}/unstack", origin)
        for at, node in enumerate(chosen):
            self._inner[node] = Port(unpack, at)
            self.graph.replace_uses(
                Port(node), Port(unpack, at), where=lambda use: use.node in self.region.interior
            )
        self.packs.append(pack)
        self.interior = {unpack: None, **self.interior}
        return Port(pack)

    def bind_sinks(self) -> None:
        """Let the interior read values rather than the hints on results."""
        for sink in self.region.sinks:
            value = self._value(sink.operands[0])
            self.graph.replace_uses(
                Port(sink), value, where=lambda use: use.node in self.region.interior
            )
            # whoever reads the declared value itself gets the call's result
            if value.node in self.interior:
                self.graph.replace_uses(
                    value,
                    Port(sink),
                    where=lambda use: (
                        use.node not in self.interior and use.node not in self.region.sinks
                    ),
                )

    def result(self, argument: HintArgument) -> Port:
        """The value that the call returns for a result."""
        chosen = argument.chosen
        values = [self._value(node.operands[0]) for node in chosen]
        if argument.aggregate != STACK:
            self._readers.append(chosen[0])
            return values[0]
        origin, name = [n.name for n in chosen], chosen[0].name
        pack = add_pack(self.graph, values, f"{name}/stack", origin)
        self.interior[pack] = None
        unpack = add_unpack(self.graph, Port(pack), len(chosen), f"OpHintUnstack-{name}", origin)
        for at, sink in enumerate(chosen):
            self.graph.set_operand(sink, 0, Port(unpack, at))
        self.unpacks.append(unpack)
        self._readers.append(unpack)
        return Port(pack)

    def connect_results(self, call: Node) -> None:
        """Let what reads a result read this very result, also where two results are equal."""
        for index, reader in enumerate(self._readers):
            self.graph.set_operand(reader, 0, Port(call, index))

    def _value(self, port: Port) -> Port:
        """A declared value, looked up through hints that stay outside."""
        while port.node in self.region.sinks:
            port = port.node.operands[0]
        return self._inner.get(port.node, port)
