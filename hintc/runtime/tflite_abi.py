"""TFLite's C structures as ctypes, as far as a delegate needs them.

Field orders are those of tensorflow/lite/core/c/common.h; the C compiler's natural alignment on
64-bit machines is also what ctypes does. Every pointer is a plain address, so that no structure
depends on another. `hintc.runtime.abi_check` says on which runtimes this is known to be right.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import (
    CFUNCTYPE,
    Structure,
    c_bool,
    c_char_p,
    c_float,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint64,
    c_void_p,
)
from typing import Any, ClassVar

Fields = list[tuple[str, Any]]

OK, ERROR = 0, 1
"""TfLiteStatus."""
ALLOW_DYNAMIC_TENSORS = 1
"""A flag of TfLiteDelegate: its kernels may resize results while they run."""
DYNAMIC = 4
"""TfLiteAllocationType: on the heap, resized at will."""
BUILTIN_CUSTOM, BUILTIN_DELEGATE = 32, 51
"""Members of the schema's BuiltinOperator."""
NUMPY_TYPES = {
    1: "float32",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    8: "complex64",
    9: "int8",
    10: "float16",
    11: "float64",
    12: "complex128",
    13: "uint64",
    16: "uint32",
    17: "uint16",
}
"""TfLiteType -> numpy dtype; strings, resources and types below a byte have none."""


class Tensor(Structure):
    """TfLiteTensor."""

    _fields_: ClassVar[Fields] = [
        ("type", c_int),
        ("data", c_void_p),
        ("dims", c_void_p),
        ("scale", c_float),
        ("zero_point", c_int32),
        ("allocation_type", c_int),
        ("bytes", c_size_t),
        ("allocation", c_void_p),
        ("name", c_char_p),
        ("delegate", c_void_p),
        ("buffer_handle", c_int),
        ("data_is_stale", c_bool),
        ("is_variable", c_bool),
        ("quantization_type", c_int),
        ("quantization_params", c_void_p),
        ("sparsity", c_void_p),
        ("dims_signature", c_void_p),
    ]


class Node(Structure):
    """TfLiteNode."""

    _fields_: ClassVar[Fields] = [
        ("inputs", c_void_p),
        ("outputs", c_void_p),
        ("intermediates", c_void_p),
        ("temporaries", c_void_p),
        ("user_data", c_void_p),
        ("builtin_data", c_void_p),
        ("custom_initial_data", c_void_p),
        ("custom_initial_data_size", c_int),
        ("delegate", c_void_p),
        ("might_have_side_effect", c_bool),
    ]


class Registration(Structure):
    """TfLiteRegistration; it is passed by value, so its size matters too."""

    _fields_: ClassVar[Fields] = [
        ("init", c_void_p),
        ("free", c_void_p),
        ("prepare", c_void_p),
        ("invoke", c_void_p),
        ("profiling_string", c_void_p),
        ("builtin_code", c_int32),
        ("custom_name", c_char_p),
        ("version", c_int),
        ("registration_external", c_void_p),
        ("async_kernel", c_void_p),
        ("inplace_operator", c_uint64),
    ]


class Context(Structure):
    """TfLiteContext, up to the last field that is used."""

    _fields_: ClassVar[Fields] = [
        ("tensors_size", c_size_t),
        ("get_execution_plan", c_void_p),
        ("tensors", c_void_p),
        ("impl", c_void_p),
        ("resize_tensor", c_void_p),
        ("report_error", c_void_p),
        ("add_tensors", c_void_p),
        ("get_node_and_registration", c_void_p),
        ("replace_node_subsets_with_delegate_kernels", c_void_p),
    ]


class Delegate(Structure):
    """TfLiteDelegate."""

    _fields_: ClassVar[Fields] = [
        ("data", c_void_p),
        ("prepare", c_void_p),
        ("copy_from_buffer_handle", c_void_p),
        ("copy_to_buffer_handle", c_void_p),
        ("free_buffer_handle", c_void_p),
        ("flags", c_int64),
        ("opaque_delegate_builder", c_void_p),
    ]


