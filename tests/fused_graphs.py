"""GraphDefs with fused calls, written as TensorFlow code, for the tests of the back end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from hintc.ops import PREFIX, UNIDIRECTIONAL_SEQUENCE_LSTM, UNIDIRECTIONAL_SEQUENCE_RNN, FusedOp

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

LSTM = UNIDIRECTIONAL_SEQUENCE_LSTM
RNN = UNIDIRECTIONAL_SEQUENCE_RNN
STEPS, N_IN, N_CELL, N_OUT = 5, 4, 6, 3

_ACTIVATIONS = {"NONE": tf.identity, "RELU": tf.nn.relu, "RELU6": tf.nn.relu6, "TANH": tf.tanh}


@dataclass(frozen=True)
class FusedGraph:
    """A GraphDef and the names of its inputs and outputs."""

    graph_def: Any
    inputs: list[str]
    outputs: list[str]


class Tracer:
    """Traces TensorFlow code whose fused calls are marked with `call`."""

    def __init__(self) -> None:
        self._specs: dict[str, tuple[str, str]] = {}

    def call(
        self,
        op: FusedOp,
        operands: Sequence[tuple[str | None, Any]],
        body: Callable[..., Any],
        results: Sequence[str],
        attributes: Mapping[str, Any] | None = None,
    ) -> Any:
        """A fused call of `body` on `operands` ((slot or None, tensor) pairs)."""
        name = f"fused_{len(self._specs)}"
        spec = op.spec([slot for slot, _ in operands], results, attributes)
        self._specs[name] = (op.name, spec)

        def traced(*tensors: Any) -> Any:
            return body(*tensors)

        traced.__name__ = name
        return tf.function(traced, autograph=False)(*[tensor for _, tensor in operands])

    def graph(
        self,
        model: Callable[..., Mapping[str, Any]],
        inputs: Mapping[str, Sequence[int | None]],
    ) -> FusedGraph:
        """Traces `model` (keyword arguments: its inputs; result: its named outputs)."""

        def outer(*tensors: Any) -> Any:
            found = model(**dict(zip(inputs, tensors, strict=True)))
            return {name: tf.identity(value, name=name) for name, value in found.items()}

        specs = [tf.TensorSpec(shape, tf.float32, name) for name, shape in inputs.items()]
        concrete = tf.function(outer, autograph=False).get_concrete_function(*specs)
        graph_def = concrete.graph.as_graph_def()
        for function in graph_def.library.function:
            for name, (op, spec) in self._specs.items():
                if function.signature.name.startswith(f"__inference_{name}_"):
                    mark(function, op, spec)
        return FusedGraph(graph_def, list(inputs), list(concrete.structured_outputs))


def mark(function: Any, op: str, spec: str) -> None:
    """Marks a FunctionDef as the body of a fused call."""
    implements = function.attr["_implements"].func
    implements.name = PREFIX + op
    implements.attr["tfl_fusable_op"].b = True
    implements.attr["spec"].s = spec.encode()


def respec(graph: FusedGraph, change: Callable[[dict[str, Any]], None]) -> FusedGraph:
    """The graph with `change` made to every spec, for specs that FusedOp.spec refuses."""
    graph_def = tf.compat.v1.GraphDef()
    graph_def.CopyFrom(graph.graph_def)
    for function in graph_def.library.function:
        if "_implements" in function.attr:
            spec = function.attr["_implements"].func.attr["spec"]
            content = json.loads(spec.s)
            change(content)
            spec.s = json.dumps(content).encode()
    return FusedGraph(graph_def, graph.inputs, graph.outputs)


def lstm_weights(
    seed: int = 0,
    n_in: int = N_IN,
    *,
    coupled: bool = False,
    peephole: bool = False,
    projection: bool = False,
    projection_bias: bool = False,
    layer_norm: bool = False,
) -> dict[str, Floats]:
    """Random operands by slot name, in the kernel's layout."""
    random = np.random.default_rng(seed)
    n_out = N_OUT if projection else N_CELL
    sizes = {"n_in": n_in, "n_cell": N_CELL, "n_out": n_out}
    names = [slot.name for slot in LSTM.operands]
    groups = (
        (not coupled, [name for name in names if "to_input_" in name or "input_gate" in name]),
        (not coupled, ["input_layer_norm_coefficients"]),
        (peephole, [name for name in names if name.startswith("cell_to")]),
        (projection, ["projection_weights"]),
        (projection_bias, ["projection_bias"]),
        (layer_norm, [name for name in names if "layer_norm" in name]),
    )
    absent = {name for wanted, group in groups for name in group if not wanted}
    weights: dict[str, Floats] = {}
    for slot in LSTM.operands:
        name = slot.name
        if slot.kind not in ("weight", "bias") or name in absent:
            continue
        value = random.standard_normal([sizes[symbol] for symbol in slot.shape]) * 0.5
        weights[name] = (value + (1.0 if "layer_norm" in name else 0.0)).astype(np.float32)
    return weights


