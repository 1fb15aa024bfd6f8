"""Pictures: every DOT parses back, names survive, big graphs stay small, a dump is complete."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pydot
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hintc.errors import HintcError
from hintc.ir import DType, Graph, Module, Shape, Tensor
from hintc.pipeline import PassPipeline
from hintc.remark import PassReport
from hintc.rewrite import Pass
from hintc.text import parse_module, print_module
from hintc.viz import Dump, render, svg, to_dot


def parsed(dot: str) -> Any:
    graphs = pydot.graph_from_dot_data(dot)
    assert graphs is not None
    assert len(graphs) == 1
    return graphs[0]


def boxes(dot: str) -> dict[str, str]:
    """Label by name of each box, those of clusters included."""
    graph = parsed(dot)
    parts = [graph, *graph.get_subgraphs()]
    nodes = [n for part in parts for n in part.get_nodes() if n.get("label") is not None]
    return {_unquoted(n.get_name()): _unquoted(n.get("label")) for n in nodes}


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), text[1:-1])


def edges(dot: str) -> set[tuple[str, str]]:
    graph = parsed(dot)
    parts = [graph, *graph.get_subgraphs()]
    found = [e for part in parts for e in part.get_edges()]
    return {(_unquoted(e.get_source()), _unquoted(e.get_destination())) for e in found}


SPEC = {"op": "OTHER", "slots": ["input", "weights"], "attributes": {"gain": 3}}
SMALL = """
graph (%x) {
  %x = Placeholder() {dtype = float, shape = <?x4>}
  %w = Const() {dtype = float, value = float<4x3> splat 0.5}
  %w/read = Identity(%w) {T = float}
  %matmul = MatMul(%x, %w/read) {T = float}
  %pass = Identity(%matmul) {T = float}
  %shape = Shape(%x) {T = float}
  %zeros = Fill(%shape, %zero) {T = float}
  %zero = Const() {dtype = float, value = float<>[0.0]}
  %sum = AddV2(%pass, %zeros) {T = float} after (%note)
  %note = NoOp()
  %scan:2 = Scan(%n, %sum, %x, %k) {body = @step, states = 1, xs = 1, invariants = 0, ys = 1, \
Tin = [float, float, float], Tout = [float, float], reverse_xs = [true], reverse_ys = [true], \
form = "fused", fused_op = "MY_OP", fused_slots = ["weights"], fused_results = ["y", ""], \
fused.clip = 2.0}
  %n = Const() {dtype = int32, value = int32<>[3]}
  %k = Const() {dtype = float, value = float<3x3> splat 1.0}
  %call = PartitionedCall(%scan:1, %w) {Tin = [float, float], Tout = [float], f = @fused}
  return y = %call
}
func @step(%t: int32, %x: float, %h: float) {
  %next = AddV2(%x, %h) {T = float}
  return next = %next, y = %next
}
func @fused(%x: float, %w: float) attributes {_implements = @hintc.OTHER{spec = SPEC}} {
  return y = %x
}
""".replace("SPEC", json.dumps(json.dumps(SPEC)))


def test_small_graph() -> None:
    dot = to_dot(parse_module(SMALL))
    labels = boxes(dot)
    assert labels["x"] == "x\n<?x4>"
    assert labels["matmul"] == "MatMul\nmatmul\noperand 1: <4x3>"
    assert labels["scan"].split("\n") == [
        "Scan", "scan", "1 xs, 1 states, 1 ys", "reversed", "is a MY_OP", "clip 2.0",
        "form: fused", "step: @step", "weights: <3x3>",
    ]  # fmt: skip
    assert labels["call"] == "OTHER\ncall\ngain 3\nweights: <4x3>"
    assert "@step/next" in labels
    assert not any(name.startswith("@fused") for name in labels), "the body of a fused call"
    assert not labels.keys() & {"w", "w/read", "pass", "shape", "zeros", "zero"}
    assert {("x", "matmul"), ("matmul", "sum"), ("note", "sum"), ("call", "ret/y")} <= edges(dot)
    assert "trip count" not in dot


def test_full_draws_every_node() -> None:
    module = parse_module(SMALL)
    labels = boxes(to_dot(module, full=True))
    expected = {n.name for n in module.graph}
    expected |= {f"@{f.name}/{n.name}" for f in module.functions.values() for n in f.graph}
    assert labels.keys() == expected


odd = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=9)


@given(st.lists(odd | st.sampled_from(['a"b', "a:0", "a\\", "\\n", "<b>", "{}"]), max_size=4))
def test_odd_names_are_quoted(names: list[str]) -> None:
    graph = Graph()
    last = graph.add("Start", name="start")
    for name in names:
        last = graph.add(name, [last], {"s": name.encode()}, name=name)
        last.device = name
    dot = to_dot(Module(graph), title="".join(names))
    assert len(parsed(dot).get_nodes()) >= len(graph)
    assert len(parsed(dot).get_edges()) == len(graph) - 1


@pytest.mark.parametrize("prefix", ["", "scope_{i}/", "a/b_{j}/c_{i}/"])
def test_big_graphs_are_collapsed(prefix: str) -> None:
    graph = Graph()
    node = graph.add("Placeholder", (), {"dtype": DType.FLOAT}, name="x")
    for i in range(3000):
        name = prefix.format(i=i // 10, j=i // 500) + ("add" if i % 2 else "mul")
        node = graph.add("AddV2" if i % 2 else "Mul", [node, node], {"T": DType.FLOAT}, name=name)
    labels = boxes(to_dot(Module(graph), limit=40))
    assert len(labels) <= 40
    counts = [int(m[1]) for label in labels.values() if (m := re.search(r"(\d+) nodes", label))]
    singles = len(labels) - len(counts)
    assert sum(counts) + singles == 3001


def test_a_graph_that_is_one_box_is_drawn() -> None:
    pytest.importorskip("pygraphviz")
    graph = Graph()
    for i in range(9):
        graph.add("Placeholder", (), {"dtype": DType.FLOAT}, name=f"x{i}")
    dot = to_dot(Module(graph), limit=1, title="all")
    assert "(no scope)" in dot
    assert render(dot).image, render(dot).note


def test_a_crash_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    crash = [sys.executable, "-c", "import os; os.abort()"]
    monkeypatch.setattr(svg, "_command", lambda _: crash)
    assert render("digraph {}").note == "Graphviz crashed with signal 6"


def test_hints_share_a_box() -> None:
    text = "\n".join(
        f"""%in{n} = Identity({"%x" if not n else f"%out{n - 1}"}) {{\
_tflite_function_uuid = "u{n}", _tflite_function_name = "Cell", _tflite_function_input_index = 0}}
        %mul{n} = Mul(%in{n}, %x)
        %out{n} = Identity(%mul{n}) {{_tflite_function_uuid = "u{n}", \
_tflite_function_name = "Cell", _tflite_function_output_index = 0}}"""
        for n in range(2)
    )
    dot = to_dot(parse_module(f"graph {{ %x = Placeholder() {text} %end = Relu(%out1) }}"))
    assert boxes(dot).keys() == {"x", "hint Cell/", "hint Cell #2/", "end"}
    assert ("hint Cell/", "hint Cell #2/") in edges(dot)


def test_cyclic_and_broken_graphs_are_drawn() -> None:
    cyclic = parse_module("graph { %m = Merge(%n) %n = NextIteration(%m) %a = A(%b) %b = B(%a) }")
    assert edges(to_dot(cyclic)) == {("m", "n"), ("n", "m"), ("a", "b"), ("b", "a")}
    damaged = parse_module("graph { %s = Scan(%s) {body = @gone} %c = While() {body = @gone} }")
    assert "damaged" in boxes(to_dot(damaged))["s"]


def test_many_arguments_share_a_box() -> None:
    args = ", ".join(f"%a{n}: float" for n in range(9))
    results = ", ".join(f"r{n} = %a{n}" for n in range(8))
    text = f"""graph {{ %c = StatefulPartitionedCall() {{f = @f}} }}
    func @f({args}) {{ %y = Relu(%a1) return {results}, last = %y }}"""
    labels = boxes(to_dot(parse_module(text)))
    assert labels["@f/arguments/"] == "8 arguments"
    assert labels["@f/results/"] == "9 results"


def test_many_functions_are_cut_short() -> None:
    calls = " ".join(f"%c{n} = PartitionedCall() {{f = @f{n}}}" for n in range(20))
    functions = " ".join(f"func @f{n}() {{ %y = NoOp() }}" for n in range(20))
    assert "8 more functions" in to_dot(parse_module(f"graph {{ {calls} }} {functions}"))


# -- rendering -----------------------------------------------------------------------------


def test_svg() -> None:
    pytest.importorskip("pygraphviz")
    drawn = render(to_dot(parse_module(SMALL), title="a title"))
    assert drawn.note == ""
    assert drawn.image is not None
    assert drawn.image.startswith(b"<?xml")
    assert b"a title" in drawn.image
    assert b"MatMul" in drawn.image


def test_without_graphviz_there_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "")
    drawn = render("digraph {}")
    assert drawn.image is None
    assert "install hintc[viz]" in drawn.note


def test_dot_on_the_path_is_the_second_choice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dot = tmp_path / "dot"
    dot.write_text('#!/bin/sh\necho "drawn by $0 $1"\n')
    dot.chmod(0o755)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert render("digraph {}").image == f"drawn by {dot} -Tsvg\n".encode()


def test_time_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(svg, "_command", lambda _: sleep)
    drawn = render("digraph {}", seconds=0.2)
    assert drawn.image is None
    assert "more than 0.2 s" in drawn.note


def test_bad_dot_is_a_note() -> None:
    pytest.importorskip("pygraphviz")
    drawn = render("digraph {")
    assert drawn.image is None
    assert drawn.note.startswith("Graphviz failed")


# -- dumps ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rename(Pass):
    """Renames the node `old`."""

    name: ClassVar[str] = "rename"
    old: str = "matmul"

    def run(self, module: Module) -> PassReport:
        report = PassReport()
        node = module.graph.find(self.old)
        if node is None:
            report.refused("no-such-node", self.old, "it is <gone>", "Look & find.")
        else:
            module.graph.rename(node, f"{self.old}_2")
            report.count("renamed")
        return report


@dataclass(frozen=True)
class Fail(Pass):
    """Changes something, then fails."""

    name: ClassVar[str] = "fail"

    def run(self, module: Module) -> PassReport:
        module.graph.rename(module.graph["x"], "half/way")
        raise HintcError("it failed", node="x")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def module() -> Module:
    graph = Graph()
    x = graph.add("Placeholder", (), {"dtype": DType.FLOAT, "shape": Shape((2, 2))}, name="x")
    value = Tensor.of([[1.0, 2], [3, 4]], DType.FLOAT)
    w = graph.add("Const", (), {"dtype": DType.FLOAT, "value": value}, name="w")
    matmul = graph.add("MatMul", [x, w], {"T": DType.FLOAT}, name="matmul")
    graph.add("Relu", [matmul], {"T": DType.FLOAT}, name="y")
    return Module(graph)


def test_dump_writes_where_something_changed(module: Module, tmp_path: Path) -> None:
    pytest.importorskip("pygraphviz")
    folder = tmp_path / "new" / "dump"
    steps = PassPipeline.of(Rename(), Rename(), Rename(old="y"))
    steps.run(module, [Dump(folder)])
    stems = ["000_lift", "001_rename", "003_rename"]
    endings = ("dot", "hir", "svg")
    expected = [f"{stem}.{ending}" for stem in stems for ending in endings]
    assert files(folder) == sorted([*expected, "index.html"])
    for stem in stems:
        parsed((folder / f"{stem}.dot").read_text())
        text = (folder / f"{stem}.hir").read_text()
        assert print_module(parse_module(text)) == text
    assert print_module(module) == (folder / "003_rename.hir").read_text()
    page = (folder / "index.html").read_text()
    assert "2 of 3 passes changed the graph" in page
    assert page.count("data:image/svg+xml;base64,") == 3
    assert "1 renamed" in page
    assert "no change" in page
    assert "it is &lt;gone&gt; Look &amp; find." in page
    assert set(re.findall(r'href="([^"]+)"', page)) <= set(files(folder))


def test_dump_of_a_failure(module: Module, tmp_path: Path) -> None:
    with pytest.raises(HintcError, match="it failed"):
        PassPipeline.of(Rename(), Fail()).run(module, [Dump(tmp_path, pictures=False)])
    assert files(tmp_path) == [
        "000_lift.hir", "001_rename.hir", "002_fail.failed.hir", "index.html",
    ]  # fmt: skip
    assert "half/way" in (tmp_path / "002_fail.failed.hir").read_text()
    assert "it failed" in (tmp_path / "index.html").read_text()


def test_dump_replaces_an_earlier_dump_and_nothing_else(module: Module, tmp_path: Path) -> None:
    for name in ("007_old.hir", "007_old.svg", "mine.hir", "index.txt"):
        (tmp_path / name).touch()
    PassPipeline.of(Rename()).run(module, [Dump(tmp_path, pictures=False)])
    assert files(tmp_path) == ["000_lift.hir", "001_rename.hir", "index.html", "index.txt",
                               "mine.hir"]  # fmt: skip


def test_dump_without_graphviz(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svg, "_command", lambda _: None)
    PassPipeline.of(Rename()).run(module, [Dump(tmp_path)])
    assert "001_rename.dot" in files(tmp_path)
    assert "001_rename.svg" not in files(tmp_path)
    assert "no Graphviz found" in (tmp_path / "index.html").read_text()


def test_dump_to_a_bad_place(module: Module, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HintcError, match=r"cannot dump to '.*file'"):
        PassPipeline.of(Rename()).run(module, [Dump(tmp_path / "file")])


def test_without_constants_the_text_is_short(tmp_path: Path) -> None:
    module = Module()
    module.graph.add(
        "Const", (), {"dtype": DType.INT64, "value": Tensor.of(list(range(5000)))}, name="k"
    )
    PassPipeline.EMPTY.run(module, [Dump(tmp_path, pictures=False, constants=False)])
    assert "int64<5000> elided" in (tmp_path / "000_lift.hir").read_text()


def test_tensorflow_is_not_imported() -> None:
    code = (
        "import sys; from hintc.text import parse_module; from hintc.viz import to_dot\n"
        f"to_dot(parse_module({SMALL!r})); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
