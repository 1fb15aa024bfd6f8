"""What somebody means by the name of a layer or node: among candidates with paths of names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from hintc.near import did_you_mean

Path = tuple[str, ...]
"""A name in its parts: ``("model", "first_1", "while")``."""
_T = TypeVar("_T")
_NUMBERED = re.compile(r"_\d+$")
"""What freezing adds to the names of Keras layers."""


def path_of(name: str) -> Path:
    """The parts of a name, ``:0`` left out."""
    return tuple(name.removesuffix(":0").split("/"))


def meant(name: str, candidates: Sequence[tuple[_T, Sequence[Path]]]) -> list[_T]:
    """The candidates that a name means.

    Args:
        name: a path's beginning (``block/dense``) or one of its parts (``dense``). If it means
            nothing so, numbers that freezing has added to the parts are left out.
        candidates: each with its paths.
    """
    found = [one for one, paths in candidates if any(_is(name, path) for path in paths)]
    return found or [
        one for one, paths in candidates if any(_is(name, _plain(path)) for path in paths)
    ]


def meant_perhaps(name: str, candidates: Sequence[tuple[_T, Sequence[Path]]]) -> str:
    """A remedy where it means none of them."""
    parts = [part for _, paths in candidates for path in paths for part in _plain(path)]
    return did_you_mean(name, parts, "layers")


def _is(name: str, path: Path) -> bool:
    parts = path_of(name)
    return name in path or path[: len(parts)] == parts


def _plain(path: Path) -> Path:
    return tuple(_NUMBERED.sub("", part) for part in path)
