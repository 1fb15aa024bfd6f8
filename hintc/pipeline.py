"""PassPipeline: passes in order, as a value that prints and parses, runs and reports."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from hintc import registry
from hintc.errors import HintcError
from hintc.instrument import Instrument, VerifyEach
from hintc.ir import Module
from hintc.near import did_you_mean
from hintc.options import build, checked, describe, parse_steps
from hintc.remark import PassReport, Remark
from hintc.rewrite import Pass

Step: TypeAlias = "Pass | type[Pass] | str | PassPipeline"
"""What names passes: one, its class (default options), or a pipeline or its text."""


@dataclass(frozen=True)
class PassRun:
    """One pass that ran.

    Attributes:
        name: of the pass.
        text: the pass with its options.
        report: what it said.
        seconds: wall-clock time of the pass alone.
    """

    name: str
    text: str
    report: PassReport
    seconds: float

    @property
    def changed(self) -> bool:
        """True if it changed the module."""
        return self.report.changed


@dataclass
class PipelineReport:
    """What a pipeline did.

    Attributes:
        runs: the passes that ran, in order.
    """

    runs: list[PassRun] = field(default_factory=list)

    @property
    def remarks(self) -> list[Remark]:
        """All remarks, in order, each with the name of its pass."""
        return [remark for run in self.runs for remark in run.report.remarks]

    @property
    def seconds(self) -> float:
        """All passes together."""
        return sum(run.seconds for run in self.runs)

    @property
    def changed(self) -> bool:
        """True if any pass changed the module."""
        return any(run.changed for run in self.runs)

    def to_json(self) -> dict[str, Any]:
        """Plain data that `json.dumps` takes."""
        return {
            "seconds": self.seconds,
            "passes": [
                {
                    "name": run.name,
                    "text": run.text,
                    "seconds": run.seconds,
                    "changed": run.changed,
                    "counts": dict(run.report.counts),
                    "remarks": [
                        dataclasses.asdict(r) | {"kind": r.kind.value} for r in run.report.remarks
                    ],
                }
                for run in self.runs
            ],
        }


class _FromText:
    """A class attribute that is a pipeline, read when it is first asked for."""

    def __init__(self, text: Callable[[], str], doc: str) -> None:
        self._text = text
        self.__doc__ = doc

    def __get__(self, instance: object, owner: type[PassPipeline]) -> PassPipeline:
        return owner.parse(self._text())


@dataclass(frozen=True)
class PassPipeline:
    """Passes in order. A value: every change returns a new pipeline.

    Attributes:
        passes: in the order they run.
    """

    passes: tuple[Pass, ...] = ()

    DEFAULT = _FromText(registry.default_pipeline, "What `hintc.convert` runs; plug-ins define it.")
    EMPTY = _FromText(str, "No passes.")

    @classmethod
    def parse(cls, text: str) -> PassPipeline:
        """Read a pipeline, e.g. ``"collect-hints,fuse-lstm{form=fused}"``.

        The word ``default`` stands for `DEFAULT`: ``"default,my-pass"``.

        Raises:
            HintcError: it is not written as a pipeline is, or names a pass or option that does
                not exist, or gives a value of the wrong type.
        """
        steps: list[Pass] = []
        for name, given in parse_steps(text):
            if name == "default" and given:
                raise HintcError(
                    "'default' stands for all passes and has no options",
                    remedy="form, target, ... are options of hintc.convert and of the command line;"
                    " others are set where a pass is written out: hintc passes lists them.",
                )
            if name == "default":
                steps += cls.DEFAULT
            else:
                steps.append(build(registry.find(name), given))
        return cls(tuple(steps))

    @classmethod
    def of(cls, *steps: Step) -> PassPipeline:
        """A pipeline of passes, classes of passes, texts and pipelines.

        Raises:
            HintcError: as `parse`; or a step is nothing of that kind.
        """
        return cls(tuple(p for step in steps for p in _passes(step)))

    def __str__(self) -> str:
        return ",".join(describe(step) for step in self.passes)

    def __iter__(self) -> Iterator[Pass]:
        return iter(self.passes)

    def __len__(self) -> int:
        return len(self.passes)

    def __contains__(self, name: object) -> bool:
        return any(step.name == name for step in self.passes)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the passes, in order."""
        return tuple(step.name for step in self.passes)

    def insert_before(self, name: str, *steps: Step) -> PassPipeline:
        """Put `steps` before the first pass called `name`.

        Raises:
            HintcError: the pipeline has no such pass.
        """
        at = self._positions(name)[0]
        return self._spliced(at, at, steps)

    def insert_after(self, name: str, *steps: Step) -> PassPipeline:
        """Put `steps` after the last pass called `name`.

        Raises:
            HintcError: the pipeline has no such pass.
        """
        at = self._positions(name)[-1] + 1
        return self._spliced(at, at, steps)

    def append(self, *steps: Step) -> PassPipeline:
        """Put `steps` at the end."""
        return self._spliced(len(self), len(self), steps)

    def remove(self, name: str) -> PassPipeline:
        """Leave out every pass called `name`.

        Raises:
            HintcError: the pipeline has no such pass.
        """
        self._positions(name)
        return PassPipeline(tuple(step for step in self.passes if step.name != name))

    def set_options(self, name: str, **options: object) -> PassPipeline:
        """Set options of every pass called `name`; those not given stay as they are.

        Raises:
            HintcError: the pipeline has no such pass, the pass no such option, or the value is of
                the wrong type.
        """
        at = self._positions(name)
        changes = checked(type(self.passes[at[0]]), options)
        return PassPipeline(
            tuple(
                dataclasses.replace(step, **changes) if step.name == name else step
                for step in self.passes
            )
        )

    def run(
        self,
        module: Module,
        instruments: Sequence[Instrument] = (),
        *,
        verify_each: bool = True,
    ) -> PipelineReport:
        """Run the passes on `module`, in place.

        Args:
            module: what to change.
            instruments: watch; their hooks are called in this order.
            verify_each: verify the module at the start and after each pass that changed it,
                before any other instrument sees it.

        Raises:
            HintcError: a pass failed; it carries the pass's name. An exception that is none is
                chained as the cause.
            VerifyError: a pass left the module broken.
        """
        watching = list(instruments)
        if verify_each and not any(isinstance(i, VerifyEach) for i in watching):
            watching.insert(0, VerifyEach())
        report = PipelineReport()
        for instrument in watching:
            instrument.before_pipeline(self.passes, module)
        for step in self.passes:
            report.runs.append(_run_one(step, module, watching))
        for instrument in watching:
            instrument.after_pipeline(module)
        return report

    def _positions(self, name: str) -> list[int]:
        found = [at for at, step in enumerate(self.passes) if step.name == name]
        if not found:
            raise HintcError(
                f"the pipeline has no pass '{name}'",
                remedy=did_you_mean(name, self.names, "passes"),
            )
        return found

    def _spliced(self, start: int, end: int, steps: Sequence[Step]) -> PassPipeline:
        new = PassPipeline.of(*steps).passes
        return PassPipeline((*self.passes[:start], *new, *self.passes[end:]))


