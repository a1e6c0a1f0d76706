"""The answer to one POST: plain JSON if nothing has to be streamed, else an event stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from mcpd.frontdoor.asgi import EVENT_STREAM, JSON, Header, Receive, Refusal, Scope, Send, refusal
from mcpd.frontdoor.event_stream import EventStream
from mcpd.frontdoor.http_session import HttpSession, Stream
from mcpd.wire import jsonrpc, methods


class Phase(Enum):
    """How far the answer to a POST is."""

    WAITING = auto()  # nothing was sent yet: it may still become plain JSON
    ANSWERED = auto()  # `answer` is to be sent as JSON
    STREAMING = auto()  # an event stream has begun
    OVER = auto()  # the session ended before there was an answer


class Exchange:
    """The answer to one POST of a request; the relay's sink for it.

    Whoever sends it either calls `respond`, or is told by `on_change` when it is no longer WAITING.
    """

    status = 200  # of a plain answer, whatever it says

    __slots__ = ("_scope", "_waiter", "answer", "born", "on_change", "phase", "request_id", "session", "stream")

    def __init__(self, session: HttpSession, request_id: bytes, scope: Scope) -> None:
        self.session = session
        self.request_id = request_id
        self.phase = Phase.WAITING
        self.answer = b""
        self.stream: Stream | None = None
        self.born = session.context.ticker.now
        self.on_change: Callable[[Any], None] | None = None
        self._scope = scope
        self._waiter: asyncio.Future[None] | None = None
        session.exchanges.add(self)

    async def respond(self, receive: Receive, send: Send, *more: Header) -> None:
        """Send the answer when it is there, in the form that it has then. Raises Refusal if the session ended."""
        await self.wait()
        if self.phase is Phase.ANSWERED:
            answer = self.answer
            length = (b"content-length", b"%d" % len(answer))
            await send({"type": "http.response.start", "status": 200, "headers": [JSON, length, *more]})
            await send({"type": "http.response.body", "body": answer})
        elif self.stream is not None:
            await self.stream.run(receive, send, [*EVENT_STREAM, *more])
        else:
            raise gone(self.request_id)

    def left(self) -> None:
        """The client's connection is lost, which cancels nothing in a session."""

    async def wait(self) -> None:
        """Return when the phase is another one than WAITING."""
        if self.phase is Phase.WAITING:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def deliver(self, frame: bytes, final: bool) -> None:
        if self.phase is Phase.WAITING:
            if final:
                self.answer = frame
                self._settle(Phase.ANSWERED)
                return
            self.begin_stream()
        if self.phase is Phase.STREAMING:
            self._send(frame, final)

    def end(self) -> None:
        """The request was cancelled. HTTP wants an end, and clients of this era would come back for a stream that ends
        without an answer: so there is one, which a client that cancelled ignores."""
        self.deliver(jsonrpc.error(self.request_id, methods.REQUEST_CANCELLED, "the request was cancelled"), True)

    def begin_stream(self) -> None:
        """Answer by an event stream from now on."""
        outlet = EventStream(self.session.context.streams, self._scope)
        self.stream = self.session.open_call(outlet)
        self.session.context.counters.streamed += 1
        self._to(Phase.STREAMING)

    def abandon(self) -> None:
        """The session is over: no answer will come."""
        if self.phase is Phase.WAITING:
            self._settle(Phase.OVER)
        elif self.stream is not None:
            self.stream.close()

    def _send(self, frame: bytes, final: bool) -> None:
        assert self.stream is not None
        if not final and not self.stream.connected and jsonrpc.decode(frame).is_request:
            self.session.deliver(frame, False)  # nobody reads the call's stream: ask where somebody may
            return
        self.stream.send(frame)
        if final:
            self.session.exchanges.discard(self)
            self.session.close_call(self.stream)

    def _settle(self, phase: Phase) -> None:
        self.session.exchanges.discard(self)
        self._to(phase)

    def _to(self, phase: Phase) -> None:
        self.phase = phase
        if self.on_change is not None:
            self.on_change(self)
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def gone(id: bytes = b"null") -> Refusal:
    """What tells a client to begin a new session."""
    return refusal(404, "there is no such session; send initialize for a new one", id=id)


class BatchExchange(Exchange):
    """The answer to a batch (2025-03-26): one JSON array, or the answers one by one as events."""

    __slots__ = ("_answers", "_missing")

    def __init__(self, session: HttpSession, scope: Scope, requests: int, refused: list[bytes]) -> None:
        """`refused` are answers known already: to what was no message."""
        super().__init__(session, b"null", scope)
        self._missing = requests
        self._answers = refused
        if not requests:
            self._complete()

    def begin_stream(self) -> None:
        super().begin_stream()
        assert self.stream is not None
        for answer in self._answers:
            self.stream.send(answer)

    def part(self, answer: bytes) -> None:
        """One more of the requests was answered."""
        self._missing -= 1
        if self.phase is Phase.STREAMING:
            self._send(answer, not self._missing)
        elif self.phase is Phase.WAITING:
            self._answers.append(answer)
            if not self._missing:
                self._complete()

    def _complete(self) -> None:
        self.answer = jsonrpc.pack_array(self._answers)
        self._settle(Phase.ANSWERED)


class BatchPart:
    """The relay's sink for one request of a batch."""

    __slots__ = ("_batch", "_request_id")

    def __init__(self, batch: BatchExchange, request_id: bytes) -> None:
        self._batch = batch
        self._request_id = request_id

    def deliver(self, frame: bytes, final: bool) -> None:
        if final:
            self._batch.part(frame)
        else:
            self._batch.deliver(frame, False)

    def end(self) -> None:
        self._batch.part(jsonrpc.error(self._request_id, methods.REQUEST_CANCELLED, "the request was cancelled"))
