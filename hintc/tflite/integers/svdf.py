"""SVDF in the form that its integer kernel takes.

The integer kernel (kernels/svdf.cc, kernels/internal/reference/svdf.h) knows less than the float
one: TensorFlow Lite takes RELU alone, and no kernel applies an activation at all. The limits of
int8 do it, where the output's zero point is -128. So, before TensorFlow's quantiser:

- TANH becomes an operator behind the kernel;
- NONE becomes RELU of what a bias has made positive, and an ADD that takes that away again. Values
  below the range of the samples are cut off, as int8 does without a RELU;
- a bias that is absent becomes zeros, for TensorFlow Lite Micro's kernel crashes without;
- the state gets the range of all that inputs in their range can make of it: what is cut off there
  is wrong for as many steps as it is kept. In 16 bits that costs less than int8 inputs do, up to
  65 000 of them.

Behind the quantiser RELU6 becomes RELU, with a scale that ends at 6.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from hintc.ops.integer_svdf import STATE_MAX, TIME_WEIGHT_MAX
from hintc.tflite.flatbuffer import Array, Operator, Subgraph
from hintc.tflite.integers.ranges import Range, Ranges, joint, range_of
from hintc.tflite.integers.written_through import written_through
from hintc.tflite.kernel import Kernel, state_kernels
from hintc.tflite.schema import schema

_LEAST, _STEPS = -128, 255
"""int8: the least value, and the steps from it to the greatest."""
_SUM_MAX = 1 << 30
"""What the products of a unit may add up to; as much is left for its bias."""
_SIX = 6.0
_TANH_IS_ONE = 4.0
"""From here on tanh is beyond 127/128, the largest that an int8 one gives."""


def split_tanh(subgraph: Subgraph, kept: Collection[str]) -> list[int]:
    """Makes the TANH of each SVDF an operator of its own, but for the kernels named in `kept`.

    Returns:
        What these operators read.
    """
    behind = {}
    for kernel in _svdfs(subgraph):
        if kernel.attributes["activation"] == "TANH" and kernel.name not in kept:
            behind[id(kernel.op)] = _result_through(kernel, "linear", "TANH")
            _set_activation(kernel, "NONE")
    _place_behind(subgraph, behind)
    return [int(op.inputs[0]) for op in behind.values()]


def cut_tails(ranges: Ranges, tensors: Sequence[int]) -> None:
    """Limits the ranges of what a TANH alone reads to where it still changes in int8."""
    for tensor in tensors:
        low, high = ranges[0, tensor]
        ranges[0, tensor] = (max(low, -_TANH_IS_ONE), min(high, _TANH_IS_ONE))


def no_integer_form(kernel: Kernel) -> str:
    """Why a kernel, if it is an SVDF, has no integer form; "" where it has one."""
    if not _is_svdf(kernel):
        return ""
    for slot in ("feature_weights", "time_weights", "bias"):
        value = _constant(kernel, slot)
        if slot in kernel.operands and (value is None or not np.isfinite(value).all()):
            return f"its {slot} are no finite constants"
    times = np.abs(_weights(kernel, "time_weights"))
    if not times.any():
        return "its time_weights are zero, and the quantiser finds no scale for them"
    stored = np.rint(times / times.max() * TIME_WEIGHT_MAX).sum(1)
    if stored.reshape(-1, _rank(kernel)).sum(1).max() * STATE_MAX > _SUM_MAX:
        count = times.shape[1] * _rank(kernel)
        return f"the integer kernel's sums of {count} products might not fit in 32 bits"
    return ""


def take_integer_form(subgraph: Subgraph, in_float: Collection[str], ranges: Ranges) -> None:
    """Gives each SVDF the form of its integer kernel.

    Args:
        subgraph: legalised, in float; is changed.
        in_float: names of kernels that stay so; they get a bias only.
        ranges: of its tensors; those that this makes or needs are put in.

    Raises:
        HintcError: a kernel whose bias is computed.
    """
    behind = {}
    for kernel in _svdfs(subgraph):
        if kernel.name in in_float:
            _leave_in_float(kernel, ranges)
            continue
        given = _constant(kernel, "bias")
        bias = np.zeros(_units(kernel), np.float32) if given is None else given
        if kernel.attributes["activation"] == "NONE":
            shift = _shift(kernel, ranges)
            bias = (bias + shift).astype(np.float32)
            if shift:
                behind[id(kernel.op)] = _shifted_back(kernel, shift, ranges)
            _set_activation(kernel, "RELU")
        _set_bias(kernel, bias)
        reach = _state_reach(kernel, bias, ranges)
        ranges[0, kernel.states["state"]] = (-reach, reach)
    _place_behind(subgraph, behind)


def keep_relu(subgraph: Subgraph) -> None:
    """Makes the scales of integer SVDFs cut off what their activation does.

    The quantiser may give an output the zero point of a CONCATENATION behind it, and RELU6 one that
    reaches beyond 6. Such a kernel writes another tensor, which a QUANTIZE converts.

    Args:
        subgraph: quantised; is changed.
    """
    behind = {}
    for kernel in _svdfs(subgraph):
        if subgraph.dtype(kernel.operands["input"]) != np.int8:
            continue
        given = subgraph.tensor(kernel.op.outputs[0]).quantization
        scale, most = float(given.scale[0]), _SIX / _STEPS
        beyond = kernel.attributes["activation"] == "RELU6" and scale > most * (1 + 1e-6)
        _set_activation(kernel, "RELU")
        if beyond or int(given.zeroPoint[0]) != _LEAST:
            behind[id(kernel.op)] = _result_through(kernel, "positive", "QUANTIZE")
            scales = schema().QuantizationParametersT()
            scales.scale, scales.zeroPoint = [most if beyond else scale], [_LEAST]
            subgraph.tensor(kernel.op.outputs[0]).quantization = scales
    _place_behind(subgraph, behind)


def _leave_in_float(kernel: Kernel, ranges: Ranges) -> None:
    """What the quantiser knows of SVDF it does to one that it is told to leave alone, too."""
    if "bias" not in kernel.operands:
        _set_bias(kernel, np.zeros(_units(kernel), np.float32))
    elif _constant(kernel, "bias") is None:
        raise kernel.error(
            "it cannot be quantised",
            why="its bias is computed, and TensorFlow's quantiser makes integers of it that no "
            "operator reads",
            remedy="Add it behind the hinted step, or convert with quantize='dynamic'.",
        )
    # without a range computed weights stay in float
    ranges.pop((0, kernel.operands["time_weights"]), None)


def _shift(kernel: Kernel, ranges: Ranges) -> float:
    """What makes the outputs positive, a multiple of the scale that this gives them.

    So the ADD that takes it away again only moves the zero point. The ranges are set to match.
    """
    output = kernel.op.outputs[0]
    low, high = joint(ranges.get((0, output)), (0.0, 0.0))
    steps = round(-low / (high - low) * _STEPS) if high > low else 0
    scale = max(-low / steps if steps else 0.0, high / (_STEPS - steps) if steps < _STEPS else 0.0)
    ranges[0, output] = (-steps * scale, (_STEPS - steps) * scale)
    return steps * scale


def _shifted_back(kernel: Kernel, shift: float, ranges: Ranges) -> Operator:
    """The ADD behind a kernel whose bias has `shift` added."""
    graph, result = kernel.subgraph, kernel.op.outputs[0]
    low, high = ranges[0, result]
    added = _result_through(kernel, "shifted", "ADD", options="AddOptions")
    name = f"{graph.tensor_name(result)}/shift"
    added.inputs.append(graph.add_constant(name, np.array([-shift], np.float32)))
    ranges[0, kernel.op.outputs[0]] = (0.0, high - low)
    return added


def _state_reach(kernel: Kernel, bias: Array, ranges: Ranges) -> float:
    """The largest size of a state: of what inputs make, and of an initial one.

    At least as much as the bias needs to fit beside the sums of products; it has their scale.
    """
    low, high = joint(_range(kernel, kernel.operands["input"], ranges), (0.0, 0.0))
    weights = _weights(kernel, "feature_weights")
    sizes = [
        float(np.maximum(weights * high, weights * low).sum(1).max()),
        -float(np.minimum(weights * high, weights * low).sum(1).min()),
    ]
    given = kernel.given_states.get("state")
    if given is not None:
        sizes += map(abs, joint(_range(kernel, given, ranges), (0.0, 0.0)))
    time_weight = float(np.abs(_weights(kernel, "time_weights")).max())
    least = float(np.abs(bias).max()) / time_weight * TIME_WEIGHT_MAX * STATE_MAX / _SUM_MAX
    return max(*sizes, least) or 1.0


def _range(kernel: Kernel, tensor: int, ranges: Ranges) -> Range | None:
    value = kernel.subgraph.constant(tensor)
    return ranges.get((0, tensor)) if value is None else range_of(value)


def _result_through(
    kernel: Kernel, name: str, operator: str, *, options: str | None = None
) -> Operator:
    """An operator that makes the kernel's result of another tensor, which the kernel gives now."""
    return written_through(kernel.subgraph, kernel.op, 0, name, operator, options)


