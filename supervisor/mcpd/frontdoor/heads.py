"""Heads of requests that come again and again, byte for byte: what was made of them once.

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
END: Final = b"\r\n\r\n"


class Head:
    """One request's head, parsed. What later stages find out about it, and cannot change, is kept here, too."""

    __slots__ = ("checked", "fields", "length", "path", "query", "raw", "said")

    def __init__(self, url: bytes, fields: list[Header]) -> None:
        self.path, _, self.query = url.partition(b"?")
        self.fields = fields
        self.checked: dict[bytes, bytes] | None = None  # the fields by name, once they have passed the guard
        self.said: Any = None  # what the endpoint makes of them
        self.raw = b""  # as it came, and `length` of the body that follows: once it is known to come again
        self.length = 0


class Heads:
    """The heads that came more than once lately."""

    __slots__ = ("_bytes", "_met", "_older", "known")

    def __init__(self) -> None:
        self.known: dict[bytes, Head] = {}
        self._older: dict[bytes, Head] = {}
        self._met: set[int] = set()
        self._bytes = 0

    def find(self, raw: bytes) -> Head | None:
        """The head of these bytes, for the next while again: for what is not in `known`."""
        head = self._older.pop(raw, None)
        if head is not None:
            self._keep(raw, head)
        return head

    def meet(self, raw: bytes, head: Head) -> None:
        """A head was served that its connection may go on after. It is kept the second time."""
        if len(raw) > LONGEST or not _is_plain(raw, head.fields):
            return
        mark = hash(raw)
        if mark in self._met:
            head.raw = raw
            head.length = int(dict(head.fields)[b"content-length"])
            self._keep(raw, head)
        elif len(self._met) < MOST:
            self._met.add(mark)

    def _keep(self, raw: bytes, head: Head) -> None:
        if len(self.known) >= MOST or self._bytes >= MOST_BYTES:
            self.age()
        self.known[raw] = head
        self._bytes += len(raw)

    def age(self) -> None:
        """Forget what has not been seen since the last time."""
        self._older, self.known = self.known, {}
        self._met.clear()
        self._bytes = 0


def _is_plain(raw: bytes, fields: list[Header]) -> bool:
    """Whether these bytes are this head and nothing else, and say how long the body is."""
    lines = raw.count(b"\r\n")
    names = [name for name, _ in fields]
    return (
        lines == len(fields) + 2  # a line for the request, and an empty one
        and lines == raw.count(b"\n") == raw.count(b"\r")
        and names.count(b"content-length") == 1
        and b"transfer-encoding" not in names
    )
