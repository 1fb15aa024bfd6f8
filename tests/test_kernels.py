"""Python functions as kernels of custom ops, in both stock interpreters."""

from __future__ import annotations

import gc
import importlib
from functools import partial
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import custom_ops
import hintc
from custom_convs import KERNELS, converted, my_conv, several, single
from custom_ops import Op
from hintc.errors import EquivalenceError, HintcError
from hintc.runtime import Kernels, abi_check, session
from hintc.runtime import tflite_abi as abi
from hintc.runtime.interpreter import Interpreter, RuntimeName
from hintc.tflite.inspect import op_counts
from hinted_graphs import HintedModel, freeze, placeholder

RUNTIMES: tuple[RuntimeName, ...] = ("litert", "tensorflow")
MODULES = dict(zip(RUNTIMES, abi_check.RUNTIMES, strict=True))
runtimes = pytest.mark.parametrize("runtime", RUNTIMES)
BOTH = {
    f"{padding}-{activation}": partial(single, padding=padding, activation=activation)
    for padding, activation in (("SAME", "RELU"), ("VALID", "TANH"))
}


def check(model: HintedModel, instance: Interpreter, batches: tuple[int, ...]) -> None:
    """Equal to TensorFlow, on two invokes each."""
    for batch in batches:
        for seed in range(2):
            feeds = model.feeds(batch, seed)
            wanted = session.run(model.graph_def, feeds, model.outputs)
            found = instance.run(feeds)
            for name, value in wanted.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("build", [*BOTH.values(), several], ids=[*BOTH, "several"])
def test_a_hinted_convolution_runs_in_numpy(build: Any) -> None:
    model, result = converted(build, check=True, kernels=KERNELS)
    assert op_counts(result.tflite)["CUSTOM:MyConv"] in (1, 3)
    assert result.report.errors["y"] < 1e-5
    for runtime in RUNTIMES:
        for delegates in (True, False):
            instance = Interpreter(
                result.tflite, runtime=runtime, delegates=delegates, kernels=KERNELS
            )
            check(model, instance, (1, 3, 2, 3))


def test_fixed_shapes_are_planned_by_the_runtime() -> None:
    model, result = converted(partial(single, batch=2))
    for runtime in RUNTIMES:
        instance = Interpreter(result.tflite, runtime=runtime, kernels=KERNELS)
        check(model, instance, (2,))
    found: list[int] = []

    class Watching(Kernels):
        def _invoke(self, context: int, node: int) -> int:
            calls = abi.Calls(context)
            (call,) = self._region_of(node).calls
            found.append(calls.tensor(call.results[0]).allocation_type)
            return super()._invoke(context, node)

    # a stock interpreter may resize what the model gives a fixed size
    stock = stock_interpreter("litert", result.tflite, Watching(KERNELS))
    any_batch = freeze(single)
    for batch in (2, 3, 2):
        assert_stock_equals(stock, any_batch, batch)
    arena = 2
    assert found == [arena] * 2 + [abi.DYNAMIC] * 4


def stock_interpreter(runtime: RuntimeName, model: bytes, kernels: Kernels) -> Any:
    module = importlib.import_module(MODULES[runtime])
    return module.Interpreter(model_content=model, experimental_delegates=[kernels])


def assert_stock_equals(stock: Any, model: HintedModel, batch: int) -> None:
    ((name, value),) = model.feeds(batch).items()
    index = stock.get_input_details()[0]["index"]
    stock.resize_tensor_input(index, value.shape)
    stock.allocate_tensors()
    (wanted,) = session.run(model.graph_def, {name: value}, model.outputs).values()
    for _ in range(2):
        stock.set_tensor(index, value)
        stock.invoke()
        found = stock.get_tensor(stock.get_output_details()[0]["index"])
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@runtimes
def test_stock_interpreters_share_kernels(runtime: RuntimeName) -> None:
    model, result = converted(single)
    kernels = Kernels(KERNELS)
    first, second = (stock_interpreter(runtime, result.tflite, kernels) for _ in range(2))
    del kernels
    assert_stock_equals(first, model, 3)
    assert_stock_equals(second, model, 1)
    del first
    gc.collect()
    assert_stock_equals(second, model, 2)


