"""Static shapes: through calls and Scans, of function bodies, and silence where TF is silent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hintc.graphdef import lift, shapes
from hintc.graphdef.emit import Emitter
from hintc.graphdef.shapes import (
    UNKNOWN,
    body_shapes_remembered,
    infer_results,
    infer_shapes,
    replace_uses,
    shapes_remembered,
)
from hintc.ir import (
    AttributeValue,
    DType,
    Function,
    FunctionRef,
    Module,
    Port,
    Shape,
    Tensor,
)
from hintc.text import parse_module
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


def test_a_body_is_asked_again_only_when_it_or_what_it_calls_was_edited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = parse_module("""graph {
    }
    func @body(%v: float) {
      %call = PartitionedCall(%v) {Tin = [float], Tout = [float], f = @inner}
      return r = %call
    }
    func @inner(%v: float) {
      %y = Relu(%v) {T = float}
      return y = %y
    }""")
    body, inner = (module.functions[name].graph for name in ("body", "inner"))
    asked: list[object] = []
    original = shapes._import

    def counted(*args: Any) -> Any:
        asked.append(args)
        return original(*args)

    monkeypatch.setattr(shapes, "_import", counted)
    with body_shapes_remembered():
        for dims in ((2, 3), (2, 3), (4, 3)):
            assert infer_results(module, body, [Shape(dims)]) == [Shape(dims)]
        assert len(asked) == 2
        vector: dict[str, AttributeValue] = {
            "dtype": DType.FLOAT,
            "value": Tensor.of([1.0, 2.0, 3.0], DType.FLOAT),
        }
        total = inner.add("MatMul", [inner["y"], inner["y"]], {"T": DType.FLOAT})
        total.attributes["transpose_b"] = True
        total.attributes["transpose_a"] = False
        inner.set_operand(inner.results[0], 0, total)
        assert infer_results(module, body, [Shape((2, 3))]) == [Shape((2, 2))]
        total.attributes["transpose_b"], total.attributes["transpose_a"] = False, True
        assert infer_results(module, body, [Shape((2, 3))]) == [Shape((3, 3))]
        inner.set_operand(inner.results[0], 0, inner.add("Const", (), vector))
        assert infer_results(module, body, [Shape((2, 3))]) == [Shape((3,))]


def test_a_value_in_the_place_of_another_has_its_shape() -> None:
    module = Module()
    graph = module.graph
    shape: dict[str, AttributeValue] = {"dtype": DType.FLOAT, "shape": Shape((2, 3))}
    old = graph.add("Relu", [graph.add("Placeholder", (), shape)], {"T": DType.FLOAT})
    reader = graph.add("Tanh", [old], {"T": DType.FLOAT})
    new = graph.add("NobodyKnowsThis", (), {"T": DType.FLOAT})
    with shapes_remembered():
        infer_shapes(module, graph, [Port(old), Port(reader)])
        replace_uses(graph, Port(old), Port(new))
        assert reader.operands == (Port(new),)
        found = infer_shapes(module, graph, [Port(reader), Port(new)])
    assert set(found.values()) == {Shape((2, 3))}
