"""Static shapes: through calls and Scans, of function bodies, and silence where TF is silent."""

from __future__ import annotations

import numpy as np

from hintc.graphdef import lift
from hintc.graphdef.emit import Emitter
from hintc.graphdef.shapes import UNKNOWN, infer_results, infer_shapes, shapes_remembered
from hintc.ir import DType, Function, FunctionRef, Module, Port, Shape
from recurrences import DEPTH, STEPS, UNITS, placeholder, rnn_model, traced, weights


def test_constants_and_placeholders_say_it_themselves() -> None:
    module = Module()
    x = placeholder(module.graph, "x", (2, -1))
    w = Emitter(module.graph, "", ()).constant(weights(3, 4))
    assert infer_shapes(module, module.graph, [x, w]) == {x: Shape((2, -1)), w: Shape((3, 4))}


def test_through_a_scan() -> None:
    module, scan = rnn_model()
    found = infer_shapes(module, module.graph, [Port(scan, 0), Port(scan, 1)])
    assert found[Port(scan, 0)] == Shape((-1, UNITS))
    assert found[Port(scan, 1)].rank == 3
    assert scan in module.graph  # the module is as it was


def test_results_of_a_body_for_given_arguments() -> None:
    module, _ = rnn_model()
    body = module.functions["rnn_step"].graph
    args = [
        Shape(()),
        Shape((2, DEPTH)),
        Shape((2, UNITS)),
        Shape((DEPTH, UNITS)),
        Shape((UNITS, UNITS)),
        Shape((UNITS,)),
    ]
    assert infer_results(module, body, args) == [Shape((2, UNITS))] * 2
    assert infer_results(module, body, []) == [Shape((-1, -1))] * 2


def test_calls_are_looked_through() -> None:
    module = Module()
    x = placeholder(module.graph, "x", (-1, 3))
    function = module.add_function(Function("double"))
    arg = Port(function.add_arg("a", DType.FLOAT))
    function.graph.add_result("r", Emitter(function.graph, "", ()).add(arg, arg))
    call = module.graph.add(
        "PartitionedCall",
        [x],
        {"Tin": (DType.FLOAT,), "Tout": (DType.FLOAT,), "f": FunctionRef("double")},
    )
    assert infer_shapes(module, module.graph, [Port(call)]) == {Port(call): Shape((-1, 3))}


def test_what_tensorflow_cannot_import_is_unknown() -> None:
    module = Module()
    x = placeholder(module.graph, "x", (2,))
    node = module.graph.add("NoSuchOp", [x], {"T": DType.FLOAT})
    assert infer_shapes(module, module.graph, [Port(node)]) == {Port(node): UNKNOWN}


def test_large_constants_enter_as_shapes() -> None:
    import tensorflow as tf

    big = np.zeros((64, 64), np.float32)
    graph_def = traced(lambda x: [x @ big], x=tf.TensorSpec([None, 64], tf.float32))
    module = lift(graph_def)
    port = Port(module.graph["y_0"])
    assert infer_shapes(module, module.graph, [port]) == {port: Shape((-1, 64))}


def test_loop_steps() -> None:
    module, scan = rnn_model(steps=None)
    found = infer_shapes(module, module.graph, [Port(scan, 1)])
    assert found[Port(scan, 1)].rank == 3
    assert STEPS > 0


def test_a_pass_may_remember_but_not_what_was_changed() -> None:
    module = Module()
    graph = module.graph
    wide, narrow = (
        Port(graph.add("Placeholder", (), {"dtype": DType.FLOAT, "shape": Shape((-1, width))}))
        for width in (8, 3)
    )
    relu = Port(graph.add("Relu", [wide], {"T": DType.FLOAT}))
    reader = Port(graph.add("Tanh", [relu], {"T": DType.FLOAT}))
    with shapes_remembered():
        assert infer_shapes(module, graph, [relu])[relu] == Shape((-1, 8))
        assert infer_shapes(module, graph, [reader])[reader] == Shape((-1, 8)), "from what is known"
        graph.set_operand(relu.node, 0, narrow)
        assert infer_shapes(module, graph, [relu])[relu] == Shape((-1, 3))
    assert infer_shapes(module, graph, [reader])[reader] == Shape((-1, 3)), "nothing is kept"
