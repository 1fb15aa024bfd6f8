"""The range of every tensor of a model over given feeds: what calibration is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from hintc.errors import HintcError
from hintc.runtime.interpreter import Interpreter, RuntimeName
from hintc.runtime.kernels import AnyKernel
from hintc.runtime.tensor_info import Feeds


@dataclass(frozen=True)
class Range:
    """The smallest and the largest value that a float tensor had."""

    low: float
    high: float


def tensor_ranges(
    model: bytes,
    feeds: Iterable[Feeds],
    *,
    kernels: Mapping[str, AnyKernel] | None = None,
    runtime: RuntimeName | None = None,
) -> dict[int, Range]:
    """Runs a model, custom ops included, and watches all that flows between its operators.

    Args:
        model: the model's bytes.
        feeds: what to run it on; see `Interpreter.run`.
        kernels: for its custom ops; see `Interpreter`.
        runtime: see `Interpreter`.

    Returns:
        Tensor index in the main subgraph -> range over all feeds, of tensors of floats that hold
        anything, constants too. What loops and branches compute inside is not seen.

    Raises:
        HintcError: no feeds, a value that is no number, or the model does not run.
    """
    instance = Interpreter(
        model, runtime=runtime, delegates=False, kernels=kernels, keep_tensors=True
    )
    found: dict[int, Range] = {}
    number = -1
    for number, feed in enumerate(feeds):
        instance.run(feed)
        for index, value in instance.tensors().items():
            if value.dtype.kind != "f" or not value.size:
                continue
            low, high = float(value.min()), float(value.max())
            if not np.isfinite([low, high]).all():
                raise HintcError(
                    f"tensor {index} of the model is not finite", why=f"in feed {number}"
                )
            known = found.get(index, Range(low, high))
            found[index] = Range(min(low, known.low), max(high, known.high))
    if number < 0:
        raise HintcError("there are no feeds", remedy="Give at least one.")
    return found
