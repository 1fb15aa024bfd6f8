"""Running a .tflite model in LiteRT's interpreter, or in TensorFlow's where that is missing."""

from __future__ import annotations

import importlib
import importlib.util
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hintc.errors import HintcError
from hintc.runtime.kernels import AnyKernel, Kernels, make_delegates
from hintc.runtime.tensor_info import Feeds, TensorInfo, bound_feeds, unique_names

Array = npt.NDArray[Any]
RuntimeName = Literal["litert", "tensorflow"]

_MODULES: dict[RuntimeName, str] = {
    "litert": "ai_edge_litert.interpreter",
    "tensorflow": "tensorflow.lite.python.interpreter",
}

_UNRESOLVED = re.compile(r"unresolved custom op: (\S*?)\.?\s")
"""Where the interpreters name an operator that they do not know."""


def installed() -> tuple[RuntimeName, ...]:
    """The runtimes that are installed, the preferred one first."""
    packages: dict[RuntimeName, str] = {"litert": "ai_edge_litert", "tensorflow": "tensorflow"}
    return tuple(name for name, package in packages.items() if importlib.util.find_spec(package))


class Interpreter:
    """One instance of a model, ready for any number of invokes.

    Args:
        model: the model's bytes.
        runtime: ``"litert"`` or ``"tensorflow"``; default: the first that is installed.
        delegates: let the runtime apply its default delegates (XNNPACK).
        threads: CPU threads.
        kernels: custom code -> function that computes the op (see `hintc.runtime.Kernels`), or
            path of a library that does (see ``hintc new-op``). Every custom op that the runtime
            does not know needs one.
        keep_tensors: keep what lies between the operators for `tensors`; without `delegates`.

    Raises:
        HintcError: no runtime, a model that it refuses, or custom ops without a kernel.
    """

    def __init__(
        self,
        model: bytes,
        *,
        runtime: RuntimeName | None = None,
        delegates: bool = True,
        threads: int = 1,
        kernels: Mapping[str, AnyKernel] | None = None,
        keep_tensors: bool = False,
    ) -> None:
        self.runtime = _available(runtime)
        module = importlib.import_module(_MODULES[self.runtime])
        self._kernels: Kernels | None = None
        loaded: list[Any] = []
        if kernels is not None:
            self._kernels, loaded = make_delegates(module, kernels)
        resolver = module.OpResolverType
        try:
            with warnings.catch_warnings():
                # TensorFlow's own interpreter announces its end each time it is made.
                warnings.simplefilter("ignore", UserWarning)
                self._interpreter = module.Interpreter(
                    model_content=bytes(model),
                    num_threads=threads,
                    experimental_op_resolver_type=resolver.AUTO
                    if delegates
                    else resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
                    experimental_delegates=loaded,
                    experimental_preserve_all_tensors=keep_tensors,
                )
        except (ValueError, RuntimeError) as error:
            raise self._explained("the runtime refuses the model", error) from error
        if self._kernels is not None:
            self._kernels.raise_failure()
        signature = _only_signature(self._interpreter)
        names = [_tensor_names(signature, side) for side in ("inputs", "outputs")]
        self._inputs = _named(self._interpreter.get_input_details(), names[0])
        self._outputs = _named(self._interpreter.get_output_details(), names[1])
        self._allocated = False
        indices = [detail["index"] for detail in self._interpreter.get_tensor_details()]
        self._own_tensors = frozenset(indices)

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The model's inputs in order."""
        return tuple(_info(name, detail) for name, detail in self._inputs)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The model's outputs in order."""
        return tuple(_info(name, detail) for name, detail in self._outputs)

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """One invoke.

        Args:
            feeds: a value for each input, by name or in order. Inputs are resized to them; a
                value is not cast unless no information is lost.

        Returns:
            Output name -> value, in the model's order.

        Raises:
            HintcError: missing, unknown or unfit feeds; the runtime or a kernel failed.
        """
        values = bound_feeds(feeds, self.inputs)
        try:
            self._resize(values)
            for value, (_, detail) in zip(values, self._inputs, strict=True):
                self._interpreter.set_tensor(detail["index"], value)
            self._interpreter.invoke()
            return {name: self._value(detail["index"]) for name, detail in self._outputs}
        except (ValueError, RuntimeError) as error:
            raise self._explained("the interpreter failed", error) from error

    def _value(self, index: int) -> Array:
        """A copy of an output."""
        try:
            return np.array(self._interpreter.get_tensor(index))
        except ValueError:  # also for a tensor without elements
            details = self._interpreter.get_output_details()
            (detail,) = [detail for detail in details if detail["index"] == index][:1]
            if 0 not in detail["shape"]:
                raise
            return np.empty(detail["shape"], detail["dtype"])

    def tensors(self) -> dict[int, Array]:
        """Index -> value of each tensor of the main subgraph that has one; for `keep_tensors`.

        What a loop or branch computes inside is not among them.
        """
        found = {}
        for index in sorted(self._own_tensors):  # operators add scratch tensors to them
            try:
                found[index] = np.array(self._interpreter.get_tensor(index))
            except ValueError:  # nothing reads or writes it
                continue
        return found

    def _explained(self, what: str, error: Exception) -> HintcError:
        """The error to raise for one of the runtime's: what a kernel said, if it was a kernel."""
        if self._kernels is not None:
            self._kernels.raise_failure()
        unresolved = _UNRESOLVED.search(f"{error} ")
        if unresolved and self._kernels is None:
            return HintcError(
                f"there is no kernel for the custom op '{unresolved[1]}'",
                remedy="Give a function that computes it: kernels={code: function}.",
            )
        return HintcError(what, why=_one_line(error))

    def _resize(self, values: Sequence[Array]) -> None:
        changed = not self._allocated
        details = self._interpreter.get_input_details()
        for value, detail in zip(values, details, strict=True):
            if tuple(detail["shape"]) != value.shape:
                self._interpreter.resize_tensor_input(detail["index"], value.shape)
                changed = True
        if changed:
            self._allocated = False
            self._interpreter.allocate_tensors()
            self._allocated = True


