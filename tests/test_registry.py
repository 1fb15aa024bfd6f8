"""Passes by name: the decorator, plug-in packages, and what is wrong with them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

import hintc
from hintc import registry
from hintc.errors import HintcError
from hintc.ir import Module
from hintc.remark import PassReport
from hintc.rewrite import Pass

PASS = """
from dataclasses import dataclass
from typing import ClassVar
from hintc.registry import register
from hintc.remark import PassReport
from hintc.rewrite import Pass

@register
@dataclass(frozen=True)
class It(Pass):
    name: ClassVar[str] = "{name}"

    def run(self, module):
        report = PassReport()
        report.count("ran")
        return report
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path


def make_package(folder: Path, package: str, files: dict[str, str], head: str = "") -> None:
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text(head)
    for name, text in files.items():
        (folder / package / f"{name}.py").write_text(text)


def make_pass(called: str) -> type[Pass]:
    @dataclass(frozen=True)
    class Made(Pass):
        name: ClassVar[str] = called

        def run(self, module: Module) -> PassReport:
            return PassReport()

    Made.__qualname__ = f"Made{len(_made)}"
    _made.append(Made)
    return Made


_made: list[type[Pass]] = []


def test_built_in_passes_come_through_the_entry_point() -> None:
    found = registry.passes()
    assert found["eliminate-dead-code"].__module__ == "hintc_passes.eliminate_dead_code"
    assert list(found) == sorted(found)
    assert registry.problems() == []


def test_decorator_registers_and_returns_the_class() -> None:
    with registry.isolated():
        cls = make_pass("my-pass")
        assert hintc.register(cls) is cls
        assert registry.passes() == {"my-pass": cls}
        assert registry.find("my-pass") is cls
    assert "my-pass" not in registry.passes()


def test_every_module_of_a_plug_in_package_is_found(plugins: Path) -> None:
    make_package(plugins, "two_passes", {n: PASS.format(name=n) for n in ("one", "other")})
    (plugins / "two_passes" / "inner").mkdir()
    with registry.isolated("two_passes"):
        assert list(registry.passes()) == ["one", "other"]
    with registry.isolated("two_passes"):  # although its modules are loaded already
        assert list(registry.passes()) == ["one", "other"]


def test_threads_wait_for_plug_ins_to_be_loaded(plugins: Path) -> None:
    slow = "import time\ntime.sleep(0.5)\n" + PASS.format(name="slow-pass")
    make_package(plugins, "slow_to_load", {"a_first": PASS.format(name="quick"), "slow": slow})
    with registry.isolated("slow_to_load"), ThreadPoolExecutor(4) as threads:
        found = list(threads.map(registry.find, ["slow-pass"] * 4))
    assert {cls.name for cls in found} == {"slow-pass"}


def test_near_matches_for_an_unknown_pass() -> None:
    with pytest.raises(HintcError, match=r"no pass 'fuse-lstn'.*Did you mean.*'fuse-lstm'"):
        registry.find("fuse-lstn")


@pytest.mark.parametrize("broken", ["import no_such_module", "1 +", "raise SystemError('x')"])
def test_a_broken_module_is_a_problem_only_for_who_asks_for_it(plugins: Path, broken: str) -> None:
    package = f"broken_{abs(hash(broken))}"
    make_package(plugins, package, {"bad_pass": broken, "good": PASS.format(name="good")})
    with registry.isolated(package):
        assert list(registry.passes()) == ["good"]
        assert [p.module for p in registry.problems()] == [f"{package}.bad_pass"]
        with pytest.raises(HintcError, match=f"pass 'bad-pass' cannot be used.*{package}.bad_pass"):
            registry.find("bad-pass")


def test_a_package_that_is_not_there_is_a_problem() -> None:
    with registry.isolated("no_such_package"):
        assert registry.passes() == {}
        assert "plug-in 'no_such_package'" in str(registry.problems()[0])


def test_two_passes_of_one_name_name_both_places(plugins: Path) -> None:
    make_package(plugins, "first_clash", {"a": PASS.format(name="same")})
    make_package(plugins, "second_clash", {"b": PASS.format(name="same")})
    with registry.isolated("first_clash", "second_clash"):
        assert len(registry.problems()) == 1
        with pytest.raises(HintcError, match=r"first_clash\.a\.It .*a\.py.*second_clash\.b\.It"):
            registry.find("same")


def test_a_clash_when_decorating_is_an_error() -> None:
    with registry.isolated():
        registry.register(make_pass("same"))
        with pytest.raises(HintcError, match="two passes are called 'same'"):
            registry.register(make_pass("same"))


def test_default_pipeline_is_the_plug_ins(plugins: Path) -> None:
    make_package(plugins, "gives_default", {"x": PASS.format(name="x")}, "DEFAULT_PIPELINE='x,x'")
    make_package(plugins, "gives_another", {}, "DEFAULT_PIPELINE='y'")
    with registry.isolated("gives_default"):
        assert hintc.PassPipeline.DEFAULT.names == ("x", "x")
    with registry.isolated():
        assert hintc.PassPipeline.DEFAULT == hintc.PassPipeline.EMPTY
    with (
        registry.isolated("gives_default", "gives_another"),
        pytest.raises(HintcError, match="gives_another and gives_default"),
    ):
        registry.default_pipeline()


def test_default_pipeline_of_hintc_can_be_read() -> None:
    assert hintc.PassPipeline.DEFAULT.names[-1] == "eliminate-dead-code"
    assert hintc.PassPipeline.EMPTY.names == ()


@dataclass(frozen=True)
class NoDefault(Pass):
    name: ClassVar[str] = "no-default"
    size: int


class Undecorated(Pass):
    name: ClassVar[str] = "undecorated"
    size: int = 3


@dataclass
class Nameless:
    size: int = 3


@dataclass(frozen=True)
class Unnamed(Pass):
    size: int = 3


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (NoDefault, "option 'size' has no default"),
        (Undecorated, "must be a frozen dataclass"),
        (Nameless, "is not a pass"),
        (Unnamed, "has the name None"),
        (make_pass("Not Kebab"), "has the name 'Not Kebab'"),
        (lambda: None, "is not a pass"),
    ],
)
def test_what_is_no_proper_pass_is_refused(cls: type[Pass], message: str) -> None:
    with registry.isolated(), pytest.raises(HintcError, match=message):
        registry.register(cls)