def lstm_body(
    slots: Sequence[str | None],
    results: Sequence[str],
    attributes: Mapping[str, Any] | None = None,
    steps: int | None = STEPS,
) -> Callable[..., Any]:
    """The LSTM in TensorFlow: unrolled, or a While over a TensorArray when `steps` is None."""
    attrs = LSTM.checked_attributes(attributes or {})

    def body(*tensors: Any) -> Any:
        v = {slot: tensor for slot, tensor in zip(slots, tensors, strict=True) if slot}
        x = v["input"] if attrs["time_major"] else tf.transpose(v["input"], [1, 0, 2])
        batch = tf.shape(x)[1]
        n_cell, n_out = v["recurrent_to_output_weights"].shape
        h = v.get("output_state", tf.zeros([batch, n_out]))
        c = v.get("cell_state", tf.zeros([batch, n_cell]))
        if steps is None:
            y, h, c = _loop(v, attrs, x, h, c)
        else:
            ys = []
            for time in range(steps):
                h, c = _lstm_step(v, attrs, x[time], h, c)
                ys.append(h)
            y = tf.stack(ys)
        y = y if attrs["time_major"] else tf.transpose(y, [1, 0, 2])
        found = {"output": y, "final_output_state": h, "final_cell_state": c}
        return tuple(found[name] for name in results)

    return body


def _loop(v: Mapping[str, Any], attrs: Mapping[str, Any], x: Any, h: Any, c: Any) -> Any:
    steps = tf.shape(x)[0]
    ys = tf.TensorArray(tf.float32, size=steps, element_shape=[None, h.shape[-1]])

    def step(time: Any, ys: Any, h: Any, c: Any) -> Any:
        h, c = _lstm_step(v, attrs, x[time], h, c)
        return time + 1, ys.write(time, h), h, c

    _, ys, h, c = tf.while_loop(lambda time, *_: time < steps, step, (0, ys, h, c))
    return ys.stack(), h, c


def _lstm_step(v: Mapping[str, Any], attrs: Mapping[str, Any], x: Any, h: Any, c: Any) -> Any:
    activation = _ACTIVATIONS[attrs["activation"]]

    def gate(name: str, c: Any) -> Any:
        z = tf.matmul(x, v[f"input_to_{name}_weights"], transpose_b=True)
        z += tf.matmul(h, v[f"recurrent_to_{name}_weights"], transpose_b=True)
        if f"cell_to_{name}_weights" in v:
            z += c * v[f"cell_to_{name}_weights"]
        if f"{name}_layer_norm_coefficients" in v:
            mean, variance = tf.nn.moments(z, [-1], keepdims=True)
            scale = v[f"{name}_layer_norm_coefficients"]
            z = (z - mean) * tf.math.rsqrt(variance + 1e-8) * scale
        return z + v[f"{name}_gate_bias"]

    def clip(value: Any, limit: float) -> Any:
        return tf.clip_by_value(value, -limit, limit) if limit else value

    forget = tf.sigmoid(gate("forget", c))
    coupled = "input_to_input_weights" not in v
    write = 1 - forget if coupled else tf.sigmoid(gate("input", c))
    c = clip(forget * c + write * activation(gate("cell", c)), attrs["cell_clip"])
    h = tf.sigmoid(gate("output", c)) * activation(c)
    if "projection_weights" in v:
        h = tf.matmul(h, v["projection_weights"], transpose_b=True)
        h = clip(h + v.get("projection_bias", 0.0), attrs["proj_clip"])
    return h, c


