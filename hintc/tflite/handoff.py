"""The hand-off: a lowered GraphDef through TensorFlow's converter, then legalised.

The converter keeps a call of a function marked ``_implements: hintc.X`` as one CUSTOM operator
when it is given the GraphDef itself; see `hintc.tflite.legalize` for what follows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from hintc.errors import HintcError
from hintc.ops import PREFIX, CustomLowering, Quantize, Target, declared
from hintc.runtime.session import tensor_name
from hintc.runtime.stream import captured_output
from hintc.tflite.call_names import name_calls
from hintc.tflite.convertible import check_convertible, some_names, trimmed
from hintc.tflite.flatbuffer import Model
from hintc.tflite.inspect import op_counts
from hintc.tflite.legalize import Legalized, legalize_model
from hintc.tflite.schema import schema
from hintc.tflite.state import StateMode

SIGNATURE_KEY = "serving_default"

_LOCATED = re.compile(r"""loc\([^\n]*?fused\["(?P<op>\w+):",\s*"(?P<node>[^"@]+)""")
"""Where the converter's messages name an operator and a node."""
_ILLEGAL = re.compile(r"^\s*tf\.(\w+)\s*[{(]|'tf\.(\w+)' op", re.MULTILINE)
"""How its messages name operators that it cannot convert."""
_PLACE = re.compile(r"^(\S+: )?error: (loc\(.*?\]\):\s*)?")
"""What it writes before a message; the node is said elsewhere."""
_ADVICE = "Please consider"
"""How its advice begins, on options of its own."""

_FLOAT32 = (
    "Export the model in float32 (Keras: set_weights on one built under the dtype policy "
    "'float32'); quantize='float16' then stores the weights in 16 bits."
)
_OTHER_OPERATORS = (
    "Replace it by operators that TFLite has, or make it an op of your own, by a hint or a pass, "
    "and bring a kernel: docs/custom-kernels.md."
)
_ODD = (np.dtype(np.float16), np.dtype(np.float64))
"""Types in which TFLite computes next to nothing."""


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
            float16 weights; ``"int8"``: float32, ready for `hintc.tflite.integers.quantize`.
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
    check_convertible(graph_def, inputs, outputs)
    converted = convert(graph_def, inputs, outputs, quantize)
    composites = {_custom_code(name.removeprefix(PREFIX)) for name in _composites(graph_def)}
    result = legalize_model(converted, quantize=quantize, target=target, state=state)
    _check_customs(result.tflite, composites | set(allow_custom))
    return result


def _custom_code(name: str) -> str:
    """The custom code that an op is lowered to; its name, unless its declaration says otherwise."""
    op = declared(name)
    return op.lowering.code if op and isinstance(op.lowering, CustomLowering) else name


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
    model = Model.read(_converted(graph_def, inputs, outputs, quantize))
    name_calls(model, graph_def)
    return _named(model, inputs, outputs)


def _converted(
    graph_def: Any, inputs: Sequence[str], outputs: Sequence[str], quantize: Quantize | None
) -> bytes:
    import tensorflow as tf

    graph_def = _without_hints(trimmed(graph_def, [*inputs, *outputs]))
    graph_def = _without_shape_checks(graph_def)
    graph = tf.Graph()
    captured = None
    try:
        with captured_output() as captured:
            with graph.as_default():
                tf.import_graph_def(graph_def, name="")
            sources = [_tensor(graph, name) for name in inputs]
            results = [_tensor(graph, name) for name in outputs]
            converter = _stock_converter()(graph_def, sources, results)
            converter.allow_custom_ops = True
            if quantize in ("dynamic", "float16"):
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if quantize == "float16":
                converter.target_spec.supported_types = [tf.float16]
            return bytes(converter.convert())
    except HintcError:
        raise
    except Exception as error:  # the converter raises several families, its own among them
        raise _explained(error, captured.text if captured else "") from error


def _stock_converter() -> Any:
    """TensorFlow's class, by its home: `hintc.install` puts ours under the public name."""
    from tensorflow.lite.python.lite import TFLiteConverter

    class Converter(TFLiteConverter):  # type: ignore[misc]
        """Leaves calls alone: while TensorFlow does not run eagerly, Grappler inlines them all."""

        def _optimize_tf_model(self, graph_def: Any, *_: Any) -> Any:
            return graph_def

    return Converter


def _without_hints(graph_def: Any) -> Any:
    """The graph without the attributes of hints that no pass has replaced.

    TensorFlow's converter makes a dynamic batch 1 as soon as it sees one of them (lite.py,
    `_is_unknown_shapes_allowed`).
    """
    marks = "_tflite_"
    if not any(key.startswith(marks) for node in graph_def.node for key in node.attr):
        return graph_def
    plain = type(graph_def)()
    plain.CopyFrom(graph_def)
    for node in plain.node:
        for key in [key for key in node.attr if key.startswith(marks)]:
            del node.attr[key]
    return plain


def _without_shape_checks(graph_def: Any) -> Any:
    """The graph with an Identity in place of each EnsureShape.

    TFLite has none, and the converter takes out only those that surely hold.
    """
    bodies = (graph_def.node, *(function.node_def for function in graph_def.library.function))
    if not any(node.op == "EnsureShape" for nodes in bodies for node in nodes):
        return graph_def
    plain = type(graph_def)()
    plain.CopyFrom(graph_def)
    for nodes in (plain.node, *(function.node_def for function in plain.library.function)):
        for node in nodes:
            if node.op == "EnsureShape":
                node.op = "Identity"
                del node.attr["shape"]
    return plain


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
    remedy = None
    if any(op.startswith(("TensorList", "EmptyTensorList")) for op in ops):
        remedy = "The default pipeline takes the lists out of loops; 'hintc explain' says why not."
    elif ops:
        remedy = "Replace the operator, or rewrite this part of the graph with a pass."
    return HintcError(
        what,
        node=located["node"] if located else None,
        why=_complaint(str(error)) or _complaint(log),
        remedy=remedy,
    )


def _complaint(text: str) -> str:
    """The first lines that say something, shortened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line] or lines
    plain = [_PLACE.sub("", line).partition(_ADVICE)[0].strip() for line in errors[:3]]
    return "; ".join(dict.fromkeys(plain))[:800]


def _named(model: Model, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """Gives the first subgraph's inputs and outputs the source's names, and a signature."""
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
    customs = (n.partition(":")[2] for n in op_counts(tflite) if n.startswith("CUSTOM:"))
    if all(code in allowed for code in customs):
        return
    model = Model.read(tflite)
    left: dict[tuple[str, str], list[str]] = {}
    for subgraph, op in model.operators():
        code = model.custom_code(op)
        if code is not None and code not in allowed:
            odd = next((str(d) for d in map(subgraph.dtype, op.outputs) if d in _ODD), "")
            # a print, say, has no output
            where = subgraph.tensor_name(op.outputs[0]) if len(op.outputs) else code
            left.setdefault((code, odd), []).append(where)
    for (code, odd), nodes in sorted(left.items()):
        raise HintcError(
            f"TFLite has no operator '{code.removeprefix('Flex')}'"
            + (f" that computes in {odd}" if odd else ""),
            node=nodes[0],
            why=some_names("nodes", nodes),
            remedy=_FLOAT32 if odd else _OTHER_OPERATORS,
        )
