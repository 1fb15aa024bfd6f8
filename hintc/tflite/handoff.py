"""The hand-off: a lowered GraphDef through TensorFlow's converter, then legalised.

The converter keeps a call of a function marked ``_implements: hintc.X`` as one CUSTOM operator
when it is given the GraphDef itself; see `hintc.tflite.legalize` for what follows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from hintc.errors import HintcError
from hintc.ops import PREFIX, Quantize, Target
from hintc.runtime.session import tensor_name
from hintc.tflite.flatbuffer import Model
from hintc.tflite.legalize import Legalized, legalize_model
from hintc.tflite.schema import schema
from hintc.tflite.state import StateMode
from hintc.tflite.stream import captured_output

SIGNATURE_KEY = "serving_default"

_VARIABLES = (
    "Variable",
    "VariableV2",
    "VarHandleOp",
    "ReadVariableOp",
    "AssignVariableOp",
    "AutoReloadVariable",
)
_LOCATED = re.compile(r"""loc\([^\n]*?fused\["(?P<op>\w+):",\s*"(?P<node>[^"@]+)""")
"""Where the converter's messages name an operator and a node."""
_ILLEGAL = re.compile(r"^\s*tf\.(\w+)\s*[{(]|'tf\.(\w+)' op", re.MULTILINE)
"""How its messages name operators that it cannot convert."""


def to_tflite(
    graph_def: Any,
    inputs: Sequence[str],
    outputs: Sequence[str],
    *,
    quantize: Quantize | None = None,
    target: Target = "tflite",
    state: StateMode = "reset",
    allow_custom: Collection[str] = (),
) -> bytes:
    """A frozen GraphDef as a .tflite model.

    Args:
        graph_def: frozen; its fused calls are PartitionedCalls of functions marked
            ``_implements``. Not modified.
        inputs: names of the input tensors, ``:0`` optional; the model's inputs in this order.
        outputs: names of the output tensors, likewise.
        quantize: None; ``"dynamic"``: int8 weights, float arithmetic between them; ``"float16"``:
            float16 weights.
        target: what shall run it.
        state: see `hintc.tflite.legalize.legalize`.
        allow_custom: operators that may stay CUSTOM under their TensorFlow name, because the
            caller has kernels for them.

    Returns:
        The model. Its tensors and its only signature, ``serving_default``, carry the names of
        `inputs` and `outputs` without ``:0``; dynamic sizes stay dynamic.

    Raises:
        HintcError: names that the graph does not have, variables, operators that TensorFlow or
            TFLite does not know, or whatever else the converter complains about; it names nodes.
    """
    return to_tflite_model(
        graph_def,
        inputs,
        outputs,
        quantize=quantize,
        target=target,
        state=state,
        allow_custom=allow_custom,
    ).tflite


def to_tflite_model(
    graph_def: Any,
    inputs: Sequence[str],
    outputs: Sequence[str],
    *,
    quantize: Quantize | None = None,
    target: Target = "tflite",
    state: StateMode = "reset",
    allow_custom: Collection[str] = (),
) -> Legalized:
    """As `to_tflite`, with an account of what was lowered."""
    _check(graph_def, inputs, outputs)
    converted = convert(graph_def, inputs, outputs, quantize)
    composites = {name.removeprefix(PREFIX) for name in _composites(graph_def)}
    result = legalize_model(converted, quantize=quantize, target=target, state=state)
    _check_customs(result.tflite, composites | set(allow_custom))
    return result


