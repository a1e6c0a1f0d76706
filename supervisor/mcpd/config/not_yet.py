"""Keys of the dialect whose behaviour is not built yet.

Such a key is accepted only with the value that says what mcpd does today; anything else is an error, never silently
ignored. When a feature lands, its entry is deleted here, and nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mcpd.config.positions import KeyPath


@dataclass(frozen=True, slots=True)
class NotYet:
    """What is missing, and which values are fine without it."""

    what: str
    remedy: str
    accepts: Callable[[Any], bool]


def _only(*values: object) -> Callable[[Any], bool]:
    return lambda value: any(type(value) is type(known) and value == known for known in values)


def _nothing(_: Any) -> bool:
    return False


# `*` stands for any one key.
NOT_YET: Final[Mapping[KeyPath, NotYet]] = {}


def not_yet(prefix: KeyPath, data: Any) -> Iterator[tuple[KeyPath, NotYet]]:
    """Each key below `data`, which stands at `prefix` of the registry, that asks for what is not built."""
    entry = _entry(prefix)
    if entry is not None and not entry.accepts(data):
        yield prefix, entry
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from not_yet((*prefix, key), value)


def _entry(path: KeyPath) -> NotYet | None:
    exact = NOT_YET.get(path)
    if exact is not None:
        return exact
    for pattern, entry in NOT_YET.items():
        if len(pattern) == len(path) and all(want in ("*", have) for want, have in zip(pattern, path, strict=True)):
            # ("servers", "*", "sandbox", "profile") is more exact than ("servers", "*", "sandbox", "*").
            closer = (*pattern[:-1], path[-1])
            return NOT_YET.get(closer, entry)
    return None
