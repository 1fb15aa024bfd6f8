"""Fits the prices of `hintc_passes.scans.form_cost` to ``benchmarks/forms.csv``.

Non-negative least squares on relative errors, for each precision. Prints how far the
estimates are off, and how much slower the form that they choose is than the fastest one measured.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import defaultdict
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from racing import geometric_mean

HERE = Path(__file__).parent
DATA = HERE / "forms.csv"
PRICES = HERE.parent / "passes" / "hintc_passes" / "scans" / "form_costs.json"


def terms_of(row: dict[str, str]) -> dict[str, float]:
    """The terms of one measured form: of all recurrences of its model, which are alike."""
    from hintc_passes.scans.form_cost import FormName, Precision, Work, terms

    work = Work(*(int(row[field.name]) for field in fields(Work)))
    form: FormName = row["form"]  # type: ignore[assignment]
    precision: Precision = row["precision"]  # type: ignore[assignment]
    one = terms(work, form, precision, int(row["tile"]))
    return {name: amount * work.recurrences for name, amount in one.items()}


def measured() -> dict[str, list[dict[str, str]]]:
    """The rows of ``forms.csv``, by precision."""
    with DATA.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        precision: [row for row in rows if row["precision"] == precision]
        for precision in dict.fromkeys(row["precision"] for row in rows)
    }


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


def chosen_and_fastest(
    rows: list[dict[str, str]], prices: dict[str, float]
) -> dict[str, tuple[str, str, float]]:
    """For each layer the form with the lowest estimate, the fastest one, and how much slower."""
    layers: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for row in rows:
        estimate = sum(prices[name] * amount for name, amount in terms_of(row).items())
        layer = " ".join(row[name] for name in ("kind", "units", "steps", "batch"))
        form = f"{row['form']} {row['tile']}"
        layers[layer].append((estimate, float(row["nanoseconds"]), form))
    found = {}
    for layer, forms in layers.items():
        _, time, chosen = min(forms)
        fastest, best = min((measured, name) for _, measured, name in forms)
        found[layer] = (chosen, best, time / fastest)
    return found


def account(rows: list[dict[str, str]], prices: dict[str, float]) -> str:
    """How good the estimates and the choices are."""
    times = [float(row["nanoseconds"]) for row in rows]
    estimates = [
        sum(prices[name] * amount for name, amount in terms_of(row).items()) for row in rows
    ]
    off = np.exp(np.median(np.abs(np.log(np.array(estimates) / times))))
    found = chosen_and_fastest(rows, prices)
    losses = [loss for _, _, loss in found.values()]
    return "\n".join(
        [
            f"estimates are off by a factor of {off:.2f} in the median",
            *(f"{layer:>28}: {c:>9} {loss:5.2f} of {b}" for layer, (c, b, loss) in found.items()),
            f"chosen / fastest: {geometric_mean(losses):.3f} in geometric mean, "
            f"{max(losses):.2f} at worst",
        ]
    )


def main() -> None:
    """Fit, write the prices, print the account."""
    found: dict[str, Any] = {}
    for name, rows in measured().items():
        found[name] = fitted(rows)
        sys.stdout.write(f"== {name}\n{account(rows, found[name])}\n")
    about = "nanoseconds; written by benchmarks/fit_forms.py from benchmarks/forms.csv"
    text = json.dumps({"about": about, "prices": found}, indent=1)
    PRICES.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
