"""The table of fused kernels: op × variant × dtype, each a random call of the op.

`tests/test_kernel_table.py` and, for the dtype *integers*, `tests/test_integer_kernels.py` run all
cells that are right, and check that none of the others is emitted; `tests/test_micro_kernels.py`
does so for TFLite Micro. `tests/kernel_page.py` makes a page of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from custom_model import Floats, custom_model
from hintc.ops import (
    BIDIRECTIONAL_SEQUENCE_LSTM,
    BIDIRECTIONAL_SEQUENCE_RNN,
    LSTM,
    RNN,
    SVDF,
    UNIDIRECTIONAL_SEQUENCE_LSTM,
    UNIDIRECTIONAL_SEQUENCE_RNN,
    FusedOp,
    OperandSlot,
    Quantize,
    Target,
    Use,
)
from hintc.ops.arithmetic import EXACT, Exact, Hybrid
from hintc.ops.references import REFERENCES

Results = Mapping[str, Any]

DTYPES: Mapping[str, Quantize | None] = {
    "float32": None,
    "float16": "float16",
    "int8": "dynamic",
    "int8 asymmetric": "dynamic",
    "integers": "int8",
}
"""Of the weights, and what makes them so. *asymmetric*: the kernel's inputs get zero points;
*integers*: all values are int8, or int16 inside."""
INTEGERS = "integers"
STEPS, BATCH = 4, 3
SIZES = {"n_in": 5, "n_cell": 6, "n_out": 6, "n_units": 4, "memory": 3, "batch": BATCH}
DYNAMIC, FIXED = (BATCH, 1, BATCH, BATCH), (BATCH, BATCH)
SAFE_MARGIN = 5e-4
"""Of a step of quantisation. Nearer to a tie the kernel's float32 may round the other way."""

_COUPLED = frozenset(
    {
        *("input_to_input_weights", "recurrent_to_input_weights", "cell_to_input_weights"),
        *("input_gate_bias", "input_layer_norm_coefficients"),
        "auxiliary_input_to_input_weights",
    }
)


@dataclass(frozen=True)
class Variant:
    """What a call has beside the plain one.

    Attributes:
        name: of the cell, as the page calls it.
        features: optional operands, by the words that `_is_present` knows.
        attributes: those that differ from their defaults.
        layout: of the sequences, or whether the batch is fixed.
    """

    name: str
    features: frozenset[str] = frozenset()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    layout: str = ""

    def plus(self, name: str, *features: str, **attributes: Any) -> Variant:
        """The variant with more of both."""
        joined = ", ".join(part for part in (self.name, name) if part)
        return replace(
            self,
            name=joined,
            features=self.features | set(features),
            attributes={**self.attributes, **attributes},
        )

    def laid_out(self, layout: str, *features: str, **attributes: Any) -> Variant:
        """The variant in one layout more."""
        joined = ", ".join(part for part in (self.layout, layout) if part)
        return replace(self.plus("", *features, **attributes), layout=joined)