def _place_behind(subgraph: Subgraph, behind: Mapping[int, Operator]) -> None:
    """Places operators, each behind the one whose identity it is given for."""
    operators = []
    for op in subgraph.operators:
        operators += [op, behind[id(op)]] if id(op) in behind else [op]
    subgraph.operators = operators


def _svdfs(subgraph: Subgraph) -> Iterator[Kernel]:
    return filter(_is_svdf, state_kernels(subgraph))


def _is_svdf(kernel: Kernel) -> bool:
    return kernel.fused.name == "SVDF"


def _constant(kernel: Kernel, slot: str) -> Array | None:
    tensor = kernel.operands.get(slot)
    return None if tensor is None else kernel.subgraph.constant(tensor)


def _weights(kernel: Kernel, slot: str) -> Array:
    value = _constant(kernel, slot)
    assert value is not None, slot  # see `no_integer_form`
    return value


def _rank(kernel: Kernel) -> int:
    return int(kernel.op.builtinOptions.rank)


def _units(kernel: Kernel) -> int:
    shape = kernel.subgraph.shape(kernel.op.outputs[0])
    assert shape is not None
    return shape[1]


def _set_bias(kernel: Kernel, bias: Array) -> None:
    place = kernel.fused.slot_names.index("bias")
    kernel.op.inputs[place] = kernel.subgraph.add_constant(f"{kernel.name}/bias", bias)


def _set_activation(kernel: Kernel, name: str) -> None:
    kernel.op.builtinOptions.fusedActivationFunction = getattr(
        schema().ActivationFunctionType, name
    )
