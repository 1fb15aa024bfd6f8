"""Random graphs of built-in and custom operators: what kernels compute equals numpy alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import custom_ops
from custom_ops import Op
from hintc.runtime.interpreter import Interpreter, installed

WIDTH = 3
KERNELS: dict[str, Callable[..., Any]] = {
    "half": lambda x: x / 2,
    "mix": lambda x, y: x - 2 * y,
    "split": lambda x: (x + 1, -x),
    "same": lambda x: x,
    "swapped": lambda x, y: [y, x],
}
BUILT_IN: dict[str, Callable[..., Any]] = {
    "NEG": np.negative,
    "ABS": np.abs,
    "MAXIMUM": np.maximum,
    "FLOOR": np.floor,
}
OPERANDS = {"mix": 2, "swapped": 2, "MAXIMUM": 2}
RESULTS = {"split": 2, "swapped": 2}


@dataclass(frozen=True)
class Case:
    """A model and how to compute its outputs."""

    model: bytes
    ops: list[Op]
    outputs: list[str]

    def wanted(self, x: Any) -> list[Any]:
        values = {"x": x}
        for op in self.ops:
            function = KERNELS.get(op.code) or BUILT_IN[op.code]
            found = function(*(values[name] for name in op.operands if name is not None))
            results = found if isinstance(found, tuple | list) else [found]
            values.update(zip(op.results, results, strict=True))
        return [values[name] for name in self.outputs]


def random_case(seed: int, batch: int | None) -> Case:
    """A graph of 12 operators, mostly custom ones; what nobody reads and some more are outputs."""
    random = np.random.default_rng(seed)
    codes = [*KERNELS, *KERNELS, *BUILT_IN]
    names, ops = ["x"], []
    for number in range(12):
        code = codes[random.integers(len(codes))]
        operands = [names[k] for k in random.integers(len(names), size=OPERANDS.get(code, 1))]
        results = [f"t{number}_{k}" for k in range(RESULTS.get(code, 1))]
        ops.append(Op(code, operands, results))
        names += results
    read = {name for op in ops for name in op.operands}
    outputs = [n for n in names[1:] if n not in read or random.random() < 0.2]
    shape = (np.float32, (-1 if batch is None else batch, WIDTH))
    model = custom_ops.model(dict.fromkeys(names, shape), ops, ["x"], outputs)
    return Case(model.write(), ops, outputs)


@pytest.mark.parametrize("batch", [None, 2], ids=["dynamic", "fixed"])
@pytest.mark.parametrize("delegates", [True, False], ids=["xnnpack", "plain"])
def test_random_graphs(batch: int | None, delegates: bool) -> None:
    for seed in range(30):
        case = random_case(seed, batch)
        runtime = installed()[seed % len(installed())]
        instance = Interpreter(case.model, runtime=runtime, delegates=delegates, kernels=KERNELS)
        for number, size in enumerate((1, 4, 4, 2) if batch is None else (batch,) * 3):
            x = np.random.default_rng(number).standard_normal((size, WIDTH)).astype(np.float32)
            found = instance.run([x])
            assert list(found) == case.outputs
            for value, wanted in zip(found.values(), case.wanted(x), strict=True):
                np.testing.assert_array_equal(value, wanted, err_msg=f"seed {seed}")
