"""Prints the operators that TFLite Micro's interpreter has registered, one a line.

Asks for each by a model of that operator alone, in a child process: kernels may crash on operands
that are absent. Run without TensorFlow, so that children are made quickly.
"""

from __future__ import annotations

import os
import sys

import flatbuffers

from hintc.errors import HintcError
from hintc.runtime.micro import MicroInterpreter
from hintc.tflite.schema import builtin_names, schema


def one_operator(name: str) -> bytes:
    """A model of one operator, of which only the operator code makes sense."""
    generated = schema()
    root, graph, op = generated.ModelT(), generated.SubGraphT(), generated.OperatorT()
    code = generated.OperatorCodeT()
    code.builtinCode = getattr(generated.BuiltinOperator, name)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
    tensors = [generated.TensorT() for _ in range(2)]
    for tensor in tensors:
        tensor.shape, tensor.name = [1, 4], b"x"
    op.inputs, op.outputs = [0], [1]
    graph.tensors, graph.inputs, graph.outputs, graph.operators = tensors, [0], [1], [op]
    root.version, root.operatorCodes, root.subgraphs = 3, [code], [graph]
    root.buffers = [generated.BufferT()]
    builder = flatbuffers.Builder(256)
    builder.Finish(root.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def is_registered(model: bytes) -> bool:
    """Does the interpreter find a kernel, whatever that kernel then says?"""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        text = ""
        try:
            MicroInterpreter(model)
        except HintcError as error:
            text = str(error)
        finally:
            os.write(write, text.encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        said = stream.read().decode()
    os.waitpid(child, 0)
    return "Didn't find op" not in said


if __name__ == "__main__":
    MicroInterpreter(one_operator("ABS"))  # the package is imported here, not in every child
    for operator in builtin_names().values():
        named = not operator.startswith(("CUSTOM", "STABLEHLO"))
        if named and is_registered(one_operator(operator)):
            sys.stdout.write(f"{operator}\n")
