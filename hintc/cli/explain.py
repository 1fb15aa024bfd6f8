"""What ``hintc explain`` prints: what became of each loop, why, and what would help."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from hintc.remark import RemarkKind

if TYPE_CHECKING:
    from hintc.report import NodeOutcome, Report

_WIDTH = 80
_LABEL = 9
"""Columns of the first column."""
_CLOSEST = 3
"""Near misses shown of each pass, unless one pass is asked for."""


def explanation(report: Report, pass_name: str | None = None) -> Iterator[str]:
    """The lines to print, of 80 columns but for long names.

    Args:
        report: of a compilation.
        pass_name: show the near misses of this pass only, and all that are kept.
    """
    outcomes = report.outcomes
    for outcome in outcomes:
        yield from _outcome(outcome)
    yield from _notes(report)
    yield from _near_misses(report, pass_name)
    if not outcomes:
        yield "no loop, recurrent layer or hint: TensorFlow's converter does the rest"
    fused = sum(outcome.is_fused for outcome in outcomes)
    yield f"fused: {fused}, not fused: {len(outcomes) - fused}"


def _outcome(outcome: NodeOutcome) -> Iterator[str]:
    yield outcome.node
    yield from _row("becomes", outcome.became.removeprefix("becomes "))
    if outcome.why:
        code = "" if outcome.is_chosen else f" [{outcome.code}]"
        yield from _row("is" if outcome.is_chosen else "why", outcome.why.rstrip(".") + code)
    if outcome.remedy:
        yield from _row("helps", outcome.remedy)
    yield ""


def _row(label: str, text: str) -> Iterable[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"  {label:{_LABEL - 1}} ",
        subsequent_indent=" " * (_LABEL + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _notes(report: Report) -> Iterator[str]:
    """What is said beside the outcomes: notes, and further refusals of the same node."""
    firsts = {(outcome.node, outcome.code) for outcome in report.outcomes}
    lines: list[str] = []
    for remark in report.remarks:
        is_further = remark.kind is RemarkKind.REFUSED and (remark.node, remark.code) not in firsts
        is_note = remark.kind is RemarkKind.NOTE and not remark.code.startswith("form-")
        if is_note or is_further:
            lines += _row(remark.pass_name, f"'{remark.node}': {remark.reason} [{remark.code}]")
    if lines:
        yield from ("notes", *lines, "")


def _near_misses(report: Report, pass_name: str | None) -> Iterator[str]:
    lines: list[str] = []
    shown: dict[str, int] = {}
    for name, miss in report.near_misses:
        shown[name] = shown.get(name, 0) + 1
        if name == pass_name or (pass_name is None and shown[name] <= _CLOSEST):
            fits = "operation fits" if miss.matched == 1 else "operations fit"
            differs = f"{miss.matched} {fits}, then '{miss.node}' differs: {miss.reason}"
            lines += _row(name, f"'{miss.anchor}': {differs}")
    if lines:
        yield from ("near misses", *lines, "")
    elif pass_name is not None:
        yield from (f"'{pass_name}' has no pattern that nearly fits.", "")
