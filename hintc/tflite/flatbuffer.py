"""A TFLite model as objects: a thin, checked layer over the schema's object API.

The schema's classes are untyped; this module is where that ends.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from hintc.errors import HintcError
from hintc.tflite.schema import builtin_names, dtype_of_type, operator_name, schema

Array = npt.NDArray[Any]
Operator = Any
"""An ``OperatorT`` of the schema module."""
Tensor = Any
"""A ``TensorT`` of the schema module."""

IDENTIFIER = b"TFL3"
BUFFER_ALIGNMENT = 16
"""Bytes; the schema demands it of constant data."""


class _Bounded(bytearray):
    """Bytes whose slices must lie inside, so that a truncated string is noticed."""

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice) and key.stop is not None and key.stop > len(self):
            raise IndexError("a string reaches beyond the end")
        return super().__getitem__(key)


@contextmanager
def readable(data: bytes) -> Iterator[bytearray]:
    """The bytes of a .tflite model, to be parsed within.

    Raises:
        HintcError: they are none, or what was parsed does not lie inside.
    """
    if len(data) < 8 or bytes(data[4:8]) != IDENTIFIER:
        raise HintcError(
            "these bytes are not a TFLite model", why="the identifier 'TFL3' is missing"
        )
    try:
        yield _Bounded(data)
    except (struct.error, IndexError, ValueError, TypeError, OverflowError) as error:
        raise HintcError(
            "the TFLite model is truncated or damaged",
            why=str(error),
            remedy="Write or copy the file again.",
        ) from error


class Model:
    """A parsed .tflite model. Create it with `read`.

    Attributes:
        root: the schema's ``ModelT``.
        subgraphs: one `Subgraph` for each of the model's.
    """

    def __init__(self, root: Any) -> None:
        self.root = root
        self.subgraphs = [Subgraph(self, graph) for graph in root.subgraphs]

    @classmethod
    def read(cls, data: bytes) -> Model:
        """Parses a .tflite model.

        Raises:
            HintcError: not a TFLite model, truncated, damaged, or with data outside the
                flatbuffer.
        """
        with readable(data) as bounded:
            root = schema().ModelT.InitFromPackedBuf(bounded, 0)
            _check_indices(root)
        if any(buffer.offset > 1 for buffer in root.buffers) or root.externalBuffers:
            raise HintcError(
                "the TFLite model keeps constants outside its flatbuffer",
                why="this form of models above 2 GB is not supported",
            )
        return cls(root)

    def write(self) -> bytes:
        """The model as bytes; the same model gives the same bytes."""
        import flatbuffers

        builder = flatbuffers.Builder(1024)
        buffers = self.root.buffers
        self.root.buffers = [_AlignedBuffer(buffer.data) for buffer in buffers]
        try:
            builder.Finish(self.root.Pack(builder), IDENTIFIER)
        finally:
            self.root.buffers = buffers
        return bytes(builder.Output())

    def opcode(self, name: str, version: int = 1, custom: str | None = None) -> int:
        """Index of the operator code, added when it is not there.

        Args:
            name: name in the schema's ``BuiltinOperator``; ``CUSTOM`` with `custom`.
            version: the operator's version; each has its own entry.
            custom: the custom code.
        """
        builtin = getattr(schema().BuiltinOperator, name)
        for index, code in enumerate(self.root.operatorCodes):
            if (_builtin_code(code), code.version, _text(code.customCode)) == (
                builtin,
                version,
                custom or "",
            ):
                return index
        code = schema().OperatorCodeT()
        code.builtinCode = builtin
        # Readers of schema version 3 know codes below 127 only, from this field.
        code.deprecatedBuiltinCode = min(builtin, 127)
        code.version = version
        code.customCode = custom.encode() if custom else None
        self.root.operatorCodes.append(code)
        return len(self.root.operatorCodes) - 1

    def op_name(self, op: Operator) -> str:
        """Schema name of an operator; ``CUSTOM:<code>`` for a custom one."""
        return operator_name(*self._codes(op))

    def custom_code(self, op: Operator) -> str | None:
        """The code under which a custom operator's kernel is registered; None for a built-in."""
        builtin, custom = self._codes(op)
        return custom if builtin_names().get(builtin) == "CUSTOM" else None

    def _codes(self, op: Operator) -> tuple[int, str]:
        code = self.root.operatorCodes[op.opcodeIndex]
        return _builtin_code(code), _text(code.customCode)

    def operators(self) -> Iterator[tuple[Subgraph, Operator]]:
        """Every operator of every subgraph."""
        for subgraph in self.subgraphs:
            for op in subgraph.operators:
                yield subgraph, op

    def add_buffer(self, data: Array) -> int:
        """A new constant buffer with the bytes of `data`; its index."""
        buffer = schema().BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        self.root.buffers.append(buffer)
        return len(self.root.buffers) - 1


