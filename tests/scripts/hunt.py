"""Random recurrent models through hintc: what is wrong, what is not fused, and how to rerun it.

Usage: ``make hunt N=500 SEED=0``, or ``hunt.py --number 500 --seed 0``. Exit status 1 if anything
is wrong, or less than 95 % of what is exactly a kernel's maths is fused. With ``--options K`` each
model is converted with K of the choices of `option_check` instead, quantised ones among them.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from case_runner import run_cases
from model_check import Outcome
from option_check import CHOICES, check_option, chosen
from recurrent_models import FRONTS, check_seed, recipe

STATUSES = ("fused", "refused", "wrong", "failed", "silent", "illegal", "too much")
WANTED = 0.95


def main() -> int:
    """Run them, print as they fail, and a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int)
    parser.add_argument("--refused", action="store_true", help="list refusals of exact maths too")
    parser.add_argument("--control-flow", type=int, choices=(1, 2), help="only this version")
    parser.add_argument("--options", type=int, default=0, help="conversions of each model")
    parser.add_argument("--only", choices=CHOICES, help="with these options alone")
    options = parser.parse_args()
    console = Console(width=200)
    seeds = [
        seed
        for seed in range(options.seed, options.seed + options.number)
        if options.control_flow in (None, recipe(seed).control_flow) or recipe(seed).keras
    ]
    if options.options or options.only:
        return _with_options(options, seeds, console)
    found: dict[int, Outcome] = {}
    for seed, outcome in run_cases(seeds, check_seed, options.processes):
        found[seed] = outcome
        missed = outcome.status == "refused" and outcome.kernels < recipe(seed).kernels
        if not outcome.good or options.number == 1 or (missed and options.refused):
            console.print(f"{outcome.status}: {recipe(seed)}", markup=False, highlight=False)
            console.print(f"    {outcome.detail}", markup=False, highlight=False)
            console.print(f"    make hunt N=1 SEED={seed}", markup=False, highlight=False)
    console.print(_table(found))
    fusible = [seed for seed in found if recipe(seed).kernels]
    fused = [seed for seed in fusible if found[seed].status == "fused"]
    share = len(fused) / len(fusible) if fusible else 1.0
    console.print(f"fused: {len(fused)} of {len(fusible)} that a kernel can compute ({share:.1%})")
    return int(share < WANTED or not all(outcome.good for outcome in found.values()))


def _with_options(options: argparse.Namespace, seeds: list[int], console: Console) -> int:
    """The same models with other options; see `option_check`."""
    cases = [(seed, name) for seed in seeds for name in chosen(seed, options.options, options.only)]
    found: dict[tuple[int, str], Outcome] = {}
    for (seed, name), outcome in run_cases(cases, check_option, options.processes):
        found[seed, name] = outcome
        if not outcome.good or (outcome.status == "refused" and options.refused):
            console.print(f"{outcome.status}: {recipe(seed)}", markup=False, highlight=False)
            console.print(f"    {name}: {outcome.detail}", markup=False, highlight=False)
            again = f"    make hunt N=1 SEED={seed} ARGS='--only \"{name}\"'"
            console.print(again, markup=False, highlight=False)
    table = Table("options", "right", "refused", "wrong", "failed", "largest error")
    for name in CHOICES:
        mine = [outcome for (_, other), outcome in found.items() if other == name]
        counts = Counter(outcome.status for outcome in mine)
        numbers = [str(counts[status] or "") for status in ("right", "refused", "wrong", "failed")]
        largest = max((o.error for o in mine if o.status == "right"), default=0.0)
        table.add_row(name, *numbers, f"{largest:.2g}")
    console.print(table)
    return int(not all(outcome.good for outcome in found.values()))


def _table(found: dict[int, Outcome]) -> Table:
    table = Table("front end", *STATUSES)
    for front in FRONTS:
        counts = Counter(o.status for seed, o in found.items() if recipe(seed).front == front)
        table.add_row(front, *(str(counts[status] or "") for status in STATUSES))
    total = Counter(outcome.status for outcome in found.values())
    table.add_row("all", *(str(total[status] or "") for status in STATUSES))
    return table


if __name__ == "__main__":
    sys.exit(main())
