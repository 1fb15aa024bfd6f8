"""One run of the compiler from the command line: quiet, watched, with progress on a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hintc.errors import HintcError
from hintc.near import did_you_mean

if TYPE_CHECKING:
    from rich.status import Status

    from hintc.instrument import Instrument
    from hintc.ir import Module
    from hintc.pipeline import PassPipeline
    from hintc.remark import PassReport
    from hintc.rewrite import Pass


@dataclass(frozen=True)
class DebugSwitches:
    """The values of `debug_options`; see there."""

    print_after: tuple[str, ...] = ()
    print_all: bool = False
    print_changes: bool = False
    dump_dir: Path | None = None
    reproducer: Path | None = None
    verify_each: bool = True
    timing: bool = False
    traceback: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> DebugSwitches:
        """The switches among the options of a command."""
        return cls(**{field.name: options[field.name] for field in fields(cls)})


@contextlib.contextmanager
def compiler_session(switches: DebugSwitches) -> Iterator[TextIO]:
    """Keeps TensorFlow from talking, unless a traceback is asked for.

    Yields:
        A stream that still reaches standard error.
    """
    if switches.traceback:
        yield sys.stderr
        return
    # Read when TensorFlow is loaded; C++ messages that come nevertheless are caught below.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from hintc.runtime.stream import captured_output

    sys.stderr.flush()
    with (
        os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace") as errors,
        captured_output(),
    ):
        yield errors


def instruments(
    switches: DebugSwitches, pipeline: PassPipeline, errors: TextIO
) -> list[Instrument]:
    """What the switches ask for, to be handed to the pipeline.

    Raises:
        HintcError: ``--print-ir-after`` names a pass that will not run.
    """
    from hintc.instrument import PrintIR, Reproducer, Timing

    for name in switches.print_after:
        if name not in pipeline:
            raise HintcError(
                f"--print-ir-after names '{name}', which is not in the pipeline",
                remedy=did_you_mean(name, pipeline.names, "passes"),
            )
    found: list[Instrument] = []
    if switches.print_all or switches.print_changes or switches.print_after:
        only = None if switches.print_all or switches.print_changes else switches.print_after
        changes = switches.print_changes and not switches.print_all
        found.append(PrintIR(only, changes, errors))
    if switches.dump_dir is not None:
        from hintc.viz import Dump

        found.append(Dump(switches.dump_dir))
    if switches.reproducer is not None:
        found.append(Reproducer(switches.reproducer))
    if switches.timing:
        found.append(Timing(errors))
    return found


@contextlib.contextmanager
def progress(errors: TextIO, shown: bool) -> Iterator[list[Instrument]]:
    """A line that says what is going on, on a terminal only.

    Yields:
        The instrument that keeps it up to date, in a list; an empty list if nothing is shown.
    """
    if not shown or not errors.isatty():
        yield []
        return
    from rich.console import Console

    with Console(file=errors).status("reading the model") as status:
        yield [_progress_instrument(status)]


def _progress_instrument(status: Status) -> Instrument:
    from hintc.instrument import Instrument

    class Progress(Instrument):
        """Shows the pass that is running."""

        def __init__(self) -> None:
            self.done = 0
            self.total = 0

        def before_pipeline(self, passes: Sequence[Pass], module: Module) -> None:
            self.total = len(passes)

        def before_pass(self, step: Pass, module: Module) -> None:
            self.done += 1
            status.update(f"pass {self.done} of {self.total}: {step.name}")

        def after_pass(self, step: Pass, module: Module, report: PassReport) -> None:
            status.update(f"pass {self.done} of {self.total}: {step.name} done")

        def after_pipeline(self, module: Module) -> None:
            status.update("lowering, converting, checking")

        def progress(self, stage: str, done: int, total: int) -> None:
            status.update(f"{stage}: {done} of {total}")

    return Progress()


def resolve_pipeline(text: str | None) -> PassPipeline:
    """The pipeline to run; what cannot be parsed is an error before anything slow starts.

    None is `PassPipeline.DEFAULT`.
    """
    from hintc.pipeline import PassPipeline

    return PassPipeline.parse("default" if text is None else text)