def _check(graph_def: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Refuses what would fail in the converter with a message that helps nobody."""
    if not (hasattr(graph_def, "node") and hasattr(graph_def, "library")):
        raise HintcError(f"a {type(graph_def).__name__} is not a GraphDef")
    if not outputs:
        raise HintcError("no outputs are given", remedy="Name at least one.")
    _check_operators(graph_def)
    needed = _sources(graph_def, inputs, outputs)
    if needed:
        raise HintcError(
            "the outputs need a Placeholder that is no input",
            node=needed[0],
            why=_some("nodes", needed),
            remedy="List it among the inputs.",
        )


def _sources(graph_def: Any, inputs: Sequence[str], outputs: Sequence[str]) -> list[str]:
    """The Placeholders, beside `inputs`, that the outputs are computed from."""
    nodes = {node.name: node for node in graph_def.node}
    fed = {_node_name(name) for name in inputs}
    waiting = [_node_name(name) for name in outputs]
    seen: set[str] = set(fed)
    found: list[str] = []
    while waiting:
        name = waiting.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        if nodes[name].op == "Placeholder":
            found.append(name)
        waiting.extend(_node_name(source) for source in nodes[name].input if source[0] != "^")
    return sorted(found)


def _node_name(tensor: str) -> str:
    return tensor.partition(":")[0]


def _check_operators(graph_def: Any) -> None:
    """Refuses variables, missing functions, and operators that TensorFlow does not know."""
    from tensorflow.python.framework import op_def_registry

    functions = {function.signature.name for function in graph_def.library.function}
    unknown: dict[str, list[str]] = {}
    variables: list[str] = []
    for node in _all_nodes(graph_def):
        if node.op in _VARIABLES:
            variables.append(node.name)
        elif node.op not in functions and op_def_registry.get(node.op) is None:
            unknown.setdefault(node.op, []).append(node.name)
        for name in _called(node):
            if name not in functions:
                raise HintcError(
                    f"it calls the function '{name}', which the graph does not have",
                    node=node.name,
                    remedy="Keep the function library when you edit a GraphDef.",
                )
    if variables:
        raise HintcError(
            "the graph has variables",
            node=variables[0],
            why=_some("nodes", variables),
            remedy="Freeze it first (tf.compat.v1.graph_util.convert_variables_to_constants).",
        )
    for op, nodes in sorted(unknown.items()):
        raise HintcError(
            f"TensorFlow knows no operator '{op}'",
            node=nodes[0],
            why=_some("nodes", nodes),
            remedy="Load the library that defines it, or make it a fused call with a body.",
        )


def _called(node: Any) -> Iterator[str]:
    """The functions that a node's attributes name."""
    for name, value in node.attr.items():
        if name.startswith("_"):
            continue
        if value.HasField("func"):
            yield value.func.name
        for entry in value.list.func:
            yield entry.name


def _all_nodes(graph_def: Any) -> Iterator[Any]:
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def


def _composites(graph_def: Any) -> set[str]:
    """The names that the library's functions implement as one operator."""
    names = set()
    for function in graph_def.library.function:
        if "_implements" in function.attr:
            value = function.attr["_implements"]
            names.add(value.func.name or value.s.decode("utf-8", "replace"))
    return names - {""}


def convert(
    graph_def: Any,
    inputs: Sequence[str],
    outputs: Sequence[str],
    quantize: Quantize | None = None,
) -> bytes:
    """TensorFlow's converter alone: fused calls are still CUSTOM; see `to_tflite`."""
    return _named(_converted(graph_def, inputs, outputs, quantize), inputs, outputs)


def _converted(
    graph_def: Any, inputs: Sequence[str], outputs: Sequence[str], quantize: Quantize | None
) -> bytes:
    import tensorflow as tf

    graph = tf.Graph()
    captured = None
    try:
        with captured_output() as captured:
            with graph.as_default():
                tf.import_graph_def(graph_def, name="")
            sources = [_tensor(graph, name) for name in inputs]
            results = [_tensor(graph, name) for name in outputs]
            converter = tf.compat.v1.lite.TFLiteConverter(graph_def, sources, results)
            converter.allow_custom_ops = True
            if quantize is not None:
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if quantize == "float16":
                converter.target_spec.supported_types = [tf.float16]
            return bytes(converter.convert())
    except HintcError:
        raise
    except Exception as error:  # the converter raises several families, its own among them
        raise _explained(error, captured.text if captured else "") from error


def _tensor(graph: Any, name: str) -> Any:
    try:
        return graph.get_tensor_by_name(tensor_name(name))
    except (KeyError, ValueError) as error:
        raise HintcError(
            f"the graph has no tensor '{tensor_name(name)}'",
            remedy="Name an existing input or output.",
        ) from error


def _explained(error: Exception, log: str) -> HintcError:
    """The converter's complaint with the node and operator, as far as it names them."""
    text = f"{error}\n{log}"
    located = _LOCATED.search(text)
    ops = {first or second for first, second in _ILLEGAL.findall(text)}
    if located and not ops:
        ops = {located["op"]}
    what = "TensorFlow's converter cannot convert the graph"
    if ops:
        what = "TensorFlow's converter cannot convert " + ", ".join(f"'{op}'" for op in sorted(ops))
    return HintcError(
        what,
        node=located["node"] if located else None,
        why=_complaint(str(error)) or _complaint(log),
        remedy="Replace the operator, or rewrite this part of the graph with a pass."
        if ops
        else None,
    )


def _complaint(text: str) -> str:
    """The first lines that say something, shortened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line] or lines
    return " | ".join(errors[:3])[:800]


def _named(tflite: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """Gives the first subgraph's inputs and outputs the source's names, and a signature."""
    model = Model.read(tflite)
    generated = schema()
    signature = generated.SignatureDefT()
    signature.signatureKey = SIGNATURE_KEY.encode()
    signature.subgraphIndex = 0
    graph = model.subgraphs[0].graph
    named: set[int] = set()
    sides = (("inputs", graph.inputs, inputs), ("outputs", graph.outputs, outputs))
    for side, tensors, names in sides:
        if len(tensors) != len(names):
            raise HintcError(
                f"the converter gave {len(tensors)} {side} for {len(names)}",
                remedy=f"Name different tensors as {side}.",
            )
        entries = []
        for index, name in zip(tensors, names, strict=True):
            entry = generated.TensorMapT()
            entry.name, entry.tensorIndex = name.removesuffix(":0").encode(), index
            entries.append(entry)
            # An output that is an input's tensor, or another output's, leaves it its name.
            if index not in named:
                graph.tensors[index].name = entry.name
                named.add(index)
        setattr(signature, side, entries)
    model.root.signatureDefs = [signature]
    return model.write()


def _check_customs(tflite: bytes, allowed: Collection[str]) -> None:
    """Refuses TensorFlow operators that the converter let through as CUSTOM."""
    model = Model.read(tflite)
    left: dict[str, list[str]] = {}
    for subgraph, op in model.operators():
        name = model.op_name(op)
        code = name.removeprefix("CUSTOM:")
        if code != name and code not in allowed:
            left.setdefault(code, []).append(subgraph.tensor_name(op.outputs[0]))
    for code, nodes in sorted(left.items()):
        raise HintcError(
            f"TFLite has no operator '{code.removeprefix('Flex')}'",
            node=nodes[0],
            why=_some("nodes", nodes),
            remedy="Replace it by operators that TFLite has, or allow it as a custom operator "
            "and bring a kernel.",
        )


def _some(what: str, names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{what}: " + ", ".join(names[:limit]) + more
