"""TF1's recurrent functions, cells, options and wrappers: each combination as a model."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tf_keras.src.layers.rnn import legacy_cell_wrappers as wrappers
from tf_keras.src.layers.rnn import legacy_cells as cells

from model_check import Array, Model, Outcome, check, frozen

v1 = tf.compat.v1
STEPS, UNITS = 4, 4
INPUTS = UNITS
"""Inputs are as wide as outputs, so that a residual can be added, except with a projection."""
PROJECTED = 3


@dataclass(frozen=True)
class Cell:
    """How to make a cell, and how many of its layers are exactly a kernel's maths."""

    make: Callable[[], Any]
    kernels: int = 1
    layers: int = 1
    inputs: int = INPUTS


def lstm(**options: Any) -> Callable[[], Any]:
    return lambda: cells.LSTMCell(UNITS, **options)


def stack(*makes: Callable[[], Any], **options: Any) -> Callable[[], Any]:
    return lambda: cells.MultiRNNCell([make() for make in makes], **options)


PROJECTION = {"num_proj": PROJECTED}
CELLS: dict[str, Cell] = {
    "LSTM": Cell(lstm()),
    "LSTM peephole": Cell(lstm(use_peepholes=True)),
    "LSTM projection": Cell(lstm(**PROJECTION), inputs=PROJECTED),
    "LSTM cell clip": Cell(lstm(cell_clip=0.2)),
    "LSTM all": Cell(
        lstm(use_peepholes=True, cell_clip=0.3, proj_clip=0.1, forget_bias=0.5, **PROJECTION),
        inputs=PROJECTED,
    ),
    "LSTM no forget bias": Cell(lstm(forget_bias=0.0)),
    "LSTM relu": Cell(lstm(activation=tf.nn.relu)),
    "LSTM sigmoid": Cell(lstm(activation=tf.sigmoid), kernels=0),
    "LSTM shards": Cell(lstm(num_unit_shards=2, num_proj_shards=3, **PROJECTION), inputs=PROJECTED),
    "LSTM packed": Cell(lstm(state_is_tuple=False)),
    "LSTM packed all": Cell(
        lstm(state_is_tuple=False, use_peepholes=True, proj_clip=0.2, **PROJECTION),
        inputs=PROJECTED,
    ),
    "BasicLSTM": Cell(lambda: cells.BasicLSTMCell(UNITS)),
    "BasicLSTM packed": Cell(
        lambda: cells.BasicLSTMCell(UNITS, forget_bias=0.3, state_is_tuple=False)
    ),
    "BasicRNN": Cell(lambda: cells.BasicRNNCell(UNITS)),
    "BasicRNN relu6": Cell(lambda: cells.BasicRNNCell(UNITS, activation=tf.nn.relu6)),
    "GRU": Cell(lambda: cells.GRUCell(UNITS), kernels=0),
    "Multi LSTM": Cell(stack(lstm(use_peepholes=True), lstm()), kernels=2, layers=2),
    "Multi packed": Cell(
        stack(lstm(state_is_tuple=False), lstm(state_is_tuple=False), state_is_tuple=False),
        kernels=2,
        layers=2,
    ),
    "Multi mixed": Cell(
        stack(lambda: cells.GRUCell(UNITS), lambda: cells.BasicLSTMCell(UNITS)),
        kernels=1,
        layers=2,
    ),
    "Multi RNN": Cell(
        stack(lambda: cells.BasicRNNCell(6), lambda: cells.BasicRNNCell(UNITS)),
        kernels=2,
        layers=2,
    ),
}
WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "none": lambda cell: cell,
    "dropout 1": lambda cell: wrappers.DropoutWrapper(cell, 1.0, 1.0, 1.0),
    "dropout 1 tensor": lambda cell: wrappers.DropoutWrapper(
        cell, output_keep_prob=tf.constant(1.0)
    ),
    "dropout noise": lambda cell: wrappers.DropoutWrapper(cell, input_keep_prob=0.7),
    "residual": wrappers.ResidualWrapper,
    "device": lambda cell: wrappers.DeviceWrapper(cell, "/cpu:0"),
}
FUNCTIONS = ("dynamic_rnn", "static_rnn", "bidirectional_dynamic_rnn", "static_bidirectional_rnn")


