"""All of the TF1 matrix: prints a table of it and writes it to docs/tf1-matrix.md.

Usage: ``make matrix``. ``tf1_matrix.py --part N`` runs every N-th case and writes nothing. Exit
status 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from case_runner import run_cases
from model_check import Outcome
from tf1_models import CELLS, FUNCTIONS, WRAPPERS, Case, all_cases, check_case

PAGE = Path(__file__).parents[2] / "docs" / "tf1-matrix.md"
PACKAGES = ("tensorflow", "tf_keras", "ai-edge-litert", "numpy")
Found = Mapping[Case, Outcome]
Rows = Iterable[tuple[str, ...]]


def main() -> int:
    """Run it, print what fails, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", type=int, default=1)
    parser.add_argument("--processes", type=int)
    parser.add_argument("--control-flow", type=int, choices=(1, 2))
    options = parser.parse_args()
    console = Console(width=200)
    cases = [c for c in all_cases() if options.control_flow in (None, c.control_flow)]
    found: dict[Case, Outcome] = {}
    for case, outcome in run_cases(cases[:: options.part], check_case, options.processes):
        found[case] = outcome
        if not outcome.good:
            console.print(f"{outcome.status}: {case.name}", markup=False, highlight=False)
            console.print(f"    {outcome.detail}", markup=False, highlight=False)
    table = Table(*HEADER)
    for row in _rows(found):
        table.add_row(*row)
    console.print(table)
    console.print(_sum(found))
    if options.part == 1 and options.control_flow is None:
        PAGE.write_text("\n".join(_page(found)) + "\n")
        console.print(f"written: {PAGE}")
    return int(not all(outcome.good for outcome in found.values()))


HEADER = ("cell", *(f"{function}, cf{cf}" for function in FUNCTIONS for cf in (1, 2)))


def _rows(found: Found) -> Iterator[tuple[str, ...]]:
    for cell in CELLS:
        columns = []
        for function in FUNCTIONS:
            for control_flow in (1, 2):
                counts = Counter(
                    outcome.status
                    for case, outcome in found.items()
                    if (case.cell, case.function, case.control_flow)
                    == (cell, function, control_flow)
                )
                columns.append(", ".join(f"{n} {status}" for status, n in sorted(counts.items())))
        yield (cell, *columns)


def _sum(found: Found) -> str:
    counts = Counter(outcome.status for outcome in found.values())
    return f"{len(found)} cases: " + ", ".join(f"{n} {s}" for s, n in counts.most_common())


def _page(found: Found) -> Iterator[str]:
    yield "# TF1's recurrent functions, all combinations"
    yield ""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    yield f"Written by `make matrix` on {datetime.date.today():%Y-%m-%d} with {versions}."
    yield ""
    yield (
        f"Functions × cells × wrappers ({', '.join(WRAPPERS)}) × control flow 1 and 2 × with and "
        "without sequence lengths × both majors (dynamic functions). Each is frozen, converted, "
        "and compared with TensorFlow at two batch sizes on two invokes each: y and the final "
        "states (with lengths only those that are outputs)."
    )
    yield ""
    yield (
        "*fused*: every recurrence whose maths is a kernel's is that kernel. *refused*: right, but "
        "a loop, with a reason. *noise*: dropout that is active, so the outputs are random. "
        "Anything else is a bug."
    )
    yield ""
    yield f"{_sum(found)}."
    yield ""
    yield f"| {' | '.join(HEADER)} |"
    yield "|" + "---|" * len(HEADER)
    yield from (f"| {' | '.join(row)} |" for row in _rows(found))
    yield ""
    yield "## Why not fused"
    yield ""
    yield from _reasons(found)


def _reasons(found: Found) -> Iterator[str]:
    reasons: dict[tuple[str, ...], list[Case]] = defaultdict(list)
    for case, outcome in found.items():
        if outcome.status == "refused":
            reasons[outcome.codes].append(case)
    yield "| remarks | cases | cells | for instance |"
    yield "|---|---|---|---|"
    for codes, cases in sorted(reasons.items(), key=lambda item: -len(item[1])):
        cells = ", ".join(dict.fromkeys(case.cell for case in cases))
        yield f"| {', '.join(f'`{c}`' for c in codes)} | {len(cases)} | {cells} | {cases[0].name} |"


if __name__ == "__main__":
    sys.exit(main())
