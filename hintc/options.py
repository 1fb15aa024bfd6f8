"""Options of a pass: the fields of its dataclass, checked against their types, as text and back.

Text form: ``name{key=value flag key=[a,b]}``. A value is a word, a JSON string in double quotes,
or a list of values; ``none`` is None; a key alone means ``true``. Options are separated by blanks.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from hintc.errors import HintcError
from hintc.near import did_you_mean
from hintc.rewrite import Pass

_WORD = r"[^\s{}\[\],=\"]+"
_IS_WORD = re.compile(f"{_WORD}\\Z")
_SCALARS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


class Word(str):
    """A value as it stands in the text, not quoted: its type depends on the option."""

    __slots__ = ()


Text: TypeAlias = "str | tuple[Text, ...]"
"""A value read from text: a `Word`, a quoted str, or a tuple of values."""


def build(cls: type[Pass], options: Mapping[str, object]) -> Pass:
    """A pass with these options; the others have their defaults.

    Args:
        cls: the pass.
        options: by field name (dashes may stand for underscores); Python values or text.

    Raises:
        HintcError: the pass has no such option, or the value is of the wrong type.
    """
    return cls(**checked(cls, options))


def checked(cls: type[Pass], options: Mapping[str, object]) -> dict[str, Any]:
    """`options` with their names and values as the dataclass fields of `cls` want them.

    Raises:
        HintcError: the pass has no such option, or the value is of the wrong type.
    """
    hints = get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    found = {}
    for given, value in options.items():
        key = given.replace("-", "_")
        if key not in known:
            raise HintcError(
                f"there is no option '{given}'",
                pass_name=cls.name,
                remedy=did_you_mean(key, known, "options"),
            )
        try:
            found[key] = _convert(value, hints[key])
        except ValueError as error:
            raise HintcError(
                f"option '{key}' must be {error}, not {_shown(value)}", pass_name=cls.name
            ) from None
    return found


def _convert(value: object, hint: Any) -> object:
    """`value` as `hint` wants it; a ValueError says what is expected."""
    origin, members = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(value, members)
    if origin is Literal:
        return _convert_literal(value, members)
    if origin is tuple:
        return _convert_tuple(value, members)
    if hint is type(None):
        if value is None or (isinstance(value, Word) and value == "none"):
            return None
        raise ValueError("none")
    if hint not in _SCALARS:
        raise ValueError(f"of type {hint}, which pipelines cannot set")
    return _convert_text(value, hint) if isinstance(value, Word) else _convert_scalar(value, hint)


def _convert_union(value: object, members: tuple[Any, ...]) -> object:
    expected = []
    # None first: for `str | None` the word none is None; the text "none" is quoted
    for member in sorted(members, key=lambda m: m is not type(None)):
        try:
            return _convert(value, member)
        except ValueError as error:
            expected.append(str(error))
    raise ValueError(" or ".join([*expected[1:], expected[0]]))


def _convert_literal(value: object, members: tuple[Any, ...]) -> object:
    for member in members:
        if value == member and isinstance(value, str) == isinstance(member, str):
            return member
        if isinstance(value, Word) and not isinstance(member, str) and value == _print(member):
            return member
    raise ValueError("one of " + ", ".join(_print(m) for m in members))


def _convert_tuple(value: object, members: tuple[Any, ...]) -> tuple[object, ...]:
    given: tuple[object, ...]
    if isinstance(value, tuple | list):
        given = tuple(value)
    elif isinstance(value, str):  # a list of one needs no brackets
        given = (value,)
    else:
        raise ValueError("a list")
    if members[-1] is Ellipsis:
        members = (members[0],) * len(given)
    if len(members) != len(given):
        raise ValueError(f"a list of {len(members)}")
    try:
        return tuple(_convert(v, m) for v, m in zip(given, members, strict=True))
    except ValueError as error:
        raise ValueError(f"a list whose members are {error}") from None


def _convert_text(word: str, hint: type) -> object:
    if hint is str:
        return str(word)
    if hint is bool:
        if word.lower() in ("true", "false"):
            return word.lower() == "true"
        raise ValueError(_SCALARS[bool])
    try:
        return hint(word)
    except ValueError:
        raise ValueError(_SCALARS[hint]) from None


def _convert_scalar(value: object, hint: type) -> object:
    # a bool is an int to Python, but as an option it is a mistake
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise ValueError(_SCALARS[hint])


def _shown(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else repr(value)


def describe(step: Pass) -> str:
    """The pass as text, with the options that differ from their defaults."""
    options = []
    for field in dataclasses.fields(step):
        value = getattr(step, field.name)
        default = (
            field.default_factory()
            if field.default_factory is not dataclasses.MISSING
            else field.default
        )
        if value != default:
            options.append(field.name if value is True else f"{field.name}={_print(value)}")
    return f"{step.name}{{{' '.join(options)}}}" if options else step.name


def _print(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case tuple() | list():
            return f"[{','.join(_print(v) for v in value)}]"
        case str():
            plain = _IS_WORD.match(value) and value.lower() not in ("none", "true", "false")
            return value if plain else json.dumps(value, ensure_ascii=False)
        case _:
            return repr(value)


_STRING = r'"(?:[^"\\]|\\.)*"'
_TOKEN = re.compile(rf"\s*(?:(?P<word>{_WORD})|(?P<string>{_STRING})|(?P<mark>[{{}}\[\],=]))")


def parse_steps(text: str) -> list[tuple[str, dict[str, Text]]]:
    """The names of the passes in a pipeline text, each with its options as text.

    Raises:
        HintcError: the text is not a pipeline; says where.
    """
    return _Parser(text).steps()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def steps(self) -> list[tuple[str, dict[str, Text]]]:
        steps: list[tuple[str, dict[str, Text]]] = []
        while not self._done():
            if steps:
                self._expect(",")
                if self._done():  # a comma at the end does no harm
                    break
            name = self._word("the name of a pass")
            steps.append((name, self._options() if self._take("{") else {}))
        return steps

    def _options(self) -> dict[str, Text]:
        options: dict[str, Text] = {}
        while not self._take("}"):
            start = self._at
            key = self._word("an option or '}'")
            if key in options:
                self._at = start
                raise self._error(f"option '{key}' once")
            options[key] = self._value() if self._take("=") else Word("true")
        return options

    def _value(self) -> Text:
        if self._take("["):
            members: list[Text] = []
            while not self._take("]"):
                if members:
                    self._expect(",")
                members.append(self._value())
            return tuple(members)
        token = self._token()
        if token is None or token["mark"]:
            raise self._error("a value")
        self._at = token.end()
        if token["word"]:
            return Word(token["word"])
        try:
            return str(json.loads(token["string"]))
        except json.JSONDecodeError:
            self._at = token.start("string")
            raise self._error("text as JSON writes it") from None

    def _word(self, expected: str) -> str:
        token = self._token()
        if token is None or not token["word"]:
            raise self._error(expected)
        self._at = token.end()
        return token["word"]

    def _take(self, mark: str) -> bool:
        token = self._token()
        if token is None or token["mark"] != mark:
            return False
        self._at = token.end()
        return True

    def _expect(self, mark: str) -> None:
        if not self._take(mark):
            raise self._error(f"'{mark}'")

    def _token(self) -> re.Match[str] | None:
        return _TOKEN.match(self._text, self._at)

    def _done(self) -> bool:
        return not self._text[self._at :].strip()

    def _error(self, expected: str) -> HintcError:
        rest = self._text[self._at :].lstrip()
        found = f"'{rest[:20]}'" if rest else "the end"
        column = len(self._text) - len(rest) + 1
        return HintcError(
            f"cannot read the pipeline: expected {expected} at column {column}, found {found}",
            remedy="A pipeline is written name{key=value flag key=[a,b]},name.",
        )
