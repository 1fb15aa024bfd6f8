"""Entry point: the group of commands, and how errors become messages and exit status."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from hintc.cli.commands import compile_command, convert_command, explain_command
from hintc.cli.new import new_op_command, new_pass_command
from hintc.cli.passes import passes_command
from hintc.cli.viz import viz_command
from hintc.errors import HintcError
from hintc.near import near_matches

INTERRUPTED = 130


class _Commands(click.Group):
    """Offers near matches for an unknown command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            names = self.list_commands(ctx)
            near = near_matches(args[0], names, 1)
            hint = f" Did you mean '{near[0]}'?" if near else f" Commands: {', '.join(names)}."
            raise click.UsageError(f"there is no command '{args[0]}'.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hintc", prog_name="hintc")
def cli() -> None:
    """Turn TensorFlow graphs, hinted or not, into fused and quantised TFLite models.

    Exit status: 0 done, 1 wrong input, 2 a check failed, 3 nothing was fused under
    --require-fused, 130 interrupted.
    """


for _command in (
    convert_command,
    compile_command,
    explain_command,
    passes_command,
    viz_command,
    new_op_command,
    new_pass_command,
):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None, program: str = "hintc") -> int:
    """Run a command line.

    Args:
        arguments: without the program's name; default: those of the process.
        program: how the command is called in messages.

    Returns:
        The exit status; see `hintc.cli`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        status = cli.main(given, prog_name=program, standalone_mode=False)
        sys.stdout.flush()
    except HintcError as error:
        return _report(error, error.exit_code, "--traceback" in given)
    except click.ClickException as error:
        return _report(error, 1, False)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:  # the reader went away, e.g. `| head`
        _forget_output()
        return 0
    except Exception as error:  # noqa: BLE001  (one message, whatever it is)
        if isinstance(error, OSError):  # the disk behind standard output is full, say
            _forget_output()
        return _report(_foreign(error), 1, "--traceback" in given)
    return status if isinstance(status, int) else 0


def _forget_output() -> None:
    """Keeps Python from complaining at exit that it cannot write what is left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _foreign(error: Exception) -> HintcError:
    """What to say of an error that is none of hintc's."""
    kind = type(error).__name__
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        what, remedy = f"the Python package '{error.name}' is missing", "Install hintc again."
    elif isinstance(error, OSError):
        where = f" '{error.filename}'" if error.filename else ""
        what, remedy = f"cannot read or write{where}: {error.strerror or error}", None
    else:
        what = f"{kind}: {' '.join(str(error).split())[:400]}"
        remedy = "hintc did not expect this: please report it, with what --traceback prints."
    foreign = HintcError(what, remedy=remedy)
    foreign.__cause__ = error
    return foreign


def _report(error: Exception, status: int, with_traceback: bool) -> int:
    """One message on standard error."""
    if with_traceback:
        traceback.print_exception(error)
        return status
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(f"Try '{error.ctx.command_path} --help'.", err=True)
    text = error.format_message() if isinstance(error, click.ClickException) else str(error)
    notes = getattr(error, "__notes__", ())
    click.echo(f"{click.style('error', fg='red', bold=True)}: {text}", err=True)
    for note in notes:
        click.echo(note, err=True)
    return status