@dataclass(frozen=True)
class Case:
    """One combination; the fields are the axes of the matrix."""

    function: str
    cell: str
    wrapper: str
    control_flow: int
    lengths: bool
    time_major: bool

    @property
    def name(self) -> str:
        parts = [self.function, self.cell, f"cf{self.control_flow}"]
        parts += [self.wrapper] if self.wrapper != "none" else []
        parts += ["lengths"] if self.lengths else []
        parts += ["batch-major"] if not self.time_major else []
        return ", ".join(parts)

    @property
    def both_ways(self) -> bool:
        return "bidirectional" in self.function

    @property
    def static(self) -> bool:
        return "static" in self.function

    @property
    def valid(self) -> bool:
        """The static functions take a list of steps, which has no major axis."""
        return self.time_major or not self.static

    def model(self) -> Model:
        """The frozen graph: y, and the final states (not c with lengths, which no kernel keeps)."""
        cell, ways = CELLS[self.cell], 2 if self.both_ways else 1
        return frozen(
            self._build,
            self._feeds,
            control_flow=self.control_flow,
            kernels=cell.kernels * ways,
            loops=(cell.layers - cell.kernels) * ways,
            noisy=self.wrapper == "dropout noise",
        )

    def _feeds(self, batch: int) -> dict[str, Array]:
        random = np.random.default_rng(batch)
        shape = [STEPS, batch, CELLS[self.cell].inputs]
        if not self.time_major:
            shape[:2] = shape[1::-1]
        return {
            "x": random.uniform(-1, 1, shape).astype(np.float32),
            "lengths": (np.arange(batch) * 2 % (STEPS + 1)).astype(np.int32),
        }

    def _build(self) -> tuple[dict[str, Any], list[Any]]:
        shape = [STEPS, None, CELLS[self.cell].inputs]
        if not self.time_major:
            shape[:2] = shape[1::-1]
        inputs = {"x": v1.placeholder(tf.float32, shape, "x")}
        if self.lengths:
            inputs["lengths"] = v1.placeholder(tf.int32, [None], "lengths")
        y, state = self._call(inputs["x"], inputs.get("lengths"))
        return inputs, [*tf.nest.flatten(y), *self._read(state)]

    def _cell(self) -> Any:
        return WRAPPERS[self.wrapper](CELLS[self.cell].make())

    def _call(self, x: Any, lengths: Any) -> tuple[Any, Any]:
        options = {"sequence_length": lengths, "dtype": tf.float32}
        if self.static:
            steps = tf.unstack(x, STEPS)
            if not self.both_ways:
                ys, state = v1.nn.static_rnn(self._cell(), steps, **options)
            else:
                ys, *state = v1.nn.static_bidirectional_rnn(
                    self._cell(), self._cell(), steps, **options
                )
            return tf.stack(ys), state
        options["time_major"] = self.time_major
        if not self.both_ways:
            y, state = v1.nn.dynamic_rnn(self._cell(), x, **options)
        else:
            cells = self._cell(), self._cell()
            y, state = v1.nn.bidirectional_dynamic_rnn(*cells, x, **options)
        return y, state

    def _read(self, state: Any) -> Iterator[Any]:
        """The final states, but with lengths only those that are outputs of the last layer."""
        for one in state if self.both_ways else [state]:
            if not self.lengths:
                yield from tf.nest.flatten(one)
                continue
            last = one
            while isinstance(last, (tuple, list)) and not hasattr(last, "h"):
                last = last[-1]
            if hasattr(last, "h"):
                yield last.h
            elif "packed" not in self.cell and self.wrapper != "residual":
                yield last


def all_cases() -> list[Case]:
    """The whole matrix."""
    axes = (FUNCTIONS, CELLS, WRAPPERS, (2, 1), (False, True), (True, False))
    cases = (Case(*values) for values in itertools.product(*axes))
    return [case for case in cases if case.valid]


def pairwise(cases: Sequence[Case], seed: int = 0) -> list[Case]:
    """Few of the cases, in which each pair of values of two axes that occurs, occurs."""
    missing = {pair for case in cases for pair in _pairs(case)}
    shuffled = list(cases)
    random.Random(seed).shuffle(shuffled)
    chosen: list[Case] = []
    while missing:
        best, gain = shuffled[0], -1
        for case in random.Random(len(chosen)).sample(shuffled, min(400, len(shuffled))):
            found = sum(pair in missing for pair in _pairs(case))
            if found > gain:
                best, gain = case, found
        if not gain:
            pair = min(missing, key=str)
            best = next(case for case in shuffled if pair in _pairs(case))
        chosen.append(best)
        missing.difference_update(_pairs(best))
    return chosen


def _pairs(case: Case) -> list[tuple[tuple[str, Any], tuple[str, Any]]]:
    values = [(f.name, getattr(case, f.name)) for f in dataclasses.fields(case)]
    return list(itertools.combinations(values, 2))


def check_case(case: Case) -> Outcome:
    """Build the model of a case, convert it and compare it."""
    return check(case.model())
