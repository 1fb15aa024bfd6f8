"""``hintc new-op``: a folder to start from."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("new-op")
@click.argument("name")
@click.option("--into", type=click.Path(path_type=Path), default=".", metavar="DIR",
              help="Where to make the folder. Default: here.")  # fmt: skip
def new_op_command(name: str, into: Path) -> None:
    """Write a kernel in C for the custom op NAME, with its build and its test.

    The folder is new, named like the op in lower case. Nothing is overwritten.
    """
    from hintc.scaffold import new_op

    folder, files = new_op(name, into)
    _show(folder, files, f"make -C {folder} test")


def _show(folder: Path, files: list[Path], command: str) -> None:
    for path in files:
        click.echo(f"{folder / path}")
    click.echo(f"\nNext: {command}")
