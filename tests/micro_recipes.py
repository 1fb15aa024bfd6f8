"""Models of one operator each, on values of a given dtype: what tests ask TFLite Micro about.

`RECIPES` has operands and results in a short notation: ``T(2,4)`` is a tensor of the dtype asked
about, ``U`` of the second one (an index, or what a type is made to), ``W`` weights and ``B`` a bias
as they go with T, other words dtypes. ``T!(2,4)`` is a constant, ``U=[0,1]`` one of these values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hintc.tflite.flatbuffer import Model, Subgraph
from hintc.tflite.schema import dtype_of_type, schema

Array = npt.NDArray[Any]

PLAIN = "plain_"
"""Before a dtype: its tensors have no scale, and stand for their integers themselves."""
DTYPES = ("float32", "int8", "int16", "int32", "int64", "bool", "uint8")
_TENSOR = re.compile(r"(\w+)(!?)(?:\(([\d,]*)\)|=(\S+))")
_WEIGHTS = {"int16": "int8"}
_BIAS = {"int8": "int32", "uint8": "int32", "int16": "int64"}
_INTEGERS = ("int8", "uint8", "int16")
_SCALE = {"int8": 1 / 32, "uint8": 1 / 32, "int16": 1 / 4096}
_ZERO = {"int8": -5, "uint8": 123, "int16": 0}
_OWN_SCALES = {
    "LOGISTIC": (2.0**-8, -128, 2.0**-15),
    "SOFTMAX": (2.0**-8, -128, 2.0**-15),
    "TANH": (2.0**-7, 0, 2.0**-15),
    "L2_NORMALIZATION": (2.0**-7, 0, 2.0**-15),
    "LOG_SOFTMAX": (2.0**-4, 127, 2.0**-11),
}
"""Of the results of operators that have but one: int8's scale and zero point, int16's scale."""


@dataclass(frozen=True)
class Recipe:
    """An operator's operands, results and options.

    Args:
        text: in the notation of this module.
        options: name of its options table, "" for none.
        fields: of that table; ``"U"`` stands for the schema's number of the second dtype.
        version: of the operator.
    """

    text: str
    options: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1

    @property
    def has_first(self) -> bool:
        """Is there a dtype to ask about?"""
        return re.search(r"\bT\b", self.text) is not None

    @property
    def seconds(self) -> tuple[str, ...]:
        """The second dtypes to ask about; an empty one if there is none."""
        operands, results = self.text.split("->")
        if re.search(r"\bU\b", results) and not self.fields:
            return DTYPES
        return ("int32", "int64") if re.search(r"\bU\b", operands + results) else ("",)


def _rows() -> Iterator[tuple[str, Recipe]]:
    same, pair, image = "T(2,4) -> T(2,4)", "T(2,4) T(2,4) -> T(2,4)", "T(1,4,4,2)"
    window = {"strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2}
    stride = {"strideW": 1, "strideH": 1}
    yield "ABS CEIL COS ELU EXP FLOOR HARD_SWISH LOG LOGICAL_NOT LOGISTIC NEG RELU", Recipe(same)
    yield "RELU6 ROUND RSQRT SIN SQRT SQUARE TANH ZEROS_LIKE LOG_SOFTMAX", Recipe(same)
    yield "LEAKY_RELU", Recipe(same, "LeakyReluOptions", {"alpha": 0.25})
    yield "SOFTMAX", Recipe(same, "SoftmaxOptions", {"beta": 1.0})
    yield "L2_NORMALIZATION", Recipe(same, "L2NormOptions")
    yield "ADD", Recipe(pair, "AddOptions")
    yield "SUB", Recipe(pair, "SubOptions")
    yield "MUL", Recipe(pair, "MulOptions")
    yield "DIV", Recipe(pair, "DivOptions")
    yield "ADD_N FLOOR_DIV FLOOR_MOD MAXIMUM MINIMUM", Recipe(pair)
    yield "LOGICAL_AND LOGICAL_OR", Recipe("bool(2,4) bool(2,4) -> bool(2,4)")
    yield "SQUARED_DIFFERENCE", Recipe(pair)
    yield (
        "EQUAL GREATER GREATER_EQUAL LESS LESS_EQUAL NOT_EQUAL",
        Recipe("T(2,4) T(2,4) -> bool(2,4)"),
    )
    yield "PRELU", Recipe("T(1,2,2,4) W(1,1,4) -> T(1,2,2,4)")
    yield "SELECT_V2", Recipe("bool(2,4) T(2,4) T(2,4) -> T(2,4)")
    reduced = Recipe("T(1,4,4,2) int32=[1,2] -> T(1,2)", "ReducerOptions")
    yield "MEAN REDUCE_ALL REDUCE_MAX REDUCE_MIN SUM", reduced
    yield "ARG_MAX", Recipe("T(2,4) int32=1 -> U(2)", "ArgMaxOptions", {"outputType": "U"})
    yield "ARG_MIN", Recipe("T(2,4) int32=1 -> U(2)", "ArgMinOptions", {"outputType": "U"})
    pool = Recipe(f"{image} -> T(1,2,2,2)", "Pool2DOptions", window)
    yield "AVERAGE_POOL_2D L2_POOL_2D MAX_POOL_2D", pool
    conv = {**stride, "dilationWFactor": 1, "dilationHFactor": 1}
    yield "CONV_2D", Recipe(f"{image} W(3,3,3,2) B(3) -> T(1,4,4,3)", "Conv2DOptions", conv)
    deep = {**conv, "depthMultiplier": 1}
    yield (
        "DEPTHWISE_CONV_2D",
        Recipe(f"{image} W(1,3,3,2) B(2) -> {image}", "DepthwiseConv2DOptions", deep),
    )
    yield (
        "TRANSPOSE_CONV",
        Recipe(
            f"int32=[1,4,4,3] W(3,3,3,2) {image} B(3) -> T(1,4,4,3)",
            "TransposeConvOptions",
            stride,
            3,
        ),
    )
    yield "FULLY_CONNECTED", Recipe("T(2,4) W(3,4) B(3) -> T(2,3)", "FullyConnectedOptions")
    yield "BATCH_MATMUL", Recipe("T(1,2,4) T(1,4,3) -> T(1,2,3)", "BatchMatMulOptions")
    blocks = "int32=[2,2] int32=[[0,2],[2,0]]"
    yield "BATCH_TO_SPACE_ND", Recipe(f"T(4,3,3,1) {blocks} -> T(1,4,4,1)")
    yield "SPACE_TO_BATCH_ND", Recipe(f"T(1,4,4,1) {blocks} -> T(4,3,3,1)")
    yield (
        "DEPTH_TO_SPACE",
        Recipe("T(1,2,2,4) -> T(1,4,4,1)", "DepthToSpaceOptions", {"blockSize": 2}),
    )
    yield (
        "SPACE_TO_DEPTH",
        Recipe("T(1,4,4,1) -> T(1,2,2,4)", "SpaceToDepthOptions", {"blockSize": 2}),
    )
    yield "CONCATENATION", Recipe("T(2,4) T(2,3) -> T(2,7)", "ConcatenationOptions", {"axis": 1})
    yield "PACK", Recipe("T(2,4) T(2,4) -> T(2,2,4)", "PackOptions", {"valuesCount": 2, "axis": 1})
    yield "UNPACK", Recipe("T(2,4) -> T(4) T(4)", "UnpackOptions", {"num": 2, "axis": 0})
    yield "SPLIT", Recipe("int32=1 T(2,4) -> T(2,2) T(2,2)", "SplitOptions", {"numSplits": 2})
    yield (
        "SPLIT_V",
        Recipe("T(2,4) int32=[1,3] int32=1 -> T(2,1) T(2,3)", "SplitVOptions", {"numSplits": 2}),
    )
    yield "RESHAPE", Recipe("T(2,4) int32=[4,2] -> T(4,2)")
    yield "SQUEEZE", Recipe("T(1,2,4) -> T(2,4)", "SqueezeOptions", {"squeezeDims": [0]})
    yield "EXPAND_DIMS", Recipe("T(2,4) U=1 -> T(2,1,4)")
    yield "TRANSPOSE", Recipe("T(2,3,4) int32=[2,0,1] -> T(4,2,3)")
    yield "REVERSE_V2", Recipe("T(2,4) int32=[1] -> T(2,4)")
    yield "SLICE", Recipe("T(2,4) U=[0,1] U=[2,2] -> T(2,2)")
    yield (
        "STRIDED_SLICE",
        Recipe("T(2,4) int32=[0,1] int32=[2,3] int32=[1,1] -> T(2,2)", "StridedSliceOptions"),
    )
    yield "PAD", Recipe("T(2,4) U=[[0,1],[1,0]] -> T(3,5)")
    yield "PADV2", Recipe("T(2,4) U=[[0,1],[1,0]] T!() -> T(3,5)")
    yield "MIRROR_PAD", Recipe("T(2,4) U=[[0,1],[1,0]] -> T(3,5)", "MirrorPadOptions")
    yield "BROADCAST_TO", Recipe("T(1,4) U=[3,4] -> T(3,4)", version=2)
    yield "BROADCAST_ARGS", Recipe("T=[2,1] T=[1,4] -> T(2)")
    yield "GATHER", Recipe("T(2,4) U=[1,0,1] -> T(3,4)", "GatherOptions")
    yield "GATHER_ND", Recipe("T(2,4) U=[[1],[0]] -> T(2,4)")
    yield "EMBEDDING_LOOKUP", Recipe("int32=[1,0] T!(3,4) -> T(2,4)")
    yield "FILL", Recipe("U=[2,4] T() -> T(2,4)")
    yield "DYNAMIC_UPDATE_SLICE", Recipe("T(4,3) T(1,2) U=[1,1] -> T(4,3)")
    yield "CUMSUM", Recipe("T(2,4) int32=1 -> T(2,4)", "CumsumOptions")
    resized = f"{image} int32=[8,8] -> T(1,8,8,2)"
    yield "RESIZE_BILINEAR", Recipe(resized, "ResizeBilinearOptions")
    yield "RESIZE_NEAREST_NEIGHBOR", Recipe(resized, "ResizeNearestNeighborOptions")
    yield "SHAPE", Recipe("T(2,4) -> U(2)", "ShapeOptions", {"outType": "U"})
    yield "CAST", Recipe("T(2,4) -> U(2,4)", "CastOptions")
    yield "DEQUANTIZE QUANTIZE", Recipe("T(2,4) -> U(2,4)")


RECIPES: Mapping[str, Recipe] = {
    name: recipe for names, recipe in _rows() for name in names.split()
}


def one_operator(name: str, first: str = "float32", second: str = "") -> bytes:
    """A model of one operator, by its recipe; without one, only the operator code makes sense."""
    recipe = RECIPES.get(name, Recipe("T(1,4) -> T(1,4)"))
    return _Maker(name, recipe, first, second or "int32").model.write()


def real_values(model: bytes, feeds: Sequence[Array], compute: Callable[..., Array]) -> Array:
    """The operator's result, computed in real numbers from what the feeds stand for."""
    graph = Model.read(model).subgraphs[0]

    def scale(tensor: int) -> tuple[float, int]:
        parameters = graph.tensor(tensor).quantization
        return (1.0, 0) if parameters is None else (parameters.scale[0], parameters.zeroPoint[0])

    read = list(zip(feeds, map(scale, graph.graph.inputs), strict=True))
    found = compute(*((value.astype(np.float64) - zero) * step for value, (step, zero) in read))
    result = graph.graph.outputs[0]
    step, zero = scale(result)
    dtype = graph.dtype(result)
    assert dtype is not None
    return found if dtype.kind == "f" else np.rint(found / step + zero).astype(dtype)


