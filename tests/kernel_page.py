"""The page docs/kernels.md. Run it to print the page."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from hintc.ops import BuiltinLowering, FusedOp, Target
from kernel_cases import CASES, DTYPES, INTEGERS, REFUSED, RIGHT, Case

MICRO = "TFLite Micro"


def page() -> str:
    """The text of the page."""
    ops = {case.op.name: case.op for case in CASES}
    right = sum(case.outcome == RIGHT for case in CASES)
    integers = sum(case.outcome == RIGHT and case.dtype == INTEGERS for case in CASES)
    in_micro = sum(case.micro_outcome != REFUSED for case in CASES)
    tables = "\n\n".join(_table(op) for op in ops.values())
    return f"""# Fused kernels

Every use of TensorFlow Lite's recurrent kernels that hintc knows: {len(CASES)} cells of op ×
variant × dtype. Each is a test in TensorFlow's interpreter and in LiteRT's, against a numpy
reference, at two batch sizes on one instance, final states included. {right} cells are right to
2e-6, those with int8 weights too: their reference quantises as the kernel does. {integers} of them
compute in integers, and are right to the bit: `hintc/ops/integer_lstm.py` and `integer_svdf.py` are
what they compute. `make tables` writes this page.

The dtypes are *float32*; *float16*, which is dequantised before the kernel; *int8*, one scale for
each weight, and inputs and states quantised at run time; *int8 asymmetric*, the same with a zero
point for inputs and states (`asymmetric_quantize_inputs`); and *integers*, what `quantize="int8"`
makes: int8 inputs, outputs and weights, int16 cell states (of SVDF: time weights and state). With
the others biases, coefficients of layer normalisation and states are float32.

In the tables *right* is the kernel as it stands, for all dtypes that are not named beside it;
*integers* have a column of their own. *Other major* is the same kernel between transposes. *Int8
weights* instead of integers is the kernel on floats, for it has no integer form, or a wrong one. Of
these and of *float32 weights* the report has a note. *Refused* is an error of `hintc.legalize`;
passes do not make such a kernel, and the layer stays a loop or unrolled; a bidirectional one in
integers becomes two unidirectional kernels.

## What the kernels get wrong

The kernels take these uses without a complaint. Seen on TensorFlow 2.21 and on LiteRT 2.3.

| kernel | variant | what happens | why | what hintc does instead |
|---|---|---|---|---|
{_broken(list(ops.values()), "tflite")}

Beside these the integer LSTM kernels are wrong with some scales, which hintc never gives them: with
one of the cell state below 2⁻¹⁵ or above 2⁻⁹ (portable_tensor_utils.cc, ApplyTanh, knows six bits
before the point), with a zero point of what is projected (lstm_eval.cc subtracts it where it should
add it), and without a scale of the input gate where layer normalisation is combined with coupled
gates (unidirectional_sequence_lstm.cc reads it though there is no such gate, and goes on with
parameters it has not set). A layer whose cell states go beyond 64 in the samples stays in float.

The integer SVDF kernel applies no activation: tf.lite and LiteRT refuse all but relu, which the
limits of int8 do where the zero point is -128, and TFLite Micro takes any and ignores it. hintc
gives it relu only, with such a zero point: relu6 with a scale that ends at 6, none with a bias that
makes all values positive and an `ADD` behind that takes it away, tanh so too, and a `TANH` behind.
Its sums have 32 bits, and overflow on all three runtimes (0 instead of 939 with 300 time weights of
1): a layer whose time weights could do that stays in float.

Refused is also what a kernel does not have: the two directions of a bidirectional one are of one
size, and an auxiliary input is as wide as the input.

## In TFLite Micro

The cells again, with a batch of one size, in the interpreter of the package
tflite-micro 0.dev20261023182759: {in_micro} of them run and are tests there too, the others are
refused before a file is written, for the rules of `hintc/ops`, target tflm. It has kernels of
`UNIDIRECTIONAL_SEQUENCE_LSTM` and `SVDF`; the column *TFLite Micro* of their tables names the
dtypes that run. The others it does not have.

