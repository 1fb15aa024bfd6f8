"""Tokens of the text form, and the cursor that the parser moves over them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, NoReturn, TypeVar

from hintc.errors import HintcError
from hintc.text.names import unquote

_T = TypeVar("_T")
_STRING = r'"(?:[^"\\\n]|\\.)*"'
_NAME = r"[A-Za-z0-9_.][A-Za-z0-9_./-]*"
_DIM = r"(?:-?[0-9]+|\?)"
_SKIPPED = re.compile(r"\s*(?://[^\n]*\s*)*")
_TOKEN = re.compile(
    rf"""
    {_SKIPPED.pattern}
    (?: (?P<node>%(?:{_NAME}|{_STRING}))
    | (?P<function>@(?:{_NAME}|{_STRING}))
    | (?P<unbound>\$(?:{_NAME}|{_STRING}))
    | (?P<blob>\#[0-9a-f]+)
    | (?P<string>{_STRING})
    | (?P<shape><(?:\*|{_DIM}(?:x{_DIM})*)?>)
    | (?P<nan>nan<[0-9a-fA-F]{{8}}>)
    | (?P<number>-?(?:inf(?![\w./-])|[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?))
    | (?P<word>[A-Za-z_][A-Za-z0-9_./-]*)
    | (?P<mark>[(){{}}\[\]<>,:=])
    | (?P<end>\Z)
    )
    """,
    re.VERBOSE,
)
_KINDS = {
    "node": "a node such as %name",
    "function": "a function such as @name",
    "blob": "a key such as #1f3a",
    "string": "a string",
    "shape": "a shape such as <2x?>",
    "number": "a number",
    "word": "a name",
}


class Token(NamedTuple):
    """A piece of the text: what it is, how it reads, and where it starts."""

    kind: str
    text: str
    start: int

    def __str__(self) -> str:
        return f"'{self.text}'" if self.kind != "end" else "the end of the text"


class Cursor:
    """Reads tokens one after the other; raises errors that say line, column and expectation."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split(text)
        self.at = 0
        """Number of the next token."""

    def _split(self, text: str) -> list[Token]:
        tokens: list[Token] = []
        at, kind, match_at = 0, "", _TOKEN.match
        while kind != "end":
            match = match_at(text, at)
            if match is None or match.lastgroup is None:
                skipped = _SKIPPED.match(text, at)
                start = skipped.end() if skipped is not None else at
                self.fail("what starts here is no token", Token("mark", text[start], start))
            kind, at = match.lastgroup, match.end()
            tokens.append(Token(kind, match[kind], match.start(kind)))
        return tokens

    @property
    def next(self) -> Token:
        """The token that comes next."""
        return self._tokens[self.at]

    def take(self) -> Token:
        """Move past the next token."""
        token = self._tokens[self.at]
        if token.kind != "end":
            self.at += 1
        return token

    def accept(self, text: str) -> bool:
        """Move past the next token if it reads `text`; whether it did."""
        if self.next.text != text or self.next.kind == "string":
            return False
        self.at += 1
        return True

    def expect(self, text: str) -> Token:
        """Move past the next token, which must read `text`."""
        token = self.next
        if not self.accept(text):
            self.fail(f"expected '{text}', found {token}", token)
        return token

    def expect_kind(self, kind: str) -> Token:
        """Move past the next token, which must be of that kind."""
        token = self.take()
        if token.kind != kind:
            self.fail(f"expected {_KINDS[kind]}, found {token}", token)
        return token

    def name(self, kind: str) -> str:
        """Move past a ``%name``, ``@name`` or ``$name`` and return the name."""
        return self.bare(self.expect_kind(kind))

    def bare(self, token: Token) -> str:
        """The name that a token with a mark in front says."""
        text = token.text[1:]
        return self._unicode(token, text) if text.startswith('"') else text

    def word(self) -> str:
        """Move past an op's or attribute's name, bare or quoted, and return it."""
        token = self.take()
        if token.kind == "string":
            return self._unicode(token, token.text)
        if token.kind != "word" and token.text != "inf":
            self.fail(f"expected a name, found {token}", token)
        return token.text

    def string(self) -> bytes:
        """Move past a string and return its bytes."""
        return self.bytes_of(self.expect_kind("string"))

    def text(self) -> str:
        """Move past a string and return it as text."""
        token = self.expect_kind("string")
        return self._unicode(token, token.text)

    def integer(self) -> int:
        """Move past a whole number and return it."""
        token = self.expect_kind("number")
        try:
            return int(token.text)
        except ValueError:
            self.fail(f"expected a whole number, found {token}", token)

    def bytes_of(self, token: Token) -> bytes:
        """The bytes of a string token."""
        try:
            return unquote(token.text)
        except ValueError as error:
            self.fail(str(error), token)

    def list_of(self, read: Callable[[], _T], end: str) -> list[_T]:
        """Move past members read by `read`, with commas between, and `end`."""
        found: list[_T] = []
        if self.accept(end):
            return found
        found.append(read())
        while self.accept(","):
            found.append(read())
        self.expect(end)
        return found

    def section(self, word: str) -> int | None:
        """Where the last ``word {`` starts; None if there is none."""
        for at in range(len(self._tokens) - 2, -1, -1):
            if self._tokens[at].text == word and self._tokens[at + 1].text == "{":
                return at
        return None

    def _unicode(self, token: Token, literal: str) -> str:
        try:
            return unquote(literal).decode()
        except ValueError as error:
            self.fail(str(error), token)

    def fail(self, what: str, token: Token | None = None, remedy: str | None = None) -> NoReturn:
        """Raise an error at a token (the next one by default)."""
        start = (token or self.next).start
        line = self._text.count("\n", 0, start) + 1
        column = start - (self._text.rfind("\n", 0, start) + 1) + 1
        raise HintcError(f"line {line}, column {column}: {what}", remedy=remedy)