def test_a_custom_op_in_the_body_of_a_loop() -> None:
    def build() -> list[Any]:
        x = placeholder([None, 4])

        def body(step: Any, value: Any) -> Any:
            hint = hintc.OpHint("MyStep", gain=0.5)
            new = hint.add_output(tf.tanh(hint.add_input(value) * 0.5 + 1.0))
            return step + 1, new + 0.1

        _, y = tf.while_loop(
            lambda step, value: (step < 5) & (tf.reduce_sum(value) < 100.0), body, (0, x)
        )
        return [tf.identity(y, name="y")]

    model, result = converted(build)
    assert op_counts(result.tflite)["CUSTOM:MyStep"] == 1
    assert op_counts(result.tflite)["WHILE"] == 1
    kernels = {"MyStep": lambda x, gain: np.tanh(gain * x + 1)}
    for runtime in RUNTIMES:
        check(model, Interpreter(result.tflite, runtime=runtime, kernels=kernels), (1, 3))


# -- operands and results ----------------------------------------------------------------------


def small(op: Op, extra: custom_ops.Tensors | None = None) -> bytes:
    """x [-1, 3] -> the op -> y."""
    tensors = {"x": (np.float32, (-1, 3)), "y": (np.float32, (-1, 3)), **(extra or {})}
    return custom_ops.model(tensors, [op], ["x"], list(op.results)).write()


X = np.arange(6, dtype=np.float32).reshape(2, 3)
IDENTITY = small(Op("f", ["x"], ["y"]))


@runtimes
def test_several_results_absent_operands_and_attributes(runtime: RuntimeName) -> None:
    attributes = {"gain": 2.5, "count": 3, "on": True, "name": "abc", "sizes": (1, 2)}
    model = small(
        Op("f", ["x", None, "k"], ["y", "where"], attributes),
        {"k": np.array([7], np.int64), "where": (np.int32, (-1, 2))},
    )
    seen: list[dict[str, Any]] = []

    def f(x: Any, absent: Any, k: Any, **given: Any) -> Any:
        assert absent is None
        assert (x.dtype, k.dtype, k.tolist()) == (np.float32, np.int64, [7])
        assert not x.flags.writeable
        seen.append(given)
        return x * given["gain"], np.argwhere(x > 2)

    instance = Interpreter(model, runtime=runtime, kernels={"f": f})
    for x in (X, X, X[:1], 2 * X):
        found = instance.run([x])
        np.testing.assert_array_equal(found["y"], 2.5 * x)
        np.testing.assert_array_equal(found["where"], np.argwhere(x > 2))
        assert found["where"].dtype == np.int32
    assert seen == [attributes] * 4


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"]
)
def test_dtypes(dtype: str) -> None:
    tensors: dict[str, Any] = {"x": (dtype, (-1, 2)), "y": (dtype, (-1, 2))}
    model = custom_ops.model(tensors, [Op("f", ["x"], ["y"])], ["x"], ["y"]).write()
    value = np.array([[0, 1], [1, 1]], dtype)
    found = Interpreter(model, kernels={"f": lambda x: x[::-1]}).run([value])["y"]
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, value[::-1])


def test_scalars() -> None:
    tensors: dict[str, Any] = {
        "x": (np.float32, (-1, 3)),
        "k": np.array(2, np.int32),
        "y": (np.float32, ()),
    }
    model = custom_ops.model(tensors, [Op("f", ["x", "k"], ["y"])], ["x"], ["y"]).write()
    found = Interpreter(model, kernels={"f": lambda x, k: x.sum() * k}).run([X])["y"]
    assert (found.shape, found.item()) == ((), 30.0)


