"""``hintc new-op`` and ``hintc new-pass``: folders to start from."""

from __future__ import annotations

from pathlib import Path

import click

from hintc.errors import HintcError

_into = click.option("--into", type=click.Path(path_type=Path), default=".", metavar="DIR",
                     help="Where to make the folder. Default: here.")  # fmt: skip


@click.command("new-op")
@click.argument("name")
@_into
def new_op_command(name: str, into: Path) -> None:
    """Write a kernel in C for a custom op.

    With its build and its test. NAME is the op's.

    The folder is new, named like the op in lower case. Nothing is overwritten.
    """
    from hintc.scaffold import new_op

    folder, files = new_op(name, into)
    _show(folder, files, f"make -C {folder} test")


@click.command("new-pass")
@click.argument("name")
@_into
def new_pass_command(name: str, into: Path) -> None:
    """Write a package with a pass of your own.

    It can be installed and has a test. NAME is the pass's, like fuse-my-conv.

    The folder is new and has the name of the pass. Nothing is overwritten.
    """
    from hintc.registry import passes
    from hintc.scaffold import new_pass

    if name in passes():
        raise HintcError(
            f"there is a pass '{name}' already",
            why="two passes of one name cannot be told apart",
            remedy="Choose another name.",
        )
    folder, files = new_pass(name, into)
    _show(folder, files, f"pip install -e {folder}")


def _show(folder: Path, files: list[Path], command: str) -> None:
    for path in files:
        click.echo(f"{folder / path}")
    click.echo(f"\nNext: {command}")
