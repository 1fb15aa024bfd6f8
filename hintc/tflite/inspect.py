"""What is in a .tflite model."""

from __future__ import annotations

from collections import Counter

from hintc.tflite.flatbuffer import Model


def op_counts(tflite_bytes: bytes) -> Counter[str]:
    """How often each operator occurs, over all subgraphs; custom ones as ``CUSTOM:<code>``.

    Raises:
        HintcError: not a TFLite model.
    """
    model = Model.read(tflite_bytes)
    return Counter(model.op_name(op) for _, op in model.operators())
