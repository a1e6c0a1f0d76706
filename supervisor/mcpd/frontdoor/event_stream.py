"""A response of server-sent events: from an outbox to one client, kept alive, ended when either side ends it.

Shared by both HTTP transports. A client that does not read fills its own outbox, and is then cut off.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from math import inf
from typing import Final

from mcpd.frontdoor.asgi import Header, Headers, Receive, Scope, Send
from mcpd.frontdoor.outbox import OUTBOX_LIMIT, Outbox, State
from mcpd.wire.sse import KEEP_ALIVE

QUIET_TICKS: Final = 3  # ticks without an event, after which a comment is sent


class Streams:
    """The open event streams of the front door; kept alive by the ticker, ended together.

    `good_until` tells from a request's headers how long what it has shown is good, in the time that `wall` tells.
    """

    __slots__ = ("_open", "cut_off", "good_until", "wall")

    def __init__(self) -> None:
        self._open: set[EventStream] = set()
        self.cut_off = 0  # clients that did not read
        self.good_until: Callable[[Headers], float] = lambda headers: inf
        self.wall: Callable[[], float] = time.time

    def __len__(self) -> int:
        return len(self._open)

    def add(self, stream: EventStream) -> None:
        self._open.add(stream)

    def discard(self, stream: EventStream) -> None:
        self._open.discard(stream)

    def tick(self) -> None:
        """End the streams whose clients' tokens have expired: they come back with newer ones. On each other one that
        was quiet for QUIET_TICKS send a comment."""
        now = self.wall()
        for stream in list(self._open):
            if stream.until <= now:
                stream.close()
            else:
                stream.tick()

    def close(self) -> None:
        """End all, each after what is queued on it."""
        for stream in list(self._open):
            stream.close()


class EventStream:
    """One response. `offer` from anywhere on the loop; `run` in the request's own coroutine."""

    __slots__ = ("_abort", "_outbox", "_quiet", "_streams", "until")

    def __init__(self, streams: Streams, scope: Scope, limit: int = OUTBOX_LIMIT) -> None:
        self._streams = streams
        self._outbox = Outbox(limit)
        self._quiet = 0
        self.until = streams.good_until(scope.get("mcpd.headers", {}))
        # what our listener offers, because ASGI has no word for it: end the connection without waiting for its reader
        self._abort: Callable[[], None] | None = scope.get("extensions", {}).get("mcpd.abort")

    @property
    def open(self) -> bool:
        """Whether an event that is offered now may still reach the client."""
        return self._outbox.state is State.OPEN

    def offer(self, event: bytes) -> bool:
        """Send one encoded event. False if the client is gone, or was cut off because it does not read."""
        self._quiet = 0
        if self._outbox.offer(event):
            return True
        if self._outbox.state is State.OPEN:
            self._streams.cut_off += 1
            self.cut()
        return False

    def close(self) -> None:
        """End the response after what is queued."""
        self._outbox.close()

    def cut(self) -> None:
        """End the connection at once."""
        self._outbox.abort()
        if self._abort is not None:
            self._abort()

    def tick(self) -> None:
        self._quiet += 1
        if self._quiet >= QUIET_TICKS:
            self._quiet = 0
            self._outbox.offer(KEEP_ALIVE)

    async def run(self, receive: Receive, send: Send, headers: Iterable[Header]) -> None:
        """Send the response until `close`, `cut`, or the client leaves."""
        self._streams.add(self)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch(receive), name="event-stream:watch")
                while (events := await self._outbox.take()) is not None:
                    await send({"type": "http.response.body", "body": events, "more_body": True})
                watch.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._streams.discard(self)
            self._outbox.abort()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass  # the rest of a body that nobody wants
        self._outbox.abort()
