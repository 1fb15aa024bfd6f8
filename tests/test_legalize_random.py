"""Random LSTM and RNN calls, built without TensorFlow, against the numpy references."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from custom_model import custom_model
from hintc.errors import HintcError
from hintc.ops import (
    UNIDIRECTIONAL_SEQUENCE_LSTM,
    UNIDIRECTIONAL_SEQUENCE_RNN,
    AttributeValue,
    sequence_lstm,
    sequence_rnn,
)
from hintc.runtime.interpreter import Interpreter
from hintc.tflite.legalize import legalize

Floats = npt.NDArray[np.float32]
LSTM, RNN = UNIDIRECTIONAL_SEQUENCE_LSTM, UNIDIRECTIONAL_SEQUENCE_RNN
TOLERANCES = {None: 1e-5, "float16": 2e-2, "dynamic": 1e-1}


@st.composite
def lstm_uses(draw: Any) -> tuple[dict[str, Floats], set[str], dict[str, Any]]:
    """Operands, those that are fed, and attributes."""
    flag = st.booleans()
    coupled, peephole, projection, norm = (draw(flag) for _ in range(4))
    projection_bias = projection and draw(flag)
    # Normalising two or three nearly equal numbers amplifies any rounding without bound.
    sizes = {"n_in": draw(st.integers(1, 9)), "n_cell": draw(st.integers(4 if norm else 1, 9))}
    sizes["n_out"] = draw(st.integers(1, 9)) if projection else sizes["n_cell"]
    sizes["batch"] = draw(st.integers(1, 4))
    attributes = {
        "activation": draw(st.sampled_from(["TANH", "RELU", "RELU6"])),
        "cell_clip": draw(st.sampled_from([0.0, 0.25])),
        "proj_clip": draw(st.sampled_from([0.0, 0.125])) if projection else 0.0,
        "time_major": draw(flag),
    }
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    steps, batch = draw(st.integers(1, 5)), sizes["batch"]
    major = (steps, batch) if attributes["time_major"] else (batch, steps)
    operands: dict[str, Floats] = {}
    fed = {"input"}
    for slot in LSTM.operands:
        input_gate = slot.name.startswith("input_") and slot.name != "input_state"
        gate_only = "to_input_" in slot.name or (
            input_gate and ("gate_bias" in slot.name or "layer_norm" in slot.name)
        )
        wanted = (
            not (coupled and gate_only)
            and (peephole or not slot.name.startswith("cell_to"))
            and (projection or slot.name != "projection_weights")
            and (projection_bias or slot.name != "projection_bias")
            and (norm or "layer_norm" not in slot.name)
        )
        if slot.kind == "state":
            choice = draw(st.sampled_from(["absent", "zero", "one row", "constant", "fed"]))
            rows = 1 if choice == "one row" else batch
            shape: tuple[int, ...] = (rows, sizes[slot.shape[1]])
            if choice == "absent":
                continue
            value = random.standard_normal(shape) * (choice != "zero")
            fed |= {slot.name} if choice == "fed" else set()
        elif not wanted:
            continue
        else:
            known = [sizes[s] for s in slot.shape if s != "?"]
            shape = (*major, sizes["n_in"]) if slot.name == "input" else tuple(known)
            value = random.standard_normal(shape) * (1.0 if slot.name == "input" else 0.3)
        operands[slot.name] = value.astype(np.float32)
    return operands, fed, attributes


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(
    use=lstm_uses(),
    dynamic=st.booleans(),
    order=st.permutations(LSTM.results),
    count=st.integers(1, 3),
    quantize=st.sampled_from([None, None, "dynamic", "float16"]),
    runtime=st.sampled_from(["litert", "tensorflow"]),
)
def test_random_lstm(
    use: tuple[dict[str, Floats], set[str], dict[str, Any]],
    dynamic: bool,
    order: list[str],
    count: int,
    quantize: Any,
    runtime: Any,
) -> None:
    operands, fed, attributes = use
    expected = sequence_lstm.reference(operands, attributes)
    fixed_rows = [
        operands[slot.name].shape[0]
        for slot in LSTM.operands
        if slot.kind == "state"
        and slot.name in operands
        and slot.name not in fed
        and operands[slot.name].any()
    ]
    if any(rows > 1 for rows in fixed_rows):
        dynamic = False  # a constant state of several rows fixes the batch
    axis = 1 if attributes["time_major"] else 0
    axes = {"input": axis, "output": axis, **dict.fromkeys((*LSTM.results[1:],), 0)}
    axes |= {slot.name: 0 for slot in LSTM.operands if slot.kind == "state"}
    results = {name: expected[name].shape for name in order[:count]}
    model = custom_model(LSTM, operands, fed, results, attributes, axes if dynamic else {})
    instance = Interpreter(legalize(model, quantize=quantize), runtime=runtime)
    for _ in range(2):
        found = instance.run({name: operands[name] for name in fed})
        assert list(found) == list(results)
        for name in results:
            assert np.abs(found[name] - expected[name]).max() < TOLERANCES[quantize], name


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(*[st.integers(1, 6)] * 4),
    activation=st.sampled_from(["NONE", "RELU", "RELU6", "TANH"]),
    time_major=st.booleans(),
    dynamic=st.booleans(),
    state=st.booleans(),
    runtime=st.sampled_from(["litert", "tensorflow"]),
)
def test_random_rnn(
    sizes: tuple[int, ...],
    activation: str,
    time_major: bool,
    dynamic: bool,
    state: bool,
    runtime: Any,
) -> None:
    steps, batch, n_in, n = sizes
    random = np.random.default_rng(sum(sizes))
    shapes = {
        "input": (steps, batch, n_in) if time_major else (batch, steps, n_in),
        "input_weights": (n, n_in),
        "recurrent_weights": (n, n),
        "bias": (n,),
        **({"hidden_state": (batch, n)} if state else {}),
    }
    operands = {
        name: (random.standard_normal(shape) * 0.3).astype(np.float32)
        for name, shape in shapes.items()
    }
    attributes: dict[str, AttributeValue] = {"activation": activation, "time_major": time_major}
    expected = sequence_rnn.reference(operands, attributes)
    results = {name: value.shape for name, value in expected.items()}
    axis = 1 if time_major else 0
    axes = {"input": axis, "output": axis, "hidden_state": 0, "final_hidden_state": 0}
    fed = {"input", "hidden_state"} & set(operands)
    model = custom_model(RNN, operands, fed, results, attributes, axes if dynamic else {})
    found = Interpreter(legalize(model), runtime=runtime).run({n: operands[n] for n in fed})
    for name in results:
        np.testing.assert_allclose(found[name], expected[name], atol=2e-6, rtol=1e-5)


def run_all_initial_states(runtime: Any) -> None:
    """Every pair of initial states in a dynamic batch that changes; run in its own process."""
    n, n_in, steps, batch = 9, 8, 3, 4
    random = np.random.default_rng(0)
    sizes = {"n_in": n_in, "n_cell": n, "n_out": n}
    plain = {"input": random.standard_normal((steps, batch, n_in)).astype(np.float32)}
    for slot in LSTM.operands[1:17]:
        if not slot.name.startswith(("cell_to", "projection")):
            value = random.standard_normal([sizes[symbol] for symbol in slot.shape]) * 0.3
            plain[slot.name] = value.astype(np.float32)
    axes = {"input": 1, "output": 1, "final_cell_state": 0, "output_state": 0, "cell_state": 0}
    names = ("output_state", "cell_state")
    for choices in itertools.product(["absent", "fed", "one row"], repeat=2):
        rows = {"fed": batch, "one row": 1}
        states = {
            name: random.standard_normal((rows[choice], n)).astype(np.float32)
            for name, choice in zip(names, choices, strict=True)
            if choice != "absent"
        }
        fed = {"input"} | {n for n, c in zip(names, choices, strict=True) if c == "fed"}
        results = {"output": (steps, batch, n), "final_cell_state": (batch, n)}
        model = custom_model(LSTM, plain | states, fed, results, {}, axes)
        instance = Interpreter(legalize(model), runtime=runtime)
        for size in (4, 1, 3, 3):
            cut = {name: value[:size] for name, value in states.items()}
            cut["input"] = plain["input"][:, :size]
            expected = sequence_lstm.reference(plain | cut, {})
            for name, value in instance.run({name: cut[name] for name in fed}).items():
                np.testing.assert_allclose(value, expected[name], atol=1e-6, err_msg=str(choices))


def test_no_state_is_written_beyond_its_end() -> None:
    """In a process whose heap is checked (by glibc, where it has its debug library)."""
    environment = os.environ | {
        "LD_PRELOAD": "libc_malloc_debug.so.0",
        "GLIBC_TUNABLES": "glibc.malloc.check=3",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    code = "import test_legalize_random as t; t.run_all_initial_states('litert')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_damaged_models_give_one_error_at_most() -> None:
    operands = {name: np.ones(shape, np.float32) for name, shape in RNN_SHAPES.items()}
    results = {"output": (2, 1, 3)}
    model = custom_model(RNN, operands, {"input"}, results, {}, {})
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(model)
        for place in random.integers(0, len(model), random.integers(1, 4)):
            damaged[place] = random.integers(0, 256)
        try:
            legalize(bytes(damaged))
        except HintcError:
            refused += 1
    assert refused > 100


RNN_SHAPES = {
    "input": (2, 1, 2),
    "input_weights": (3, 2),
    "recurrent_weights": (3, 3),
    "bias": (3,),
}


@pytest.mark.parametrize("slot", ["input_weights", "recurrent_weights", "bias", "input"])
def test_sizes_must_agree(slot: str) -> None:
    shapes = RNN_SHAPES | {slot: (*RNN_SHAPES[slot][:-1], 7)}
    operands = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    model = custom_model(RNN, operands, {"input"}, {"output": (2, 1, 3)}, {}, {})
    with pytest.raises(HintcError, match="has shape"):
        legalize(model)
