"""Pipelines: text and back, options, editing, running, failing."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hintc import registry
from hintc.errors import HintcError, VerifyError
from hintc.ir import ARG, Module, Port
from hintc.options import build, describe
from hintc.pipeline import PassPipeline
from hintc.remark import PassReport
from hintc.rewrite import Pass


@dataclass(frozen=True)
class Many(Pass):
    """Has an option of every kind."""

    name: ClassVar[str] = "many"
    count: int = 3
    rate: float = 0.5
    label: str = ""
    maybe: str | None = None
    limit: int | None = 7
    sizes: tuple[int, ...] = ()
    labels: tuple[str, ...] = ("a",)
    pair: tuple[int, float] = (1, 2.0)
    deep: bool = False
    wide: bool = True
    form: Literal["auto", "fused", 3] = "auto"

    def run(self, module: Module) -> PassReport:
        report = PassReport()
        report.count("changed")
        report.note("seen", "x", "there it is", "leave it")
        return report


@dataclass(frozen=True)
class Idle(Pass):
    name: ClassVar[str] = "idle"

    def run(self, module: Module) -> PassReport:
        return PassReport()


@dataclass(frozen=True)
class Breaks(Pass):
    name: ClassVar[str] = "breaks"
    how: str = "refuse"

    def run(self, module: Module) -> PassReport:
        if self.how == "refuse":
            raise HintcError("the model is upside down", node="n", remedy="Turn it.")
        if self.how == "crash":
            raise ZeroDivisionError("by nothing")
        graph = module.graph  # an edge that the operands do not have
        graph._nx.add_edge(graph["x"], graph.add("NoOp", name="broken"), (0, 0))
        report = PassReport()
        report.count("broken")
        return report


@pytest.fixture(autouse=True)
def only_ours() -> Iterator[None]:
    with registry.isolated():
        for cls in (Many, Idle, Breaks):
            registry.register(cls)
        yield


def module_with_input() -> Module:
    module = Module()
    module.graph.add(ARG, name="x")
    return module


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("many", {}),
        ("many{}", {}),
        ("many{count=4 rate=1e-3}", {"count": 4, "rate": 1e-3}),
        ("many{rate=2 deep}", {"rate": 2.0, "deep": True}),
        ("many{wide=false label=a/b:c}", {"wide": False, "label": "a/b:c"}),
        ('many{label="a \\"b\\", {c}"}', {"label": 'a "b", {c}'}),
        ("many{label=none maybe=x}", {"label": "none", "maybe": "x"}),
        ('many{maybe="none" limit=none}', {"maybe": "none", "limit": None}),
        ("many{sizes=[1,2] labels=[]}", {"sizes": (1, 2), "labels": ()}),
        ("many{ sizes = 5   pair=[2,3] }", {"sizes": (5,), "pair": (2, 3.0)}),
        ("many{form=fused}", {"form": "fused"}),
        ("many{form=3}", {"form": 3}),
    ],
)
def test_options_from_text(text: str, options: dict[str, Any]) -> None:
    (step,) = PassPipeline.parse(text)
    assert step == Many(**options)


@given(
    st.builds(
        Many,
        count=st.integers(),
        rate=st.floats(allow_nan=False),
        label=st.text(),
        maybe=st.none() | st.text(),
        limit=st.none() | st.integers(),
        sizes=st.lists(st.integers()).map(tuple),
        labels=st.lists(st.text()).map(tuple),
        deep=st.booleans(),
        wide=st.booleans(),
        form=st.sampled_from(["auto", "fused", 3]),
    )
)
def test_what_prints_parses_back(step: Many) -> None:
    pipeline = PassPipeline((step, Idle(), step))
    with registry.isolated():  # hypothesis runs it outside of the fixture's reach
        for cls in (Many, Idle):
            registry.register(cls)
        assert PassPipeline.parse(str(pipeline)) == pipeline


def test_print_leaves_out_defaults() -> None:
    assert describe(Many()) == "many"
    assert describe(Many(deep=True, wide=False, sizes=(1,))) == "many{sizes=[1] deep wide=false}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mani", "there is no pass 'mani'. Did you mean 'many'"),
        ("default{form=fused}", "'default' stands for all passes and has no options"),
        ("many{cuont=1}", "no option 'cuont'. Did you mean 'count'"),
        ("many{count=1.5}", "option 'count' must be a whole number, not '1.5'"),
        ('many{count="1"}', "option 'count' must be a whole number"),
        ("many{rate=fast}", "option 'rate' must be a number, not 'fast'"),
        ("many{deep=1}", "option 'deep' must be true or false"),
        ("many{count}", "option 'count' must be a whole number"),
        ("many{limit=x}", "option 'limit' must be a whole number or none"),
        ("many{form=fuse}", "option 'form' must be one of auto, fused, 3"),
        ("many{sizes=[1,x]}", "must be a list whose members are a whole number"),
        ("many{pair=[1]}", "option 'pair' must be a list of 2"),
        ("many{count=1 count=2}", "expected option 'count' once at column 14"),
        ("many{count=", "expected a value at column 12, found the end"),
        ("many{count=1", "expected an option or '}' at column 13"),
        ("many idle", "expected ',' at column 6, found 'idle'"),
        (",many", "expected the name of a pass at column 1"),
        ('many{label="a}', "expected a value at column 12"),
        ('many{label="\\q"}', "expected text as JSON writes it at column 12"),
        ("many{sizes=[1 2]}", "expected ',' at column 15"),
    ],
)
def test_wrong_text_says_what_and_where(text: str, message: str) -> None:
    with pytest.raises(HintcError) as error:
        PassPipeline.parse(text)
    assert message in str(error.value)


def test_python_values_are_checked_too() -> None:
    assert build(Many, {"rate": 1, "sizes": [1, 2]}) == Many(rate=1.0, sizes=(1, 2))
    for wrong in ({"count": True}, {"count": 1.0}, {"label": 3}, {"sizes": 3}, {"maybe": 1}):
        with pytest.raises(HintcError, match="must be"):
            build(Many, wrong)


def test_editing_returns_new_pipelines() -> None:
    pipeline = PassPipeline.parse("many,idle,many")
    assert str(pipeline.insert_before("many", Idle)) == "idle,many,idle,many"
    assert str(pipeline.insert_after("many", "idle,many{deep}")) == "many,idle,many,idle,many{deep}"
    assert str(pipeline.append(Idle(), pipeline)) == "many,idle,many,idle,many,idle,many"
    assert str(pipeline.remove("many")) == "idle"
    assert str(pipeline.set_options("many", count=4)) == "many{count=4},idle,many{count=4}"
    assert str(pipeline) == "many,idle,many"
    assert "idle" in pipeline
    assert len(pipeline) == 3


def test_editing_names_near_matches() -> None:
    pipeline = PassPipeline.of(Many, "idle")
    with pytest.raises(HintcError, match="the pipeline has no pass 'idel'"):
        pipeline.insert_before("idel", Many)
    with pytest.raises(HintcError, match="option 'count' must be a whole number"):
        pipeline.set_options("many", count="lots")
    with pytest.raises(HintcError, match="is not a pass"):
        pipeline.append(3)  # type: ignore[arg-type]


def test_report_has_times_counts_and_remarks() -> None:
    report = PassPipeline.parse("many{count=2},idle").run(Module())
    assert [run.text for run in report.runs] == ["many{count=2}", "idle"]
    assert [run.changed for run in report.runs] == [True, False]
    assert report.changed
    assert [remark.pass_name for remark in report.remarks] == ["many"]
    data = json.loads(json.dumps(report.to_json()))
    assert data["passes"][0]["counts"] == {"changed": 1}
    assert data["passes"][0]["remarks"][0]["kind"] == "note"
    assert data["passes"][0]["remarks"][0]["remedy"] == "leave it"
    assert report.seconds >= 0


def test_an_error_gets_the_name_of_the_pass() -> None:
    with pytest.raises(HintcError) as error:
        PassPipeline.parse("idle,breaks").run(Module())
    assert str(error.value) == "pass 'breaks', node 'n': the model is upside down. Turn it."


def test_a_foreign_exception_is_wrapped_with_its_cause() -> None:
    with pytest.raises(HintcError, match="pass 'breaks': ZeroDivisionError: by nothing") as error:
        PassPipeline.parse("breaks{how=crash}").run(Module())
    assert isinstance(error.value.__cause__, ZeroDivisionError)


def test_a_pass_that_breaks_the_module_is_caught_and_named() -> None:
    pipeline = PassPipeline.parse("idle,breaks{how=edges},idle")
    with pytest.raises(VerifyError, match="pass 'breaks'"):
        pipeline.run(module_with_input())
    pipeline.run(module_with_input(), verify_each=False)


def test_a_broken_input_is_not_blamed_on_a_pass() -> None:
    module = module_with_input()
    module.graph._nx.add_edge(module.graph["x"], module.graph.add("NoOp"), (0, 0))
    with pytest.raises(VerifyError) as error:
        PassPipeline.parse("idle").run(module)
    assert error.value.pass_name is None


def test_ports_are_not_taken_for_steps() -> None:
    module = module_with_input()
    with pytest.raises(HintcError):
        PassPipeline.of(Port(module.graph["x"]))  # type: ignore[arg-type]
