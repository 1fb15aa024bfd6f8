"""TFLite Micro's operators: the table is what the interpreter says, and the check is the table."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hintc.errors import HintcError
from hintc.tflite.flatbuffer import Model
from hintc.tflite.micro import check_micro
from hintc.tflite.micro_operators import MOVES, OPERATORS, TAKES, UNKNOWN, UNSCALED
from hintc.tflite.schema import schema
from micro_recipes import PLAIN, RECIPES, one_operator
from scripts.micro_operators import cells

SCRIPT = Path(__file__).parent / "scripts" / "micro_operators.py"
WRONG = {
    "ADD_N int8",
    "CUMSUM int8",
    "GREATER int16",
    "SPACE_TO_BATCH_ND int8",
    "ZEROS_LIKE int8",
}
"""What runs and is wrong, of values that have a scale."""


def legal() -> Iterator[str]:
    """The table, a cell each, as the script writes them."""
    for name, takes in TAKES.items():
        for first, seconds in takes.firsts.items():
            plain = [PLAIN + first] if name in MOVES and first in UNSCALED else []
            for dtype in (first, *plain):
                yield from (f"{name} {dtype} {second}".rstrip() for second in seconds)


LEGAL = frozenset(legal())


def test_the_interpreter_says_the_same() -> None:
    path = os.pathsep.join((str(SCRIPT.parent.parent), os.environ.get("PYTHONPATH", "")))
    run = subprocess.run(
        [sys.executable, SCRIPT],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    lines = set(run.stdout.splitlines())
    assert {line for line in lines if " " not in line} == OPERATORS
    answers = {line for line in lines if " " in line}
    wrong = {line for line in answers if line.endswith(("wrong", "crash"))}
    assert {line for line in wrong if PLAIN not in line} == {f"{cell} wrong" for cell in WRONG}
    # of integers without a scale the table has those that are moved only
    arithmetic = {line for line in answers if PLAIN in line and line.split()[0] not in MOVES}
    assert answers - wrong - arithmetic == LEGAL


def test_every_operator_is_asked_or_says_why_not() -> None:
    assert TAKES.keys() == RECIPES.keys()
    assert not TAKES.keys() & UNKNOWN.keys()
    assert TAKES.keys() | UNKNOWN.keys() == OPERATORS
    assert TAKES.keys() >= MOVES


def test_the_check_is_the_table() -> None:
    refused = set()
    for name, first, second in cells():
        try:
            check_micro(Model.read(one_operator(name, first, second)))
        except HintcError as error:
            assert f"TFLite Micro's {name} takes no {first.removeprefix(PLAIN)}" in str(error)
            refused.add(f"{name} {first} {second}".rstrip())
    assert {" ".join(cell).rstrip() for cell in cells()} - refused == LEGAL
    assert len(refused) > len(LEGAL)


@pytest.mark.parametrize("name", ["CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"])
def test_int8_weights_of_float_values(name: str) -> None:
    model = Model.read(one_operator(name))
    (graph,) = model.subgraphs
    graph.tensor(graph.operators[0].inputs[1]).type = schema().TensorType.INT8
    with pytest.raises(HintcError, match="in float with int8 weights"):
        check_micro(model)


@pytest.mark.parametrize("name", ["SVDF", "UNIDIRECTIONAL_SEQUENCE_LSTM"])
def test_kernels_of_another_form(name: str) -> None:
    """Older models have fewer operands, which the kernels refuse."""
    with pytest.raises(HintcError, match=f"{name}: it lacks operands or options"):
        check_micro(Model.read(one_operator(name)))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (("TILE",), "TFLite Micro has no kernel for 'TILE'.*target='tflite'"),
        (("REDUCE_MAX", "int32"), "REDUCE_MAX takes no int32 .it takes float32, int8.. Cast to"),
        (
            ("EXP", "int8"),
            "EXP takes no int8 .it takes float32.. Cast to what it takes, or convert for target",
        ),
        (("CAST", "float32", "int64"), "CAST takes no float32 to int64 .it takes float32 to bool"),
        (("GATHER", "int8", "int64"), "GATHER takes no int8 with int64 .it takes float32 with int"),
        (("ADD", f"{PLAIN}int16"), "ADD takes no int16 without a scale"),
        (("SUM", "int64"), "node 'T_2': TFLite Micro's SUM"),
    ],
)
def test_what_is_said(cell: tuple[str, ...], message: str) -> None:
    with pytest.raises(HintcError, match=message):
        check_micro(Model.read(one_operator(*cell)))