@dataclass(frozen=True)
class Case:
    """One cell of the table."""

    op: FusedOp
    variant: Variant
    dtype: str

    @property
    def name(self) -> str:
        """Unique in the table."""
        words = (self.op.name, self.variant.name, self.variant.layout, self.dtype)
        return ": ".join(word for word in words if word)

    @property
    def attributes(self) -> dict[str, Any]:
        """All attributes that differ from their defaults."""
        extra = {"asymmetric_quantize_inputs": True} if "asymmetric" in self.dtype else {}
        return {**self.variant.attributes, **extra}

    @property
    def quantize(self) -> Quantize | None:
        """The option of `legalize` that makes the weights so."""
        return DTYPES[self.dtype]

    @cached_property
    def operands(self) -> dict[str, Floats]:
        """Random ones, at which no quantised value is near a tie."""
        for seed in range(1000):
            found = self._random_operands(seed)
            arithmetic = self._arithmetic()
            self._reference(found, arithmetic)
            if not isinstance(arithmetic, Hybrid) or arithmetic.margin > SAFE_MARGIN:
                return found
        raise AssertionError(f"{self.name}: every seed has a tie")

    @property
    def fed(self) -> set[str]:
        """The operands that are inputs of the model."""
        kinds = ("input", "state")
        return {s.name for s in self.op.operands if s.kind in kinds and s.name in self.operands}

    @property
    def time_major(self) -> bool:
        """Is the batch the second axis of sequences?"""
        return bool(self.op.checked_attributes(self.attributes).get("time_major", False))

    @property
    def use(self) -> Use:
        """The call as constraints see it."""
        return self.use_on("tflite")

    def use_on(self, target: Target) -> Use:
        """The call as constraints see it, for this target."""
        attributes = self.op.checked_attributes(self.attributes)
        dynamic = self.batches is DYNAMIC
        return Use(frozenset(self._slots), attributes, target, self.quantize, dynamic)

    @property
    def outcome(self) -> str:
        """What hintc makes of the cell, by what was measured of the kernels."""
        return _integer_outcome(self) if self.dtype == INTEGERS else _outcome(self)

    @property
    def in_micro(self) -> Case:
        """The cell as TFLite Micro gets it: with a batch of one size."""
        return replace(self, variant=self.variant.laid_out("", "fixed batch"))

    @property
    def micro_outcome(self) -> str:
        """What hintc makes of the cell for TFLite Micro, by what was measured of its kernels."""
        return _micro_outcome(self)

    @property
    def batches(self) -> tuple[int, ...]:
        """Sizes of the batch at the invokes of one instance."""
        return FIXED if "fixed batch" in self.variant.features else DYNAMIC

    def feeds(self, batch: int) -> dict[str, Floats]:
        """Values of the model's inputs."""
        return {name: self.operands[name].take(range(batch), self._axis(name)) for name in self.fed}

    def expected(self, batch: int) -> Results:
        """What the kernel shall give, with the weights that it really holds."""
        return self.reference({**self.operands, **self.feeds(batch)})

    def reference(self, operands: Mapping[str, Floats]) -> Results:
        """The op on these operands, with weights as the kernel holds them.

        Of a kernel on integers, the op in real numbers.
        """
        return self._reference(operands, self._arithmetic())

    def model(self) -> bytes:
        """A model of the call alone, before legalisation, with all results."""
        shapes = {name: value.shape for name, value in self.expected(BATCH).items()}
        axes = {name: self._axis(name) for name in (*self.fed, *shapes)}
        if self.batches == FIXED:
            axes = {}
        return custom_model(self.op, self.operands, self.fed, shapes, self.attributes, axes)

    def _axis(self, name: str) -> int:
        is_sequence = name in ("input", "auxiliary_input") or name.endswith("output")
        return 1 if self.time_major and is_sequence else 0

    def _arithmetic(self) -> Exact:
        if self.outcome == HYBRID or (self.quantize == "dynamic" and FLOAT not in self.outcome):
            return Hybrid("asymmetric" in self.dtype)
        return EXACT

    def _reference(self, operands: Mapping[str, Floats], arithmetic: Exact) -> Results:
        held = {
            name: value.astype(np.float16)
            if self.quantize == "float16" and name not in self._given
            else value
            for name, value in operands.items()
        }
        return REFERENCES[self.op.name](held, self.attributes, arithmetic)

    @property
    def _slots(self) -> list[str]:
        return [s.name for s in self.op.operands if _is_present(s, self.variant.features)]

    @property
    def _given(self) -> set[str]:
        return {slot.name for slot in self.op.operands if slot.kind in ("input", "state")}

    def _random_operands(self, seed: int) -> dict[str, Floats]:
        random = np.random.default_rng(seed)
        features = self.variant.features
        rank = int(self.variant.attributes.get("rank", 1))
        sizes = {**SIZES, "n_filters": SIZES["n_units"] * rank}
        sizes["n_filters*memory"] = sizes["n_filters"] * sizes["memory"]
        sizes["n_out"] = 4 if "projection" in features else sizes["n_cell"]
        found: dict[str, Floats] = {}
        for slot in map(self.op.slot, self._slots):
            value = random.standard_normal(self._shape(slot, sizes))
            value = value * (1.0 if slot.kind == "input" else 0.4) + ("layer_norm" in slot.name)
            found[slot.name] = value.astype(np.float32)
        return found

    def _shape(self, slot: OperandSlot, sizes: Mapping[str, int]) -> list[int]:
        if slot.kind != "input":
            return [sizes[symbol] for symbol in slot.shape]
        major = [STEPS, BATCH] if self.time_major else [BATCH, STEPS]
        return [*(major if len(slot.shape) == 3 else [BATCH]), sizes[slot.shape[-1]]]