def lstm_call(
    tracer: Tracer,
    x: Any,
    weights: Mapping[str, Floats],
    results: Sequence[str] = ("output",),
    attributes: Mapping[str, Any] | None = None,
    states: Mapping[str, Any] | None = None,
    steps: int | None = STEPS,
) -> Any:
    """A fused LSTM call inside a model that is being traced."""
    operands: list[tuple[str | None, Any]] = [("input", x)]
    operands += [(slot, tf.convert_to_tensor(value)) for slot, value in weights.items()]
    operands += list((states or {}).items())
    slots = [slot for slot, _ in operands]
    return tracer.call(
        LSTM, operands, lstm_body(slots, results, attributes, steps), results, attributes
    )


def lstm_graph(
    weights: Mapping[str, Floats],
    *,
    batch: int | None = None,
    results: Sequence[str] = ("output",),
    attributes: Mapping[str, Any] | None = None,
    states: Mapping[str, Floats] | None = None,
    fed_states: bool = False,
    steps: int | None = STEPS,
) -> FusedGraph:
    """One LSTM layer on input ``x``; outputs are named as `results`.

    `states` are constants; with `fed_states` both states are inputs ``h0`` and ``c0``.
    """
    tracer = Tracer()
    n_cell, n_out = weights["recurrent_to_output_weights"].shape
    time_major = (attributes or {}).get("time_major", True)
    shape = [steps, batch, N_IN] if time_major else [batch, steps, N_IN]
    inputs: dict[str, Sequence[int | None]] = {"x": shape}
    if fed_states:
        inputs |= {"h0": [batch, n_out], "c0": [batch, n_cell]}

    def model(x: Any, h0: Any = None, c0: Any = None) -> Mapping[str, Any]:
        given = dict(states or {}) if h0 is None else {"output_state": h0, "cell_state": c0}
        given = {slot: tf.convert_to_tensor(value) for slot, value in given.items()}
        found = lstm_call(tracer, x, weights, results, attributes, given, steps)
        return dict(zip(results, found, strict=True))

    return tracer.graph(model, inputs)


def rnn_weights(seed: int = 0) -> dict[str, Floats]:
    """Random operands of the RNN by slot name."""
    random = np.random.default_rng(seed)
    shapes = {
        "input_weights": (N_CELL, N_IN),
        "recurrent_weights": (N_CELL, N_CELL),
        "bias": (N_CELL,),
    }
    return {
        name: (random.standard_normal(shape) * 0.4).astype(np.float32)
        for name, shape in shapes.items()
    }


def rnn_graph(
    weights: Mapping[str, Floats],
    *,
    batch: int | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> FusedGraph:
    """One RNN layer on input ``x`` with both results."""
    tracer = Tracer()
    attrs = RNN.checked_attributes(attributes or {})
    results = ("output", "final_hidden_state")

    def body(x: Any, w: Any, r: Any, b: Any) -> Any:
        x = x if attrs["time_major"] else tf.transpose(x, [1, 0, 2])
        h = tf.zeros([tf.shape(x)[1], N_CELL])
        ys = []
        for time in range(STEPS):
            z = tf.matmul(x[time], w, transpose_b=True) + tf.matmul(h, r, transpose_b=True)
            h = _ACTIVATIONS[str(attrs["activation"])](z + b)
            ys.append(h)
        y = tf.stack(ys)
        return (y if attrs["time_major"] else tf.transpose(y, [1, 0, 2])), h

    def model(x: Any) -> Mapping[str, Any]:
        operands: list[tuple[str | None, Any]] = [("input", x)]
        operands += [(slot, tf.convert_to_tensor(value)) for slot, value in weights.items()]
        return dict(
            zip(results, tracer.call(RNN, operands, body, results, attributes), strict=True)
        )

    shape = [STEPS, batch, N_IN] if attrs["time_major"] else [batch, STEPS, N_IN]
    return tracer.graph(model, {"x": shape})
