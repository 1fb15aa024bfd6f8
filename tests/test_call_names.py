"""Fused calls keep their names in the model, so that messages and `keep_float` can use them."""

from __future__ import annotations

from typing import Any

import keras
import pytest
import tensorflow as tf

import hintc
from fused_graphs import N_IN, STEPS, Tracer, lstm_call, lstm_weights
from hintc.errors import HintcError
from hintc.tflite.flatbuffer import Model
from hintc.tflite.kernel import state_kernels

layers = keras.layers


def kernels(tflite: bytes) -> list[str]:
    return [kernel.name for kernel in state_kernels(Model.read(tflite).subgraphs[0])]


def side_by_side() -> Any:
    """Two LSTMs of one size: their calls differ in nothing but weights."""
    x = keras.Input((4, 3), name="x")
    ends = [layers.LSTM(5, return_sequences=True, name=name)(x) for name in ("left", "right")]
    return keras.Model(x, [end[:, 1:] for end in ends])


def test_layers_of_one_kind_are_named_by_their_operands() -> None:
    model = Model.read(hintc.convert(side_by_side()).tflite)
    for kernel in state_kernels(model.subgraphs[0]):
        weights = model.subgraphs[0].tensor_name(kernel.operands["input_to_cell_weights"])
        assert weights.startswith(f"{kernel.name}/")
    assert len(kernels(model.write())) == 2


def test_calls_whose_operands_have_other_names_are_named_in_order() -> None:
    tracer = Tracer()

    def model(x: Any) -> Any:
        (first,) = lstm_call(tracer, x, lstm_weights(1))
        (second,) = lstm_call(tracer, x, lstm_weights(2))
        return {"y": tf.concat([first, second], -1)}

    graph = tracer.graph(model, {"x": [STEPS, None, N_IN]})
    calls = [node.name for node in graph.graph_def.node if "Partitioned" in node.op]
    result = hintc.convert(graph.graph_def, graph.inputs, graph.outputs, pipeline="")
    assert kernels(result.tflite) == calls


def test_messages_name_the_layer() -> None:
    with pytest.raises(HintcError, match=r"fix-batch\{size=1\},default") as caught:
        hintc.convert(side_by_side(), state="persist")
    assert "/left" in str(caught.value.node)
    kept = hintc.convert(side_by_side(), state="persist", pipeline="fix-batch{size=1},default")
    assert len(kernels(kept.tflite)) == 2


def test_names_cost_nothing() -> None:
    """What belongs to no layer has a short name, as it is in the model once for each layer."""
    main = Model.read(hintc.convert(side_by_side()).tflite).subgraphs[0]
    names = [main.tensor_name(index) for index in range(len(main.graph.tensors))]
    assert not [name for name in names if name.startswith("tfl.custom")]
    assert "hintc/zero" in names
