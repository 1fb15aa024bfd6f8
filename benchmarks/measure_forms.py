"""Measures layers in every form and writes ``benchmarks/forms.csv``.

`fit_forms.py` fits the prices of `hintc_passes.scans.form_cost` to that. One thread; a time is the
fastest sample of a race of all forms of a layer.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import measuring  # noqa: F401  (sets TensorFlow's environment)
from form_models import GRID, MOST_UNROLLED, Case, Kind, by_hintc
from hintc_passes.scans.form_cost import PRECISIONS
from racing import race

HERE = Path(__file__).parent
BEYOND = ((32, 16, 50, 1), (96, 40, 16, 1), (64, 64, 64, 4))
"""Points that the benchmark's grid does not have."""
LAYERS: tuple[Kind, ...] = ("one layer", "bidirectional", "GRU")
WORK = ("steps", "batch", "operations", "elements", "weights", "inputs", "outputs", "recurrences")
COLUMNS = ("kind", "units", "precision", *WORK, "form", "tile", "nanoseconds")
TILES = (1, 2, 4, 5, 8, 10)
ROUNDS = 15


def work_in(model: Any) -> dict[str, int]:
    """What `form_cost` counts in a model of one recurrence, or of several alike."""
    import hintc
    from hintc.instrument import Instrument
    from hintc.ir import SCAN
    from hintc_passes.scans.form_cost import work_of

    found: list[dict[str, int]] = []

    class Watch(Instrument):
        def before_pass(self, step: Any, module: Any) -> None:
            if step.name == "choose-form":
                scans = [n for n in module.graph if n.op == SCAN]
                works = {work_of(module, n)[0] for n in scans}
                found.extend(asdict(work) | {"recurrences": len(scans)} for work in works)

    hintc.compile(model, instruments=[Watch()])
    (only,) = found
    return {name: only[name] for name in WORK}


def forms_of(case: Case) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Name, steps of one iteration and options of all forms."""
    if case.kind != "GRU":
        yield "fused", 1, {"form": "fused"}
    if case.steps <= MOST_UNROLLED:
        yield "unroll", 1, {"form": "unroll", "optimize_for": "latency"}
    import hintc

    for tile in TILES:
        if case.steps % tile == 0:
            loop = hintc.PassPipeline.DEFAULT.set_options("choose-form", steps=tile)
            options = {"form": "while", "optimize_for": "latency"}
            yield "while", tile, {"pipeline": loop, **options}


def rows_of(case: Case) -> Iterator[dict[str, Any]]:
    """The rows of one layer and precision."""
    import keras

    model = case.model(keras)
    forms = {(form, tile): options for form, tile, options in forms_of(case)}
    models = {
        f"{form} {tile}": by_hintc(case, model, **options).tflite
        for (form, tile), options in forms.items()
    }
    found = race(models, case.feed(), threads=1, rounds=ROUNDS)
    work = work_in(model)
    for form, tile in forms:
        yield {
            "kind": case.kind,
            "units": case.units,
            "precision": case.precision,
            **work,
            "form": form,
            "tile": tile,
            "nanoseconds": round(found.best(f"{form} {tile}") * 1e9),
        }


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "forms.csv")
    parser.add_argument("--points", type=int, default=None, help="only so many, to try it out")
    options = parser.parse_args()
    cases = (
        Case(kind, *point, precision)
        for point in (*GRID, *BEYOND)[: options.points]
        for kind in LAYERS
        for precision in PRECISIONS
    )
    layers = [case for case in cases if case.is_measured]
    with options.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for layer in layers:
            writer.writerows(rows_of(layer))
            file.flush()
            sys.stdout.write(f"{layer}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
