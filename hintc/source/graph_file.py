"""GraphDefs in files: ``.pb`` (binary) and ``.pbtxt`` (text)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hintc.errors import HintcError

_TEXT_START = re.compile(rb"\s*(#[^\n]*\n\s*)*(node|library|versions|version)\s*[{:]")
_OP_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_>./-]*\Z")


def read_graph_file(path: Path) -> Any:
    """The GraphDef in a file; text and binary are told apart by the content.

    Raises:
        HintcError: the file cannot be read, is truncated, or holds something else.
    """
    data = read_bytes(path)
    if path.suffix == ".pbtxt" or _TEXT_START.match(data):
        return _parse_text(data, path)
    return _parse_binary(data, path)


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        HintcError: it does not exist, is empty or cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise HintcError(f"cannot read '{path}'", why=error.strerror or str(error)) from error
    if not data:
        raise HintcError(f"'{path}' is empty", remedy="Write the file again.")
    return data


def _parse_binary(data: bytes, path: Path) -> Any:
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework import graph_pb2

    graph_def = graph_pb2.GraphDef()
    try:
        graph_def.ParseFromString(data)
    except DecodeError as error:
        raise _not_a_graph(path, data, "truncated or of another kind") from error
    if not graph_def.node and not graph_def.library.function:
        raise _not_a_graph(path, data, "it holds no node")
    for node in graph_def.node:
        if not node.name or not _OP_NAME.match(node.op):
            raise _not_a_graph(path, data, f"node '{node.name}' has the op '{node.op}'")
    return graph_def


def _parse_text(data: bytes, path: Path) -> Any:
    from google.protobuf import text_format
    from tensorflow.core.framework import graph_pb2

    try:
        graph_def = text_format.Parse(data.decode(), graph_pb2.GraphDef())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise HintcError(
            f"'{path}' is no GraphDef in text form",
            why=" ".join(str(error).split())[:300],
            remedy="Write it with tf.io.write_graph(..., as_text=True).",
        ) from error
    if not graph_def.node and not graph_def.library.function:
        raise HintcError(f"'{path}' is no GraphDef in text form", why="it holds no node")
    return graph_def


def _not_a_graph(path: Path, data: bytes, why: str) -> HintcError:
    other = _other_message(data)
    if other == "SavedModel":
        return HintcError(
            f"'{path}' is a SavedModel, not a GraphDef", remedy="Give hintc its folder."
        )
    if other:
        return HintcError(
            f"'{path}' is a {other}, not a GraphDef",
            remedy="Save the graph itself with tf.io.write_graph.",
        )
    return HintcError(
        f"'{path}' is no whole GraphDef",
        why=why,
        remedy="Write or copy the file again; it must be a frozen GraphDef.",
    )


def _other_message(data: bytes) -> str:
    """The kind of message that `data` is, if it is one that people mistake for a GraphDef."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

    meta: Any
    for meta in (saved_model_pb2.SavedModel(), meta_graph_pb2.MetaGraphDef()):
        try:
            meta.ParseFromString(data)
        except DecodeError:
            continue
        graphs = getattr(meta, "meta_graphs", [meta])
        if any(g.graph_def.node and g.graph_def.node[0].op for g in graphs):
            return str(meta.DESCRIPTOR.name)
    return ""