def run(
    tflite_bytes: bytes,
    feeds: Feeds,
    *,
    runtime: RuntimeName | None = None,
    delegates: bool = True,
    kernels: Mapping[str, AnyKernel] | None = None,
) -> dict[str, Array]:
    """One invoke of a fresh `Interpreter`; see there."""
    instance = Interpreter(tflite_bytes, runtime=runtime, delegates=delegates, kernels=kernels)
    return instance.run(feeds)


def _available(runtime: RuntimeName | None) -> RuntimeName:
    known = installed()
    if runtime is not None and runtime not in _MODULES:
        raise HintcError(f"unknown runtime {runtime!r}", why="known: " + ", ".join(_MODULES))
    if runtime in known or (runtime is None and known):
        return runtime or known[0]
    raise HintcError(
        f"the runtime '{runtime or 'litert'}' is not installed",
        remedy="Install ai-edge-litert (or tensorflow).",
    )


def _only_signature(interpreter: Any) -> Any:
    """The signature's runner if the model has exactly one signature, else None."""
    keys = list(interpreter.get_signature_list())
    return interpreter.get_signature_runner(keys[0]) if len(keys) == 1 else None


def _tensor_names(signature: Any, side: str) -> dict[int, list[str]]:
    """Tensor index -> its names in the signature: several where results are the same tensor."""
    names: dict[int, list[str]] = {}
    if signature is None:
        return names
    details = signature.get_input_details() if side == "inputs" else signature.get_output_details()
    for name, detail in details.items():
        names.setdefault(detail["index"], []).append(name)
    return names


def _named(
    details: Sequence[dict[str, Any]], names: Mapping[int, list[str]]
) -> list[tuple[str, dict[str, Any]]]:
    """Each detail with its name."""
    tensors = [(int(detail["index"]), str(detail["name"])) for detail in details]
    return list(zip(unique_names(tensors, names), details, strict=True))


def _info(name: str, detail: Mapping[str, Any]) -> TensorInfo:
    shape = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    return TensorInfo(name, tuple(int(size) for size in shape), np.dtype(detail["dtype"]))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:600]
