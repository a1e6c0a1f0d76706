"""Bytes on their way to one reader, bounded, so that a reader who does not read is noticed and nobody waits for it."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Final

OUTBOX_LIMIT: Final = 4 * 2**20


class State(Enum):
    """What may still happen to an outbox."""

    OPEN = auto()
    CLOSING = auto()  # nothing more comes; what is queued is still taken
    ABORTED = auto()  # nothing more comes, and what was queued is thrown away


class Outbox:
    """A queue of byte strings with one writer side that never waits, and one waiting reader.

    Holds at most `limit` bytes, or one chunk that is larger than that (a big result must be deliverable).
    """

    __slots__ = ("_chunks", "_held", "_limit", "_waiter", "state")

    def __init__(self, limit: int = OUTBOX_LIMIT) -> None:
        self.state = State.OPEN
        self._limit = limit
        self._held = 0
        self._chunks: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None

    @property
    def held(self) -> int:
        """Bytes that wait for the reader."""
        return self._held

    def offer(self, chunk: bytes) -> bool:
        """Queue a chunk. False if it does not fit or the outbox is not open any more: then nothing was queued, and it
        is for the owner to end this reader."""
        if self.state is not State.OPEN or (self._held and self._held + len(chunk) > self._limit):
            return False
        self._chunks.append(chunk)
        self._held += len(chunk)
        self._wake()
        return True

    def close(self) -> None:
        """No more will come; the reader gets what is queued, then the end."""
        if self.state is State.OPEN:
            self.state = State.CLOSING
            self._wake()

    def abort(self) -> None:
        """The end, now: what is queued is thrown away."""
        self.state = State.ABORTED
        self._chunks.clear()
        self._held = 0
        self._wake()

    async def take(self) -> bytes | None:
        """Everything that is queued, joined; waits for something. None at the end.

        One reader at a time. Cancelling it loses nothing.
        """
        while not self._chunks:
            if self.state is not State.OPEN:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self.take_now()

    def take_now(self) -> bytes:
        """Everything that is queued, joined; nothing if there is nothing."""
        chunks = self._chunks
        self._chunks = []
        self._held = 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
