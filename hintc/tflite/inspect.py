"""What is in a .tflite model."""

from __future__ import annotations

from collections import Counter

from hintc.tflite.flatbuffer import readable
from hintc.tflite.schema import operator_name, schema


def op_counts(tflite_bytes: bytes) -> Counter[str]:
    """How often each operator occurs, over all subgraphs; custom ones as ``CUSTOM:<code>``.

    Reads nothing else, which takes a fraction of the time of `Model.read`.

    Raises:
        HintcError: not a TFLite model, or damaged where its operators are.
    """
    with readable(tflite_bytes) as data:
        root = schema().Model.GetRootAs(data, 0)
        codes = [root.OperatorCodes(at) for at in range(root.OperatorCodesLength())]
        names = [
            operator_name(
                max(code.BuiltinCode(), code.DeprecatedBuiltinCode()),
                (code.CustomCode() or b"").decode("utf-8", "replace"),
            )
            for code in codes
        ]
        graphs = [root.Subgraphs(at) for at in range(root.SubgraphsLength())]
        return Counter(
            names[graph.Operators(at).OpcodeIndex()]
            for graph in graphs
            for at in range(graph.OperatorsLength())
        )
