"""Which of many described things fit the words of a query best: an inverted index, so that no text is read again."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator

_WORD = re.compile(r"[^\W_]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SIBILANTS = ("ches", "shes", "sses", "xes")
_NO_PLURALS = ("ss", "us", "is")
_IDLE_WORDS = """
a all an and any are as at be by can do does for from how i in into is it its me my of on or please some that the
this to want what when where which who with you your
"""
_IDLE = frozenset(_IDLE_WORDS.split())
_DISTANT = 0.5  # what a word counts that only begins like the one that is looked for


class Ranking:
    """Ranks entries, each of which is a text in several fields; `weights` are what a word in each field counts."""

    def __init__(self, entries: Iterable[tuple[str, ...]], weights: tuple[float, ...]) -> None:
        self._weights: dict[str, dict[int, float]] = {}  # by word: what it counts in each entry
        self._size = 0
        for at, fields in enumerate(entries):
            self._size += 1
            for weight, field in zip(weights, fields, strict=True):
                for word in set(words(field)):
                    found = self._weights.setdefault(word, {})
                    found[at] = found.get(at, 0.0) + weight

    def best(self, query: str, limit: int) -> list[int]:
        """The entries that fit, best first, equal ones in their order; the first ones for a query without words."""
        wanted = set(words(query))
        if not wanted:
            return list(range(min(limit, self._size)))
        scores: Counter[int] = Counter()
        for word in wanted - _IDLE or wanted:
            scores.update(self._scores(word))
        return sorted(scores, key=lambda at: (-scores[at], at))[:limit]

    def _scores(self, word: str) -> dict[int, float]:
        """What one word of a query gives each entry: a word that few have counts more."""
        scores: dict[int, float] = {}
        for known, share in self._akin(word):
            entries = self._weights[known]
            value = share * math.log(1 + self._size / len(entries))
            for at, weight in entries.items():
                scores[at] = max(scores.get(at, 0.0), value * weight)
        return scores

    def _akin(self, word: str) -> Iterator[tuple[str, float]]:
        """The known words that are like a word, and how much."""
        for known in self._weights:
            if known == word:
                yield known, 1.0
            elif _similar(word, known):
                yield known, _DISTANT


def _similar(one: str, other: str) -> bool:
    """Whether one word begins with the other; or holds it, in scripts that have no blanks between words."""
    if not one.isascii():
        return one in other or other in one
    return len(one) > 2 and len(other) > 2 and (one.startswith(other) or other.startswith(one))


def words(source: str) -> list[str]:
    """The words of a text or a name, in lower case and in the singular, as far as that is to be seen from English."""
    return [_singular(word.lower()) for word in _WORD.findall(_HUMP.sub(" ", source))]


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(_SIBILANTS):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(_NO_PLURALS):
        return word[:-1]
    return word