def _is_present(slot: OperandSlot, features: frozenset[str]) -> bool:
    name = slot.name.removeprefix("fw_").removeprefix("bw_")
    if "coupled" in features and name in _COUPLED:
        return False
    needs = {
        "cell_to_": "peephole",
        "projection_weights": "projection",
        "projection_bias": "projection bias",
        "auxiliary_input_": "auxiliary weights",
        "auxiliary_input": "auxiliary",
    }
    for prefix, feature in needs.items():
        if name.startswith(prefix):
            return feature in features
    if "layer_norm" in name:
        return "layer norm" in features
    if slot.kind == "state":
        return "states" in features
    return slot.name != "bias" or "no bias" not in features


def _cells(norms: bool) -> list[Variant]:
    """LSTM cells; `norms`: the kernel knows layer normalisation."""
    plain = Variant("")
    clipped = {"cell_clip": 0.3, "proj_clip": 0.2}
    found = [
        plain.plus("plain"),
        plain.plus("coupled gates", "coupled"),
        plain.plus("peepholes", "peephole"),
        plain.plus("coupled gates, peepholes", "coupled", "peephole"),
        plain.plus("projection", "projection"),
        plain.plus("projection with bias", "projection", "projection bias"),
        plain.plus("cell clip", cell_clip=0.3),
        plain.plus("projection, both clips", "projection", **clipped),
        plain.plus("peepholes, projection", "peephole", "projection"),
        plain.plus("relu", activation="RELU"),
        plain.plus("relu6", activation="RELU6"),
        plain.plus("initial states", "states"),
    ]
    everything = plain.plus("", "peephole", "projection", "projection bias", "states", **clipped)
    if not norms:
        return [*found, everything.plus("all of them")]
    return [
        *found,
        plain.plus("layer normalisation", "layer norm"),
        plain.plus("layer normalisation, coupled gates", "layer norm", "coupled"),
        plain.plus("layer normalisation, peepholes", "layer norm", "peephole"),
        plain.plus("layer normalisation, projection", "layer norm", "projection"),
        everything.plus("all of them", "layer norm"),
        everything.plus("all of them, coupled gates", "layer norm", "coupled"),
    ]


def _plain_cells() -> list[Variant]:
    activations = ("TANH", "RELU", "RELU6", "NONE")
    found = [Variant(name.lower(), attributes={"activation": name}) for name in activations]
    return [*found, Variant("tanh, initial state", frozenset({"states"}))]


def _majors(variants: list[Variant]) -> Iterator[Variant]:
    for variant in variants:
        yield variant.laid_out("time-major", time_major=True)
        yield variant.laid_out("batch-major", time_major=False)


def _both_ways(variants: list[Variant], auxiliary: list[Variant]) -> Iterator[Variant]:
    for variant in variants:
        for each in _majors([variant]):
            yield each.laid_out("merged", merge_outputs=True)
            yield each.laid_out("apart", merge_outputs=False)
    for variant in auxiliary:
        without = variant.plus("auxiliary input without weights", "auxiliary")
        with_weights = variant.plus(
            "auxiliary input with weights", "auxiliary", "auxiliary weights"
        )
        for each in _majors([with_weights, without]):
            yield each.laid_out("apart")


def _windows() -> Iterator[Variant]:
    variants = [
        Variant("rank 1"),
        Variant("rank 2", attributes={"rank": 2}),
        Variant("rank 1, no bias", frozenset({"no bias"})),
        Variant("rank 2, initial state", frozenset({"states"}), {"rank": 2}),
        *(
            Variant(f"rank 2, {name.lower()}", attributes={"rank": 2, "activation": name})
            for name in ("TANH", "RELU", "RELU6")
        ),
    ]
    for variant in variants:
        yield variant.laid_out("dynamic batch")
        yield variant.laid_out("fixed batch", "fixed batch")


