"""Writes a Module of TensorFlow ops as a GraphDef; `hintc.graphdef.lower` first makes it one.

What was not changed since the lift is emitted as it came, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from hintc.errors import HintcError
from hintc.graphdef.spelling import BodySpelling, GraphSpelling, Spelling
from hintc.ir import ARG, RESULT, DType, Function, Graph, Module, Node, Port
from hintc.ir.opdefs import result_dtypes
from hintc.ir.wire import encode

if TYPE_CHECKING:
    from tensorflow.core.framework import function_pb2, graph_pb2

_FALLBACK_PRODUCER = 1882
"""GraphDef version for modules that were not lifted: that of TensorFlow 2.18, our oldest."""


def write_graph_def(module: Module) -> graph_pb2.GraphDef:
    """Write a Module without Scans; declared results are not written.

    Raises:
        HintcError: a node cannot be written, e.g. it reads a result that its op does not have.
    """
    from tensorflow.core.framework import graph_pb2

    written = graph_pb2.GraphDef()
    _copy_other_fields(module.source, written)
    spelling = GraphSpelling()
    written.node.extend(_node_def(node, spelling) for node in module.graph if node.op != RESULT)
    library = dict(_function_defs(module))
    if library:
        written.library.function.extend(library.values())
    return written


def _copy_other_fields(source: Any, lowered: graph_pb2.GraphDef) -> None:
    if source is None:
        lowered.versions.producer = _FALLBACK_PRODUCER
        return
    for field, value in source.ListFields():
        if field.name == "node":
            continue
        if field.name == "library":
            lowered.library.gradient.extend(value.gradient)
            lowered.library.registered_gradients.extend(value.registered_gradients)
            lowered.library.SetInParent()
        elif field.type == field.TYPE_MESSAGE:
            getattr(lowered, field.name).CopyFrom(value)
        else:
            setattr(lowered, field.name, value)


def _node_def(node: Node, spelling: Spelling) -> Any:
    source = node.source
    inputs = _inputs(node, spelling)
    if (
        source is not None
        and source.name == node.name
        and source.op == node.op
        and source.device == node.device
        and not node.attributes.touched
        and inputs == list(source.input)
    ):
        return source
    from tensorflow.core.framework import node_def_pb2

    written = node_def_pb2.NodeDef()
    if source is not None:
        written.CopyFrom(source)
        del written.input[:]
    written.name, written.op, written.device = node.name, node.op, node.device
    written.input.extend(inputs)
    for name in node.attributes.touched:
        if name in node.attributes:
            written.attr[name].CopyFrom(_encode(node, name))
        elif name in written.attr:
            del written.attr[name]
    return written


def _encode(node: Node, name: str) -> Any:
    try:
        return encode(node.attributes[name])
    except HintcError as error:
        raise HintcError(f"attribute '{name}': {error.what}", node=node.name) from error


def _inputs(node: Node, spelling: Spelling) -> list[str]:
    """Operands as text, spelled as they came where they still are the same values."""
    came = list(node.source.input) if node.source is not None else []
    data = [t for t in came if not t.startswith("^")]
    texts = [
        data[at] if at < len(data) and spelling.means(data[at], port) else spelling.spell(port)
        for at, port in enumerate(node.operands)
    ]
    return texts + [f"^{control.name}" for control in node.controls]


def _function_defs(module: Module) -> Any:
    library = {name: f.source for name, f in module.functions.items() if f.source is not None}
    for name, function in module.functions.items():
        if function.source is not None and not function.is_lifted and not _renamed(function):
            yield name, function.source
        else:
            yield name, _function_def(function, library)


def _renamed(function: Function) -> bool:
    return bool(function.source.signature.name != function.name or function.attributes.touched)


def _function_def(function: Function, library: Mapping[str, Any]) -> function_pb2.FunctionDef:
    from tensorflow.core.framework import function_pb2

    spelling = BodySpelling(library)
    graph = function.graph
    body = [_node_def(n, spelling) for n in graph if n.op not in (ARG, RESULT)]
    results = _results(graph, function.source, spelling)
    controls = {name: node.name for name, node in graph.control_results.items()}
    source = function.source
    if source is not None and not _changed(function, body, results, controls):
        return source
    written = function_pb2.FunctionDef()
    if source is not None:
        written.CopyFrom(source)
        written.ClearField("node_def")
        written.ClearField("ret")
        written.ClearField("control_ret")
    written.node_def.extend(body)
    written.ret.update(results)
    written.control_ret.update(controls)
    _write_signature(function, written)
    for name in function.attributes.touched:
        if name in function.attributes:
            written.attr[name].CopyFrom(encode(function.attributes[name]))
        elif name in written.attr:
            del written.attr[name]
    return written


def _changed(
    function: Function,
    body: list[Any],
    results: dict[str, str],
    controls: dict[str, str],
) -> bool:
    source = function.source
    return (
        _renamed(function)
        or len(body) != len(source.node_def)
        or any(ours is not theirs for ours, theirs in zip(body, _sources(function), strict=True))
        or results != dict(source.ret)
        or controls != dict(source.control_ret)
        or [a.name for a in function.graph.args] != [a.name for a in source.signature.input_arg]
        or [result_name(r) for r in function.graph.results]
        != [a.name for a in source.signature.output_arg]
        or any(
            a.attributes["T"] != DType(s.type)
            for a, s in zip(function.graph.args, source.signature.input_arg, strict=True)
            if "T" in a.attributes
        )
    )


def _sources(function: Function) -> list[Any]:
    return [n.source for n in function.graph if n.op not in (ARG, RESULT)]


def result_name(node: Node) -> str:
    """The name a `_Retval` node declares."""
    name = node.attributes["result"]
    assert isinstance(name, bytes)
    return name.decode()


def _results(graph: Graph, source: Any, spelling: BodySpelling) -> dict[str, str]:
    came = dict(source.ret) if source is not None else {}
    results = {}
    for node in graph.results:
        name, port = result_name(node), node.operands[0]
        text = came.get(name)
        kept = text is not None and spelling.means(text, port)
        results[name] = text if kept and text is not None else spelling.spell(port)
    return results


def _write_signature(function: Function, written: Any) -> None:
    signature = written.signature
    signature.name = function.name
    came_in = _copies(signature.input_arg)
    came_out = {a.name: a for a in _copies(signature.output_arg)}
    signature.ClearField("input_arg")
    signature.ClearField("output_arg")
    _write_args(function, written, came_in)
    for result in function.graph.results:
        entry = signature.output_arg.add()
        name = result_name(result)
        if name in came_out:
            entry.CopyFrom(came_out[name])
        entry.name = name
        dtype = _known_dtype(result.operands[0])
        if dtype is not None and not entry.type_attr:
            entry.type = int(dtype.base)
        elif not entry.type and not entry.type_attr:
            raise HintcError(
                f"the element type of result '{name}' of function '{function.name}' is not known",
                node=result.operands[0].node.name,
            )
    signature.ClearField("control_output")
    signature.control_output.extend(function.graph.control_results)


def _write_args(function: Function, written: Any, came: list[Any]) -> None:
    """Arguments, with what the source says of them by index moved to where they are now."""
    at = {arg.name: index for index, arg in enumerate(came)}
    said = {index: written.arg_attr[index] for index in list(written.arg_attr)}
    moved = {}
    for index, arg in enumerate(function.graph.args):
        entry = written.signature.input_arg.add()
        if arg.name in at:
            entry.CopyFrom(came[at[arg.name]])
            if at[arg.name] in said:
                moved[index] = _copies([said[at[arg.name]]])[0]
        entry.name = arg.name
        dtype, type_attr = arg.attributes.get("T"), arg.attributes.get("type_attr")
        if isinstance(dtype, DType):
            entry.type = int(dtype.base)
        elif isinstance(type_attr, bytes):
            entry.type_attr = type_attr.decode()
    written.ClearField("arg_attr")
    for index, attributes in moved.items():
        written.arg_attr[index].CopyFrom(attributes)


def _known_dtype(port: Port) -> DType | None:
    """Its element type; None where only the library can tell (a function called by name)."""
    dtypes = result_dtypes(port.node)
    return dtypes[port.index] if dtypes is not None and port.index < len(dtypes) else None


def _copies(entries: Iterable[Any]) -> list[Any]:
    copies = []
    for entry in entries:
        copy = type(entry)()
        copy.CopyFrom(entry)
        copies.append(copy)
    return copies
