"""Keras' application architectures with random weights: converted, fused, compared.

``python tests/keras_applications.py [NAME...]`` runs all, or those named, beside the stock
converter and prints a table; ``make applications`` does that.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import hintc
from hintc.ir import Module, Node
from hintc.ops import parse_spec
from hintc.pattern import constant_of
from hintc.runtime.interpreter import Interpreter
from hintc.runtime.stream import captured_output
from hintc.tflite.inspect import op_counts

SIZES: dict[str, tuple[int, dict[str, Any]]] = {
    "MobileNet": (96, {"alpha": 0.25}),
    "MobileNetV2": (96, {"alpha": 0.35}),
    "MobileNetV3Small": (96, {}),
    "ResNet50": (64, {}),
    "ResNet50V2": (64, {}),
    "DenseNet121": (64, {}),
    "EfficientNetB0": (64, {}),
    "InceptionV3": (96, {}),
    "Xception": (96, {}),
    "NASNetMobile": (96, {}),
}
"""Architecture -> width of its square images, further arguments."""
PIPELINE = "default,fold-batch-norm,cancel-transposes,fuse-conv,eliminate-dead-code"
TOLERANCE = 1e-4
"""Of the largest value of the output: logits of random networks are of any size. Folding moves
roundings of 6e-8 through up to 200 layers."""
_LINEAR = {"Conv2D", "DepthwiseConv2dNative", "MatMul"}
_FUSED = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}


@dataclass(frozen=True)
class Outcome:
    """What became of one architecture.

    Attributes:
        chains: fused operator -> how many.
        left: nodes that should have been fused.
        error: of `PIPELINE`'s model, relative to the output's largest value.
        error_default: the same of the default pipeline's.
        operators: of `PIPELINE`'s model.
        operators_default: of the default pipeline's.
        bytes_ratio: size of `PIPELINE`'s model over the default pipeline's.
        models: `PIPELINE`'s and the default pipeline's.
    """

    chains: dict[str, int]
    left: list[str]
    error: float
    error_default: float
    operators: Counter[str]
    operators_default: Counter[str]
    bytes_ratio: float
    models: tuple[bytes, bytes]


def build(name: str) -> Any:
    """The model, ten classes without softmax; statistics of its normalisations are random too."""
    import keras

    size, options = SIZES[name]
    keras.utils.set_random_seed(1)
    model = getattr(keras.applications, name)(
        input_shape=(size, size, 3),
        weights=None,
        classes=10,
        classifier_activation=None,
        **options,
    )
    random = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        elif weight.path.endswith(("beta", "moving_mean", "bias")):
            weight.assign(random.normal(0.0, 0.3, weight.shape))
    return model


def check(model: Any) -> Outcome:
    """Convert with the default pipeline and with `PIPELINE`, compare both with Keras."""
    default = hintc.convert(model)
    compiled = hintc.convert(model, pipeline=PIPELINE)
    module = hintc.lift(compiled.graph_def)
    return Outcome(
        dict(compiled.report.fused_ops),
        list(unfused(module)),
        error_of(model, compiled.tflite),
        error_of(model, default.tflite),
        Counter(op_counts(compiled.tflite)),
        Counter(op_counts(default.tflite)),
        len(compiled.tflite) / len(default.tflite),
        (compiled.tflite, default.tflite),
    )


def error_of(model: Any, tflite: bytes) -> float:
    """The largest relative error over two batch sizes and two invokes."""
    interpreter = Interpreter(tflite)
    (name,) = (info.name for info in interpreter.inputs)
    random, worst = np.random.default_rng(2), 0.0
    for batch in (1, 2):
        images = random.uniform(0, 255, (batch, *model.input_shape[1:])).astype(np.float32)
        wanted = np.asarray(model(images, training=False))
        scale = float(np.abs(wanted).max())
        assert np.isfinite(wanted).all()
        for _ in range(2):
            (found,) = interpreter.run({name: images}).values()
            worst = max(worst, float(np.abs(found - wanted).max()) / scale)
    return worst


def unfused(module: Module) -> Iterator[str]:
    """Linear ops outside of calls, and what reads a fused call alone and could be in it."""
    for node in module.graph:
        if node.op in _LINEAR:
            weights = constant_of(node.operands[1])
            if weights is not None:
                yield f"{node.op} '{node.name}'"
        elif (activation := _activation(module, node)) is not None:
            readers = module.graph.uses(node)
            if len(readers) == 1 and activation == "NONE" and _could_be_in(readers[0].node):
                yield f"{readers[0].node.op} '{readers[0].node.name}'"


def _activation(module: Module, node: Node) -> str | None:
    """The activation of a fused call, None of other nodes."""
    ref: Any = node.attributes.get("f")
    if node.op != "PartitionedCall":
        return None
    marking: Any = module.functions[ref.name].attributes["_implements"]
    spec = parse_spec(dict(marking.attributes)["spec"].decode())
    return str(spec.attributes["activation"]) if spec.op in _FUSED else None


def _could_be_in(node: Node) -> bool:
    if node.op in ("Relu", "Relu6", "BiasAdd") or node.op.startswith("FusedBatchNorm"):
        return True
    if node.op not in ("Mul", "Add", "AddV2", "Sub") or len(node.operands) != 2:
        return False
    arrays = [constant_of(port) for port in node.operands]
    return any(array is not None and array.size > 1 for array in arrays)


def _stock(model: Any) -> bytes:
    import tensorflow as tf

    with captured_output():
        return bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def _times(models: Sequence[bytes], rounds: int = 30) -> list[float]:
    """Processor time of a run of each model on one thread, in seconds; they take turns."""
    interpreters = [Interpreter(model) for model in models]
    feeds = [
        [np.ones([1, *info.shape[1:]], info.dtype) for info in interpreter.inputs]
        for interpreter in interpreters
    ]
    taken: list[list[float]] = [[] for _ in models]
    for number in range(rounds):
        for at in range(len(models)):
            turn = (number + at) % len(models)  # each stands behind each of the others as often
            start = time.thread_time()
            interpreters[turn].run(feeds[turn])
            taken[turn].append(time.thread_time() - start)
    return [float(np.median(times[1:])) for times in taken]


def main(names: list[str]) -> int:
    """Print a line for each architecture; 1 if anything is wrong."""
    out, bad = sys.stdout, 0
    out.write(f"{'':18}{'fused':>6}{'left':>5}{'error':>9}{'default':>9}{'bytes':>7}")
    out.write(f"{'operators, default, stock':>27}{'time/stock, default':>21}\n")
    for name in names or list(SIZES):
        model = build(name)
        found = check(model)
        stock = _stock(model)
        every = (*found.models, stock)
        counts = [sum(op_counts(tflite).values()) for tflite in every]
        ours, default, theirs = _times(every)
        good = not found.left and max(found.error, found.error_default) < TOLERANCE
        bad += not good
        out.write(f"{name:18}{sum(found.chains.values()):6}{len(found.left):5}{found.error:9.1e}")
        out.write(f"{found.error_default:9.1e}{found.bytes_ratio:7.3f}{counts!s:>27}")
        out.write(f"{ours / theirs:13.2f}{default / theirs:8.2f}")
        out.write(f"{'' if good else '  WRONG'}\n")
        for line in found.left[:5]:
            out.write(f"    left: {line}\n")
        out.flush()
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