*Right* is to 2e-6 on floats. On integers outputs are within one step of int8 of TFLite's kernel, a
twentieth of a step on average, and cell states within 80 steps of int16: its sigmoid and tanh are
tables (reference/integer_ops/logistic.h and tanh.h), TFLite's are polynomials. SVDF gives the same
bits in both.

What it does not take it says when it prepares (lstm_eval.cc, ValidateTensorStatus, wants the
weights of all four gates, no peepholes, projection or layer normalisation; dequantize_common.cc
knows no float16). These uses it takes without a complaint, or crashes on:

| kernel | variant | what happens | why | what hintc does instead |
|---|---|---|---|---|
{_broken(list(ops.values()), "tflm")}

{tables}
"""


def _broken(ops: list[FusedOp], target: Target) -> str:
    """Rows of what the kernels get wrong on `target`, and not on all."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for op in ops:
        assert isinstance(op.lowering, BuiltinLowering)
        for constraint in (*op.constraints, *op.lowering.integer):
            if constraint.broken and target == constraint.targets[0]:
                fact = constraint.broken
                key = (fact.variant, fact.symptom, fact.cause, fact.instead)
                rows.setdefault(key, []).append(f"`{op.name}`")
    return "\n".join(f"| {', '.join(names)} | {' | '.join(key)} |" for key, names in rows.items())


def _table(op: FusedOp) -> str:
    cases = [case for case in CASES if case.op is op]
    layouts = list(dict.fromkeys(case.variant.layout for case in cases))
    names = list(dict.fromkeys(case.variant.name for case in cases))
    titles = [layout or "a single step" for layout in layouts]
    micro = [case for case in cases if case.micro_outcome != REFUSED]
    rows = [[*titles, INTEGERS, *([MICRO] if micro else [])]]
    for name in names:
        variants = [case for case in cases if case.variant.name == name]
        of_layout = [[c for c in variants if c.variant.layout == layout] for layout in layouts]
        rows.append([*map(_on_floats, of_layout), _on_integers(variants)])
        if micro:
            rows[-1].append(_in_micro(variants))
    head, *body = ("| " + " | ".join(row) + " |" for row in _with_names(rows, names))
    return "\n".join([f"## {op.name}\n", head, f"|---|{'---|' * len(rows[0])}", *body])


def _with_names(rows: list[list[str]], names: list[str]) -> Iterator[list[str]]:
    for name, row in zip(["variant", *names], rows, strict=True):
        yield [name, *row]


def _on_floats(cases: list[Case]) -> str:
    """What becomes of the dtypes of one variant in one layout; empty if there is none."""
    by_outcome: dict[str, list[str]] = {}
    for case in cases:
        if case.dtype != INTEGERS:
            by_outcome.setdefault(case.outcome, []).append(case.dtype)
    return "; ".join(_outcomes(by_outcome, len(DTYPES) - 1))


def _on_integers(cases: list[Case]) -> str:
    """What becomes of one variant in all layouts."""
    by_outcome: dict[str, list[str]] = {}
    for case in cases:
        if case.dtype == INTEGERS:
            by_outcome.setdefault(case.outcome, []).append(case.variant.layout)
    return "; ".join(_outcomes(by_outcome, sum(map(len, by_outcome.values()))))


def _in_micro(cases: list[Case]) -> str:
    """What becomes of one variant in TFLite Micro, the same in all layouts."""
    found = {case.dtype: case.micro_outcome for case in cases if case.micro_outcome != REFUSED}
    by_outcome: dict[str, list[str]] = {}
    for dtype, outcome in found.items():
        by_outcome.setdefault(outcome, []).append(dtype)
    return "; ".join(f"{' and '.join(d)}: {o}" for o, d in by_outcome.items()) or REFUSED


def _outcomes(by_outcome: dict[str, list[str]], count: int) -> Iterator[str]:
    for outcome, names in by_outcome.items():
        if len(names) == count or outcome == RIGHT:
            yield outcome
        else:
            yield f"{' and '.join(names)}: {outcome}"


if __name__ == "__main__":
    sys.stdout.write(page())
