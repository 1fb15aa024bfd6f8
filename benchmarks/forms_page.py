"""docs/benchmarks.md: what `bench_forms` measured, as tables."""

from __future__ import annotations

import datetime
import itertools
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from form_models import KINDS, Case, Made
from hintc_passes.scans.form_cost import PRECISIONS
from racing import Race, geometric_mean

PACKAGES = ("tensorflow", "keras", "tf_keras", "ai-edge-litert", "numpy")
OTHERS = ("size", "while", "unroll", "stock", "tf_keras")
FORCED = ("size", "while", "unroll")
"""Forms beside which the choice is put; "size" is the fused kernel where there is one."""
HEAD = """\
# Benchmarks

Written by `python benchmarks/bench_forms.py`, part of `make bench`, on {date}: {machine},
{cores} cores; Python {python}, {packages}.

Each model is built by Keras 3 with a fixed batch and gives whole sequences. All its .tflite files
run in one process, in turn, {rounds} rounds, each with new interpreters; a sample is as many runs
as fill 4 ms, on one thread of the CPU's time, on all threads of the clock's. {points} points of
(units, inputs, steps, batch).
A number is the median over the rounds of the ratio to `optimize_for="latency"` in the same round:
2.00 is twice as slow. In brackets: the 95 % interval of that median, by bootstrap. `size` is
hintc's default (the fused kernel, for a GRU a loop), `while` and `unroll` are those forms by force,
`stock` is TensorFlow's converter alone, `tf_keras` its own fusion of tf_keras models, which never
resets the states. `integers` are `quantize="int8"`, for models of one recurrence. How a form is
chosen: [decision 13](decisions/0013-form-by-cost.md); its estimates are of one thread.
"""


@dataclass(frozen=True)
class Measured:
    """One model of the grid.

    Attributes:
        case: which one.
        made: its files, by how they were made.
        races: by number of threads.
    """

    case: Case
    made: Mapping[str, Made]
    races: Mapping[int, Race]

    def ratio(self, name: str, base: str = "latency", threads: int = 1) -> float:
        """The time of `name` in units of `base`."""
        return self.races[threads].ratio(name, base).median

    def line(self) -> str:
        """For the terminal."""
        ratios = " ".join(f"{n} {self.ratio(n):.2f}" for n in self.made if n != "latency")
        return f"{self.case}: {self.made['latency'].forms}; {ratios}"


def page(all_measured: Sequence[Measured], rounds: int) -> str:
    """The whole page."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    threads = sorted(all_measured[0].races)
    parts = [
        HEAD.format(
            date=datetime.date.today().isoformat(),
            machine=_machine(),
            cores=threads[-1],
            python=platform.python_version(),
            packages=packages,
            rounds=rounds,
            points=len({m.case.point for m in all_measured}),
        ),
        f"## Altogether\n\n{_summary(all_measured, threads)}",
    ]
    for kind, precision in itertools.product(KINDS, PRECISIONS):
        rows = [m for m in all_measured if (m.case.kind, m.case.precision) == (kind, precision)]
        if rows:
            title = f"{kind[0].upper()}{kind[1:]}, {precision}"
            parts.append(f"## {title}\n\n{_latency(rows, threads)}\n\n{_sizes(rows)}")
    parts.append(f"## Conversion\n\n{_conversions(all_measured)}")
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _summary(found: Sequence[Measured], threads: Sequence[int]) -> str:
    """Geometric means over the grid, and the worst points."""
    rows = []
    for count, precision in itertools.product(threads, PRECISIONS):
        here = [m for m in found if m.case.precision == precision]
        if here:
            smallest = f"{sum(_is_smallest(m) for m in here)} of {len(here)}"
            rows.append([f"{precision}, {count}", *_ratios(here, count), smallest])
    head = (
        *("precision, threads", "the fused kernel takes", "stock takes", "stock takes at least"),
        *("tf_keras takes", "latency / best form, at worst", "`size` is the smallest file"),
    )
    return _table(head, rows)


def _ratios(found: Sequence[Measured], threads: int) -> list[str]:
    """Of other ways to make the models."""
    fused = [m.ratio("size", threads=threads) for m in found if m.case.kind != "GRU"]
    stock, tf_keras = (
        [m.ratio(name, threads=threads) for m in found if name in m.made]
        for name in ("stock", "tf_keras")
    )
    best = [
        min(1.0, *(m.ratio(name, threads=threads) for name in FORCED if name in m.made))
        for m in found
    ]
    least = f"{min(stock):.2f}" if stock else ""
    return [_mean(fused), _mean(stock), least, _mean(tf_keras), f"{1 / min(best):.2f}"]


def _mean(ratios: Sequence[float]) -> str:
    return f"{geometric_mean(ratios):.2f}" if ratios else ""


def _is_smallest(measured: Measured) -> bool:
    """Of hintc's forms and stock's loop; tf_keras' fusion leaves out the reset of the states."""
    sizes = {name: len(m.tflite) for name, m in measured.made.items() if name != "tf_keras"}
    return sizes["size"] == min(sizes.values())


def _point(case: Case) -> str:
    return f"{case.units}, {case.inputs}, {case.steps}, {case.batch}"


def _latency(rows: Sequence[Measured], threads: Sequence[int]) -> str:
    names = [n for n in OTHERS if any(n in m.made for m in rows)]
    head = ["units, inputs, steps, batch", "chosen", "latency, ms", *names]
    on_all = [name for name in ("size", "stock") if name in names]
    head += [f"{name}, {threads[-1]} threads" for name in ("latency, ms", *on_all)]
    lines = []
    for m in rows:
        cells = [_point(m.case), m.made["latency"].forms, _ms(m, 1)]
        cells += [_with_interval(m, name, 1) for name in names]
        cells.append(_ms(m, threads[-1]))
        cells += [f"{m.ratio(n, threads=threads[-1]):.2f}" for n in on_all]
        lines.append(cells)
    return _table(head, lines)


def _ms(measured: Measured, threads: int) -> str:
    return f"{measured.races[threads].best('latency') * 1e3:.3f}"


def _with_interval(measured: Measured, name: str, threads: int) -> str:
    if name not in measured.made:
        return ""
    ratio = measured.races[threads].ratio(name, "latency")
    return f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"


def _sizes(rows: Sequence[Measured]) -> str:
    names = [n for n in ("latency", *OTHERS) if n in rows[0].made]
    lines = [[_point(m.case), *(_size(m, name) for name in names)] for m in rows]
    return _table(["kB", *names], lines)


def _size(measured: Measured, name: str) -> str:
    made = measured.made.get(name)
    return "" if made is None else f"{len(made.tflite) / 1000:.1f}"


def _conversions(found: Sequence[Measured]) -> str:
    """Median over the grid by kind, import time apart."""
    names = ("latency", *OTHERS)
    head = ["CPU seconds, median", *names, "size / stock", "size / tf_keras"]
    lines = []
    for kind in KINDS:
        here = [m for m in found if m.case.kind == kind and "stock" in m.made]
        cells = [_median(m.made[name].seconds for m in here if name in m.made) for name in names]
        lines.append([kind, *cells, *(_cost_beside(here, peer) for peer in ("stock", "tf_keras"))])
    return _table(head, lines)


def _cost_beside(found: Sequence[Measured], peer: str) -> str:
    return _mean([m.made["size"].seconds / m.made[peer].seconds for m in found if peer in m.made])


def _median(seconds: Iterable[float]) -> str:
    values = sorted(seconds)
    return f"{values[len(values) // 2]:.2f}" if values else ""
