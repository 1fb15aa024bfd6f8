"""fold-constants: compute what depends on constants only.

In the main graph and in all functions that it needs: a node whose operands are constants, or are
folded themselves, becomes a `Const` under the same name (a node with several results: one Const
for each, ``name/0``, ``name/1``, …). `Shape`, `Size` and `Rank` of a value whose shape is written
down (constants, placeholders, ``_output_shapes``) are constants too. TensorFlow computes the
values, all in one run. Control edges of a folded node and of the constants it read are kept.

Left alone: hints; ops with side effects, random or device-specific results; control flow and
calls; quantisation; products with zeros (initial states of unrolled recurrences); values that are
not arrays, or whose size TensorFlow cannot tell before; and values that would make the graph grow:
more than `max_growth` bytes and more than the operands have together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from hintc.call_graph import CONTROL_FLOW_V1, functions_of, reachable
from hintc.errors import HintcError
from hintc.graft import graft
from hintc.graphdef import lower
from hintc.ir import (
    ARG,
    RESULT,
    SCAN,
    Array,
    DType,
    Graph,
    Module,
    Node,
    Port,
    Shape,
    Tensor,
    Unbound,
)
from hintc.ir.opdefs import is_stateful, result_dtypes
from hintc.pattern import is_hint
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass, become_constant, remove_unread
from hintc_passes.analysis.sizes import OF_SHAPE, write_down
from hintc_passes.analysis.values import is_zeros

_NEVER = CONTROL_FLOW_V1 | {
    *(ARG, RESULT, SCAN, "Const", "Placeholder", "PlaceholderWithDefault", "NoOp", "Empty"),
    "CheckNumerics",
}
"""Constants; ops that are declared stateless but are more than their values."""
_NEVER_LIKE = (
    *("_", "Collective", "Cudnn", "FakeQuant", "Nccl", "Quantize", "Dequantize"),
    *("StatelessRandom", "TPU", "TensorList", "Tpu", "Xla"),
)
_STATE_RANK = 2


@register
@dataclass(frozen=True)
class FoldConstants(Pass):
    """Computes what depends on constants only.

    Attributes:
        max_growth: bytes that a folded value may have even if it is larger than what it is
            computed from.
    """

    name: ClassVar[str] = "fold-constants"
    max_growth: int = 4096

    def run(self, module: Module) -> PassReport:
        """Fold in all graphs at once."""
        report = PassReport()
        bodies = [module.functions[name].graph for name in reachable(module)]
        for graph in (module.graph, *bodies):
            _fold_shapes(graph, report)
        parts = [_Part(graph) for graph in (module.graph, *bodies)]
        parts = [part for part in parts if part.foldable]
        if parts:
            values = _Evaluation(parts, self.max_growth).run(report)
            for part in parts:
                _write(part, values, report)
        return report


class _Part:
    """What may be folded in one graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.foldable: dict[Node, None] = {}
        self.constants: dict[Node, None] = {}
        self.copies: dict[Node, Node] = {}
        for node in graph.topological():
            if node.op == "Const":
                continue
            read = [p.node for p in node.operands]
            are_known = all(n in self.foldable or _is_constant(n) for n in read)
            if read and are_known and _may_fold(node):
                self.foldable[node] = None
                self.constants.update((n, None) for n in read if n not in self.foldable)


def _is_constant(node: Node) -> bool:
    return node.op == "Const" and isinstance(node.attributes.get("value"), Tensor)


def _is_zero_state(port: Port) -> bool:
    """True for zeros [batch, width]; scalars and vectors (a mean, say) are no states."""
    value = port.node.attributes.get("value") if port.node.op == "Const" else None
    if isinstance(value, Tensor) and len(value.shape.dims or ()) < _STATE_RANK:
        return False
    return is_zeros(port)


def _may_fold(node: Node) -> bool:
    if node.op in ("MatMul", "Mul") and any(_is_zero_state(port) for port in node.operands):
        return False  # step 0 of an unrolled recurrence: it must stay like the others
    if node.op in _NEVER or node.op.startswith(_NEVER_LIKE) or is_hint(node):
        return False
    if any(kind in node.device.upper() for kind in ("GPU", "TPU")) or is_stateful(node):
        return False
    dtypes = result_dtypes(node)
    if not dtypes or any(d is None or not _has_arrays(d) for d in dtypes) or functions_of(node):
        return False
    return not any(isinstance(value, Unbound) for value in node.attributes.values())


def _has_arrays(dtype: DType) -> bool:
    if dtype is DType.STRING or dtype.is_ref:
        return False
    try:
        return dtype.numpy is not None
    except HintcError:
        return False


# -- shapes that are written down --------------------------------------------------------------


def _fold_shapes(graph: Graph, report: PassReport) -> None:
    in_frames = any(node.op in CONTROL_FLOW_V1 for node in graph)
    for node in graph:
        if node.op not in OF_SHAPE or is_hint(node):
            continue
        producer = node.operands[0].node
        if in_frames and producer.op != "Const":  # its operand says in which frame it runs
            continue
        shape = _static_shape(node.operands[0])
        if shape is None:
            continue
        write_down(node, shape)
        report.count("folded")


def _static_shape(port: Port) -> tuple[int, ...] | None:
    """The shape of a value, where the graph says it in full."""
    node = port.node
    if node.op == "Const":
        value = node.attributes.get("value")
        return value.shape.dims if isinstance(value, Tensor) else None
    if node.op == "Placeholder":
        shape = node.attributes.get("shape")
    elif functions_of(node):  # freezing leaves wrong shapes on calls and loops
        return None
    else:
        shapes = node.attributes.get("_output_shapes", ())
        shape = shapes[port.index] if isinstance(shapes, tuple) and port.index < len(shapes) else ()
    # an empty list is how some writers spell "unknown"
    return shape.dims if isinstance(shape, Shape) and shape.is_static else None


