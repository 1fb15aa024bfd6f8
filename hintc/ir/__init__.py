"""The intermediate representation: graphs of nodes in networkx, free of TensorFlow."""

from hintc.ir.attributes import (
    Array,
    Attributes,
    AttributeValue,
    FunctionRef,
    Shape,
    Tensor,
    Unbound,
)
from hintc.ir.dtypes import DType
from hintc.ir.graph import Graph, producers
from hintc.ir.module import Function, Module
from hintc.ir.node import ARG, CONTROL, RESULT, Node, Port, Use
from hintc.ir.opdefs import SCAN
from hintc.ir.scan import Fusion, Scan
from hintc.ir.snapshot import Snapshot

__all__ = [
    "ARG",
    "CONTROL",
    "RESULT",
    "SCAN",
    "Array",
    "AttributeValue",
    "Attributes",
    "DType",
    "Function",
    "FunctionRef",
    "Fusion",
    "Graph",
    "Module",
    "Node",
    "Port",
    "Scan",
    "Shape",
    "Snapshot",
    "Tensor",
    "Unbound",
    "Use",
    "producers",
]
