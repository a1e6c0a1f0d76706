"""The recent events of one session, for clients that come back with `Last-Event-ID` (MCP transports, Resumability)."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

REPLAY_BYTES: Final = 2**20
REPLAY_EVENTS: Final = 512
REPLAY_SECONDS: Final = 600.0


class Kept(NamedTuple):
    """An event as it was sent."""

    stream: bytes
    number: int
    at: float
    event: bytes


class Replay:
    """A ring bounded in bytes, in events and in age; the newest event is kept whatever its size."""

    __slots__ = ("_bytes", "_events", "_held", "_limit")

    def __init__(self, limit_bytes: int = REPLAY_BYTES, limit_events: int = REPLAY_EVENTS) -> None:
        self._bytes = limit_bytes
        self._limit = limit_events
        self._held = 0
        self._events: deque[Kept] = deque()

    def add(self, kept: Kept) -> None:
        """Keep an event; the oldest ones make room."""
        self._events.append(kept)
        self._held += len(kept.event)
        while len(self._events) > 1 and (self._held > self._bytes or len(self._events) > self._limit):
            self._drop()

    def after(self, stream: bytes, number: int) -> list[bytes]:
        """The events of this stream, and of no other, that came after the one of this number."""
        return [kept.event for kept in self._events if kept.stream == stream and kept.number > number]

    def knows(self, stream: bytes) -> bool:
        """Whether anything of this stream is kept."""
        return any(kept.stream == stream for kept in self._events)

    def expire(self, before: float) -> None:
        """Forget what is older than this."""
        while self._events and self._events[0].at < before:
            self._drop()

    def _drop(self) -> None:
        self._held -= len(self._events.popleft().event)


def parse_event_id(value: bytes) -> tuple[bytes, int] | None:
    """Stream and number of an event id that we made, None for any other."""
    stream, dash, number = value.rpartition(b"-")
    if not dash or stream[:1] not in (b"c", b"p") or not stream[1:].isdigit() or not number.isdigit():
        return None
    return (stream, int(number)) if len(value) <= 40 else None
