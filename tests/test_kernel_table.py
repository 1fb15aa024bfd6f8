"""The table of fused kernels on floats, on both runtimes, against the numpy references."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kernel_page
from custom_model import custom_model
from hintc.errors import HintcError
from hintc.ops import (
    BIDIRECTIONAL_SEQUENCE_LSTM,
    BIDIRECTIONAL_SEQUENCE_RNN,
    LSTM,
    RNN,
    SVDF,
    BuiltinLowering,
    FusedOp,
)
from hintc.runtime.interpreter import Interpreter, RuntimeName
from hintc.tflite.flatbuffer import Model
from hintc.tflite.legalize import legalize_model
from kernel_cases import BATCH, CASES, FLOAT, INTEGERS, OTHER_MAJOR, REFUSED, RIGHT, SIZES, Case

PAGE = Path(__file__).parent.parent / "docs" / "kernels.md"
TOLERANCE = 2e-6
"""For every dtype: the references quantise as the kernels do."""

VERSIONS = {
    "BIDIRECTIONAL_SEQUENCE_LSTM": (2, 2, 3),
    "BIDIRECTIONAL_SEQUENCE_RNN": (1, 2, 3),
    "LSTM": (1, 3, 4),
    "RNN": (1, 2, 3),
    "SVDF": (1, 2, 4),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (1, 2, 3),
    "UNIDIRECTIONAL_SEQUENCE_RNN": (1, 2, 3),
}
"""With float weights, int8 ones, asymmetric inputs, from tools/versioning/op_version.cc. The first
kernel knows time_major from 2 on."""

FLOAT_CASES = [case for case in CASES if case.dtype != INTEGERS]
RIGHT_CASES = [case for case in FLOAT_CASES if case.outcome == RIGHT]
BROKEN_CASES = [case for case in FLOAT_CASES if case.outcome not in (RIGHT, REFUSED)]
REFUSED_CASES = [case for case in FLOAT_CASES if case.outcome == REFUSED]


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
    assert kernel.version == VERSIONS[case.op.name][kernel.int8 + kernel.asymmetric]
    assert not legalized.notes
    check(case, legalized.tflite)


@pytest.mark.parametrize("case", BROKEN_CASES, ids=lambda case: case.name)
def test_wrong_kernel_is_not_emitted(case: Case) -> None:
    legalized = legalize_model(case.model(), quantize=case.quantize)
    kernel = Emitted.read(case, legalized.tflite)
    assert (kernel.time_major != case.time_major) == (OTHER_MAJOR in case.outcome)
    assert kernel.int8 == (case.quantize == "dynamic" and FLOAT not in case.outcome)
    texts = " ".join(note.text for note in legalized.notes)
    assert ("other major" in texts) == (OTHER_MAJOR in case.outcome)
    assert ("stay float32" in texts) == (FLOAT in case.outcome)
    check(case, legalized.tflite)


@pytest.mark.parametrize("case", REFUSED_CASES, ids=lambda case: case.name)
def test_wrong_kernel_is_refused(case: Case) -> None:
    with pytest.raises(HintcError, match=f"{case.op.name}: it cannot run") as caught:
        legalize_model(case.model(), quantize=case.quantize)
    assert "without an activation" in str(caught.value)


def test_the_declarations_say_what_is_broken() -> None:
    """A cell is broken exactly if a declaration says so, and each of its sayings has a cell."""
    said, seen = set(), set()
    for case in FLOAT_CASES:
        broken = {c.broken.variant for c in case.op.violated(case.use) if c.broken}
        assert bool(broken) == (case.outcome != RIGHT), case.name
        seen |= {(case.op.name, variant) for variant in broken}
        said |= {
            (case.op.name, c.broken.variant)
            for c in case.op.constraints
            if c.broken and "tflite" in c.targets
        }
    assert said == seen


STREAMED = [
    case
    for case in RIGHT_CASES
    if case.op in (LSTM, RNN, SVDF) and case.quantize is None
    if case.variant.name in ("plain", "layer normalisation", "tanh", "rank 2")
    if case.variant.layout != "dynamic batch"
]


@pytest.mark.parametrize("case", STREAMED, ids=lambda case: case.name)
@pytest.mark.parametrize("runtime", ["litert", "tensorflow"])
def test_a_step_goes_on_from_the_last(case: Case, runtime: RuntimeName) -> None:
    """Streaming: with state="persist" invokes are the steps of a sequence."""
    case = replace(case, variant=case.variant.laid_out("", "fixed batch"))
    tflite = legalize_model(case.model(), quantize=case.quantize, state="persist").tflite
    assert not {"FILL", "RESHAPE"} & op_counts_before_the_kernel(case, tflite)
    interpreter = Interpreter(tflite, runtime=runtime)
    assert isinstance(case.op.lowering, BuiltinLowering)
    states: dict[str, Any] = {}
    for _ in range(3):
        expected = case.reference({**case.operands, **states})
        found = interpreter.run(case.feeds(BATCH))
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5, err_msg=name)
        states = {state.slot: expected[state.result] for state in case.op.lowering.states}


def op_counts_before_the_kernel(case: Case, tflite: bytes) -> set[str]:
    """Names of the operators that run before the kernel."""
    model = Model.read(tflite)
    names = [model.op_name(op) for _, op in model.operators()]
    return set(names[: names.index(case.op.name)])


@pytest.mark.parametrize("op", [BIDIRECTIONAL_SEQUENCE_LSTM, BIDIRECTIONAL_SEQUENCE_RNN])
def test_an_auxiliary_input_of_another_width_is_refused(op: FusedOp) -> None:
    case = next(c for c in RIGHT_CASES if c.op is op and "auxiliary" in c.variant.features)
    wide = np.zeros((*case.operands["auxiliary_input"].shape[:2], SIZES["n_in"] + 1), np.float32)
    model = custom_model(
        op,
        {**case.operands, "auxiliary_input": wide},
        case.fed,
        {name: value.shape for name, value in case.expected(BATCH).items()},
        case.attributes,
        {},
    )
    with pytest.raises(HintcError, match="'auxiliary_input' has shape"):
        legalize_model(model)


def test_page_is_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == kernel_page.page(), "run make tables"
