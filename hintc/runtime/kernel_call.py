"""One CUSTOM operator of a running model: its operands as numpy arrays, its function, its results.

Works on the tensors of a TfLiteContext; `hintc.runtime.kernels` says when.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hintc.errors import HintcError
from hintc.flexbuffer import load_attributes
from hintc.runtime import tflite_abi as abi

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
Kernel = Callable[..., Any]
"""``kernel(*operands, **attributes)`` gives the op's result, or a tuple or list of its results.

An operand is a read-only numpy view that is valid during the call, or None where the op has none;
absent operands at the end are left out. Attributes are bool, int, float, str or tuples of these.
A result is an array of the dtype and shape that the model says; sizes that are dynamic there are
free."""

ABSENT = -1
"""Tensor index of an operand that is left out."""


@dataclass(frozen=True)
class KernelCall:
    """A CUSTOM operator and the function that computes it.

    Args:
        code: the custom code.
        function: the kernel.
        attributes: the custom options.
        operands: tensor indices, -1 for an absent one.
        results: tensor indices.
        name: of the first result's tensor: operators have no names of their own.
        given: the operands' shapes in the model, -1 where dynamic; () may also be any shape.
        declared: the results', likewise.
    """

    code: str
    function: Kernel
    attributes: Mapping[str, Any]
    operands: tuple[int, ...]
    results: tuple[int, ...]
    name: str
    given: tuple[Shape, ...]
    declared: tuple[Shape, ...]

    @classmethod
    def read(cls, calls: abi.Calls, index: int, functions: Mapping[str, Kernel]) -> KernelCall:
        """The call that node `index` is; it has a function.

        Raises:
            HintcError: its options are no flexbuffer map.
        """
        node, registration = calls.node(index)
        code = custom_code(registration)
        operands, results = abi.ints(node.inputs), abi.ints(node.outputs)
        name = tensor_name(calls.tensor(results[0])) if results else code
        options = b""
        if node.custom_initial_data and node.custom_initial_data_size:
            options = ctypes.string_at(node.custom_initial_data, node.custom_initial_data_size)
        try:
            attributes = {k: _hashable(v) for k, v in load_attributes(options).items()}
        except HintcError as error:
            raise HintcError(
                f"the custom op '{code}' cannot run", node=name, why=str(error)
            ) from error
        given = [() if i == ABSENT else declared_shape(calls.tensor(i)) for i in operands]
        declared = [declared_shape(calls.tensor(result)) for result in results]
        ends = (operands, results, name, tuple(given), tuple(declared))
        return cls(code, functions[code], attributes, *ends)

    def run(self, calls: abi.Calls) -> None:
        """Computes the results and puts them into their tensors.

        Raises:
            HintcError: the function failed or gave something unfit; names op and node.
        """
        operands = [
            None if index == ABSENT else _operand(self, calls.tensor(index))
            for index in self.operands
        ]
        try:
            found = self.function(*operands, **self.attributes)
        except Exception as error:
            raise self.error("the kernel failed", f"{type(error).__name__}: {error}") from error
        values = tuple(found) if isinstance(found, tuple | list) else (found,)
        if len(values) != len(self.results):
            raise self.error(
                f"the kernel gave {len(values)} results", f"the op has {len(self.results)}"
            )
        # A stock interpreter lets fixed shapes be changed; then the model says nothing.
        as_declared = all(
            operand is None or _fits(operand.shape, shape)
            for operand, shape in zip(operands, self.given, strict=True)
        )
        for number, value in enumerate(values):
            self._store(calls, number, value, self.declared[number] if as_declared else ())

    def _store(self, calls: abi.Calls, number: int, result: object, declared: Shape) -> None:
        index = self.results[number]
        tensor = calls.tensor(index)
        value = self._in_dtype(number, result, _dtype(self, tensor))
        if not _fits(value.shape, declared):
            raise self._unfit_shape(number, value.shape, declared)
        if tensor.allocation_type == abi.DYNAMIC:
            calls.resize(tensor, value.shape)
            tensor = calls.tensor(index)
        elif value.shape != abi.ints(tensor.dims):
            raise self._unfit_shape(number, value.shape, abi.ints(tensor.dims))
        if value.size:
            view(tensor)[...] = value

    def _in_dtype(self, number: int, result: object, dtype: np.dtype[Any]) -> Array:
        """A result in another dtype, if that loses no more than float precision."""
        value = np.asarray(result)
        same_kind = np.can_cast(value.dtype, dtype, "same_kind")
        cast = value.astype(dtype) if same_kind else value
        if not same_kind or (dtype.kind in "iu" and not np.array_equal(cast, value)):
            raise self.error(
                f"result {number} of the kernel is {value.dtype}", f"the model says {dtype}"
            )
        return cast

    def _unfit_shape(self, number: int, shape: Shape, wanted: Shape) -> HintcError:
        return self.error(
            f"result {number} of the kernel has shape {list(shape)}",
            f"the model says {list(wanted)}",
        )

    def error(self, what: str, why: str) -> HintcError:
        """A `HintcError` that names this op and node."""
        return HintcError(f"custom op '{self.code}': {what}", node=self.name, why=why)


def custom_code(registration: abi.Registration) -> str:
    """The custom code of a CUSTOM operator, "" for any other."""
    if registration.builtin_code != abi.BUILTIN_CUSTOM or not registration.custom_name:
        return ""
    return bytes(registration.custom_name).decode("utf-8", "replace")


def tensor_name(tensor: abi.Tensor) -> str:
    """Name of a tensor, without ``:0``."""
    return (tensor.name or b"").decode("utf-8", "replace").removesuffix(":0")


def declared_shape(tensor: abi.Tensor) -> Shape:
    """The shape that the model gives a tensor: -1 where dynamic."""
    return abi.ints(tensor.dims_signature) or abi.ints(tensor.dims)


def view(tensor: abi.Tensor) -> Array:
    """A tensor's memory as an array; its type has a numpy dtype."""
    shape = abi.ints(tensor.dims)
    dtype = np.dtype(abi.NUMPY_TYPES[tensor.type])
    count = int(np.prod(shape, dtype=np.int64))
    if not count:
        return np.empty(shape, dtype)
    memory = (ctypes.c_char * (count * dtype.itemsize)).from_address(tensor.data)
    return np.ndarray(shape, dtype, buffer=memoryview(memory))


def _operand(call: KernelCall, tensor: abi.Tensor) -> Array:
    _dtype(call, tensor)
    if not tensor.data and tensor.bytes:
        raise call.error(f"operand '{tensor_name(tensor)}' has no value", "TFLite left it empty")
    value = view(tensor)
    value.flags.writeable = False
    return value


def _dtype(call: KernelCall, tensor: abi.Tensor) -> np.dtype[Any]:
    if tensor.type not in abi.NUMPY_TYPES:
        raise call.error(
            f"tensor '{tensor_name(tensor)}' cannot be an array",
            f"numpy has no dtype for TFLite's type {tensor.type}",
        )
    return np.dtype(abi.NUMPY_TYPES[tensor.type])


def _fits(shape: Shape, declared: Shape) -> bool:
    return not declared or (
        len(shape) == len(declared)
        and all(wanted in (-1, size) for size, wanted in zip(shape, declared, strict=True))
    )


def _hashable(value: Any) -> Any:
    """Lists as tuples, as `hintc.ops.AttributeValue` has them."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
