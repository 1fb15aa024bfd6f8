"""The representative dataset: read once, checked, and split into calibration and held-out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hintc.errors import HintcError
from hintc.near import did_you_mean
from hintc.runtime.tensor_info import TensorInfo

Array = npt.NDArray[Any]
Dataset = Callable[[], Iterable[Any]]
"""Called without arguments it gives samples: sequences of arrays in input order, or mappings of
input names to arrays."""

_HELD_OUT = 5
"""One of so many samples is held out."""
_MOST_HELD_OUT = 100
_REMEDY = "Give a function that yields lists of arrays in input order, or dicts by input name."


@dataclass(frozen=True)
class Samples:
    """What was read.

    Attributes:
        calibration: values of the inputs, in order, for the ranges.
        held_out: the last fifth of the samples, not more than 100; with fewer than 5 samples none.
    """

    calibration: Sequence[Sequence[Array]]
    held_out: Sequence[Sequence[Array]]


@dataclass(frozen=True)
class ArrayDataset:
    """Samples in arrays: the first axis of each counts them.

    Attributes:
        arrays: by input name; a single array for a model with one input may be called "".
    """

    arrays: Mapping[str, Array]

    def samples(self, infos: Sequence[TensorInfo]) -> Iterable[dict[str, Array]]:
        """One at a time.

        Where an array has an axis for the samples instead of the batch's, each is a batch of one.

        Raises:
            HintcError: arrays of different lengths, or without a first axis.
        """
        ranks = {info.name: len(info.shape) for info in infos}
        arrays = {name or infos[0].name: array for name, array in self.arrays.items()}
        lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise HintcError(
                "the arrays of representative data have different numbers of samples",
                why=", ".join(f"'{name}': {length}" for name, length in lengths.items()),
                remedy="The first axis of each array counts the samples.",
            )
        for number in range(min(lengths.values(), default=0)):
            yield {
                name: array[number : number + 1]
                if array.ndim == ranks.get(_plain(name), array.ndim)
                else array[number]
                for name, array in arrays.items()
            }


def read_arrays(path: str | os.PathLike[str]) -> ArrayDataset:
    """The arrays of a .npz file, by name, or the only one of a .npy file.

    Raises:
        HintcError: it cannot be read.
    """
    try:
        read = np.load(path, allow_pickle=False)
        if isinstance(read, np.ndarray):
            return ArrayDataset({"": read})
        with read:
            arrays = dict(read)
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray):  # of any other zip archive
                raise ValueError(f"'{name}' in it is no array")
        return ArrayDataset(arrays)
    except Exception as error:  # numpy, zipfile and zlib have several families
        raise HintcError(
            f"cannot read the representative data '{os.fspath(path)}'",
            why=str(error),
            remedy="Write it with numpy.savez(path, input_name=array) or numpy.save(path, array).",
        ) from error


def read_samples(
    dataset: Dataset | ArrayDataset, infos: Sequence[TensorInfo], keys: Mapping[str, str]
) -> Samples:
    """Reads all samples and checks them.

    Args:
        dataset: see `Dataset`; or arrays.
        infos: the model's inputs, in order.
        keys: input -> another name by which samples may know it.

    Raises:
        HintcError: no samples, or one that does not fit the inputs; says which and why.
    """
    infos = [replace(info, name=keys.get(info.name, info.name)) for info in infos]
    made = dataset.samples(infos) if isinstance(dataset, ArrayDataset) else _called(dataset)
    tensors = {tensor: key for tensor, key in keys.items() if tensor not in keys.values()}
    found = [_checked(number, sample, infos, tensors) for number, sample in enumerate(made)]
    if not found:
        raise HintcError(
            "representative_dataset gives no samples",
            remedy="Give at least one, better a hundred that look like real inputs.",
        )
    held_out = min(len(found) // _HELD_OUT, _MOST_HELD_OUT)
    split = len(found) - held_out
    return Samples(found[:split], found[split:])


def _called(dataset: Dataset) -> Iterator[Any]:
    """What a user's function gives, one at a time."""
    number = 0
    try:
        made = dataset()
        if not isinstance(made, Iterable) and not hasattr(made, "__getitem__"):
            raise HintcError(
                f"representative_dataset gives a {type(made).__name__}, not samples",
                remedy=_REMEDY,
            )
        for sample in made:
            yield sample
            number += 1
    except HintcError:
        raise
    except Exception as error:  # whatever a user's function raises
        raise HintcError(
            f"representative_dataset fails at sample {number}",
            why=f"{type(error).__name__}: {error}",
        ) from error


def _checked(
    number: int, sample: Any, infos: Sequence[TensorInfo], keys: Mapping[str, str]
) -> list[Array]:
    if isinstance(sample, Mapping):
        plain = {_plain(str(name)): value for name, value in sample.items()}
        values = _by_name(number, {keys.get(n, n): v for n, v in plain.items()}, infos)
    elif isinstance(sample, (list, tuple)):
        values = list(sample)
    else:
        raise HintcError(
            f"sample {number} of representative_dataset is a {type(sample).__name__}",
            remedy=_REMEDY,
        )
    if len(values) != len(infos):
        raise HintcError(
            f"sample {number} of representative_dataset has {len(values)} arrays",
            why=f"the model has {len(infos)} inputs: "
            + ", ".join(f"'{info.name}'" for info in infos),
        )
    return [_value(number, value, info) for value, info in zip(values, infos, strict=True)]


def _by_name(number: int, given: Mapping[str, Any], infos: Sequence[TensorInfo]) -> list[Any]:
    names = [info.name for info in infos]
    for name in given:
        if name not in names:
            raise HintcError(
                f"sample {number} of representative_dataset names '{name}', which is no input",
                remedy=did_you_mean(name, names, "inputs"),
            )
    for name in names:
        if name not in given:
            raise HintcError(
                f"sample {number} of representative_dataset lacks the input '{name}'",
                remedy="Give every input an array.",
            )
    return [given[name] for name in names]


def _value(number: int, value: Any, info: TensorInfo) -> Array:
    what = f"sample {number} of representative_dataset: input '{info.name}'"
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise HintcError(f"{what} is no array", why=str(error)) from error
    fits = len(array.shape) == len(info.shape) and all(
        size in (-1, there) for size, there in zip(info.shape, array.shape, strict=True)
    )
    if not fits or array.size == 0:
        raise HintcError(
            f"{what} has shape {list(array.shape)}",
            why=f"the model takes {_shape(info)}",
            remedy="Each array is a whole input, its batch axis included.",
        )
    if array.dtype != info.dtype and not np.can_cast(array.dtype, info.dtype, "same_kind"):
        raise HintcError(f"{what} is {array.dtype}", why=f"the model takes {info.dtype}")
    array = np.ascontiguousarray(array, info.dtype).reshape(array.shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise HintcError(
            f"{what} holds values that are not finite", remedy="Leave such samples out."
        )
    return array


def _shape(info: TensorInfo) -> str:
    return f"[{', '.join('?' if size < 0 else str(size) for size in info.shape)}]"


def _plain(name: str) -> str:
    return name.removesuffix(":0")
