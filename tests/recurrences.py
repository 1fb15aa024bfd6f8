"""Small recurrences built by hand, and what runs and converts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hintc.graphdef import lower
from hintc.graphdef.emit import Emitter
from hintc.ir import DType, Function, Graph, Module, Node, Port, Scan, Shape

Array = npt.NDArray[Any]
DEPTH, UNITS, STEPS = 3, 4, 5
Body = Callable[[Emitter, Mapping[str, Port]], tuple[Sequence[Port], Sequence[Port]]]


def weights(*shape: int, seed: int = 0) -> Array:
    """Seeded weights in [-0.5, 0.5]."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)


def matmul(emit: Emitter, a: Port, b: Port) -> Port:
    return emit.node("MatMul", [a, b], {"T": DType.FLOAT})


def unary(emit: Emitter, op: str, a: Port) -> Port:
    return emit.node(op, [a], {"T": DType.FLOAT})


def step_function(module: Module, name: str, args: Mapping[str, DType], build: Body) -> Function:
    """A step function; `build` gets the arguments by name, gives next states and outputs."""
    function = module.add_function(Function(name))
    ports = {key: Port(function.add_arg(key, dtype)) for key, dtype in args.items()}
    states, ys = build(Emitter(function.graph, "", ()), ports)
    for at, port in enumerate((*states, *ys)):
        function.graph.add_result(f"result_{at}", port)
    return function


def rnn_step(emit: Emitter, arg: Mapping[str, Port]) -> tuple[list[Port], list[Port]]:
    """h' = tanh(x W + h R + b); y = h'."""
    z = emit.add(matmul(emit, arg["x"], arg["w"]), matmul(emit, arg["h"], arg["r"]))
    h = unary(emit, "Tanh", emit.node("BiasAdd", [z, arg["b"]], {"T": DType.FLOAT}))
    return [h], [h]


RNN_ARGS = {
    "t": DType.INT32,
    **dict.fromkeys(("x", "h", "w", "r", "b"), DType.FLOAT),
}


def placeholder(graph: Graph, name: str, dims: tuple[int, ...], dtype: DType = DType.FLOAT) -> Port:
    node = graph.add("Placeholder", (), {"dtype": dtype, "shape": Shape(dims)}, name=name)
    graph.args.append(node)
    return Port(node)


def identity(graph: Graph, name: str, value: Port, dtype: DType = DType.FLOAT) -> Node:
    return graph.add("Identity", [value], {"T": dtype}, name=name)


def zero_state(emit: Emitter, x: Port, units: int = UNITS) -> Port:
    """Zeros [batch, units], the batch read off the time-major `x` at run time."""
    batch = emit.element(emit.shape(x), 1)
    return emit.fill(emit.pack([batch, emit.constant(np.int32(units))]), DType.FLOAT)


def rnn_model(
    *,
    steps: int | None = STEPS,
    reverse_x: bool = False,
    reverse_y: bool = False,
    step: Body = rnn_step,
) -> tuple[Module, Node]:
    """x [T, ?, 3] -> y [T, ?, 4] and final state `h`; T is unknown where `steps` is None."""
    module = Module()
    emit = Emitter(module.graph, "rnn", ())
    x = placeholder(module.graph, "x", (-1 if steps is None else steps, -1, DEPTH))
    body = step_function(module, "rnn_step", RNN_ARGS, step)
    trip = emit.element(emit.shape(x), 0) if steps is None else emit.constant(np.int32(steps))
    params = (weights(DEPTH, UNITS), weights(UNITS, UNITS, seed=1), weights(UNITS, seed=2))
    scan = Scan(
        body.name,
        trip,
        (x,),
        (zero_state(emit, x),),
        tuple(emit.constant(p) for p in params),
        (reverse_x,),
        (reverse_y,),
    ).add_to(module, module.graph, name="rnn/scan")
    identity(module.graph, "h", Port(scan, 0))
    identity(module.graph, "y", Port(scan, 1))
    return module, scan


def run_rnn(x: Array, *, reverse_x: bool = False, reverse_y: bool = False) -> tuple[Array, Array]:
    """What `rnn_model` computes, in NumPy: y and the final h."""
    w, r, b = weights(DEPTH, UNITS), weights(UNITS, UNITS, seed=1), weights(UNITS, seed=2)
    h = np.zeros((x.shape[1], UNITS), np.float32)
    rows = []
    for row in x[::-1] if reverse_x else x:
        h = np.tanh(row @ w + h @ r + b)
        rows.append(h)
    y = np.stack(rows) if rows else np.zeros((0, x.shape[1], UNITS), np.float32)
    return (y[::-1] if reverse_y else y), h


def run(module: Module, feeds: Mapping[str, Array], fetches: Sequence[str]) -> list[Array]:
    """Run the lowered module in a TensorFlow session."""
    return run_graph_def(lower(module), feeds, fetches)