class Subgraph:
    """One subgraph of a `Model`; tensors are spoken of by index."""

    def __init__(self, model: Model, graph: Any) -> None:
        self.model = model
        self.graph = graph
        self._producers: dict[int, Operator] | None = None
        for name in ("tensors", "operators", "inputs", "outputs"):
            value = getattr(graph, name)
            setattr(graph, name, [] if value is None else list(value))
        for op in graph.operators:
            op.inputs = _indices(op.inputs)
            op.outputs = _indices(op.outputs)
        graph.inputs, graph.outputs = _indices(graph.inputs), _indices(graph.outputs)

    @property
    def name(self) -> str:
        """The subgraph's name."""
        return _text(self.graph.name)

    @property
    def operators(self) -> list[Operator]:
        """The operators in execution order; to change the list, assign a new one."""
        operators: list[Operator] = self.graph.operators
        return operators

    @operators.setter
    def operators(self, operators: list[Operator]) -> None:
        self.graph.operators = operators
        self._producers = None

    def tensor(self, index: int) -> Tensor:
        """The ``TensorT`` at `index`."""
        return self.graph.tensors[index]

    def tensor_name(self, index: int) -> str:
        """Name of tensor `index`; empty for an absent operand (-1)."""
        return _text(self.tensor(index).name) if index >= 0 else ""

    def dtype(self, index: int) -> np.dtype[Any] | None:
        """The dtype of a tensor; None where numpy has none (strings, resources, int4)."""
        return dtype_of_type().get(self.tensor(index).type)

    def shape(self, index: int) -> tuple[int, ...] | None:
        """Sizes of a tensor with -1 where dynamic; None if not even the rank is known."""
        tensor = self.tensor(index)
        signature = tensor.shapeSignature
        if signature is not None and len(signature):
            return tuple(int(size) for size in signature)
        sizes = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
        return None if not sizes and not tensor.hasRank and not self._data(index) else sizes

    def producer(self, index: int) -> Operator | None:
        """The operator that writes tensor `index`, if one does."""
        if self._producers is None:
            self._producers = {made: op for op in self.operators for made in op.outputs}
        return self._producers.get(index)

    def read_tensors(self) -> set[int]:
        """The tensors that an operator reads or that are outputs."""
        read = set(self.graph.outputs)
        for op in self.operators:
            read.update(op.inputs)
        return read

    def constant(self, index: int) -> Array | None:
        """The value of a constant, or of a constant behind DEQUANTIZE; None if it is neither."""
        value = self._stored(index)
        if value is not None:
            return value
        op = self.producer(index)
        if op is None or self.model.op_name(op) != "DEQUANTIZE":
            return None
        stored = self._stored(op.inputs[0])
        if stored is None or stored.dtype == np.float16:
            return None if stored is None else stored.astype(np.float32)
        return _dequantized(stored, self.tensor(op.inputs[0]).quantization)

    def add_tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: npt.DTypeLike = np.float32,
        *,
        buffer: int = 0,
        variable: bool = False,
    ) -> int:
        """A new tensor; its index. A size of -1 in `shape` is dynamic."""
        tensor = schema().TensorT()
        tensor.name = name.encode()
        tensor.type = next(t for t, known in dtype_of_type().items() if known == np.dtype(dtype))
        tensor.shape = [max(int(size), 1) if size < 0 else int(size) for size in shape]
        if any(size < 0 for size in shape):
            tensor.shapeSignature = [int(size) for size in shape]
        tensor.hasRank = True
        tensor.isVariable = variable
        tensor.buffer = buffer
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def add_constant(self, name: str, value: Array) -> int:
        """A new constant tensor; its index."""
        buffer = self.model.add_buffer(value)
        return self.add_tensor(name, value.shape, value.dtype, buffer=buffer)

    def make_op(
        self,
        name: str,
        inputs: Iterable[int],
        outputs: Iterable[int],
        *,
        version: int = 1,
        options: str | None = None,
        fields: dict[str, Any] | None = None,
    ) -> Operator:
        """A built-in operator, not yet placed in the subgraph.

        Args:
            name: name in ``BuiltinOperator``.
            inputs: tensor indices, -1 for an absent one.
            outputs: tensor indices.
            version: the operator's version.
            options: name of its options table, if it has one.
            fields: fields of that table to set.
        """
        op = schema().OperatorT()
        op.opcodeIndex = self.model.opcode(name, version)
        op.inputs, op.outputs = list(inputs), list(outputs)
        if options is not None:
            op.builtinOptionsType = getattr(schema().BuiltinOptions, options)
            op.builtinOptions = getattr(schema(), f"{options}T")()
            for field, value in (fields or {}).items():
                setattr(op.builtinOptions, field, value)
        return op

    def _data(self, index: int) -> bytes:
        data = self.model.root.buffers[self.tensor(index).buffer].data
        return b"" if data is None else bytes(bytearray(data))

    def _stored(self, index: int) -> Array | None:
        data, dtype, tensor = self._data(index), self.dtype(index), self.tensor(index)
        if not data or dtype is None or tensor.sparsity is not None or tensor.isVariable:
            return None
        shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
        if len(data) != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
            raise HintcError(
                f"constant '{self.tensor_name(index)}' does not fill its shape {shape}",
                why=f"it has {len(data)} bytes",
            )
        return np.frombuffer(data, dtype).reshape(shape)


