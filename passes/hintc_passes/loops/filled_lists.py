"""Lists that are reserved and then filled as a whole: made from the tensor at once."""

from __future__ import annotations

from hintc.graphdef.emit import known_array
from hintc.graphdef.shapes import infer_shapes
from hintc.ir import DType, Graph, Module, Node, Port
from hintc.ir.scan import dtype_of
from hintc_passes.analysis.values import known_int, source_of, sweep

_SCATTER = "TensorListScatterIntoExistingList"


def make_filled_lists(module: Module, graph: Graph, loop: Node) -> None:
    """Make the lists that a loop reads from tensors, where their rows provably fill them.

    A TensorArray whose size is a constant is filled from a tensor whose shape only inference
    knows. TensorFlow fails unless there is an index for each row, so the rows count.
    """
    for port in loop.operands:
        node = source_of(port).node
        if node.op == _SCATTER and _fills(module, graph, node):
            shape = source_of(node.operands[0]).node.operands[0]
            made = graph.add(
                "TensorListFromTensor",
                [node.operands[1], shape],
                {"element_dtype": dtype_of(node.operands[1]), "shape_type": DType.INT32},
                name=f"{node.name}/filled",
                origin=node.origin or (node.name,),
                device=node.device,
            )
            graph.replace_uses(Port(node), Port(made))
            sweep(graph, [node])


def _fills(module: Module, graph: Graph, scatter: Node) -> bool:
    """True if rows 0, 1, 2, … of the tensor become all elements of a list that has no others."""
    reserve = source_of(scatter.operands[0]).node
    if reserve.op != "TensorListReserve" or dtype_of(reserve.operands[0]) is not DType.INT32:
        return False
    size, rows = known_int(reserve.operands[1]), scatter.operands[1]
    if size is None or not _counts_up(scatter.operands[2]):
        return False
    dims = infer_shapes(module, graph, [rows])[rows].dims
    return dims is not None and len(dims) > 0 and dims[0] == size


def _counts_up(indices: Port) -> bool:
    node = source_of(indices).node
    if node.op == "Range":
        return known_int(node.operands[0]) == 0 and known_int(node.operands[2]) == 1
    array = known_array(indices)
    return array is not None and array.ndim == 1 and array.tolist() == list(range(array.size))