def _variants() -> Iterator[tuple[FusedOp, Variant]]:
    none = {"activation": "NONE"}
    coupled = Variant("coupled gates", frozenset({"coupled"}))
    projected = Variant("peepholes, projection", frozenset({"peephole", "projection"}))
    cells = [*_cells(norms=True), Variant("no activation", attributes=none)]
    table: dict[str, tuple[FusedOp, Iterator[Variant] | list[Variant]]] = {
        "sequence": (UNIDIRECTIONAL_SEQUENCE_LSTM, _majors(cells)),
        "both": (
            BIDIRECTIONAL_SEQUENCE_LSTM,
            _both_ways(
                [*_cells(norms=False), Variant("no activation", attributes=none)],
                [Variant("plain"), coupled, projected],
            ),
        ),
        "step": (LSTM, cells),
        "rnn": (UNIDIRECTIONAL_SEQUENCE_RNN, _majors(_plain_cells())),
        "both rnn": (
            BIDIRECTIONAL_SEQUENCE_RNN,
            _both_ways(_plain_cells(), [Variant("tanh")]),
        ),
        "rnn step": (RNN, _plain_cells()),
        "svdf": (SVDF, _windows()),
    }
    for op, variants in table.values():
        for variant in variants:
            yield op, variant


RIGHT, OTHER_MAJOR, FLOAT, REFUSED = "right", "other major", "float32 weights", "refused"
HYBRID = "int8 weights"
"""What hintc makes of a cell: the kernel as it is, the kernel another way, or a clear error.
HYBRID, of integers: the kernel computes with floats."""


def _outcome(case: Case) -> str:
    """Which cells the kernels get wrong was measured; what hintc does there was decided."""
    features, int8 = case.variant.features, case.quantize == "dynamic"
    merged = bool(case.attributes.get("merge_outputs"))
    if "LSTM" in case.op.name and case.attributes.get("activation") == "NONE":
        return REFUSED
    if case.op is BIDIRECTIONAL_SEQUENCE_LSTM and merged and not case.time_major:
        return OTHER_MAJOR
    if case.op is BIDIRECTIONAL_SEQUENCE_RNN:
        reads_backwards = "auxiliary" in features and "auxiliary weights" not in features
        if reads_backwards and int8:
            return FLOAT if case.time_major else f"{OTHER_MAJOR}, {FLOAT}"
        if (reads_backwards and not case.time_major) or (int8 and case.time_major):
            return OTHER_MAJOR
    if case.op is SVDF and int8 and case.batches is DYNAMIC:
        return FLOAT
    return RIGHT


def _integer_outcome(case: Case) -> str:
    features, attributes = case.variant.features, case.attributes
    if case.op in (BIDIRECTIONAL_SEQUENCE_LSTM, BIDIRECTIONAL_SEQUENCE_RNN, RNN):
        return REFUSED
    if case.op is SVDF:
        return RIGHT
    if case.op not in (LSTM, UNIDIRECTIONAL_SEQUENCE_LSTM):
        return HYBRID
    if attributes.get("activation") == "NONE":
        return REFUSED
    wrong = "activation" in attributes or "proj_clip" in attributes
    return HYBRID if wrong or features >= {"peephole", "projection"} else RIGHT


def _micro_outcome(case: Case) -> str:
    """It has two of the kernels, without an LSTM's variants, and none that mixes types."""
    variants = case.variant.features - {"states", "fixed batch"}
    tanh = case.attributes.get("activation", "TANH") == "TANH"
    if case.op is SVDF and case.dtype == INTEGERS:
        return RIGHT
    if variants or case.dtype not in ("float32", INTEGERS):
        return REFUSED
    is_lstm = case.op is UNIDIRECTIONAL_SEQUENCE_LSTM and tanh
    return RIGHT if case.op is SVDF or is_lstm else REFUSED


CASES = [Case(op, variant, dtype) for op, variant in _variants() for dtype in DTYPES]
