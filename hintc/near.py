"""What the user may have meant: near matches for an unknown word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from hintc.errors import HintcError


def near_matches(word: str, known: Iterable[str], limit: int = 5) -> list[str]:
    """The known words most like `word`, the nearest first.

    A word counts as near if it differs by a few letters, ignoring case, or if the last part of
    its path (after ``/``) equals that of `word`.
    """
    words = list(dict.fromkeys(known))
    folded = {w.lower(): w for w in reversed(words)}
    close = difflib.get_close_matches(word.lower(), folded, n=limit, cutoff=0.6)
    leaf = word.rpartition("/")[2].lower()
    alike = [w for w in words if w.rpartition("/")[2].lower() == leaf]
    return list(dict.fromkeys([folded[w] for w in close] + alike))[:limit]


def did_you_mean(word: str, known: Iterable[str], what: str = "known") -> str:
    """One sentence for a remedy: near matches, else what there is (the first dozen)."""
    words = list(dict.fromkeys(known))
    near = near_matches(word, words)
    if near:
        return f"Did you mean {some(near)}?"
    return f"{what.capitalize()}: {some(words, 12)}" if words else f"There are no {what}"


def some(words: Iterable[str], limit: int = 5) -> str:
    """Quoted words, the rest counted: ``'a', 'b' and 3 more``."""
    listed = [f"'{w}'" for w in words]
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def check_choice(
    name: str, value: object, choices: Iterable[str], otherwise: Iterable[str] = ()
) -> None:
    """Refuses a value that is not one of `choices`.

    Raises:
        HintcError: it is not; names the argument and what was probably meant, and ends with
            the sentences of `otherwise`.
    """
    allowed = tuple(choices)
    if isinstance(value, str) and value in allowed:
        return
    near = near_matches(value, allowed) if isinstance(value, str) else []
    remedy = " ".join([*(f"Did you mean '{word}'?" for word in near[:1]), *otherwise])
    listed = ", ".join(map(repr, allowed))
    raise HintcError(f"{name} is {value!r}", why=f"it must be one of {listed}", remedy=remedy)
