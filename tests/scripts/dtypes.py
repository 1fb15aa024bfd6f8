"""Converts TensorFlow ops one by one, on every dtype, and says what the runtimes make of them.

Prints a line for each op and dtype that TensorFlow itself computes: refused, right, or what is
wrong. Each is in a child process, for a kernel may end it. A few minutes::

    python tests/scripts/dtypes.py [OP ...]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from hintc.errors import HintcError
from hintc.runtime.interpreter import Interpreter, RuntimeName
from hintc.tflite.handoff import to_tflite

RUNTIMES: tuple[RuntimeName, ...] = ("tensorflow", "litert")
DTYPES = (
    *("float32", "int8", "int16", "int32", "int64", "uint8", "bool", "uint16", "uint32", "uint64"),
    *("float16", "float64"),
)
SHAPE = (2, 4)
TOLERANCE = 1e-4

_UNARY = """abs acos acosh asin asinh atan atanh ceil cos cosh erf erfc exp expm1 floor is_finite
is_inf is_nan log log1p logical_not negative reciprocal rint round rsqrt sigmoid sign sin sinh
softplus softsign sqrt square tan tanh cumsum cumprod reduce_all reduce_any reduce_max reduce_mean
reduce_min reduce_prod reduce_sum log_softmax softmax argmax argmin lgamma"""
_BINARY = """add atan2 divide divide_no_nan equal floordiv floormod greater greater_equal less
less_equal logical_and logical_or maximum minimum mod multiply not_equal pow squared_difference
subtract truediv xdivy xlogy multiply_no_nan"""
_BITS = "bitwise_and bitwise_or bitwise_xor left_shift right_shift invert"
_NN = "elu leaky_relu relu relu6 selu"


def _with_other(op: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    return lambda x: op(x, tf.cast(tf.constant([[1, 2, 3, 2], [2, 1, 2, 3]]), x.dtype))


def _image(x: Any) -> Any:
    return tf.reshape(x, [1, 4, 2, 1])


def _ones(x: Any, *shape: int) -> Any:
    return tf.ones(shape, x.dtype)


def _ops() -> Iterator[tuple[str, Callable[[Any], Any]]]:
    where = [True, False, True, False]
    yield from ((name, getattr(tf.math, name)) for name in _UNARY.split())
    yield from ((name, _with_other(getattr(tf.math, name))) for name in _BINARY.split())
    for name in _BITS.split():
        bits = getattr(tf.bitwise, name)
        yield name, bits if name == "invert" else _with_other(bits)
    yield from ((name, getattr(tf.nn, name)) for name in _NN.split())
    yield from ((f"cast to {to}", partial(tf.cast, dtype=to)) for to in DTYPES)
    yield "add_n", lambda x: tf.add_n([x, x, x])
    yield "avg_pool", lambda x: tf.nn.avg_pool2d(_image(x), 2, 2, "VALID")
    yield (
        "batch_to_space",
        lambda x: tf.batch_to_space(tf.reshape(x, [4, 1, 2, 1]), [2, 2], [[0, 0], [0, 0]]),
    )
    yield "bias_add", lambda x: tf.nn.bias_add(x, _ones(x, 4))
    yield "bitcast", lambda x: tf.bitcast(x, tf.int32)
    yield "broadcast_to", lambda x: tf.broadcast_to(x[None], [3, 2, 4])
    yield "clip_by_value", lambda x: tf.clip_by_value(x, _ones(x), _ones(x) + _ones(x))
    yield "concat", lambda x: tf.concat([x, x], 1)
    yield "conv2d", lambda x: tf.nn.conv2d(_image(x), _ones(x, 2, 2, 1, 2), 1, "SAME")
    yield "depth_to_space", lambda x: tf.nn.depth_to_space(tf.reshape(x, [1, 1, 2, 4]), 2)
    yield "diag", tf.linalg.diag
    yield "diag_part", tf.linalg.diag_part
    yield "einsum", lambda x: tf.einsum("ij,kj->ik", x, x)
    yield "expand_dims", lambda x: tf.expand_dims(x, 1)
    yield "fill", lambda x: tf.fill([2, 2], x[0, 0])
    for index in ("int32", "int64"):
        yield f"gather {index}", partial(tf.gather, indices=np.array([1, 0], index))
        yield f"gather_nd {index}", partial(tf.gather_nd, indices=np.array([[1], [0]], index))
        yield f"shape {index}", partial(tf.shape, out_type=index)
        part = {"begin": np.array([0, 1], index), "size": np.array([2, 2], index)}
        yield f"slice {index}", partial(tf.slice, **part)
    yield "l2_normalize", lambda x: tf.math.l2_normalize(x, 1)
    yield "matmul", lambda x: tf.matmul(x, tf.transpose(x))
    yield "matmul of a batch", lambda x: tf.matmul(x[None], tf.transpose(x)[None])
    yield "max_pool", lambda x: tf.nn.max_pool2d(_image(x), 2, 2, "VALID")
    yield "mirror_pad", lambda x: tf.pad(x, [[0, 1], [1, 0]], "REFLECT")
    yield "one_hot", lambda x: tf.one_hot([1, 2], 3, x[0, 0], x[1, 1])
    yield "one_hot of", lambda x: tf.one_hot(x, 5)
    yield "ones_like", tf.ones_like
    yield "pad", lambda x: tf.pad(x, [[0, 1], [1, 0]])
    yield "pad with ones", lambda x: tf.pad(x, [[0, 1], [1, 0]], constant_values=_ones(x))
    yield "range", lambda x: tf.range(x[0, 0], 3 * x[0, 0], x[0, 0])
    yield "resize_bilinear", lambda x: tf.compat.v1.image.resize_bilinear(_image(x), [8, 4])
    yield "resize_nearest", lambda x: tf.compat.v1.image.resize_nearest_neighbor(_image(x), [8, 4])
    yield "reverse", lambda x: tf.reverse(x, [1])
    yield "reverse_sequence", lambda x: tf.reverse_sequence(x, [2, 3], seq_axis=1)
    yield "roll", lambda x: tf.roll(x, 1, 1)
    yield "scatter_nd", lambda x: tf.scatter_nd([[1], [0]], x, [3, 4])
    yield "scatter_update", lambda x: tf.tensor_scatter_nd_update(x, [[1]], x[:1])
    yield "segment_sum", lambda x: tf.math.segment_sum(x, [0, 0])
    yield "select", lambda x: tf.where([where, where], x, x[::-1])
    yield "select rows", lambda x: tf.where(where, x, x + x)
    yield "size", tf.size
    yield "sort", tf.sort
    yield "space_to_batch", lambda x: tf.space_to_batch(_image(x), [2, 2], [[0, 0], [0, 0]])
    yield "space_to_depth", lambda x: tf.nn.space_to_depth(_image(x), 2)
    yield "split", lambda x: tf.split(x, 2, 1)[1]
    yield "squeeze", lambda x: tf.squeeze(x[None], [0])
    yield "stack", lambda x: tf.stack([x, x], 1)
    yield "strided_slice", lambda x: x[:, 1::2]
    yield "tile", lambda x: tf.tile(x, [1, 2])
    yield "top_k", lambda x: tf.math.top_k(x, 2)[0]
    yield "transpose", tf.transpose
    yield "unique", lambda x: tf.unique(tf.reshape(x, [-1]))[0]
    yield "unsorted_segment_sum", lambda x: tf.math.unsorted_segment_sum(x, [0, 1], 2)
    yield "unstack", lambda x: tf.unstack(x)[0]
    yield "where", tf.where
    yield "zeros_like", tf.zeros_like


OPS: dict[str, Callable[[Any], Any]] = dict(_ops())


def traced(name: str, dtype: str) -> Any:
    """The op as a `tf.function` of ``x``."""

    def graph(x: Any) -> Any:
        return OPS[name](x)

    spec = tf.TensorSpec(SHAPE, dtype, name="x")
    return tf.function(graph, input_signature=[spec], autograph=False)


def verdict(name: str, dtype: str) -> str:
    """``none``: TensorFlow has no such kernel; ``refused``; ``right``; or what is wrong."""
    fed = some_input(dtype)
    try:
        function = traced(name, dtype)
        expected = function(fed).numpy()
    except (tf.errors.OpError, AssertionError, AttributeError, TypeError, ValueError):
        return "none"
    (output,) = function.get_concrete_function().outputs
    try:
        tflite = to_tflite(output.graph.as_graph_def(), ["x"], [output.name])
    except HintcError:
        return "refused"
    for runtime in RUNTIMES:
        try:
            (found,) = Interpreter(tflite, runtime=runtime).run([fed]).values()
        except HintcError as error:
            return f"{runtime}: {error}"
        if not np.allclose(found, expected, rtol=0, atol=TOLERANCE, equal_nan=True):
            return f"{runtime}: {found.tolist()} instead of {expected.tolist()}"
    return "right"


def some_input(dtype: str) -> Any:
    """Small positive numbers."""
    random = np.random.default_rng(0)
    if dtype == "bool":
        return random.integers(0, 2, SHAPE).astype(bool)
    if dtype.startswith("float"):
        return random.uniform(0.1, 0.9, SHAPE).astype(dtype)
    return random.integers(1, 5, SHAPE).astype(dtype)


def main(names: list[str]) -> None:
    """Prints the verdict on every op, or on those named."""
    for name in names or OPS:
        child = os.fork()
        if child == 0:
            for dtype in DTYPES:
                sys.stdout.write(f"{name}, {dtype}: ")
                sys.stdout.flush()
                sys.stdout.write(f"{verdict(name, dtype)}\n")
            sys.stdout.flush()
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.stdout.write("crash\n")


if __name__ == "__main__":
    main(sys.argv[1:])