class _AlignedBuffer:
    """Packs as a ``BufferT`` whose data starts at a multiple of `BUFFER_ALIGNMENT` bytes."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def Pack(self, builder: Any) -> int:
        """Writes the buffer and returns its offset."""
        generated = schema()
        vector = None
        if self.data is not None and len(self.data):
            raw = np.asarray(self.data, np.uint8).tobytes()
            builder.StartVector(1, len(raw), BUFFER_ALIGNMENT)
            builder.head -= len(raw)
            builder.Bytes[builder.head : builder.head + len(raw)] = raw
            vector = builder.EndVector()
        generated.BufferStart(builder)
        if vector is not None:
            generated.BufferAddData(builder, vector)
        return int(generated.BufferEnd(builder))


def _builtin_code(code: Any) -> int:
    return max(int(code.builtinCode), int(code.deprecatedBuiltinCode))


def _text(value: bytes | str | None) -> str:
    if value is None:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _indices(values: Any) -> list[int]:
    return [] if values is None else [int(value) for value in values]


def _dequantized(stored: Array, quantization: Any) -> Array | None:
    """Real values of an integer constant; None if it carries no scales."""
    if quantization is None or quantization.scale is None:
        return None
    scale = np.asarray(quantization.scale, np.float32)
    zero = np.asarray(quantization.zeroPoint if quantization.zeroPoint is not None else 0)
    if scale.size > 1:
        shape = [1] * stored.ndim
        shape[quantization.quantizedDimension] = -1
        scale, zero = scale.reshape(shape), np.broadcast_to(zero, scale.shape).reshape(shape)
    real: Array = (stored.astype(np.float32) - zero) * scale
    return real.astype(np.float32)


def _check_indices(root: Any) -> None:
    """Every index of a buffer, tensor or operator code points at one (ValueError if not)."""
    for name in ("operatorCodes", "subgraphs", "buffers"):
        if getattr(root, name) is None:
            setattr(root, name, [])
    if not root.subgraphs or not root.buffers:
        raise ValueError("it has no subgraph or no buffer")
    for graph in root.subgraphs:
        tensors = graph.tensors or []
        operators = graph.operators or []
        _check_range("buffer", [t.buffer for t in tensors], 0, len(root.buffers))
        _check_range(
            "operator code", [op.opcodeIndex for op in operators], 0, len(root.operatorCodes)
        )
        ends = _indices(graph.inputs) + _indices(graph.outputs)
        _check_range("tensor", ends, 0, len(tensors))
        for op in operators:
            _check_range("tensor", _indices(op.inputs), -1, len(tensors))
            _check_range("tensor", _indices(op.outputs), 0, len(tensors))
            _check_range("tensor", _indices(op.intermediates), -1, len(tensors))
    listed = [] if root.metadataBuffer is None else _indices(root.metadataBuffer)
    listed += [entry.buffer for entry in root.metadata or []]
    _check_range("buffer", listed, 0, len(root.buffers))
    for signature in root.signatureDefs or []:
        _check_range("subgraph", [signature.subgraphIndex], 0, len(root.subgraphs))
        count = len(root.subgraphs[signature.subgraphIndex].tensors or [])
        entries = [*(signature.inputs or []), *(signature.outputs or [])]
        _check_range("tensor", [entry.tensorIndex for entry in entries], 0, count)


def _check_range(what: str, indices: Sequence[int], low: int, high: int) -> None:
    for index in indices:
        if not low <= index < high:
            raise ValueError(f"{what} {index} does not exist")
