"""Three of Keras' application architectures; `make applications` runs ten."""

import pytest

import keras_applications


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV2", "ResNet50"])
def test_chains_are_fused_and_the_model_computes_the_same(name: str) -> None:
    found = keras_applications.check(keras_applications.build(name))
    assert not found.left
    assert found.error < keras_applications.TOLERANCE
    assert found.error_default < keras_applications.TOLERANCE
    assert {"MUL", "SUB", "RELU", "RELU6", "TRANSPOSE"}.isdisjoint(found.operators)
    assert found.operators == found.operators_default
    assert found.bytes_ratio < 1.01
