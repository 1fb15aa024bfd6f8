"""docs/benchmarks.md: what `bench_forms` measured, as tables."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from form_models import KINDS, Case, Made
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
resets the states. How a form is chosen: [decision 13](decisions/0013-form-by-cost.md).
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
        f"## Altogether\n\n{_summary(all_measured)}",
    ]
    for kind in KINDS:
        for int8 in (False, True):
            rows = [m for m in all_measured if m.case.kind == kind and m.case.int8 == int8]
            title = f"{kind[0].upper()}{kind[1:]}, {'int8 weights' if int8 else 'float32'}"
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


def _summary(found: Sequence[Measured]) -> str:
    """Geometric means over the grid, and the worst points, on one thread."""
    rows = []
    for int8 in (False, True):
        here = [m for m in found if m.case.int8 == int8]
        fused = [m for m in here if m.case.kind != "GRU"]
        forms = [[m.ratio(n, "latency") for n in FORCED if n in m.made] for m in here]
        rows.append(
            [
                "int8 weights" if int8 else "float32",
                _mean(m.ratio("size") for m in fused),
                _mean(m.ratio("stock") for m in here),
                _mean(m.ratio("tf_keras") for m in fused),
                f"{min(m.ratio('stock') for m in here):.2f}",
                f"{max(1 / min(*ratios, 1.0) for ratios in forms):.2f}",
                f"{sum(_is_smallest(m) for m in here)} of {len(here)}",
            ]
        )
    head = (
        *("", "the fused kernel takes", "stock takes", "tf_keras takes", "stock takes at least"),
        *("latency / best form, at worst", "`size` is the smallest file"),
    )
    return _table(head, rows)


def _mean(ratios: Iterable[float]) -> str:
    return f"{geometric_mean(list(ratios)):.2f}"


def _is_smallest(measured: Measured) -> bool:
    """Of hintc's forms and stock's loop; tf_keras' fusion leaves out the reset of the states."""
    sizes = {name: len(m.tflite) for name, m in measured.made.items() if name != "tf_keras"}
    return sizes["size"] == min(sizes.values())


def _point(case: Case) -> str:
    return f"{case.units}, {case.inputs}, {case.steps}, {case.batch}"


def _latency(rows: Sequence[Measured], threads: Sequence[int]) -> str:
    names = [n for n in OTHERS if any(n in m.made for m in rows)]
    head = ["units, inputs, steps, batch", "chosen", "latency, ms", *names]
    head += [f"{name}, {threads[-1]} threads" for name in ("latency, ms", "size", "stock")]
    lines = []
    for m in rows:
        cells = [_point(m.case), m.made["latency"].forms, _ms(m, 1)]
        cells += [_with_interval(m, name, 1) for name in names]
        cells.append(_ms(m, threads[-1]))
        cells += [f"{m.ratio(name, threads=threads[-1]):.2f}" for name in ("size", "stock")]
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
        here = [m for m in found if m.case.kind == kind]
        cells = [_median(m.made[name].seconds for m in here if name in m.made) for name in names]
        lines.append([kind, *cells, *(_cost_beside(here, peer) for peer in ("stock", "tf_keras"))])
    return _table(head, lines)


def _cost_beside(found: Sequence[Measured], peer: str) -> str:
    pairs = [m.made["size"].seconds / m.made[peer].seconds for m in found if peer in m.made]
    return _mean(pairs) if pairs else ""


def _median(seconds: Iterable[float]) -> str:
    values = sorted(seconds)
    return f"{values[len(values) // 2]:.2f}" if values else ""