# -- values that TensorFlow computes -----------------------------------------------------------


@dataclass
class _Evaluation:
    """All foldable nodes in one GraphDef, run once."""

    parts: Sequence[_Part]
    max_growth: int
    folded: dict[Node, None] = field(default_factory=dict)

    def run(self, report: PassReport) -> dict[Port, Array]:
        """The values of the folded nodes that somebody needs; `folded` has all of them."""
        import tensorflow as tf

        module = Module()
        for at, part in enumerate(self.parts):
            nodes = (*part.constants, *part.foldable)
            part.copies = graft(nodes, module.graph, {}, prefix=f"g{at}")
        for node in module.graph:
            node.device = ""
        with tf.Graph().as_default() as graph:
            try:
                tf.graph_util.import_graph_def(lower(module), name="")
            except ValueError as error:
                report.note("not-evaluated", "", f"TensorFlow refuses the constants: {error}")
                return {}
            self._choose(graph)
            wanted = {
                port: graph.get_tensor_by_name(f"{copy.name}:{port.index}")
                for part in self.parts
                for node, copy in part.copies.items()
                if node in self.folded and _is_needed(node, self.folded)
                for port in _results(node)
            }
            with tf.compat.v1.Session(graph=graph, config=_as_written()) as session:
                return self._values(session, wanted, report)

    def _choose(self, graph: Any) -> None:
        """Of the foldable nodes, those whose values do not grow too large."""
        sizes: dict[Port, int] = {}
        for part in self.parts:
            for node, copy in part.copies.items():
                ports = _results(node)
                operation = graph.get_operation_by_name(copy.name)
                bytes_ = [_size(operation.outputs[port.index]) for port in ports]
                if node in part.foldable:
                    read = dict.fromkeys(node.operands)
                    if any(b is None for b in bytes_) or not all(p in sizes for p in read):
                        continue
                    total = sum(b for b in bytes_ if b is not None)
                    if total > max(self.max_growth, sum(sizes[p] for p in read)):
                        continue
                    self.folded[node] = None
                sizes.update((p, b) for p, b in zip(ports, bytes_, strict=True) if b is not None)

    def _values(
        self, session: Any, wanted: Mapping[Port, Any], report: PassReport
    ) -> dict[Port, Array]:
        import tensorflow as tf

        values: dict[Port, Array] = {}
        todo = [list(wanted)]
        while todo:
            ports = todo.pop()
            try:
                found = session.run([wanted[port] for port in ports])
            except tf.errors.OpError as error:
                if len(ports) == 1:
                    name, why = ports[0].node.name, str(error.message).split("\n")[0]
                    report.note("not-evaluated", name, why)
                else:  # one of them fails: find out which; a run costs as much as the whole graph
                    middle = len(ports) // 2
                    todo += [ports[middle:], ports[:middle]]
            else:
                values.update(zip(ports, map(np.asarray, found), strict=True))
        return values


def _as_written() -> Any:
    """Run without TensorFlow's own optimiser: it would fold what we are about to fold."""
    import tensorflow as tf

    config = tf.compat.v1.ConfigProto()
    config.graph_options.optimizer_options.opt_level = -1
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config


def _size(tensor: Any) -> int | None:
    elements = tensor.shape.num_elements()
    return None if elements is None else int(elements) * int(tensor.dtype.base_dtype.size)


def _results(node: Node) -> list[Port]:
    return [Port(node, index) for index in range(len(result_dtypes(node) or ()))]


def _is_needed(node: Node, folded: Mapping[Node, None]) -> bool:
    """True if somebody beside folded nodes reads or waits for the node, or it is an output."""
    graph = node.graph
    uses = graph.uses(node)
    return (
        not uses
        or any(use.node not in folded for use in uses)
        or bool(graph.control_uses(node))
        or any(n is node for n in graph.control_results.values())
    )


# -- writing them down -------------------------------------------------------------------------


def _write(part: _Part, values: Mapping[Port, Array], report: PassReport) -> None:
    controls: dict[Node, tuple[Node, ...]] = {}
    lost: list[Node] = []
    for node in part.foldable:
        inherited = [*node.controls]
        for producer in dict.fromkeys(p.node for p in node.operands):
            inherited += controls.get(producer, producer.controls)
        controls[node] = tuple(dict.fromkeys(inherited))
    for node in part.foldable:
        results = _results(node)
        if not all(port in values for port in results):
            continue
        lost += [p.node for p in node.operands]
        if len(results) == 1:
            become_constant(node, values[results[0]], controls[node])
        else:
            _split(node, [values[port] for port in results], controls[node])
        report.count("folded")
    remove_unread(part.graph, lost)


def _split(node: Node, values: Sequence[Array], controls: Sequence[Node]) -> None:
    """Replace a node with several results by a constant for each."""
    graph = node.graph
    added = []
    for index, value in enumerate(values):
        tensor = Tensor.of(value)
        constant = graph.add(
            "Const",
            (),
            {"dtype": tensor.dtype, "value": tensor},
            name=f"{node.name}/{index}",
            controls=controls,
            device=node.device,
            origin=node.origin or (node.name,),
        )
        graph.replace_uses(Port(node, index), Port(constant))
        added.append(constant)
    graph.replace_control_uses(node, added)
    for name, end in list(graph.control_results.items()):
        if end is node:
            graph.control_results[name] = added[0]
    graph.remove(node)
