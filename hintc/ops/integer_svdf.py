"""The integer kernel of SVDF: int8 values and feature weights, int16 time weights and state.

What `hintc.ops.svdf` is to real numbers this is to those of the kernel, bit by bit. Facts from
TensorFlow Lite: kernels/svdf.cc (Prepare: the scales) and kernels/internal/reference/svdf.h
(EvalIntegerSVDF: the order of steps); TensorFlow Lite Micro computes the same, in
micro/kernels/svdf_common.cc.

The kernel applies no activation. TensorFlow Lite refuses any but RELU, and RELU is what the limits
of int8 make of the output where its zero point is -128.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hintc.ops.fixed_point import Integers, saturated
from hintc.ops.quantized import Quantized, rescale
from hintc.ops.spec import AttributeValue
from hintc.ops.svdf import SVDF

TIME_WEIGHT_MAX, STATE_MAX = 512, 32767
"""The largest integers of time weights and state. Time weights have 10 bits in int16, so that a sum
of 64 products with states fits in 31 bits: tools/optimize/operator_property.cc."""


def reference(
    operands: Mapping[str, Quantized],
    output: Quantized,
    attributes: Mapping[str, AttributeValue],
) -> dict[str, Integers]:
    """The kernel in numpy.

    Args:
        operands: by slot name, shaped as for `hintc.ops.svdf.reference`: input and feature_weights
            int8, time_weights and state int16, bias int32, zeros when absent.
        output: its scale and zero point.
        attributes: as declared; missing ones have their defaults. The activation is not looked at.

    Returns:
        output (int8 values, [batch, n_units]) and final_state (int16 values, as the state).
    """
    x, times, state = operands["input"], operands["time_weights"], operands["state"]
    features, bias = operands["feature_weights"], operands.get("bias")
    rank = SVDF.checked_attributes(attributes)["rank"]
    assert isinstance(rank, int)
    batch, (filters, memory) = len(x.values), times.values.shape
    products = (x.integers - x.zero_point) @ features.integers.T
    newest = saturated(rescale(features, x, state.scale).times(products), 16)
    window = state.integers.reshape(batch, filters, memory)[:, :, 1:]
    window = np.concatenate([window, newest[:, :, None]], axis=2)
    sums = (window * times.integers).sum(2).reshape(batch, filters // rank, rank).sum(2)
    sums = sums if bias is None else sums + bias.integers
    units = rescale(times, state, output.scale).times(sums)
    return {
        "output": saturated(units + output.zero_point, 8),
        "final_state": window.reshape(batch, filters * memory),
    }
