"""Instruments: which hooks are called when, and what the core's instruments write."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from hintc import registry
from hintc.errors import HintcError
from hintc.instrument import Instrument, PrintIR, Reproducer, Statistics, Timing
from hintc.ir import Module
from hintc.pipeline import PassPipeline
from hintc.remark import PassReport
from hintc.rewrite import Pass
from hintc.text import parse_module


@dataclass(frozen=True)
class Adds(Pass):
    name: ClassVar[str] = "adds"
    times: int = 1

    def run(self, module: Module) -> PassReport:
        report = PassReport()
        for _ in range(self.times):
            module.graph.add("NoOp", name="added")
            report.count("added")
        return report


@dataclass(frozen=True)
class Fails(Pass):
    name: ClassVar[str] = "fails"

    def run(self, module: Module) -> PassReport:
        module.graph.add("NoOp", name="half")
        raise HintcError("cannot")


class Log(Instrument):
    """Writes down every hook."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def before_pipeline(self, passes: Sequence[Pass], module: Module) -> None:
        self.lines.append(f"start {len(passes)}")

    def before_pass(self, step: Pass, module: Module) -> None:
        self.lines.append(f"before {step.name}")

    def after_pass(self, step: Pass, module: Module, report: PassReport) -> None:
        self.lines.append(f"after {step.name} {report.changed}")

    def pass_failed(self, step: Pass, module: Module, error: HintcError) -> None:
        self.lines.append(f"failed {step.name}: {error}")

    def after_pipeline(self, module: Module) -> None:
        self.lines.append("end")


def test_hooks_in_order() -> None:
    log = Log()
    PassPipeline.of(Adds, Adds(0)).run(Module(), [log])
    assert log.lines == [
        *("start 2", "before adds", "after adds True", "before adds", "after adds False", "end")
    ]


def test_failure_calls_the_failed_hook_of_all() -> None:
    first, second = Log(), Log()
    with pytest.raises(HintcError):
        PassPipeline.of(Adds, Fails, Adds).run(Module(), [first, second])
    assert first.lines[-2:] == ["before fails", "failed fails: pass 'fails': cannot"]
    assert first.lines == second.lines


def test_an_instrument_may_fail_a_pass() -> None:
    class Strict(Instrument):
        def after_pass(self, step: Pass, module: Module, report: PassReport) -> None:
            raise HintcError("not allowed")

    log = Log()
    with pytest.raises(HintcError, match="pass 'adds': not allowed"):
        PassPipeline.of(Adds).run(Module(), [Strict(), log])
    assert log.lines[-1].startswith("failed adds")


def test_an_instrument_without_hooks_does_nothing() -> None:
    PassPipeline.of(Adds).run(Module(), [Instrument()])


def test_timing_prints_a_line_for_each_pass() -> None:
    stream = io.StringIO()
    timing = Timing(stream)
    PassPipeline.of(Adds(2), Adds).run(Module(), [timing])
    assert [name for name, _ in timing.seconds] == ["adds{times=2}", "adds"]
    assert stream.getvalue() == f"{timing}\n"
    assert "total" in stream.getvalue()


def test_statistics_add_up() -> None:
    statistics = Statistics()
    PassPipeline.of(Adds(2), Adds(3)).run(Module(), [statistics])
    assert statistics.counts == {"adds": {"added": 5}}
    assert str(statistics).split() == ["5", "adds:", "added"]


@pytest.mark.parametrize(
    ("printer", "headlines"),
    [
        (PrintIR(), ["after adds", "after adds{times=0}", "after fails failed"]),
        (PrintIR(only_changes=True), ["after adds", "after fails failed"]),
        (PrintIR(after=["fails"]), ["after fails failed"]),
    ],
)
def test_print_ir(printer: PrintIR, headlines: list[str]) -> None:
    printer.stream = io.StringIO()
    with pytest.raises(HintcError):
        PassPipeline.of(Adds, Adds(0), Fails).run(Module(), [printer])
    text = printer.stream.getvalue()
    found = [x.strip("/ -") for x in text.splitlines() if x.startswith("// ----")]
    assert found == headlines


def test_reproducer_holds_the_module_before_and_the_rest_of_the_pipeline(tmp_path: Path) -> None:
    reproducer = Reproducer(tmp_path / "new")
    with pytest.raises(HintcError) as error:
        PassPipeline.of(Adds(2), Fails, Adds(3)).run(Module(), [reproducer])
    assert reproducer.path == tmp_path / "new" / "reproducer_fails.hir"
    text = reproducer.path.read_text(encoding="utf-8")
    assert str(reproducer.path) in error.value.__notes__[0]
    first, _, rest = text.partition("\n")
    with registry.isolated():
        registry.register(Adds)
        registry.register(Fails)
        pipeline = PassPipeline.parse(first.removeprefix("// pipeline: "))
    assert pipeline.names == ("fails", "adds")
    assert [node.name for node in parse_module(rest).graph] == ["added", "added_1"]
    assert len(parse_module(text).graph) == 2


def test_reproducer_writes_nothing_when_all_goes_well(tmp_path: Path) -> None:
    reproducer = Reproducer(tmp_path)
    PassPipeline.of(Adds).run(Module(), [reproducer])
    assert reproducer.path is None
    assert list(tmp_path.iterdir()) == []