class _Maker:
    """Makes the model; its random constants are always the same."""

    def __init__(self, name: str, recipe: Recipe, first: str, second: str) -> None:
        generated = schema()
        root, graph = generated.ModelT(), generated.SubGraphT()
        root.version, root.buffers, root.operatorCodes = 3, [generated.BufferT()], []
        root.subgraphs = [graph]
        self.model = Model(root)
        self._subgraph: Subgraph = self.model.subgraphs[0]
        self._name, self._random = name, np.random.default_rng(0)
        self._plain, first = first.startswith(PLAIN), first.removeprefix(PLAIN)
        self._dtypes = {
            "T": first,
            "U": second,
            "W": _WEIGHTS.get(first, first),
            "B": _BIAS.get(first, first),
        }
        operands, results = recipe.text.split("->")
        inputs = [self._operand(*found) for found in _TENSOR.findall(operands)]
        outputs = [
            self._tensor(word, _shape(size)) for word, _, size, _ in _TENSOR.findall(results)
        ]
        for at in outputs:
            self._give_scale(at, result=True)
        op = self._subgraph.make_op(name, inputs, outputs, version=recipe.version)
        if recipe.options:
            self._set_options(op, recipe, second)
        self._subgraph.operators, graph.outputs = [op], outputs

    def _operand(self, word: str, constant: str, size: str, values: str) -> int:
        dtype = self._dtypes.get(word, word)
        if values:
            at = self._subgraph.add_constant(f"{word}_given", np.array(json.loads(values), dtype))
        elif constant or word in "WB":
            value = some_values(self._random, _shape(size), np.dtype(dtype))
            at = self._subgraph.add_constant(f"{word}_constant", value)
        else:
            at = self._tensor(word, _shape(size))
            self._subgraph.graph.inputs.append(at)
        if word in "TW":
            self._give_scale(at, weights=word == "W")
        elif word == "B" and dtype != self._dtypes["T"] and not self._plain:
            _set_scale(self._subgraph.tensor(at), _SCALE[self._dtypes["T"]] / 32, 0)
        return at

    def _tensor(self, word: str, shape: tuple[int, ...]) -> int:
        at = len(self._subgraph.graph.tensors)
        return self._subgraph.add_tensor(f"{word}_{at}", shape, self._dtypes.get(word, word))

    def _give_scale(self, at: int, weights: bool = False, result: bool = False) -> None:
        dtype, tensor = str(self._subgraph.dtype(at)), self._subgraph.tensor(at)
        if dtype not in _INTEGERS or self._plain:
            return
        scale, zero = _SCALE[dtype], 0 if weights else _ZERO[dtype]
        if result and self._name in _OWN_SCALES:
            scale, zero, wide = _OWN_SCALES[self._name]
            scale, zero = (wide, 0) if dtype == "int16" else (scale, zero)
            zero += 128 * (dtype == "uint8")
        _set_scale(tensor, 1 / 32 if weights else scale, zero)

    def _set_options(self, op: Any, recipe: Recipe, second: str) -> None:
        op.builtinOptionsType = getattr(schema().BuiltinOptions, recipe.options)
        op.builtinOptions = getattr(schema(), f"{recipe.options}T")()
        numbers = {dtype: number for number, dtype in dtype_of_type().items()}
        for key, value in recipe.fields.items():
            value = numbers[np.dtype(second)] if value == "U" else value
            setattr(op.builtinOptions, key, value)
        if recipe.options == "CastOptions":
            op.builtinOptions.inDataType = self._subgraph.tensor(op.inputs[0]).type
            op.builtinOptions.outDataType = self._subgraph.tensor(op.outputs[0]).type


def some_values(random: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Small positive numbers, so that every operator is defined on them."""
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(bool)
    if dtype.kind == "f":
        return random.uniform(0.1, 0.9, shape).astype(dtype)
    least, most = (1500, 9000) if dtype == np.int16 else (1, 9)
    return np.asarray(random.integers(least, most, shape)).astype(dtype)


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(",") if size)


def _set_scale(tensor: Any, scale: float, zero: int) -> None:
    tensor.quantization = schema().QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero]