def run_graph_def(
    graph_def: Any, feeds: Mapping[str, Array], fetches: Sequence[str]
) -> list[Array]:
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.graph_util.import_graph_def(graph_def, name="")
        found: list[Array] = session.run(
            [f"{f}:0" for f in fetches], {f"{k}:0": v for k, v in feeds.items()}
        )
    return found


def convert(graph_def: Any, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """The stock converter without Flex or custom ops."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
        converter = tf.compat.v1.lite.TFLiteConverter(
            graph_def,
            [graph.get_tensor_by_name(f"{n}:0") for n in inputs],
            [graph.get_tensor_by_name(f"{n}:0") for n in outputs],
        )
    model: bytes = converter.convert()
    return model


def run_tflite(model: bytes, feeds: Mapping[str, Array]) -> list[Array]:
    """All outputs, in order; inputs are resized to the feeds."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model)
    details = interpreter.get_input_details()
    for detail in details:
        interpreter.resize_tensor_input(detail["index"], feeds[_bare(detail["name"])].shape)
    interpreter.allocate_tensors()
    for detail in details:
        interpreter.set_tensor(detail["index"], feeds[_bare(detail["name"])])
    interpreter.invoke()
    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]


def _bare(name: str) -> str:
    return name.partition(":")[0]


def traced(function: Callable[..., Any], **inputs: Any) -> Any:
    """The GraphDef of a Python function of tensors; results are named y_0, y_1, ...

    Args:
        function: takes the inputs by name, returns a list of tensors.
        inputs: TensorSpecs; the Placeholders get these names.
    """
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        # functional control flow, whatever mode the process is in
        from tensorflow.python.ops import control_flow_util

        before = control_flow_util.ENABLE_CONTROL_FLOW_V2
        control_flow_util.ENABLE_CONTROL_FLOW_V2 = True
        try:
            tensors = {
                name: tf.compat.v1.placeholder(spec.dtype, spec.shape, name)
                for name, spec in inputs.items()
            }
            for at, result in enumerate(function(**tensors)):
                tf.identity(result, name=f"y_{at}")
        finally:
            control_flow_util.ENABLE_CONTROL_FLOW_V2 = before
    return graph.as_graph_def()


def dynamic_rnn_model(
    *, cells: int = 1, lengths: bool = True, final_cell_state: bool = False
) -> tuple[Any, list[str]]:
    """Hinted LSTMs under dynamic_rnn, frozen with seeded weights; the GraphDef and its outputs.

    x [5, ?, 3] and lengths [?] -> y, the last layer's final h, and c if asked for.
    """
    import tensorflow as tf
    from tf_keras.src.layers.rnn.legacy_cells import MultiRNNCell

    from hintc import authoring

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [5, None, DEPTH], "x")
        sizes = v1.placeholder(tf.int32, [None], "lengths") if lengths else None
        layers = [authoring.TFLiteLSTMCell(UNITS) for _ in range(cells)]
        stack = layers[0] if cells == 1 else MultiRNNCell(layers)
        y, state = authoring.dynamic_rnn(stack, x, sizes, dtype=tf.float32)
        last = state if cells == 1 else state[-1]
        tensors = {"y": y, "h": last.h} | ({"c": last.c} if final_cell_state else {})
        names = list(tensors)
        for name, tensor in tensors.items():
            tf.identity(tensor, name=name)
        hinted = authoring.find_all_hinted_output_nodes(graph_def=graph.as_graph_def())
        random = np.random.default_rng(7)
        with v1.Session() as session:
            for variable in v1.global_variables():
                value = random.uniform(-0.5, 0.5, variable.shape.as_list())
                session.run(variable.initializer, {variable.initializer.inputs[1]: value})
            frozen = v1.graph_util.convert_variables_to_constants(
                session, graph.as_graph_def(), names + hinted
            )
    return frozen, names


def graph_and_outputs(
    build: Callable[[Any], Sequence[Any]], shape: Sequence[int | None]
) -> tuple[Any, list[str]]:
    """x of `shape` -> y_0, y_1, ... that `build` gives; variables frozen with seeded weights."""
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util

    v1 = tf.compat.v1
    before = control_flow_util.ENABLE_CONTROL_FLOW_V2
    control_flow_util.ENABLE_CONTROL_FLOW_V2 = True
    try:
        with tf.Graph().as_default() as graph, v1.Session() as running:
            x = v1.placeholder(tf.float32, shape, "x")
            names = [tf.identity(y, f"y_{at}").op.name for at, y in enumerate(build(x))]
            random = np.random.default_rng(0)
            for variable in v1.global_variables():
                value = random.uniform(-0.5, 0.5, variable.shape.as_list())
                running.run(variable.initializer, {variable.initializer.inputs[1]: value})
            frozen = v1.graph_util.convert_variables_to_constants(
                running, graph.as_graph_def(), names
            )
    finally:
        control_flow_util.ENABLE_CONTROL_FLOW_V2 = before
    return frozen, names
