"""Every form of recurrent models against each other and the stock converter; the page of it.

Writes docs/benchmarks.md: latency on one thread and on all, sizes, and times of conversion, for the
grid of `form_models`. ``--quick`` measures three points and prints instead.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import measuring  # noqa: F401  (sets TensorFlow's environment)
from form_models import GRID, KINDS, Case, Made, by_hintc, by_stock, by_tf_keras
from forms_page import Measured, page
from hintc_passes.scans.form_cost import PRECISIONS
from racing import race

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
QUICK = (GRID[0], GRID[2], GRID[5])
ROUNDS = 15


def made_of(case: Case) -> dict[str, Made]:
    """The model in every way there is, by name."""
    import keras

    model = case.model(keras)
    found = {name: by_hintc(case, model, **options) for name, options in case.forms().items()}
    if case.precision != "integers":
        found["stock"] = by_stock(case, model)
        if case.kind != "GRU":  # it fuses LSTMs only
            found["tf_keras"] = by_tf_keras(case)
    return found


def measured(case: Case) -> Measured:
    """Sizes, conversions and races of one model."""
    made = made_of(case)
    models = {name: one.tflite for name, one in made.items()}
    races = {
        threads: race(models, case.feed(), threads=threads, rounds=ROUNDS)
        for threads in (1, os.cpu_count() or 1)
    }
    return Measured(case, made, races)


def run(points: Sequence[tuple[int, int, int, int]]) -> list[Measured]:
    """All kinds and precisions at these points; the first conversion is not measured."""
    import keras

    first = Case("one layer", 4, 4, 3, 1, "float32")
    by_hintc(first, first.model(keras))
    by_stock(first, first.model(keras))
    found = []
    for kind, point, precision in itertools.product(KINDS, points, PRECISIONS):
        case = Case(kind, *point, precision)
        if not case.is_measured:
            continue
        found.append(measured(case))
        sys.stdout.write(f"{found[-1].line()}\n")
        sys.stdout.flush()
    return found


def main() -> None:
    """Measure, then write the page or, with --quick, print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three points; print the page")
    options = parser.parse_args()
    text = page(run(QUICK if options.quick else GRID), ROUNDS)
    if options.quick:
        sys.stdout.write(text)
    else:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