@pytest.mark.parametrize("quantize", ["dynamic", "float16"])
def test_quantised_weights_reach_the_kernel_as_floats(quantize: str) -> None:
    build = partial(single, activation="TANH", channels=400)
    _, result = converted(build, quantize=quantize, check=True, kernels=KERNELS)
    # "dynamic" leaves what a custom op reads alone, for only its kernel knows int8
    assert ("DEQUANTIZE" in result.report.operators) == (quantize == "float16")
    assert result.report.errors["y"] < (1e-2 if quantize == "float16" else 1e-5)


def test_empty_results() -> None:
    instance = Interpreter(IDENTITY, kernels={"f": lambda x: x[:0]})
    assert instance.run([X])["y"].shape == (0, 3)


def test_an_interpreter_goes_on_after_a_failure() -> None:
    def f(x: Any) -> Any:
        if x.sum() > 20:
            raise ValueError("100% too much")
        return x + 1

    instance = Interpreter(IDENTITY, kernels={"f": f})
    with pytest.raises(HintcError, match=r"custom op 'f'.*100% too much") as caught:
        instance.run([X * 10])
    assert caught.value.node == "y"
    assert isinstance(caught.value.__cause__, ValueError)
    np.testing.assert_array_equal(instance.run([X])["y"], X + 1)


@pytest.mark.parametrize(
    ("function", "parts"),
    [
        (lambda x: (x, x), ["gave 2 results", "has 1"]),
        (lambda x: None, ["result 0", "object", "float32"]),
        (lambda x: x.astype(complex), ["complex128", "float32"]),
        (lambda x: x[:, :2], ["shape [2, 2]", "[-1, 3]"]),
        (lambda x: x.sum(), ["shape []", "[-1, 3]"]),
        (lambda x, y: x, ["TypeError", "missing 1 required"]),
        (lambda x: x.fill(0), ["read-only"]),
    ],
)
def test_unfit_results(function: Any, parts: list[str]) -> None:
    with pytest.raises(HintcError) as caught:
        Interpreter(IDENTITY, kernels={"f": function}).run([X])
    assert caught.value.node == "y"
    for part in ["'f'", *parts]:
        assert part in str(caught.value)


def test_integers_that_do_not_fit() -> None:
    model = small(Op("f", ["x"], ["n"]), {"n": (np.int32, (-1,))})
    fits = Interpreter(model, kernels={"f": lambda x: x[0].astype(np.int64)})
    assert fits.run([X])["n"].dtype == np.int32
    with pytest.raises(HintcError, match="int64"):
        Interpreter(model, kernels={"f": lambda x: np.array([2**40])}).run([X])


