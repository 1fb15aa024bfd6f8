"""Names, strings and numbers as the text form writes and reads them."""

from __future__ import annotations

import re
import struct

import numpy as np

_BARE = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_./-]*\Z")
_BARE_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*\Z")
_ESCAPES = {ord("\n"): "\\n", ord("\t"): "\\t", ord("\r"): "\\r", ord('"'): '\\"', 92: "\\\\"}
_PLAIN = {
    code: _ESCAPES.get(code, chr(code) if 32 <= code < 127 else f"\\x{code:02x}")
    for code in range(256)
}
_UNESCAPES = {"n": b"\n", "t": b"\t", "r": b"\r", '"': b'"', "\\": b"\\"}
_ESCAPED = re.compile(r"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_CANONICAL_NAN = 0x7FC00000


def quote(value: bytes) -> str:
    """Bytes as a string literal: ASCII as it is, the rest escaped."""
    return '"' + "".join(map(_PLAIN.__getitem__, value)) + '"'


def unquote(literal: str) -> bytes:
    """The bytes of a string literal.

    Raises:
        ValueError: an escape that does not exist.
    """
    inside = literal[1:-1]
    if "\\" not in inside:
        return inside.encode()
    parts: list[bytes] = []
    end = 0
    for match in _ESCAPED.finditer(inside):
        parts.append(inside[end : match.start()].encode())
        end = match.end()
        code, char = match.groups()
        if code is not None:
            parts.append(bytes.fromhex(code))
        elif char in _UNESCAPES:
            parts.append(_UNESCAPES[char])
        else:
            raise ValueError(f"there is no escape '\\{char}'")
    return b"".join([*parts, inside[end:].encode()])


def name(text: str) -> str:
    """A node's or function's name: bare, or quoted when it has odd characters."""
    return text if _BARE.match(text) else quote(text.encode())


def word(text: str) -> str:
    """An op's or attribute's name: bare, or quoted when it has odd characters."""
    return text if _BARE_WORD.match(text) else quote(text.encode())


def print_float(value: float) -> str:
    """A float attribute: the shortest decimal that is the same float32, which is all it holds."""
    with np.errstate(over="ignore"):
        single = np.float32(value)
    if np.isnan(single):
        bits = struct.unpack("<I", single.tobytes())[0]
        return "nan" if bits == _CANONICAL_NAN else f"nan<{bits:08x}>"
    return str(single)


def parse_float(text: str) -> float:
    """The float32 that `text` says, as a Python float.

    Raises:
        ValueError: it is no number.
    """
    if text.startswith("nan<"):
        return float(np.frombuffer(struct.pack("<I", int(text[4:-1], 16)), np.float32)[0])
    with np.errstate(over="ignore"):
        return float(np.float32(text))
