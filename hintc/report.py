"""Report: what a compilation did to a model, and why it did not do more."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hintc.remark import NearMiss, PassReport, Remark, RemarkKind

_TOP_OPS = 8
_NEAR_MISSES = 20
"""So many of one run of a pass are kept, the closest."""
_BECAME_A_LOOP = ("form-unroll", "form-while")
"""Codes of the notes on a recurrence that is not fused, although it may have been recognised."""
_FELT = (
    *("state-not-carried", "batch-fixed", "stays-float", "legalize", "target", "check"),
    "conv-quantised",
)
"""Codes of the notes on what who runs the model feels; the others say how it was made."""
_NOTES = 8
"""So many notes are printed."""


@dataclass(frozen=True)
class PassOutcome:
    """One pass in the order it ran.

    Attributes:
        name: of the pass.
        counts: what it counted, e.g. ``{"fused": 2}``; empty if it changed nothing.
        remarks: what it said.
        near_misses: where its pattern nearly fitted, the closest first, not more than 20.
    """

    name: str
    counts: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()
    near_misses: tuple[NearMiss, ...] = ()


@dataclass(frozen=True)
class NodeOutcome:
    """What became of one loop, recurrence, or other place that a pass would fuse.

    Attributes:
        node: as the remarks name it.
        is_fused: whether it is fused.
        became: in a few words.
        code: of the remark that says why.
        why: the first reason why it is not fused; of one that is, or could be, what it was
            recognised as; "" if nothing was to be fused.
        remedy: what the user can do, "" if nothing.
    """

    node: str
    is_fused: bool
    became: str
    code: str = ""
    why: str = ""
    remedy: str = ""

    @property
    def is_chosen(self) -> bool:
        """Whether its form is the wish or the estimate, and no refusal."""
        return self.is_fused or self.code in _BECAME_A_LOOP


@dataclass(frozen=True)
class OutputError:
    """One output of a quantised model against the same of its float source.

    Attributes:
        largest: absolute difference.
        mean: absolute difference, over all elements.
        span: of the float output: its greatest value less its least.
        top_1: share of rows whose most probable class is the same; None where the last axis does
            not hold probabilities (not negative, of sum 1).
        step: the least difference that the output can show, if it is made in int8; else 0.
    """

    largest: float
    mean: float
    span: float
    top_1: float | None = None
    step: float = 0.0


@dataclass(frozen=True)
class QuantizationCost:
    """What quantisation costs in accuracy.

    Attributes:
        measured_on: the feeds in a few words.
        feeds: how many.
        outputs: by output.
    """

    measured_on: str
    feeds: int
    outputs: Mapping[str, OutputError]

    @property
    def where(self) -> str:
        """What it was measured on, and how much of that."""
        found = f"{self.feeds} {self.measured_on}"
        one = found.replace("samples", "sample").replace("feeds", "feed")
        return one if self.feeds == 1 else found

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data; what is not finite is text."""
        outputs = {
            name: {key: _number(value) for key, value in asdict(error).items()}
            for name, error in self.outputs.items()
        }
        return {"measured_on": self.measured_on, "feeds": self.feeds, "outputs": outputs}

    def lines(self) -> Iterable[str]:
        """In sentences, one a line."""
        yield f"cost of quantisation, on {self.where}:"
        for name, error in self.outputs.items():
            text = f"  '{name}': largest error {error.largest:.3g}, mean {error.mean:.3g}"
            text += f", of a span of {error.span:.3g}"
            if error.step > error.largest:
                text += f", less than a step of int8 ({error.step:.3g})"
            yield text + ("" if error.top_1 is None else f", top-1 agreement {error.top_1:.1%}")