class DelegateParams(Structure):
    """TfLiteDelegateParams: what a delegate's kernel is told when it is made."""

    _fields_: ClassVar[Fields] = [
        ("delegate", c_void_p),
        ("nodes_to_replace", c_void_p),
        ("input_tensors", c_void_p),
        ("output_tensors", c_void_p),
    ]


# What TFLite calls.
DelegatePrepare = CFUNCTYPE(c_int, c_void_p, c_void_p)
"""(context, delegate) -> status."""
KernelInit = CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_size_t)
"""(context, DelegateParams, 0) -> the node's user data."""
KernelStep = CFUNCTYPE(c_int, c_void_p, c_void_p)
"""(context, node) -> status: a kernel's prepare or invoke."""

# What it offers.
_GetExecutionPlan = CFUNCTYPE(c_int, c_void_p, c_void_p)
_GetNode = CFUNCTYPE(c_int, c_void_p, c_int, c_void_p, c_void_p)
_Resize = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p)
_Report = CFUNCTYPE(None, c_void_p, c_char_p)


def ints(address: int | None) -> tuple[int, ...]:
    """The TfLiteIntArray at an address; () for none."""
    if not address:
        return ()
    size = c_int.from_address(address).value
    return tuple((c_int * size).from_address(address + ctypes.sizeof(c_int)))


class Calls:
    """The functions of one TfLiteContext.

    Args:
        address: of the context.
    """

    def __init__(self, address: int) -> None:
        self._address = address
        self._context = Context.from_address(address)

    @property
    def tensor_count(self) -> int:
        """Number of tensors."""
        return int(self._context.tensors_size)

    def execution_plan(self) -> tuple[int, ...]:
        """Indices of the nodes, in the order in which they run."""
        plan = c_void_p()
        function = _GetExecutionPlan(self._context.get_execution_plan)
        _must_be_ok(function(self._address, ctypes.addressof(plan)))
        return ints(plan.value)

    def node(self, index: int) -> tuple[Node, Registration]:
        """A node and what runs it."""
        node, registration = c_void_p(), c_void_p()
        function = _GetNode(self._context.get_node_and_registration)
        at = (ctypes.addressof(node), ctypes.addressof(registration))
        _must_be_ok(function(self._address, index, *at))
        if not node.value or not registration.value:
            raise RuntimeError("TFLite gave no node")
        return Node.from_address(node.value), Registration.from_address(registration.value)

    def tensor(self, index: int) -> Tensor:
        """A tensor; do not keep it, for tensors move."""
        return Tensor.from_address(self._context.tensors + index * ctypes.sizeof(Tensor))

    def resize(self, tensor: Tensor, shape: tuple[int, ...]) -> None:
        """Gives a tensor another shape; a dynamic one also its memory."""
        function = _Resize(self._context.resize_tensor)
        _must_be_ok(function(self._address, ctypes.addressof(tensor), _allocated(shape)))

    def report_error(self, text: str) -> None:
        """Adds to the message of the exception that the interpreter raises."""
        # The text is a format string.
        _Report(self._context.report_error)(self._address, text.replace("%", "%%").encode())

    def replace(
        self, registration: Registration, nodes: tuple[int, ...], delegate: int | None
    ) -> None:
        """Lets `registration` run these nodes: each set of them that is one after the other."""
        array = (c_int * (len(nodes) + 1))(len(nodes), *nodes)
        prototype = CFUNCTYPE(c_int, c_void_p, Registration, c_void_p, c_void_p)
        function = prototype(self._context.replace_node_subsets_with_delegate_kernels)
        _must_be_ok(function(self._address, registration, ctypes.addressof(array), delegate))


@functools.cache
def _malloc() -> Any:
    """The C library's malloc, whose memory TFLite frees."""
    function = ctypes.CDLL(None).malloc
    function.restype, function.argtypes = c_void_p, [c_size_t]
    return function


def _allocated(values: tuple[int, ...]) -> int:
    """Address of a new TfLiteIntArray, which TFLite frees."""
    content = (c_int * (len(values) + 1))(len(values), *values)
    address = int(_malloc()(ctypes.sizeof(content)))
    ctypes.memmove(address, content, ctypes.sizeof(content))
    return address


def _must_be_ok(status: int) -> None:
    if status != OK:
        raise RuntimeError(f"TFLite answered with status {status}")
