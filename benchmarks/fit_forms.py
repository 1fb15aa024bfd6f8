"""Fits the prices of `hintc_passes.scans.form_cost` to ``benchmarks/forms.csv``.

Non-negative least squares on relative errors, for float32 and for int8 weights. Prints how far the
estimates are off, and how much slower the form that they choose is than the fastest one measured.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from measure_forms import WORK
from racing import geometric_mean

HERE = Path(__file__).parent
PRICES = HERE.parent / "passes" / "hintc_passes" / "scans" / "form_costs.json"


def terms_of(row: dict[str, str]) -> dict[str, float]:
    """The terms of one measured form."""
    from hintc_passes.scans.form_cost import FormName, Work, terms

    work = Work(*(int(row[name]) for name in WORK))
    form: FormName = row["form"]  # type: ignore[assignment]
    return terms(work, form, int(row["tile"]), int8=row["int8"] == "1")


def fitted(rows: list[dict[str, str]]) -> dict[str, float]:
    """The price of each term, in nanoseconds."""
    from scipy.optimize import nnls  # type: ignore[import-untyped]

    found = [terms_of(row) for row in rows]
    names = list(dict.fromkeys(name for terms in found for name in terms))
    amounts = np.array([[terms.get(name, 0.0) for name in names] for terms in found])
    times = np.array([float(row["nanoseconds"]) for row in rows])
    relative = amounts / times[:, None]
    scale = relative.max(axis=0)
    solution, _ = nnls(relative / scale, np.ones(len(rows)))
    return {
        name: float(f"{price:.3g}") for name, price in zip(names, solution / scale, strict=True)
    }


def account(rows: list[dict[str, str]], prices: dict[str, float]) -> str:
    """How good the estimates are."""
    layers: dict[tuple[str, ...], list[tuple[float, float, str]]] = defaultdict(list)
    for row in rows:
        estimate = sum(prices[name] * amount for name, amount in terms_of(row).items())
        measured = float(row["nanoseconds"])
        layer = (row["kind"], *(row[name] for name in ("units", "steps", "batch")))
        layers[layer].append((estimate, measured, f"{row['form']} {row['tile']}"))
    every = [abs(np.log(e / m)) for layer in layers.values() for e, m, _ in layer]
    lines = [f"estimates are off by a factor of {np.exp(np.median(every)):.2f} in the median"]
    losses = []
    for layer, forms in layers.items():
        _, time, chosen = min(forms)
        fastest, best = min((measured, name) for _, measured, name in forms)
        losses.append(time / fastest)
        lines.append(f"{' '.join(layer):>28}: {chosen:>9} {time / fastest:5.2f} of {best}")
    lines.append(
        f"chosen / fastest: {geometric_mean(losses):.3f} in geometric mean, "
        f"{max(losses):.2f} at worst"
    )
    return "\n".join(lines)


def main() -> None:
    """Fit, write the prices, print the account."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=HERE / "forms.csv")
    parser.add_argument("--out", type=Path, default=PRICES)
    options = parser.parse_args()
    with options.data.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, Any] = {}
    for name, int8 in (("float32", "0"), ("int8", "1")):
        chosen = [row for row in rows if row["int8"] == int8]
        found[name] = fitted(chosen)
        sys.stdout.write(f"== {name}\n{account(chosen, found[name])}\n")
    about = "nanoseconds; written by benchmarks/fit_forms.py from benchmarks/forms.csv"
    options.out.write_text(json.dumps({"about": about, "prices": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
