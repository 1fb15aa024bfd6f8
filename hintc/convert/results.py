"""What `compile` and `convert` give."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hintc.files import write_atomically
from hintc.ir import Module
from hintc.report import Report
from hintc.source import SourceModel


@dataclass(frozen=True)
class Compiled:
    """What `compile` gives.

    Attributes:
        graph_def: the lowered GraphDef; runs in TensorFlow, fused ops are calls with a body.
        module: the same before lowering: recurrences are still `Scan` nodes.
        report: what was done, and why no more.
        inputs: tensor names in order, without ``:0``.
        outputs: tensor names in order, without ``:0``.
        source: the frozen source.
    """

    graph_def: Any
    module: Module
    report: Report
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    source: SourceModel


@dataclass(frozen=True)
class Converted:
    """What `convert` gives.

    Attributes:
        tflite: the model's bytes.
        graph_def: the lowered GraphDef it was made from; runs in TensorFlow.
        report: what was done, and why no more.
        inputs: tensor names in order, without ``:0``. The model's tensors have these names, and
            so has its signature ``serving_default`` unless the source has other names for them (a
            SavedModel's signature, a Keras model's layers).
        outputs: tensor names in order, likewise.
    """

    tflite: bytes
    graph_def: Any
    report: Report
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to `path`, whole or not at all.

        Raises:
            HintcError: it cannot be written.
        """
        return write_atomically(path, self.tflite)
