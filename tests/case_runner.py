"""Many cases in a few processes, with a progress bar; a process that dies costs one case."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model_check import Outcome

Case = TypeVar("Case")
CASES_A_PROCESS = 150
"""TensorFlow's graphs are not all given back, so processes are renewed; by us, as a pool that does
it itself (max_tasks_per_child) hangs on Python 3.11."""


def run_cases(
    cases: Sequence[Case], run: Callable[[Case], Outcome], processes: int | None = None
) -> Iterator[tuple[Case, Outcome]]:
    """Each case with its outcome, as they are ready.

    Args:
        cases: picklable.
        run: a function of a module, so that other processes find it.
        processes: default: one for each CPU.
    """
    count = processes or os.cpu_count() or 1
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task("cases", total=len(cases))
        bugs = 0
        for case, outcome in _outcomes(list(cases), run, count):
            bugs += not outcome.good
            progress.update(task, advance=1, description=f"{bugs} bugs")
            yield case, outcome


def _outcomes(
    cases: list[Case], run: Callable[[Case], Outcome], count: int
) -> Iterator[tuple[Case, Outcome]]:
    block = CASES_A_PROCESS * count
    for start in range(0, len(cases), block):
        yield from _outcomes_of_block(cases[start : start + block], run, count)


def _outcomes_of_block(
    cases: list[Case], run: Callable[[Case], Outcome], count: int
) -> Iterator[tuple[Case, Outcome]]:
    suspects: list[Case] = []
    while cases:
        done: set[int] = set()
        with _pool(count) as pool:
            futures: dict[Future[Outcome], int] = {
                pool.submit(run, case): at for at, case in enumerate(cases)
            }
            for future in as_completed(futures):
                at = futures[future]
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    continue
                done.add(at)
                yield cases[at], outcome
        rest = [case for at, case in enumerate(cases) if at not in done]
        # what was running when the pool broke is among the next few; they run alone
        suspects, cases = rest[: 2 * count], rest[2 * count :]
        for case in suspects:
            yield case, _alone(case, run)


def _alone(case: Case, run: Callable[[Case], Outcome]) -> Outcome:
    with _pool(1) as pool:
        try:
            return pool.submit(run, case).result()
        except BrokenProcessPool:
            return Outcome("failed", "the process died")


def _pool(count: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, context)
