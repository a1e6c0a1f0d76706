"""What was probably meant by a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

MAX_NAMED: Final = 12


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """`did you mean 'x'?` where one of `known` is close to `word`."""
    close = get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else None


def names_there(word: str, known: Iterable[str]) -> str:
    """The remedy for a name that does not exist: the one that was probably meant, and those that there are."""
    names = list(known)
    there = f"there are {', '.join(names[:MAX_NAMED])}{', …' * (len(names) > MAX_NAMED)}" if names else "there is none"
    meant = did_you_mean(word, names)
    return f"{meant} {there}" if meant else there
