"""``hintc new-op`` and ``hintc new-pass``: folders to start from."""

from __future__ import annotations

from pathlib import Path

import click

_into = click.option("--into", type=click.Path(path_type=Path), default=".", metavar="DIR",
                     help="Where to make the folder. Default: here.")  # fmt: skip


@click.command("new-op")
@click.argument("name")
@_into
def new_op_command(name: str, into: Path) -> None:
    """Write a kernel in C for the custom op NAME, with its build and its test.

    The folder is new, named like the op in lower case. Nothing is overwritten.
    """
    from hintc.scaffold import new_op

    folder, files = new_op(name, into)
    _show(folder, files, f"make -C {folder} test")


@click.command("new-pass")
@click.argument("name")
@_into
def new_pass_command(name: str, into: Path) -> None:
    """Write an installable package with the pass NAME, with its test.

    The folder is new and has the name of the pass. Nothing is overwritten.
    """
    from hintc.scaffold import new_pass

    folder, files = new_pass(name, into)
    _show(folder, files, f"pip install -e {folder}")


def _show(folder: Path, files: list[Path], command: str) -> None:
    for path in files:
        click.echo(f"{folder / path}")
    click.echo(f"\nNext: {command}")
