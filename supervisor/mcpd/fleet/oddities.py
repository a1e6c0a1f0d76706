"""What a person would not see in a catalogue, or would mistake: hidden characters, and another server's names."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

JOINERS: Final = frozenset("\u200d\ufe0e\ufe0f")
"""What stands inside emoji, and hides nothing."""


def oddities(server: str, kind: str, name: str, entry: str, servers: Collection[str]) -> Iterator[str]:
    """What is odd about an entry (JSON) of a server; `servers` are the names of all."""
    yield from (f"{kind} {shown(name)!r} has {one}" for one in hidden_characters("".join(_strings(entry))))
    other = claimed(name, server, servers)
    if other is not None:
        yield f"{kind} {shown(name)!r} has a name that looks like one of server {other!r}"


def hidden_characters(found: str) -> list[str]:
    """The kinds of characters in a text that are not seen, or that turn around what is."""
    kinds: dict[str, str] = {}
    for char in set(found):
        category = unicodedata.category(char)
        if char in JOINERS or char in "\n\t\r" or category not in ("Cf", "Cc", "Co", "Cn", "Zl", "Zp"):
            continue
        bidirectional = unicodedata.bidirectional(char) in _TURNING
        kinds[char] = f"{'a bidirectional control' if bidirectional else 'a hidden character'} (U+{ord(char):04X})"
    return [kinds[char] for char in sorted(kinds)]


_TURNING: Final = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def claimed(tool: str, server: str, servers: Collection[str]) -> str | None:
    """Another server whose name a tool takes, so that it looks like one of that server's."""
    lowered = unicodedata.normalize("NFKC", tool).lower()
    for other in servers:
        if other != server and any(lowered.startswith(other + mark) for mark in ("__", ".", "/")):
            return other
        if other != server and lowered == other:
            return other
    return None


def shown(found: str) -> str:
    """Text in which nothing is hidden."""
    return "".join(
        f"<U+{ord(char):04X}>" if char not in "\n\t" and unicodedata.category(char)[0] in "CZ" and char != " " else char
        for char in found
    )


def _strings(entry: str) -> Iterator[str]:
    """All texts in a JSON value, keys too."""
    waiting: list[Any] = [json.loads(entry)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
