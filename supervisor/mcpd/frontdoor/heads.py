"""Heads of requests that come again and again: what was made of them once.

A client repeats itself: but for the length of the body its requests begin with the same bytes. What the HTTP parser
makes of a head depends on nothing but these, so one that it has taken apart whole need not be taken apart again.
Heads that are not seen for a while are forgotten, and so are the secrets in them.
"""

from __future__ import annotations

from typing import Any, Final

from mcpd.frontdoor.asgi import Header

LONGEST: Final = 4096
MOST: Final = 4096
MOST_BYTES: Final = 2 * 2**20
TIMES: Final = 3  # that a head comes until it is kept: every session begins with two of the same
END: Final = b"\r\n\r\n"
_LENGTHS: Final = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")  # as clients write it
_DIGITS: Final = 9


class Head:
    """A request's head, parsed. What later stages find out about it, and cannot change, is kept here, too: nothing that
    depends on the length of the body, which may be another one next time."""

    __slots__ = ("checked", "fields", "path", "query", "said")

    def __init__(self, url: bytes, fields: list[Header]) -> None:
        self.path, _, self.query = url.partition(b"?")
        self.fields = fields
        self.checked: dict[bytes, bytes] | None = None  # the fields by name, once they have passed the guard
        self.said: Any = None  # what the endpoint makes of them


def without_length(raw: bytes) -> tuple[bytes, int]:
    """A head without the length of its body, and that length; -1 if that is not to be seen at once."""
    for mark in _LENGTHS:
        at = raw.find(mark)
        if at >= 0:
            at += len(mark)
            stop = raw.find(b"\r\n", at)
            digits = raw[at:stop]
            if digits.isdigit() and len(digits) <= _DIGITS:
                return raw[:at] + raw[stop:], int(digits)
            break
    return b"", -1


class Heads:
    """The heads that came again and again lately, by their bytes `without_length`."""

    __slots__ = ("_bytes", "_met", "_older", "known")

    def __init__(self) -> None:
        self.known: dict[bytes, Head] = {}
        self._older: dict[bytes, Head] = {}
        self._met: dict[int, int] = {}
        self._bytes = 0

    def find(self, key: bytes) -> Head | None:
        """What is not in `known` any more, for the next while again."""
        head = self._older.pop(key, None)
        if head is not None:
            self._keep(key, head)
        return head

    def meet(self, raw: bytes, head: Head) -> None:
        """A head was served that its connection may go on after. It is kept once that has happened some `TIMES`."""
        key, length = without_length(raw)
        if length < 0 or len(raw) > LONGEST:
            return
        mark = hash(key)
        times = self._met.get(mark, 0) + 1
        if times < TIMES:
            if len(self._met) < MOST:
                self._met[mark] = times
        elif _is_plain(raw, head.fields):
            self._keep(key, head)

    def _keep(self, key: bytes, head: Head) -> None:
        if len(self.known) >= MOST or self._bytes >= MOST_BYTES:
            self.age()
        self.known[key] = head
        self._bytes += len(key)

    def age(self) -> None:
        """Forget what has not been seen since the last time."""
        self._older, self.known = self.known, {}
        self._met.clear()
        self._bytes = 0


def _is_plain(raw: bytes, fields: list[Header]) -> bool:
    """Whether these bytes are this head and nothing else, and say once how long the body is."""
    lines = raw.count(b"\r\n")
    names = [name for name, _ in fields]
    return (
        lines == len(fields) + 2  # a line for the request, and an empty one
        and lines == raw.count(b"\n") == raw.count(b"\r")
        and names.count(b"content-length") == 1
        and b"transfer-encoding" not in names
    )
