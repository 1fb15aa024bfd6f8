"""Reads attribute values, and the blobs that constants refer to."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from hintc.errors import HintcError
from hintc.ir import Array, AttributeValue, DType, FunctionRef, Shape, Tensor, Unbound
from hintc.ir.attributes import Scalar
from hintc.text import names, tensors
from hintc.text.lexer import Cursor, Token

_DTYPES = {dtype.name.lower(): dtype for dtype in DType}
_WORDS: dict[str, bool | float] = {"true": True, "false": False, "nan": float("nan")}


class Values:
    """Attribute values at a cursor. Reads the section of blobs, which stands last, beforehand."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._blobs: dict[str, bytes] = {}
        self._section = cursor.section("blobs")
        self._end = 0
        if self._section is not None:
            cursor.at = self._section
            self._read_blobs()
            self._end = cursor.at
            cursor.at = 0

    def _read_blobs(self) -> None:
        cursor = self._cursor
        cursor.expect("blobs")
        cursor.expect("{")
        while not cursor.accept("}"):
            token = cursor.expect_kind("blob")
            cursor.expect("=")
            try:
                content = base64.b64decode(cursor.string(), validate=True)
            except binascii.Error as error:
                cursor.fail(f"the blob {token} is no base64 ({error})", token)
            if tensors.digest(content) != token.text[1:]:
                cursor.fail(f"the blob {token} is damaged: its content has another key", token)
            self._blobs[token.text[1:]] = content

    def skip_blobs(self) -> None:
        """Move past the section of blobs, if the cursor is there."""
        if self._cursor.at == self._section:
            self._cursor.at = self._end

    def source(self) -> bytes | None:
        """A clause ``source #key``, if there is one."""
        return self._blob() if self._cursor.accept("source") else None

    def _blob(self) -> bytes:
        token = self._cursor.next
        if token.text == "elided":
            self._cursor.fail(
                "the elements were left out when this was printed",
                remedy="Print it with elide=False.",
            )
        self._cursor.expect_kind("blob")
        content = self._blobs.get(token.text[1:])
        if content is None:
            self._cursor.fail(f"there is no blob {token}", token)
        return content

    def attributes(self) -> dict[str, AttributeValue]:
        """Attributes in braces."""
        cursor = self._cursor
        found: dict[str, AttributeValue] = {}
        cursor.expect("{")
        if cursor.accept("}"):
            return found
        while True:
            token = cursor.next
            name = cursor.word()
            if name in found:
                cursor.fail(f"attribute {token} is given twice", token)
            cursor.expect("=")
            found[name] = self.value()
            if not cursor.accept(","):
                break
        cursor.expect("}")
        return found

    def value(self) -> AttributeValue:
        """A value, or a list of values in brackets."""
        if self._cursor.accept("["):
            return tuple(self._cursor.list_of(self._scalar, "]"))
        return self._scalar()

    def _scalar(self) -> Scalar:
        token = self._cursor.take()
        read = self._READERS.get(token.kind)
        if read is None:
            self._cursor.fail(f"expected a value, found {token}", token)
        return read(self, token)

    def _word(self, token: Token) -> Scalar:
        if token.text in _WORDS:
            return _WORDS[token.text]
        dtype = _DTYPES.get(token.text)
        if dtype is None:
            self._cursor.fail(f"expected a value, found {token}", token)
        return self._tensor(dtype) if self._cursor.next.kind == "shape" else dtype

    def _number(self, token: Token) -> int | float:
        digits = token.text.removeprefix("-")
        return int(token.text) if digits.isdecimal() else names.parse_float(token.text)

    def _function(self, token: Token) -> FunctionRef:
        name = self._cursor.bare(token)
        if self._cursor.next.text != "{":
            return FunctionRef(name)
        return FunctionRef(name, tuple(self.attributes().items()))

    # -- constants -------------------------------------------------------------------------

    def _tensor(self, dtype: DType) -> Tensor:
        cursor = self._cursor
        token = cursor.expect_kind("shape")
        shape = tensors.parse_shape(token.text)
        try:
            return self._constant(dtype, shape)
        except (ValueError, KeyError, OverflowError) as error:
            what = f"'{error.args[0]}'" if isinstance(error, KeyError) else str(error)
            cursor.fail(
                f"wrong elements for a constant {dtype.name.lower()}{token.text}: {what}", token
            )

    def _constant(self, dtype: DType, shape: Shape) -> Tensor:
        cursor = self._cursor
        if cursor.accept("["):
            elements = self._elements(dtype, cursor.list_of(cursor.take, "]"))
            return tensors.literal(dtype, shape, elements)
        if cursor.accept("splat"):
            return tensors.splat(dtype, shape, self._elements(dtype, [cursor.take()]))
        if cursor.accept("proto"):
            return tensors.from_proto(self._blob())
        return tensors.from_bytes(dtype, shape, self._blob())

    def _elements(self, dtype: DType, tokens: list[Token]) -> Array:
        if dtype is not DType.STRING:
            try:
                return tensors.parse_elements(dtype, [token.text for token in tokens])
            except HintcError as error:
                self._cursor.fail(str(error), tokens[0] if tokens else None)
        elements = np.empty(len(tokens), object)
        for at, token in enumerate(tokens):
            if token.kind != "string":
                self._cursor.fail(f"expected a string, found {token}", token)
            elements[at] = self._cursor.bytes_of(token)
        return elements

    _READERS: ClassVar[dict[str, Callable[[Values, Token], Scalar]]] = {
        "string": lambda self, token: self._cursor.bytes_of(token),
        "number": _number,
        "nan": lambda _, token: names.parse_float(token.text),
        "shape": lambda _, token: tensors.parse_shape(token.text),
        "unbound": lambda self, token: Unbound(self._cursor.bare(token)),
        "function": _function,
        "word": _word,
    }
