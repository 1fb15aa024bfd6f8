"""Python functions as kernels of CUSTOM operators, in the stock interpreters.

A delegate made of ctypes callbacks claims the CUSTOM nodes that have a function and runs them;
nothing is compiled, no runtime is rebuilt. Kernels in C are delegates already: see
`hintc.scaffold.op_kernel`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hintc.errors import HintcError
from hintc.near import near_matches, some
from hintc.runtime import abi_check
from hintc.runtime import tflite_abi as abi
from hintc.runtime.kernel_call import (
    Kernel,
    KernelCall,
    Shape,
    custom_code,
    declared_shape,
)

AnyKernel = Kernel | str | os.PathLike[str]
"""A function, or the path of a library that ``load_delegate`` takes, as ``hintc new-op`` makes."""


@dataclass(frozen=True)
class _Region:
    """CUSTOM nodes that run one after the other, as one node of the delegate.

    Args:
        calls: in the order in which they run.
        inputs: tensors that come from outside, with their shapes in the model.
        shown: results that somebody outside reads; TFLite plans memory for no others.
    """

    calls: tuple[KernelCall, ...]
    inputs: Mapping[int, Shape]
    shown: frozenset[int]

    @property
    def has_fixed_shapes(self) -> bool:
        """All shapes at its border are known from the model."""
        results = [
            shape
            for call in self.calls
            for index, shape in zip(call.results, call.declared, strict=True)
            if index in self.shown
        ]
        return all(shape and -1 not in shape for shape in [*results, *self.inputs.values()])


class Kernels:
    """Functions for a model's custom ops, as a delegate of ``tf.lite`` or LiteRT interpreters.

    Give it to `hintc.Interpreter` as a plain mapping, or to a stock interpreter::

        Interpreter(model_path=..., experimental_delegates=[hintc.runtime.Kernels({"MyOp": my_op})])

    A stock interpreter raises its own RuntimeError when a function fails; `failure` is what really
    happened. `missing` are the custom codes of its models that nothing computes.

    Args:
        functions: custom code -> ``function(*operands, **attributes)``; see
            `hintc.runtime.kernel_call.Kernel`.

    Raises:
        HintcError: a value is no function.
    """

    def __init__(self, functions: Mapping[str, Kernel]) -> None:
        for code, function in functions.items():
            if not callable(function):
                raise HintcError(
                    f"the kernel of '{code}' is a {type(function).__name__}",
                    remedy="Give a function of the operands and attributes.",
                )
        self.failure: BaseException | None = None
        self.missing: tuple[str, ...] = ()
        self._functions = dict(functions)
        self._regions: list[_Region] = []
        # TFLite keeps these addresses: they live as long as this object, which the interpreter
        # keeps alive.
        self._callbacks = (
            abi.DelegatePrepare(self._claim),
            abi.KernelInit(self._make),
            abi.KernelStep(self._prepare),
            abi.KernelStep(self._invoke),
        )
        claim, *_ = map(_address, self._callbacks)
        self._delegate = abi.Delegate(prepare=claim, flags=abi.ALLOW_DYNAMIC_TENSORS)

    def raise_failure(self) -> None:
        """Raises what happened in a kernel, or that some are missing; else does nothing."""
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        if self.missing:
            codes = ", ".join(f"'{code}'" for code in self.missing)
            near = [n for code in self.missing for n in near_matches(code, self._functions, 1)]
            remedy = f"Did you mean {some(near)}?" if near else "Add a function for each of them."
            raise HintcError(f"there is no kernel for the custom ops {codes}", remedy=remedy)

    def _get_native_delegate_pointer(self) -> int:
        """What an interpreter asks of a delegate, when it is made."""
        abi_check.check_runtime(sys._getframe(1).f_globals.get("__name__", ""))
        return ctypes.addressof(self._delegate)

    def _claim(self, context: int, delegate: int) -> int:
        return self._guarded(context, lambda: self._replace_nodes(abi.Calls(context), delegate))

    def _make(self, context: int, params: int, _: int) -> int:
        """A region's number, from 1 on; 0 if it cannot be read."""
        before = len(self._regions)
        self._guarded(
            context, lambda: self._regions.append(self._region(abi.Calls(context), params))
        )
        return before + 1 if len(self._regions) > before else 0

    def _prepare(self, context: int, node: int) -> int:
        return self._guarded(
            context, lambda: _plan_results(abi.Calls(context), self._region_of(node))
        )

    def _invoke(self, context: int, node: int) -> int:
        def run() -> None:
            calls = abi.Calls(context)
            for call in self._region_of(node).calls:
                call.run(calls)

        return self._guarded(context, run)

    def _guarded(self, context: int, action: Callable[[], object]) -> int:
        """Runs `action`; what it raises is kept, for no exception may leave a callback."""
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - also an interrupt is raised later
            self.failure = error
            abi.Calls(context).report_error(f"{error} ")
            return abi.ERROR
        return abi.OK

    def _replace_nodes(self, calls: abi.Calls, delegate: int) -> None:
        mine, missing = [], dict.fromkeys(self.missing)
        for index in calls.execution_plan():
            _, registration = calls.node(index)
            code = custom_code(registration)
            if code in self._functions:
                mine.append(index)
            elif code and not code.startswith("Flex") and not registration.prepare:
                # TFLite's stand-in for an op that it does not know can only be invoked
                missing[code] = None
        self.missing = tuple(missing)
        if mine:
            _, make, prepare, invoke = map(_address, self._callbacks)
            registration = abi.Registration(
                init=make,
                prepare=prepare,
                invoke=invoke,
                builtin_code=abi.BUILTIN_DELEGATE,
                custom_name=b"hintc.runtime.Kernels",
                version=1,
            )
            calls.replace(registration, tuple(mine), delegate)

    def _region(self, calls: abi.Calls, params: int) -> _Region:
        given = abi.DelegateParams.from_address(params)
        nodes = abi.ints(given.nodes_to_replace)
        return _Region(
            tuple(KernelCall.read(calls, node, self._functions) for node in nodes),
            {i: declared_shape(calls.tensor(i)) for i in abi.ints(given.input_tensors)},
            frozenset(abi.ints(given.output_tensors)),
        )

    def _region_of(self, node: int) -> _Region:
        number: int | None = abi.Node.from_address(node).user_data
        if not number:
            raise self.failure or RuntimeError("the kernel was not made")
        return self._regions[number - 1]


