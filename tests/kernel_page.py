"""The page docs/kernels.md. Run it to print the page."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from hintc.ops import FusedOp
from kernel_cases import CASES, DTYPES, RIGHT, Case


def page() -> str:
    """The text of the page."""
    ops = {case.op.name: case.op for case in CASES}
    right = sum(case.outcome == RIGHT for case in CASES)
    tables = "\n\n".join(_table(op) for op in ops.values())
    return f"""# Fused kernels

Every use of TensorFlow Lite's recurrent kernels that hintc knows: {len(CASES)} cells of op ×
variant × dtype of the weights. Each is a test in TensorFlow's interpreter and in LiteRT's, against
a numpy reference, at two batch sizes on one instance, final states included. {right} cells are
right to 2e-6, those with int8 weights too: their reference quantises as the kernel does.
`make tables` writes this page.

The dtypes are *float32*; *float16*, which is dequantised before the kernel; *int8*, one scale for
each weight, and inputs and states quantised at run time; *int8 asymmetric*, the same with a zero
point for inputs and states (`asymmetric_quantize_inputs`). Biases, coefficients of layer
normalisation and states are float32.

In the tables *right* is the kernel as it stands, for all dtypes that are not named beside it.
*Other major* is the same kernel between transposes; of that and of *float32 weights* the report has
a note. *Refused* is an error of `hintc.legalize`; passes do not make such a kernel, and the layer
stays a loop or unrolled.

## What the kernels get wrong

The kernels take these uses without a complaint. Seen on TensorFlow 2.21 and on LiteRT 2.3.

| kernel | variant | what happens | why | what hintc does instead |
|---|---|---|---|---|
{_broken(list(ops.values()))}

Refused is also what a kernel does not have: the two directions of a bidirectional one are of one
size, and an auxiliary input is as wide as the input.

{tables}
"""


def _broken(ops: list[FusedOp]) -> str:
    rows: dict[tuple[str, ...], list[str]] = {}
    for op in ops:
        for constraint in op.constraints:
            if constraint.broken:
                fact = constraint.broken
                key = (fact.variant, fact.symptom, fact.cause, fact.instead)
                rows.setdefault(key, []).append(f"`{op.name}`")
    return "\n".join(f"| {', '.join(names)} | {' | '.join(key)} |" for key, names in rows.items())


def _table(op: FusedOp) -> str:
    cases = [case for case in CASES if case.op is op]
    layouts = list(dict.fromkeys(case.variant.layout for case in cases))
    variants = list(dict.fromkeys(case.variant.name for case in cases))
    titles = " | ".join(layout or "a single step" for layout in layouts)
    rows = [
        f"| {variant} | "
        + " | ".join(_cell([c for c in cases if _is_at(c, variant, layout)]) for layout in layouts)
        + " |"
        for variant in variants
    ]
    head = f"| variant | {titles} |\n|---|{'---|' * len(layouts)}"
    return f"## {op.name}\n\n{head}\n" + "\n".join(rows)


def _is_at(case: Case, variant: str, layout: str) -> bool:
    return (case.variant.name, case.variant.layout) == (variant, layout)


def _cell(cases: list[Case]) -> str:
    """What becomes of the dtypes of one variant; empty if there is no such variant."""
    by_outcome: dict[str, list[str]] = {}
    for case in cases:
        by_outcome.setdefault(case.outcome, []).append(case.dtype)
    return "; ".join(_outcomes(by_outcome))


def _outcomes(by_outcome: dict[str, list[str]]) -> Iterator[str]:
    for outcome, dtypes in by_outcome.items():
        if len(dtypes) == len(DTYPES) or outcome == RIGHT:
            yield outcome
        else:
            yield f"{' and '.join(dtypes)}: {outcome}"


if __name__ == "__main__":
    sys.stdout.write(page())
