"""The report on the terminal: tables where somebody looks, plain lines where a program reads."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from hintc.remark import Remark
    from hintc.report import Report


_OPERATORS = 12
"""So many kinds of operators have a row."""


def show_report(report: Report, *, as_json: bool = False, to_stderr: bool = False) -> None:
    """Print a report, to standard output unless a result goes there."""
    stream = sys.stderr if to_stderr else sys.stdout
    if as_json:
        click.echo(report.to_json(), file=stream)
    elif stream.isatty():
        _show_tables(report, to_stderr)
    else:
        click.echo(str(report), file=stream)


def _show_tables(report: Report, to_stderr: bool) -> None:
    from rich.console import Console

    console = Console(stderr=to_stderr)
    console.print(f"[bold]{_plain(report.source)}[/bold]")
    tables = (
        _remarks("Fused", "how", report.fused),
        _not_fused(report),
        _remarks("Loops and unrolled steps", "what", report.forms),
        _remarks("Notes", "what", report.notes),
        _numbers(report),
        _cost(report),
    )
    for table in tables:
        if table.row_count:
            console.print(table)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=len(columns) > 2)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _remarks(title: str, said: str, remarks: Iterable[Remark]) -> Table:
    table = _table(title, "node", said)
    for remark in remarks:
        table.add_row(_plain(remark.node), _plain(remark.reason))
    return table


def _not_fused(report: Report) -> Table:
    table = _table("Not fused", "node", "why", "what would help")
    for remark in report.not_fused:
        table.add_row(_plain(remark.node), _plain(remark.reason), _plain(remark.remedy))
    return table


def _cost(report: Report) -> Table:
    cost = report.cost
    title = "Cost of quantisation"
    if cost is not None:
        title += f", on {cost.where}"
    columns = ("output", "largest error", "mean error", "span", "top-1 agreement")
    table = _table(title, *columns)
    for name, error in ({} if cost is None else cost.outputs).items():
        top_1 = "" if error.top_1 is None else f"{error.top_1:.1%}"
        numbers = (f"{value:.3g}" for value in (error.largest, error.mean, error.span))
        table.add_row(_plain(name), *numbers, top_1)
    return table


def _numbers(report: Report) -> Table:
    table = _table("Model", "what", "value")
    before, after = sum(report.ops_before.values()), sum(report.ops_after.values())
    table.add_row("graph nodes", f"{before} → {after}")
    for op, count in report.fused_ops.items():
        table.add_row(f"fused {_plain(op)}", str(count))
    operators = list(report.operators.items())
    for operator, count in operators[:_OPERATORS]:
        table.add_row(f"operator {_plain(operator)}", str(count))
    if len(operators) > _OPERATORS:
        rest = sum(count for _, count in operators[_OPERATORS:])
        table.add_row("other operators", str(rest))
    for name, size in report.sizes.items():
        table.add_row(f"size, {name}", f"{size:,} bytes")
    for name, error in report.errors.items():
        table.add_row(f"largest error of {_plain(name)}", f"{error:.3g}")
    table.add_row("time", f"{sum(report.timings.values()):.2f} s")
    return table
