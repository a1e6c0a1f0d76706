"""Takes secrets out of what servers print. Sans-IO: bytes in, bytes out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Final

SHORTEST: Final = 6
"""Shorter values are left alone: they would turn up everywhere, and say where the secret is by what they hide."""
MOST_FORMS: Final = 1024
"""Each is looked for by itself, some 30 µs in 64 KiB; of secrets with more lines the shortest lines are let be."""
MASKED: Final = b"[secret]"


class Mask:
    """Knows the secrets of one process: whole, each line of those of several lines, and as JSON spells them."""

    def __init__(self, secrets: Iterable[bytes] = ()) -> None:
        whole: set[bytes] = set()
        lines: set[bytes] = set()
        for secret in secrets:
            whole.update(_forms(secret))
            for line in secret.splitlines():
                lines.update(_forms(line))
        of_lines = sorted(lines - whole, key=len, reverse=True)
        self._forms = (*whole, *of_lines[: max(0, MOST_FORMS - len(whole))])
        self._longest = max(map(len, self._forms), default=0)

    def apply(self, data: bytes) -> bytes:
        """`data` without them; for a whole text."""
        shown, done = [], 0
        for start, end in self._spans(data):
            shown += [data[done:start], MASKED]
            done = end
        return b"".join([*shown, data[done:]]) if shown else data

    def text(self, text: str) -> str:
        """The same for a text of mcpd's own that quotes a server."""
        if not self._forms:
            return text
        return self.apply(text.encode("utf-8", "replace")).decode("utf-8", "replace")

    def beginning(self, data: bytes) -> bytes:
        """The same for the beginning of something longer: where a secret may have been cut off, nothing is shown."""
        return self.apply(data[: self.settled(data)])

    def stream(self) -> MaskedStream:
        """The same for a text that comes in pieces."""
        return MaskedStream(self)

    def settled(self, data: bytes) -> int:
        """How much of `data` will stay as it is, whatever comes behind it: the rest may be the beginning of one."""
        begun = cut = min((_begins(form, data) for form in self._forms), default=len(data))
        while starts := [start for form in self._forms if (start := data.find(form, *_around(cut, form))) >= 0]:
            cut = min(starts)  # one that is complete, and in it another begins
        if len(data) - cut <= 2 * self._longest:
            return cut
        cut = begun  # there may be no end of that
        while ends := [end + len(form) for form in self._forms if (end := data.rfind(form, *_around(cut, form))) >= 0]:
            cut = max(ends)
        return cut

    def _spans(self, data: bytes) -> list[tuple[int, int]]:
        """Where secrets stand, in order; those that overlap are one."""
        found = []
        for form in self._forms:
            at = data.find(form)
            while at >= 0:
                found.append((at, at + len(form)))
                at = data.find(form, at + 1)
        found.sort()
        joined: list[tuple[int, int]] = []
        for start, end in found:
            if joined and start < joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((start, end))
        return joined


def _forms(secret: bytes) -> Iterator[bytes]:
    raw = secret.strip()
    spelt = [raw]
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        pass  # no JSON can have it
    else:
        spelt += [json.dumps(text, ensure_ascii=ascii)[1:-1].encode("utf-8", "replace") for ascii in (True, False)]
    return (form for form in spelt if len(form) >= SHORTEST)


def _around(cut: int, form: bytes) -> tuple[int, int]:
    """Where to look for a form that stands on both sides of `cut`."""
    return max(0, cut - len(form) + 1), max(0, cut + len(form) - 1)


def _begins(form: bytes, data: bytes) -> int:
    """Where at the end of `data` a part of `form` stands that is not all of it; the length of `data` if nowhere."""
    at = data.find(form[:SHORTEST], max(0, len(data) - len(form) + 1))
    while at >= 0:
        if form.startswith(data[at:]):
            return at
        at = data.find(form[:SHORTEST], at + 1)
    for size in range(min(SHORTEST - 1, len(data)), 0, -1):
        if data.endswith(form[:size]):
            return len(data) - size
    return len(data)


class MaskedStream:
    """Holds back what may be the beginning of a secret until it is known: never more than twice the longest one."""

    __slots__ = ("_held", "_mask")

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """What is known by now of all that came."""
        data = self._held + chunk
        cut = self._mask.settled(data)
        self._held = data[cut:]
        return self._mask.apply(data[:cut])

    def rest(self) -> bytes:
        """What was held back; nothing more comes."""
        held, self._held = self._held, b""
        return self._mask.apply(held)


NO_SECRETS: Final = Mask()