def test_an_interrupt_is_not_swallowed() -> None:
    def f(x: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Interpreter(IDENTITY, kernels={"f": f}).run([X])


def test_a_stock_interpreter_says_what_failed() -> None:
    def f(x: Any) -> Any:
        raise ValueError("100% bad")

    kernels = Kernels({"f": f})
    stock = stock_interpreter("litert", IDENTITY, kernels)
    stock.allocate_tensors()
    with pytest.raises(RuntimeError, match=r"node 'y': custom op 'f'.*100% bad"):
        stock.invoke()
    assert isinstance(kernels.failure, HintcError)
    with pytest.raises(HintcError, match="100% bad"):
        kernels.raise_failure()
    kernels.raise_failure()


# -- what is missing or malformed --------------------------------------------------------------


@runtimes
def test_missing_kernels_are_named(runtime: RuntimeName) -> None:
    tensors: dict[str, Any] = dict.fromkeys("xabcy", (np.float32, (-1, 3)))
    ops = [Op(code, [x], [y]) for code, x, y in zip("FGFH", "xabc", "abcy", strict=True)]
    model = custom_ops.model(tensors, ops, ["x"], ["y"]).write()
    with pytest.raises(HintcError, match=r"no kernel for the custom ops 'F', 'H'\."):
        Interpreter(model, runtime=runtime, kernels={"G": np.abs})
    with pytest.raises(HintcError, match="Did you mean 'MyOp'"):
        kernels = {"MyOp": np.abs}
        Interpreter(small(Op("Myop", ["x"], ["y"])), runtime=runtime, kernels=kernels)
    with pytest.raises(HintcError, match=r"no kernel for the custom op 'F'.*kernels=") as caught:
        Interpreter(model, runtime=runtime).run([X])
    assert "unresolved" not in str(caught.value)


@runtimes
def test_custom_ops_of_the_runtime_itself_need_no_kernel(runtime: RuntimeName) -> None:
    attributes = {"window_size": 4, "stride": 2, "magnitude_squared": True}
    tensors: dict[str, Any] = {"x": (np.float32, (16, 1)), "y": (np.float32, (1, 7, 3))}
    op = Op("AudioSpectrogram", ["x"], ["y"], attributes)
    model = custom_ops.model(tensors, [op], ["x"], ["y"]).write()
    x = np.ones((16, 1), np.float32)
    plain = Interpreter(model, runtime=runtime).run([x])["y"]
    np.testing.assert_array_equal(
        Interpreter(model, runtime=runtime, kernels={}).run([x])["y"], plain
    )
    own = Interpreter(model, runtime=runtime, kernels={op.code: lambda x, **_: plain + 1})
    np.testing.assert_array_equal(own.run([x])["y"], plain + 1)


def test_what_is_no_kernel() -> None:
    with pytest.raises(HintcError, match="kernel of 'f' is a int"):
        Interpreter(IDENTITY, kernels={"f": 3})  # type: ignore[dict-item]


def test_options_that_are_no_map() -> None:
    model = small(Op("f", ["x"], ["y"], b"\x01\x04\x01"))
    with pytest.raises(HintcError, match=r"'f' cannot run.*options") as caught:
        Interpreter(model, kernels={"f": np.abs})
    assert caught.value.node == "y"


def test_strings_are_refused() -> None:
    made = custom_ops.model(
        {"x": (np.float32, (-1, 3)), "y": (np.float32, (-1, 3))},
        [Op("f", ["x"], ["y"])],
        ["x"],
        ["y"],
    )
    string = 5
    made.root.subgraphs[0].tensors[1].type = string
    with pytest.raises(HintcError, match="numpy has no dtype"):
        Interpreter(made.write(), kernels={"f": np.abs}).run([X])


def test_the_check_of_convert() -> None:
    with pytest.raises(EquivalenceError, match="differ"):
        converted(single, check=True, kernels={"MyConv": lambda *a, **b: 2 * my_conv(*a, **b)})
    with pytest.raises(HintcError, match="no kernel for the custom ops 'MyConv'"):
        converted(single, check=True, kernels={})
    with pytest.raises(HintcError, match="kernels has no use"):
        converted(single, kernels=KERNELS)
    with pytest.raises(HintcError, match="kernels is a list"):
        converted(single, check=True, kernels=[my_conv])
    _, result = converted(single, check=True)
    assert "no kernel for 'MyConv'" in str([str(remark) for remark in result.report.remarks])


def test_integers_around_a_custom_op() -> None:
    model = freeze(single)
    samples = [list(model.feeds(2, seed).values()) for seed in range(30)]
    options: dict[str, Any] = {
        "quantize": "int8",
        "representative_dataset": lambda: samples,
        "kernels": KERNELS,
    }
    _, result = converted(single, check=True, **options)
    assert {"QUANTIZE", "CUSTOM:MyConv"} <= set(op_counts(result.tflite))
    assert result.report.cost is not None
    (error,) = result.report.cost.outputs.values()
    assert 0 < error.mean < 0.02 * error.span
    options["kernels"] = {}
    with pytest.raises(HintcError, match=r"custom operator 'MyConv'.*there is no kernel.*kernels="):
        converted(single, **options)