def make_delegates(module: Any, kernels: Mapping[str, AnyKernel]) -> tuple[Kernels, list[Any]]:
    """The delegates that bring kernels into an interpreter.

    Args:
        module: of the interpreter; it has ``load_delegate``.
        kernels: custom code -> function, or path of a library.

    Returns:
        The one of the functions, which comes last and so sees what is missing; and all of them.

    Raises:
        HintcError: a kernel is neither, or a library cannot be loaded.
    """
    functions, libraries = _sorted_out(kernels)
    loaded = []
    for path in dict.fromkeys(libraries):
        try:
            ctypes.CDLL(path)  # load_delegate leaves a half-made object behind where this fails
            loaded.append(module.load_delegate(path))
        except (OSError, ValueError) as error:
            raise HintcError(
                f"the kernel '{path}' cannot be loaded",
                why=" ".join(str(error).split()),
                remedy="Build it with make, in the folder that 'hintc new-op' wrote.",
            ) from error
    own = Kernels(functions)
    return own, [*loaded, own]


def check_kernels(kernels: Mapping[str, AnyKernel]) -> None:
    """Raises `HintcError` if a kernel is neither a function nor a path."""
    Kernels(_sorted_out(kernels)[0])


def _sorted_out(kernels: Mapping[str, AnyKernel]) -> tuple[dict[str, Kernel], list[str]]:
    """The functions, and the paths of libraries: absolute, as loaders search for bare names."""
    functions: dict[str, Kernel] = {}
    libraries = []
    for code, kernel in kernels.items():
        if isinstance(kernel, str | os.PathLike):
            libraries.append(os.path.abspath(os.path.expanduser(kernel)))
        else:
            functions[code] = kernel
    return functions, libraries


def _plan_results(calls: abi.Calls, region: _Region) -> None:
    """Leaves to TFLite's planner what the model says; other results get their shape when known."""
    fixed = region.has_fixed_shapes and all(
        abi.ints(calls.tensor(index).dims) == shape for index, shape in region.inputs.items()
    )
    for call in region.calls:
        for index in call.results:
            tensor = calls.tensor(index)
            if tensor.allocation_type != abi.DYNAMIC and not (fixed and index in region.shown):
                tensor.data, tensor.allocation_type = None, abi.DYNAMIC


def _address(callback: object) -> int | None:
    return ctypes.cast(callback, ctypes.c_void_p).value  # type: ignore[arg-type]
