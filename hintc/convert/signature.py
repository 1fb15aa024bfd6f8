"""The model's signature speaks the names that the source's signature or Keras model has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hintc.source import SourceModel
from hintc.tflite.flatbuffer import Model


def with_source_keys(tflite: bytes, source: SourceModel) -> bytes:
    """The model with its signature's entries renamed from tensor names to the source's keys.

    Args:
        tflite: as the hand-off leaves it: one signature, entries in the order of the ends.
        source: where it came from.

    Returns:
        The same bytes for a source without keys.
    """
    if not source.input_keys and not source.output_keys:
        return tflite
    model = Model.read(tflite)
    (signature,) = model.root.signatureDefs
    _rename(signature.inputs, source.inputs, source.input_keys)
    _rename(signature.outputs, source.outputs, source.output_keys)
    return model.write()


def _rename(entries: Sequence[Any], tensors: Sequence[str], keys: Mapping[str, str]) -> None:
    names = [keys.get(tensor, tensor) for tensor in tensors]
    if len(set(names)) < len(names):  # a key equals another tensor's name: leave them all
        return
    for entry, name in zip(entries, names, strict=True):
        entry.name = name.encode()
