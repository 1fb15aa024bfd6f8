"""Running a .tflite model in TFLite Micro, as a microcontroller would: all memory in one arena."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hintc.errors import HintcError
from hintc.runtime.stream import captured_output
from hintc.runtime.tensor_info import TensorInfo, bound_feeds, unique_names

Array = npt.NDArray[Any]

_MODULE = "tflite_micro.python.tflite_micro.runtime"
_ARENA_BYTES = 1 << 28
"""Room for any model: with too little the package may crash instead of saying so (measured). Pages
that are not written take no memory."""
_TOTAL = re.compile(r"Arena allocation total (\d+) bytes")


def micro_installed() -> bool:
    """Is the package tflite-micro there?"""
    return importlib.util.find_spec("tflite_micro") is not None


class MicroInterpreter:
    """One instance of a model in TFLite Micro, with all of the operators that its package has.

    Sizes are fixed; states live from one `run` to the next, as they do for an `Interpreter`.

    Args:
        model: the model's bytes.

    Raises:
        HintcError: tflite-micro is not installed, or it cannot run the model: the reason is what
            it writes to standard error.
    """

    def __init__(self, model: bytes) -> None:
        if not micro_installed():
            raise HintcError(
                "the runtime 'tflm' is not installed",
                why="TFLite Micro's interpreter comes with the package tflite-micro",
                remedy="Install hintc[tflm] (wheels exist for Linux on x86-64).",
            )
        self._module = importlib.import_module(_MODULE)
        self._interpreter = self._allocated(bytes(model))
        read = self._module.convert_bytearray_to_object(bytes(model))
        signature = read.signatureDefs[0] if len(read.signatureDefs or ()) == 1 else None
        self._inputs = self._infos(
            read.subgraphs[0].inputs, read, signature and signature.inputs, "input"
        )
        self._outputs = self._infos(
            read.subgraphs[0].outputs, read, signature and signature.outputs, "output"
        )

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The model's inputs in order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The model's outputs in order."""
        return self._outputs

    def run(self, feeds: Any) -> dict[str, Array]:
        """One invoke.

        Args:
            feeds: a value for each input, by name or in order, in its shape.

        Returns:
            Output name -> value, in the model's order.

        Raises:
            HintcError: missing, unknown or unfit feeds; the runtime failed.
        """
        values = bound_feeds(feeds, self.inputs)
        captured = None
        try:
            with captured_output() as captured:
                for at, value in enumerate(values):
                    self._interpreter.set_input(value, at)
                self._interpreter.invoke()
            return {
                info.name: np.array(self._interpreter.get_output(at))
                for at, info in enumerate(self.outputs)
            }
        except (ValueError, RuntimeError) as error:
            raise _failed(error, captured.text if captured else "") from error

    def arena_bytes(self) -> int:
        """Bytes of the arena that the model takes here, after a `run`.

        Tensors are as large on a microcontroller; the structures beside them, which point to
        things, take half of their place where pointers have 32 bits.
        """
        with captured_output() as captured:
            self._interpreter.print_allocations()
        total = _TOTAL.search(captured.text)
        if total is None:
            raise HintcError("TFLite Micro does not say how much memory it takes")
        return int(total[1])

    def _allocated(self, model: bytes) -> Any:
        """TFLite Micro's own interpreter."""
        captured = None
        try:
            with captured_output() as captured:
                return self._module.Interpreter.from_bytes(model, arena_size=_ARENA_BYTES)
        except (ValueError, RuntimeError) as error:
            raise _failed(error, captured.text if captured else "") from error

    def _infos(
        self, tensors: Sequence[int], model: Any, named: Any, side: str
    ) -> tuple[TensorInfo, ...]:
        known: dict[int, list[str]] = {}
        for entry in named or ():
            known.setdefault(int(entry.tensorIndex), []).append(_text(entry.name))
        there = [(int(t), _text(model.subgraphs[0].tensors[t].name)) for t in tensors]
        found = []
        for at, name in enumerate(unique_names(there, known)):
            detail = getattr(self._interpreter, f"get_{side}_details")(at)
            shape = tuple(int(size) for size in detail["shape"])
            found.append(TensorInfo(name, shape, np.dtype(detail["dtype"])))
        return tuple(found)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def tried_arena(model: bytes) -> int:
    """Runs a model once, on zeros, in a process of its own; how much memory it takes.

    Returns:
        Bytes of the arena; see `MicroInterpreter.arena_bytes`.

    Raises:
        HintcError: TFLite Micro cannot run the model, or crashes on it.
    """
    command = [sys.executable, "-m", "hintc.runtime.micro"]
    done = subprocess.run(command, input=model, capture_output=True, check=False)
    if done.returncode == 0:
        return int(done.stdout)
    said = done.stderr.decode("utf-8", "replace").strip()
    raise HintcError(
        "TFLite Micro cannot run the model"
        if done.returncode > 0
        else "TFLite Micro crashes on it",
        why=said.splitlines()[-1] if said else f"signal {-done.returncode}",
        remedy="Replace what it complains of, or convert for target='tflite'.",
    )


def _failed(error: Exception, text: str) -> HintcError:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return HintcError(
        "TFLite Micro cannot run the model", why=" | ".join([*lines[:4], str(error)])[:600]
    )


def _try() -> int:
    """What the child of `tried_arena` does; its exit status."""
    try:
        interpreter = MicroInterpreter(sys.stdin.buffer.read())
        interpreter.run([np.zeros(info.shape, info.dtype) for info in interpreter.inputs])
        sys.stdout.write(str(interpreter.arena_bytes()))
    except HintcError as error:
        sys.stderr.write(error.why or str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_try())
