"""Runs a model with known answers through a delegate of ours; for a process that may die of it.

The model, ``abi_probe.bin``, has three CUSTOM operators in a row; tests/custom_ops.py builds
it. Names, shapes, types, options and absent operands are all known, so that a structure with
another layout shows, if it does not crash.
"""

from __future__ import annotations

import ctypes
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from hintc.runtime import abi_check
from hintc.runtime import tflite_abi as abi
from hintc.runtime.kernel_call import tensor_name, view
from hintc.runtime.kernels import Kernels

MODEL = Path(__file__).with_name("abi_probe.bin")
CODES = ("hintc.probe.add", "hintc.probe.scale", "hintc.probe.split")
TENSORS = {
    "x": ("float32", (1, 3)),
    "offset": ("float32", (3,)),
    "sum": ("float32", (1, 3)),
    "scaled": ("float32", (1, 3)),
    "whole": ("int8", (1, 3)),
    "rest": ("float32", (1, 3)),
}
"""Name -> dtype and shape, in the order of the indices."""
OFFSET = np.array([0.5, -1.5, 2.25], np.float32)
FACTOR = 3
QUANTIZED = (0.25, -7)
"""Scale and zero point of ``whole``."""


class LayoutError(Exception):
    """What is not where it should be."""


def probe(module: str) -> None:
    """Checks the layout in the runtime whose interpreter is in `module`.

    Raises:
        LayoutError: it is another one. Or the process crashes.
    """
    interpreters = importlib.import_module(module)
    # This is the check.
    abi_check.check_runtime = lambda module: None
    delegate = _Probe({CODES[0]: _add, CODES[1]: _scale, CODES[2]: _split})
    interpreter = interpreters.Interpreter(
        model_path=str(MODEL), experimental_delegates=[delegate], num_threads=1
    )
    (given,) = interpreter.get_input_details()
    for batch in (1, 3):
        x = np.arange(3 * batch, dtype=np.float32).reshape(batch, 3) - 2
        interpreter.resize_tensor_input(given["index"], x.shape)
        interpreter.allocate_tensors()
        for _ in range(2):
            interpreter.set_tensor(given["index"], x)
            interpreter.invoke()
            found = [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
            wanted = _split(_scale(_add(x, None, OFFSET), factor=FACTOR))
            right = all(map(np.array_equal, found, wanted))
            _must_be(right and len(found) == len(wanted), "the results")


def _add(x: Any, absent: Any, offset: Any) -> Any:
    _must_be(absent is None and np.array_equal(offset, OFFSET), "the operands")
    return x + offset


def _scale(x: Any, *, factor: int) -> Any:
    _must_be(factor == FACTOR, "the options")
    return np.float32(factor) * x


def _split(x: Any) -> tuple[Any, Any]:
    whole = np.floor(x).astype(np.int8)
    return whole, x - whole


class _Probe(Kernels):
    """Looks at everything before it claims a node."""

    def _replace_nodes(self, calls: abi.Calls, delegate: int) -> None:
        _check_tensors(calls)
        _check_nodes(calls)
        super()._replace_nodes(calls, delegate)


def _check_tensors(calls: abi.Calls) -> None:
    _must_be(calls.tensor_count == len(TENSORS), "the number of tensors")
    for index, (name, (dtype, shape)) in enumerate(TENSORS.items()):
        tensor = calls.tensor(index)
        _must_be(tensor_name(tensor) == name, f"the name of tensor {index}")
        _must_be(abi.NUMPY_TYPES.get(tensor.type) == dtype, f"the type of '{name}'")
        _must_be(abi.ints(tensor.dims) == shape, f"the shape of '{name}'")
        signature = () if name == "offset" else (-1, 3)
        _must_be(abi.ints(tensor.dims_signature) == signature, f"the signature of '{name}'")
        scale, zero_point = QUANTIZED if name == "whole" else (0.0, 0)
        _must_be((tensor.scale, tensor.zero_point) == (scale, zero_point), f"scale of '{name}'")
        is_plain = not (tensor.is_variable or tensor.data_is_stale or tensor.sparsity)
        _must_be(is_plain, f"the flags of '{name}'")
    offset = calls.tensor(1)
    _must_be(offset.bytes == OFFSET.nbytes and np.array_equal(view(offset), OFFSET), "constants")


def _check_nodes(calls: abi.Calls) -> None:
    _must_be(calls.execution_plan() == (0, 1, 2), "the execution plan")
    nodes = [calls.node(index) for index in range(3)]
    operands, results = [(0, -1, 1), (2,), (3,)], [(2,), (3,), (4, 5)]
    for number, (node, registration) in enumerate(nodes):
        _must_be(registration.custom_name == CODES[number].encode(), "custom codes")
        _must_be(registration.builtin_code == abi.BUILTIN_CUSTOM, "operator codes")
        _must_be(not registration.prepare and bool(registration.invoke), "functions of operators")
        _must_be(abi.ints(node.inputs) == operands[number], "operands of nodes")
        _must_be(abi.ints(node.outputs) == results[number], "results of nodes")
        # TFLite keeps nodes and registrations side by side in one array: their distances are
        # their sizes.
        at = ctypes.addressof(node)
        _must_be(ctypes.addressof(registration) - at == ctypes.sizeof(node), "size of a node")
        if number:
            size = ctypes.sizeof(node) + ctypes.sizeof(registration)
            there = ctypes.addressof(nodes[number - 1][0])
            _must_be(at - there == size, "size of a registration")


def _must_be(right: bool, what: str) -> None:
    if not right:
        raise LayoutError(f"{what} are not where they should be")
