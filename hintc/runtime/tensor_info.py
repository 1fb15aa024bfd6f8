"""What is known of a model's inputs and outputs before it runs, and feeds that fit them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hintc.errors import HintcError

Array = npt.NDArray[Any]
Feeds = Mapping[str, npt.ArrayLike] | Sequence[npt.ArrayLike]


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


def unique_names(
    tensors: Sequence[tuple[int, str]], known: Mapping[int, Sequence[str]]
) -> list[str]:
    """A name for each tensor; one that comes twice is numbered.

    Args:
        tensors: index and name of each.
        known: index -> its names in the signature: several where results are the same tensor.
    """
    found: dict[str, None] = {}
    waiting = {index: list(names) for index, names in known.items()}
    for index, own in tensors:
        names = waiting.get(index) or [own]
        name = (names.pop(0) if len(names) > 1 else names[0]).removesuffix(":0")
        unique, number = name, 1
        while unique in found:
            unique, number = f"{name}_{number}", number + 1
        found[unique] = None
    return list(found)


def bound_feeds(feeds: Feeds, infos: Sequence[TensorInfo]) -> list[Array]:
    """The feeds in the order of the inputs `infos`, checked against their dtypes and shapes.

    Args:
        feeds: a value for each input, by name or in order; not cast unless nothing is lost.
        infos: the inputs.

    Raises:
        HintcError: missing, unknown or unfit feeds.
    """
    if not isinstance(feeds, Mapping):
        if len(feeds) != len(infos):
            raise HintcError(f"{len(feeds)} values are fed to {len(infos)} inputs")
        feeds = {info.name: value for info, value in zip(infos, feeds, strict=True)}
    given = {name.removesuffix(":0"): np.asarray(value) for name, value in feeds.items()}
    known = {info.name for info in infos}
    for name in sorted(known ^ given.keys()):
        what = "is not fed" if name in known else "is fed but is no input"
        raise HintcError(f"'{name}' {what}", why="inputs: " + ", ".join(sorted(known)))
    return [_fitted(given[info.name], info) for info in infos]


def _fitted(value: Array, info: TensorInfo) -> Array:
    if value.ndim != len(info.shape) or any(
        size not in (-1, there) for size, there in zip(info.shape, value.shape, strict=True)
    ):
        raise HintcError(
            f"input '{info.name}' is fed with shape {list(value.shape)}",
            why=f"it takes {list(info.shape)}",
        )
    if value.dtype != info.dtype and not np.can_cast(value.dtype, info.dtype, "same_kind"):
        raise HintcError(
            f"input '{info.name}' is fed with {value.dtype}", why=f"it takes {info.dtype}"
        )
    return np.ascontiguousarray(value, dtype=info.dtype).reshape(value.shape)
