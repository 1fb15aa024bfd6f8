"""What watches a pipeline: hooks before and after each pass, and the instruments of the core."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from hintc.errors import HintcError
from hintc.ir import Module
from hintc.options import describe
from hintc.remark import PassReport
from hintc.rewrite import Pass


class Instrument:
    """Base of all instruments: hooks that do nothing. Override those you need.

    A hook must not change the module. A HintcError that it raises ends the pipeline; raised by
    `after_pass`, it counts as a failure of the pass.
    """

    def before_pipeline(self, passes: Sequence[Pass], module: Module) -> None:
        """The pipeline is about to start on `module`."""

    def before_pass(self, step: Pass, module: Module) -> None:
        """`step` is about to run."""

    def after_pass(self, step: Pass, module: Module, report: PassReport) -> None:
        """`step` has run; `report.changed` says whether it changed the module."""

    def pass_failed(self, step: Pass, module: Module, error: HintcError) -> None:
        """`step`, or an instrument after it, raised; the module may be half changed."""

    def after_pipeline(self, module: Module) -> None:
        """All passes have run. Not called after a failure."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """A long stage behind the pipeline, e.g. ``"calibrating"``, has come so far."""


class VerifyEach(Instrument):
    """Verifies the module at the start, and after each pass that changed it what was edited.

    Raises:
        VerifyError: a rule of the IR is broken; it names the pass that broke it.
    """

    def before_pipeline(self, passes: Sequence[Pass], module: Module) -> None:
        """Verify the input, so that no pass is blamed for it."""
        from hintc.verify import Sound, verify

        self._sound = Sound()
        verify(module, sound=self._sound)

    def after_pass(self, step: Pass, module: Module, report: PassReport) -> None:
        """Verify what changed."""
        from hintc.verify import verify

        if report.changed:
            verify(module, sound=self._sound)


@dataclass
class Timing(Instrument):
    """Measures the wall-clock time of each pass, in seconds.

    Attributes:
        stream: where a table goes at the end, e.g. ``sys.stderr``; None: nowhere, use `str`.
        seconds: what was measured: pass as text and time, in order.
    """

    stream: TextIO | None = None
    seconds: list[tuple[str, float]] = field(default_factory=list)
    _start: float = 0.0

    def before_pass(self, step: Pass, module: Module) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def after_pass(self, step: Pass, module: Module, report: PassReport) -> None:
        """Stop the clock."""
        self.seconds.append((describe(step), time.perf_counter() - self._start))

    def pass_failed(self, step: Pass, module: Module, error: HintcError) -> None:
        """Print what was measured so far."""
        self.after_pipeline(module)

    def after_pipeline(self, module: Module) -> None:
        """Print the table."""
        if self.stream is not None:
            print(self, file=self.stream)

    @property
    def total(self) -> float:
        """All passes together, in seconds."""
        return sum(seconds for _, seconds in self.seconds)

    def __str__(self) -> str:
        total = self.total or 1.0
        lines = [f"{s:9.3f} s {100 * s / total:5.1f} %  {name}" for name, s in self.seconds]
        return "\n".join([*lines, f"{self.total:9.3f} s 100.0 %  total"])


@dataclass
class Statistics(Instrument):
    """Adds up the counts of each pass.

    Attributes:
        stream: where a table goes at the end; None: nowhere, use `str`.
        counts: by pass name, then by what was counted.
    """

    stream: TextIO | None = None
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    def after_pass(self, step: Pass, module: Module, report: PassReport) -> None:
        """Add the counts of one run."""
        sums = self.counts.setdefault(step.name, {})
        for what, times in report.counts.items():
            sums[what] = sums.get(what, 0) + times

    def after_pipeline(self, module: Module) -> None:
        """Print the table."""
        if self.stream is not None:
            print(self, file=self.stream)

    def __str__(self) -> str:
        return "\n".join(
            f"{times:8}  {name}: {what}"
            for name, sums in self.counts.items()
            for what, times in sorted(sums.items())
        )


@dataclass
class PrintIR(Instrument):
    """Prints the module as text after passes.

    Attributes:
        after: names of the passes to print after; None: all.
        only_changes: print only where the pass changed something.
        stream: default standard error.
    """

    after: Collection[str] | None = None
    only_changes: bool = False
    stream: TextIO | None = None

    def after_pass(self, step: Pass, module: Module, report: PassReport) -> None:
        """Print, if asked for."""
        if (self.after is None or step.name in self.after) and (
            report.changed or not self.only_changes
        ):
            self._print(f"after {describe(step)}", module)

    def pass_failed(self, step: Pass, module: Module, error: HintcError) -> None:
        """Print what the pass left behind."""
        if self.after is None or step.name in self.after:
            self._print(f"after {describe(step)} failed", module)

    def _print(self, when: str, module: Module) -> None:
        from hintc.text import print_module

        print(f"// ---- {when} ----\n{print_module(module)}", file=self.stream or sys.stderr)


@dataclass
class Reproducer(Instrument):
    """When a pass fails, writes the module before that pass and the rest of the pipeline.

    Attributes:
        folder: gets ``reproducer_<pass>.hir``; made if missing. The first line of the file is
            ``// pipeline: …``, the rest parses as a module.
        path: the file that was written, None as long as nothing failed.
    """

    folder: str | Path
    path: Path | None = None
    _passes: list[Pass] = field(default_factory=list)
    _before: Module | None = None

    def before_pipeline(self, passes: Sequence[Pass], module: Module) -> None:
        """Remember what is to run."""
        self._passes = list(passes)

    def before_pass(self, step: Pass, module: Module) -> None:
        """Keep the module as it is."""
        self._before = module.copy()

    def after_pass(self, step: Pass, module: Module, report: PassReport) -> None:
        """Forget the pass that went well."""

    def pass_failed(self, step: Pass, module: Module, error: HintcError) -> None:
        """Write the file."""
        from hintc.text import print_module

        assert self._before is not None
        at = next(i for i, p in enumerate(self._passes) if p is step)
        pipeline = ",".join(describe(p) for p in self._passes[at:])
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"reproducer_{step.name}.hir"
        text = f"// pipeline: {pipeline}\n{print_module(self._before)}"
        self.path.write_text(text, encoding="utf-8")
        error.add_note(f"IR before the pass and the rest of the pipeline: {self.path}")