def _passes(step: Step) -> Sequence[Pass]:
    match step:
        case str():
            return PassPipeline.parse(step).passes
        case Pass():
            return (step,)
        case PassPipeline():
            return step.passes
        case type() if issubclass(step, Pass):
            return (step(),)
    raise HintcError(
        f"{step!r} is not a pass", remedy="Give its name, a Pass or a subclass of Pass."
    )


def _run_one(step: Pass, module: Module, watching: Sequence[Instrument]) -> PassRun:
    for instrument in watching:
        instrument.before_pass(step, module)
    try:
        start = time.perf_counter()
        report = step.run(module)
        seconds = time.perf_counter() - start
        report.remarks[:] = [
            r if r.pass_name else dataclasses.replace(r, pass_name=step.name)
            for r in report.remarks
        ]
        for instrument in watching:
            instrument.after_pass(step, module, report)
    except Exception as error:
        failure = _named(error, step)
        for instrument in watching:
            instrument.pass_failed(step, module, failure)
        if failure is error:
            raise
        raise failure from error
    return PassRun(step.name, describe(step), report, seconds)


def _named(error: Exception, step: Pass) -> HintcError:
    """The error with the pass's name in it; a foreign exception as a HintcError."""
    if not isinstance(error, HintcError):
        return HintcError(
            f"{type(error).__name__}: {error}",
            pass_name=step.name,
            why="the pass did not expect this",
            remedy="Report it with the file that the instrument Reproducer writes.",
        )
    if error.pass_name is None:
        error.pass_name = step.name
        error.args = (error._text(),)
    return error
