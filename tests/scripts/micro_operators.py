"""Prints what TFLite Micro's interpreter says of every operator of the schema.

A line is an operator that it has registered, or an operator and the dtypes that its kernel takes,
by the recipes of `tests/micro_recipes.py`; ``wrong`` stands behind those that run and give other
values than LiteRT. Each model runs in a child process: kernels may crash on operands that are
absent. Run without TensorFlow, so that children are made quickly.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hintc.errors import HintcError
from hintc.runtime.interpreter import Interpreter
from hintc.runtime.micro import MicroInterpreter
from hintc.tflite.schema import builtin_names
from micro_recipes import DTYPES, PLAIN, RECIPES, Array, one_operator, real_values, some_values

STEPS: Mapping[str, float] = {"float32": 1e-5, "int8": 1, "uint8": 1, "int16": 16}
"""By which results may differ from LiteRT's; of other dtypes they are the same."""
_OWN: Mapping[str, Callable[..., Array]] = {
    "ADD_N": np.add,
    "CUMSUM": lambda x: np.cumsum(x, 1),
    "SQUARED_DIFFERENCE": lambda x, y: (x - y) ** 2,
    "ZEROS_LIKE": np.zeros_like,
}
"""What operators compute, where LiteRT has a kernel for fewer dtypes."""


def cells() -> Iterator[tuple[str, str, str]]:
    """Every operator with a recipe, on every dtype, and with every second one."""
    for name, recipe in RECIPES.items():
        for first in DTYPES if recipe.has_first else (recipe.text.partition("(")[0],):
            for second in recipe.seconds:
                yield name, first, second
        for first in ("int8", "int16", "uint8") if recipe.has_first else ():
            for second in recipe.seconds:
                yield name, PLAIN + first, second


def is_registered(name: str) -> bool:
    """Does the interpreter find a kernel, whatever that kernel then says?"""
    try:
        MicroInterpreter(one_operator(name))
    except HintcError as error:
        return "Didn't find op" not in str(error)
    return True


def verdict(name: str, first: str, second: str) -> str:
    """``right``, ``wrong`` or ``refused``."""
    model = one_operator(name, first, second)
    try:
        micro = MicroInterpreter(model)
        random = np.random.default_rng(1)
        feeds = [some_values(random, info.shape, info.dtype) for info in micro.inputs]
        found = list(micro.run(feeds).values())
    except HintcError:
        return "refused"
    wanted = _wanted(name, model, feeds)
    near = [_is_near(one, other) for one, other in zip(found, wanted, strict=True)]
    return "right" if all(near) else "wrong"


def _wanted(name: str, model: bytes, feeds: Sequence[Array]) -> Sequence[Array]:
    try:
        return list(Interpreter(model, runtime="litert").run(feeds).values())
    except HintcError:
        return [real_values(model, feeds, _OWN[name])]


def _is_near(found: Array, wanted: Array) -> bool:
    error = np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max(initial=0)
    return found.dtype == wanted.dtype and error <= STEPS.get(str(found.dtype), 0)


def in_children(ask: Callable[..., Any], questions: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """An answer to each question; ``crash`` where it killed the child, which the next follows."""
    at = 0
    while at < len(questions):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            for question in questions[at:]:
                os.write(write, f"{ask(*question)}\n".encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as stream:
            answers = stream.read().splitlines()
        yield from answers
        at += len(answers)
        if os.waitpid(child, 0)[1]:
            yield "crash"
            at += 1


if __name__ == "__main__":
    MicroInterpreter(one_operator("ABS"))  # the package is imported here, not in every child
    names = [
        (name,) for name in builtin_names().values() if not name.startswith(("CUSTOM", "STABLEHLO"))
    ]
    for (operator,), answer in zip(names, in_children(is_registered, names), strict=True):
        if answer != "False":  # a kernel that crashes is there too
            sys.stdout.write(f"{operator}\n")
    asked = list(cells())
    for cell, answer in zip(asked, in_children(verdict, asked), strict=True):
        if answer == "right":
            sys.stdout.write(" ".join(cell).rstrip() + "\n")
        elif answer != "refused":
            sys.stdout.write(f"{' '.join(cell).rstrip()} {answer}\n")
