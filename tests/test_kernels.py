"""The table of fused kernels, on both runtimes, against the numpy references."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from hintc.errors import HintcError
from hintc.ops import BuiltinLowering
from hintc.runtime.interpreter import Interpreter, RuntimeName
from hintc.tflite.flatbuffer import Model
from hintc.tflite.legalize import legalize_model
from kernel_cases import CASES, FLOAT, OTHER_MAJOR, REFUSED, RIGHT, Case

TOLERANCE = 2e-6
"""For every dtype: the references quantise as the kernels do."""

RIGHT_CASES = [case for case in CASES if case.outcome == RIGHT]
BROKEN_CASES = [case for case in CASES if case.outcome not in (RIGHT, REFUSED)]
REFUSED_CASES = [case for case in CASES if case.outcome == REFUSED]


@dataclass(frozen=True)
class Emitted:
    """The kernel in a model: what the table's outcomes speak of."""

    time_major: bool
    int8: bool
    asymmetric: bool
    version: int

    @classmethod
    def read(cls, case: Case, tflite: bytes) -> Emitted:
        """The one operator of the case's op."""
        model = Model.read(tflite)
        ((graph, op),) = [
            (g, op) for g, op in model.operators() if model.op_name(op) == case.op.name
        ]
        assert isinstance(case.op.lowering, BuiltinLowering)
        kinds = {graph.dtype(op.inputs[case.op.slot_names.index(s)]) for s in weights(case)}
        (kind,) = kinds
        options = op.builtinOptions
        return cls(
            bool(getattr(options, "timeMajor", False)),
            kind == np.int8,
            options.asymmetricQuantizeInputs,
            model.root.operatorCodes[op.opcodeIndex].version,
        )


def weights(case: Case) -> list[str]:
    return [s.name for s in case.op.operands if s.kind == "weight" and s.name in case.operands]


def check(case: Case, tflite: bytes) -> None:
    """Each result of each invoke, on both runtimes, equals the reference."""
    expected = {batch: case.expected(batch) for batch in set(case.batches)}
    runtimes: tuple[RuntimeName, ...] = ("litert", "tensorflow")
    for runtime in runtimes:
        interpreter = Interpreter(tflite, runtime=runtime)
        for batch in case.batches:
            found = interpreter.run(case.feeds(batch))
            assert set(found) == set(expected[batch])
            for name, value in expected[batch].items():
                np.testing.assert_allclose(found[name], value, rtol=0, atol=TOLERANCE, err_msg=name)


def test_size_of_the_table() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert len(RIGHT_CASES) >= 240
    assert {case.op.name for case in RIGHT_CASES} == {case.op.name for case in CASES}


@pytest.mark.parametrize("case", RIGHT_CASES, ids=lambda case: case.name)
def test_right_kernel(case: Case) -> None:
    legalized = legalize_model(case.model(), quantize=case.quantize)
    kernel = Emitted.read(case, legalized.tflite)
    assert kernel.time_major == case.time_major
    assert kernel.int8 == (case.quantize == "dynamic")
    assert kernel.asymmetric == ("asymmetric" in case.dtype)
    assert not legalized.notes
    check(case, legalized.tflite)


@pytest.mark.parametrize("case", BROKEN_CASES, ids=lambda case: case.name)
def test_wrong_kernel_is_not_emitted(case: Case) -> None:
    legalized = legalize_model(case.model(), quantize=case.quantize)
    kernel = Emitted.read(case, legalized.tflite)
    assert (kernel.time_major != case.time_major) == (OTHER_MAJOR in case.outcome)
    assert kernel.int8 == (case.quantize == "dynamic" and FLOAT not in case.outcome)
    assert bool(legalized.notes) == (FLOAT in case.outcome)
    check(case, legalized.tflite)


@pytest.mark.parametrize("case", REFUSED_CASES, ids=lambda case: case.name)
def test_wrong_kernel_is_refused(case: Case) -> None:
    with pytest.raises(HintcError, match=f"{case.op.name}: it cannot run") as caught:
        legalize_model(case.model(), quantize=case.quantize)
    assert "without an activation" in str(caught.value)


def test_the_declarations_say_what_is_broken() -> None:
    """A cell is broken exactly if a declaration says so, and each of its sayings has a cell."""
    said, seen = set(), set()
    for case in CASES:
        broken = {c.broken.variant for c in case.op.violated(case.use) if c.broken}
        assert bool(broken) == (case.outcome != RIGHT), case.name
        seen |= {(case.op.name, variant) for variant in broken}
        said |= {(case.op.name, c.broken.variant) for c in case.op.constraints if c.broken}
    assert said == seen
