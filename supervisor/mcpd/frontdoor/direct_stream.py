"""An event stream for a whole session: every event goes to the socket in the moment in which it is offered.

HTTP+SSE sends each answer on such a stream, and most streams are idle, so it has neither a task of its own nor a
turn of the loop between an answer and the socket: the server's `send` is driven from here as a task would do it. Events
of one turn of the loop still leave together, because uvloop writes at the end of the turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable
from typing import Any

from mcpd.frontdoor.asgi import Event, Header, Receive, Scope, Send
from mcpd.frontdoor.event_stream import EventStream, Streams
from mcpd.frontdoor.outbox import OUTBOX_LIMIT, State


class DirectStream(EventStream):
    """One response. What comes while the socket is full waits in the outbox, as it does in any event stream."""

    __slots__ = ("_send", "_step")

    def __init__(self, streams: Streams, scope: Scope, limit: int = OUTBOX_LIMIT) -> None:
        super().__init__(streams, scope, limit)
        self._send: Send | None = None
        self._step: Generator[Any, None, None] | None = None  # a `send` that waits for room in the socket

    def offer(self, event: bytes) -> bool:
        if self._send is not None and self._step is None and self._outbox.state is State.OPEN:
            self._quiet = 0
            self._write(self._send, {"type": "http.response.body", "body": event, "more_body": True})
            return True
        return super().offer(event)

    def close(self) -> None:
        super().close()
        self._flush()

    def tick(self) -> None:
        if self._step is None:  # else it is not quiet, only slow
            super().tick()
            self._flush()

    async def run(self, receive: Receive, send: Send, headers: Iterable[Header]) -> None:
        self._streams.add(self)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            self._send = send
            self._flush()
            while (await receive())["type"] != "http.disconnect":
                pass  # the rest of a body that nobody wants
        finally:
            self._streams.discard(self)
            self._outbox.abort()
            self._send = None
            if self._step is not None:
                self._step.close()
                self._step = None

    def _flush(self) -> None:
        """Write what waits, and the end if there is nothing more to come."""
        if self._send is None or self._step is not None:
            return
        events = self._outbox.take_now()
        if events:
            self._write(self._send, {"type": "http.response.body", "body": events, "more_body": True})
        if self._outbox.state is State.CLOSING and self._step is None:
            send, self._send = self._send, None
            self._write(send, {"type": "http.response.body", "body": b"", "more_body": False})

    def _write(self, send: Send, event: Event) -> None:
        step = send(event).__await__()
        try:
            waits = next(step)
        except StopIteration:
            return
        self._await(step, waits)

    def _await(self, step: Generator[Any, None, None], waits: asyncio.Future[Any]) -> None:
        """Go on with `step` when what it waits for is there: what asyncio.Task does for a coroutine."""
        self._step = step
        waits._asyncio_future_blocking = False
        waits.add_done_callback(self._go_on)

    def _go_on(self, _: asyncio.Future[Any]) -> None:
        step, self._step = self._step, None
        if step is None:
            return  # the stream ended in the meantime
        try:
            waits = next(step)
        except StopIteration:
            self._flush()
        else:
            self._await(step, waits)
