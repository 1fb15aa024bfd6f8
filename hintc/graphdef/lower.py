"""Module → GraphDef."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hintc.graphdef.results import misnamed_results, restore_result_names
from hintc.graphdef.scan_lowering import expand_scans, has_scans
from hintc.graphdef.write import write_graph_def
from hintc.ir import Module

if TYPE_CHECKING:
    from tensorflow.core.framework import graph_pb2


def lower(module: Module) -> graph_pb2.GraphDef:
    """Write a Module as a GraphDef that TensorFlow runs.

    The module is not changed. What was not changed since the lift is emitted as it came, byte for
    byte. Scans become their default form, a While without TensorLists. A declared result keeps
    its name even if another node computes it now.

    Raises:
        HintcError: a node cannot be written, e.g. it reads a result that its op does not have.
    """
    if has_scans(module) or misnamed_results(module.graph):
        module = module.copy()
        expand_scans(module)
        restore_result_names(module.graph)
    return write_graph_def(module)
