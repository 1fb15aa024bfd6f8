"""The oldest runtime that a model says it needs, after hintc has put operators into it.

TensorFlow's converter writes that version into the metadata before our kernels are there.
"""

from __future__ import annotations

from hintc.tflite.flatbuffer import Model, Operator

METADATA = "min_runtime_version"
FIRST_RUNTIMES: dict[str, tuple[str, ...]] = {
    "BIDIRECTIONAL_SEQUENCE_LSTM": ("1.14.0", "1.14.0", "1.14.0"),
    "BIDIRECTIONAL_SEQUENCE_RNN": ("1.14.0", "1.14.0", "2.3.0"),
    "BROADCAST_TO": ("2.5.0", "2.5.0", "2.5.0"),
    "CAST": ("1.5.0", "2.7.0", "2.8.0", "2.9.0"),
    "CONCATENATION": ("1.5.0", "1.14.0", "2.3.0"),
    "DEQUANTIZE": ("1.13.1", "1.14.0", "1.15.0", "2.2.0", "2.7.0"),
    "FILL": ("1.13.0", "2.3.0", "2.5.0"),
    "LSTM": ("1.7.0", "1.10.0", "1.14.0", "2.3.0"),
    "QUANTIZE": ("1.14.0", "1.15.0", "2.7.0"),
    "RNN": ("1.5.0", "1.14.0", "2.3.0"),
    "SLICE": ("1.14.0", "1.14.0", "1.14.0", "2.4.0", "2.5.0"),
    "SVDF": ("1.5.0", "1.14.0", "2.2.0", "2.3.0"),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": ("1.13.1", "1.14.0", "2.3.0"),
    "UNIDIRECTIONAL_SEQUENCE_RNN": ("1.14.0", "1.14.0", "2.3.0"),
}
"""Operators that hintc writes: the runtime that brought version 1, 2, ... of each. Source:
tensorflow/lite/tools/versioning/runtime_version.cc."""


def raise_runtime_version(model: Model) -> None:
    """Raise the version in the metadata, if there is one, to what the model's operators need."""
    needed = [_first_runtime(model.op_name(op), _version(model, op)) for _, op in model.operators()]
    for entry in model.root.metadata or []:
        if entry.name in (METADATA, METADATA.encode()):
            buffer = model.root.buffers[entry.buffer]
            said = bytes(buffer.data).rstrip(b"\0").decode("ascii", "replace")
            newest = max((said, *needed), key=_numbers)
            buffer.data = list(newest.encode().ljust(len(buffer.data), b"\0"))


def _version(model: Model, op: Operator) -> int:
    return int(model.root.operatorCodes[op.opcodeIndex].version)


def _first_runtime(name: str, version: int) -> str:
    """Empty if it is not known."""
    known = FIRST_RUNTIMES.get(name, ())
    return known[version - 1] if 1 <= version <= len(known) else ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