@dataclass
class Report:
    """The account of one `compile` or `convert`.

    Attributes:
        source: what was read, in a few words.
        pipeline: the pipeline as text; parses back.
        passes: outcome of each pass, in order.
        timings: seconds by stage: ``"read"``, ``"pass <name>"`` (summed over its runs),
            ``"lower"``, ``"convert"``, ``"quantise"``, ``"check"``.
        ops_before: op -> how often, in the source graph with its function bodies.
        ops_after: the same of the lowered graph.
        fused_ops: fused op -> how many calls of it the lowered graph has; after `convert`, no
            more than the model has kernels.
        operators: TFLite operator -> how often; empty before `convert`.
        sizes: bytes: ``"source"``, ``"lowered"`` (serialised GraphDefs), ``"tflite"``; with
            ``quantize="int8"`` also ``"float tflite"``, what it was made from; with target tflm
            also ``"arena"``, the memory that it takes in TFLite Micro on a machine with pointers
            of 64 bits.
        errors: output -> largest absolute difference from the source model; empty if not checked.
        tolerance: the ``(rtol, atol)`` of that check; None for int8 models, see `cost`.
        cost: what quantisation costs; None if it was not measured.
    """

    source: str = ""
    pipeline: str = ""
    passes: list[PassOutcome] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    ops_before: dict[str, int] = field(default_factory=dict)
    ops_after: dict[str, int] = field(default_factory=dict)
    fused_ops: dict[str, int] = field(default_factory=dict)
    operators: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    tolerance: tuple[float, float] | None = None
    cost: QuantizationCost | None = None

    @property
    def remarks(self) -> list[Remark]:
        """What the passes said, in order."""
        return [remark for outcome in self.passes for remark in outcome.remarks]

    @property
    def fused(self) -> list[Remark]:
        """What was fused: for each node the last remark that says so.

        A recurrence that was recognised, but then became a loop, is not among them.
        """
        found: dict[str, Remark] = {}
        for remark in self.remarks:
            if remark.kind is RemarkKind.FUSED:
                found[remark.node] = remark
            elif remark.code in _BECAME_A_LOOP:
                found.pop(remark.node, None)
        return list(found.values())

    @property
    def not_fused(self) -> list[Remark]:
        """What was left alone, with the reason and what would help."""
        return [remark for remark in self.remarks if remark.kind is RemarkKind.REFUSED]

    @property
    def forms(self) -> list[Remark]:
        """What recurrences became that are no kernel: loops, unrolled steps; by which estimate."""
        return [remark for remark in self.remarks if remark.code in _BECAME_A_LOOP]

    @property
    def notes(self) -> list[Remark]:
        """What is not fusion, but felt by who runs the model: states, batches, layers in float."""
        return [remark for remark in self.remarks if remark.code in _FELT]

    @property
    def outcomes(self) -> list[NodeOutcome]:
        """What became of every node that was fused, refused or written in a form, one each."""
        said: dict[str, list[Remark]] = {}
        for remark in self.remarks:
            if remark.kind is not RemarkKind.NOTE or remark.code in _BECAME_A_LOOP:
                said.setdefault(remark.node, []).append(remark)
        return [_outcome(node, remarks) for node, remarks in said.items()]

    @property
    def custom_codes(self) -> list[str]:
        """The codes of the model's custom operators, for which a runtime needs kernels."""
        names = (name.split(":", 1) for name in self.operators)
        return [code[0] for kind, *code in names if kind == "CUSTOM"]

    @property
    def near_misses(self) -> list[tuple[str, NearMiss]]:
        """Pass and near miss, the closest of each run of a pass first."""
        return [(run.name, miss) for run in self.passes for miss in run.near_misses]

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Pass -> what -> how often; runs of the same pass are summed, idle passes left out."""
        found: dict[str, Counter[str]] = {}
        for outcome in self.passes:
            found.setdefault(outcome.name, Counter()).update(outcome.counts)
        return {name: dict(counts) for name, counts in found.items() if any(counts.values())}

    def add_pass(self, name: str, report: PassReport) -> None:
        """Append the outcome of one pass; its remarks are marked with the pass's name."""
        remarks = tuple(
            r if r.pass_name else Remark(r.kind, r.code, r.node, r.reason, r.remedy, name)
            for r in report.remarks
        )
        closest = sorted(report.near_misses, key=lambda miss: -miss.matched)[:_NEAR_MISSES]
        self.passes.append(PassOutcome(name, dict(report.counts), remarks, tuple(closest)))

    def add_notes(self, name: str, notes: Iterable[tuple[str, str]]) -> None:
        """Append what a stage other than a pass has to say: (node, text)."""
        remarks = tuple(Remark(RemarkKind.NOTE, name, node, text, "", name) for node, text in notes)
        if remarks:
            self.passes.append(PassOutcome(name, {}, remarks))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "source": self.source,
            "pipeline": self.pipeline,
            "fused": [_remark(r) for r in self.fused],
            "not_fused": [_remark(r) for r in self.not_fused],
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
            "remarks": [_remark(r) for r in self.remarks],
            "near_misses": [{"pass": name, **asdict(miss)} for name, miss in self.near_misses],
            "counts": self.counts,
            "passes": [{"name": o.name, "counts": dict(o.counts)} for o in self.passes],
            "timings": self.timings,
            "ops_before": self.ops_before,
            "ops_after": self.ops_after,
            "fused_ops": self.fused_ops,
            "operators": self.operators,
            "sizes": self.sizes,
            "errors": {name: _number(error) for name, error in self.errors.items()},
            "tolerance": None
            if self.tolerance is None
            else {"rtol": self.tolerance[0], "atol": self.tolerance[1]},
            "cost": None if self.cost is None else self.cost.to_dict(),
        }

    def to_json(self, indent: int | None = 2) -> str:
        """Everything as JSON text; an infinite error is written as the string ``"inf"``."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterable[str]:
        """The report in sentences, one a line."""
        yield f"source: {self.source}"
        yield f"fused: {_listed(self.fused_ops) if self.fused_ops else 'nothing'}"
        yield from (f"  '{r.node}': {r.reason}" for r in self.fused)
        if self.not_fused:
            yield f"not fused: {len(self.not_fused)}"
        for remark in self.not_fused:
            yield f"  '{remark.node}': {remark.reason} [{remark.code}]"
            if remark.remedy:
                yield f"    {remark.remedy}"
        if self.forms:
            yield f"loops and unrolled steps: {len(self.forms)}"
        yield from (f"  '{r.node}': {r.reason}" for r in self.forms)
        yield from self._noted()
        yield f"nodes: {sum(self.ops_before.values())} -> {sum(self.ops_after.values())}"
        if self.operators:
            yield f"operators: {_listed(self.operators)}"
        if self.sizes:
            yield "bytes: " + ", ".join(f"{k} {v:,}" for k, v in self.sizes.items())
        for name, error in self.errors.items():
            yield f"largest error of '{name}': {error:.3g}{self._allowed()}"
        if self.cost is not None:
            yield from self.cost.lines()
        if self.timings:
            total = sum(self.timings.values())
            slowest = sorted(self.timings.items(), key=lambda item: -item[1])[:4]
            listed = ", ".join(f"{name} {seconds:.2f}" for name, seconds in slowest)
            yield f"seconds: {total:.2f} ({listed})"

    def _noted(self) -> Iterable[str]:
        notes = self.notes
        if notes:
            yield f"notes: {len(notes)}"
        yield from (f"  '{r.node}': {r.reason} [{r.code}]" for r in notes[:_NOTES])
        if len(notes) > _NOTES:
            yield f"  and {len(notes) - _NOTES} more"

    def _allowed(self) -> str:
        if self.tolerance is None:
            return ""
        rtol, atol = self.tolerance
        return f" (tolerance: {atol:g} + {rtol:g} of the value)"


def _outcome(node: str, remarks: Sequence[Remark]) -> NodeOutcome:
    refused = [r for r in remarks if r.kind is RemarkKind.REFUSED]
    decided = [r for r in remarks if r.kind is not RemarkKind.REFUSED]
    if not decided:
        first = refused[0]
        return NodeOutcome(node, False, "stays as it is", first.code, first.reason, first.remedy)
    last = decided[-1]
    if last.kind is RemarkKind.FUSED:
        known = decided[0].reason if len(decided) > 1 else ""
        return NodeOutcome(node, True, last.reason, last.code, known)
    if not refused:
        known = decided[0].reason if decided[0].kind is RemarkKind.FUSED else ""
        return NodeOutcome(node, False, last.reason, last.code, known)
    return NodeOutcome(
        node, False, last.reason, refused[0].code, refused[0].reason, refused[0].remedy
    )


def _listed(counts: Mapping[str, int]) -> str:
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{n} × {op}" for op, n in ranked[:_TOP_OPS])
    rest = sum(n for _, n in ranked[_TOP_OPS:])
    return f"{shown} and {rest} others" if rest else shown


def _remark(remark: Remark) -> dict[str, str]:
    return {
        "kind": remark.kind.value,
        "code": remark.code,
        "node": remark.node,
        "pass": remark.pass_name,
        "reason": remark.reason,
        "remedy": remark.remedy,
    }


def _number(value: float | None) -> float | str | None:
    return value if value is None or value - value == 0 else str(value)
