"""What is known of a model's input or output before it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a model.

    Args:
        name: its name in the signature, else the tensor's; without ``:0``.
        shape: sizes, -1 where dynamic.
        dtype: numpy dtype.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
