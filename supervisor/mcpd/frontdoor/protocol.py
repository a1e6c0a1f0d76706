"""HTTP/1.1 below ASGI for the requests that come by the thousand: POSTs of messages to known endpoints.

uvicorn's protocol does the work for every request; this subclass answers those POSTs as soon as their last byte is
parsed, without a task, a queue or a scope; one whose head has come before is not even parsed (`heads`).
Whatever is not of the plain kind (a first request, a page's, an event stream) goes on through ASGI as if this were not
here. Tests run both ways over the same cases.

It also bounds what uvicorn does not: the size of a request's head, and the time until a request is complete.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from mcpd.frontdoor.asgi import JSON, App, Receive, Reply, Scope, Send, too_large
from mcpd.frontdoor.exchange import Phase
from mcpd.frontdoor.heads import END, Head, Heads, without_length
from mcpd.frontdoor.peers import Peers, Stranger

UNREAD_TIMEOUT: Final = 60.0  # for which a client may take nothing of what waits for it
LINGER: Final = 2.0  # what a client has to read its refusal in
JOINED: Final = 64 * 1024  # below this, head and body are copied into one buffer


class Pending(Protocol):
    """An answer that may still have to come (`exchange.Exchange`, `per_request.Answer`)."""

    phase: Phase
    answer: bytes
    on_change: Callable[[Any], None] | None

    @property
    def status(self) -> int:
        """The status of a plain answer."""
        ...

    async def respond(self, receive: Receive, send: Send) -> None: ...

    def left(self) -> None:
        """The connection is lost."""
        ...


Outcome: TypeAlias = Pending | Reply | None


class DirectApp(Protocol):
    """What an application offers beside ASGI."""

    max_body: int

    def knows(self, path: bytes) -> bool:
        """Whether POSTs to this path may be answered directly."""
        ...

    def serve(self, head: Head, scope: Scope, body: bytes) -> Outcome:
        """The reply, or the exchange that will have it; None to go through ASGI after all. Raises nothing.

        `scope` has only `query_string`, `extensions` and `client`. The same head may come again with other bodies.
        """
        ...

    def responder(self, exchange: Pending) -> App:
        """The rest of an exchange that did not become a plain answer, as an application."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a connection may cost. `limited` counts those that were ended, by the bound that they reached."""

    head: int = 64 * 1024
    request_timeout: float = 60.0  # from a request's first byte to its last; from connecting to the first request's
    connections: int = 4096
    limited: Counter[str] = field(default_factory=Counter)


class State(ServerState):
    """What all connections share; `ok` is how a plain answer begins, up to its length, and `dated` the Date header."""

    def __init__(self) -> None:
        super().__init__()
        self.dated = self.ok = b""
        self.heads = Heads()
        self.deserted = asyncio.Event()  # set when the last connection is lost

    def refresh(self) -> None:
        """Take the date that uvicorn has made."""
        self.dated = b"".join(b"%b: %b\r\n" % header for header in self.default_headers)
        self.ok = b"%b%bcontent-type: application/json\r\ncontent-length: " % (STATUS_LINE[200], self.dated)


class _Unheard:
    """In the place of the event on which a cycle's `receive` waits: a direct answer never waits."""

    def set(self) -> None:
        pass


class _Turn:
    """The response that is being made directly, as uvicorn wants to see it in the place of its cycle."""

    __slots__ = ("disconnected", "keep_alive", "message_event", "response_complete")

    def __init__(self) -> None:
        self.message_event = _Unheard()
        self.keep_alive = True
        self.disconnected = False
        self.response_complete = True


class Connection(HttpToolsProtocol):
    """One client's connection. `peers` are those who may connect by unix socket, None: everybody."""

    # in slots: with more than 30 entries an instance's dictionary cannot share its keys with the others (1.5 KiB)
    __slots__ = (
        "_body",
        "_body_bytes",
        "_exchange",
        "_head",
        "_head_bytes",
        "_heads_begun",
        "_idle_since",
        "_in_head",
        "_incomplete_since",
        "_known",
        "_length",
        "_may_be_large",
        "_raw",
        "_turn",
        "_unread",
        "_unread_since",
        "_upgraded",
        "extensions",
    )
    peers: Peers | None = None
    direct: DirectApp | None = None
    bounds = Bounds()
    server_state: State

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.extensions: dict[str, Any] = {"mcpd.abort": transport.abort}
        self._turn = _Turn()
        self._exchange: Pending | None = None  # the one of this turn, while it is WAITING
        self._head: Head | None = None  # of the request that is to be answered directly
        self._known: Head | None = None  # the same, where the parser has not seen it, while its body is not complete
        self._length = 0  # of that body
        self._raw = b""  # the bytes of the head, if they came in one piece
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._in_head = False
        self._head_bytes = 0
        self._heads_begun = 0  # by what is being parsed
        self._may_be_large = False
        self._incomplete_since = self.loop.time()
        self._idle_since = 0.0
        self._unread = 0
        self._unread_since = 0.0
        self._upgraded: RequestResponseCycle | None = None
        if len(self.connections) > self.bounds.connections:
            self.bounds.limited["connections"] += 1
            transport.abort()
        elif self.peers is not None:
            try:
                self.extensions["mcpd.uid"] = self.peers.admit(transport.get_extra_info("socket")).uid
            except Stranger as stranger:
                self.bounds.limited["stranger"] += 1
                fault = {"error": str(stranger), "remedy": stranger.remedy, "kind": "ClientFault"}
                self._hang_up(Reply(403, json.dumps(fault).encode(), (JSON,)))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.left()
        if self._upgraded is not None:  # which need not be the newest cycle
            self._upgraded.disconnected = True
            self._upgraded.message_event.set()
        super().connection_lost(exc)
        if not self.connections:
            self.server_state.deserted.set()

    def expire(self, now: float) -> None:
        """Close the connection if a request has been incomplete for too long, or if none has come for the time that
        uvicorn would have set a timer for after each response; to be called now and then."""
        since, idle = self._incomplete_since, self._idle_since
        if since and now - since > self.bounds.request_timeout and not self.flow.read_paused:
            self.bounds.limited["slow-request"] += 1
            self._hang_up(Reply(408))
        elif idle and now - idle > self.timeout_keep_alive:
            self.timeout_keep_alive_handler()

        if self.flow.write_paused:
            self._expire_unread(now)
        else:
            self._unread = 0

    def _expire_unread(self, now: float) -> None:
        """Close the connection if its client has taken nothing of what waits for it for too long."""
        unread = self.transport.get_write_buffer_size()
        if not self._unread or unread < self._unread:
            self._unread, self._unread_since = unread, now
        elif now - self._unread_since > UNREAD_TIMEOUT:
            self.bounds.limited["slow-reader"] += 1
            self.transport.abort()

    # parsing

    def data_received(self, data: bytes) -> None:
        if self.parser is None:
            return  # it was refused
        self._idle_since = 0.0
        if self._known is not None:
            self._go_on(self._known, data)
            return
        if not self._incomplete_since and data.startswith(b"POST ") and (end := data.find(END)) > 0:
            self._raw = raw = data[: end + 4]
            key, length = without_length(raw)
            heads = self.server_state.heads
            head = heads.known.get(key) or heads.find(key)
            if head is not None and self._may_be_served(head, length):
                body = data[end + 4 :]
                if len(body) == length:
                    self._serve(head, body, known=True)
                else:
                    self._begin(head, length, body)
                return
        self._parse(data)

    def _may_be_served(self, head: Head, length: int) -> bool:
        direct = self.direct
        return direct is not None and length <= direct.max_body and direct.knows(head.path) and self._may_answer()

    def _begin(self, head: Head, length: int, data: bytes) -> None:
        """A request whose head is known; more than its body has come, or less."""
        self._known, self._length = head, length
        self._incomplete_since = self.loop.time()
        self._body, self._body_bytes = [], 0
        self._go_on(head, data)

    def _go_on(self, head: Head, data: bytes) -> None:
        """More of the body of a request whose head is known."""
        missing = self._length - self._body_bytes
        self._body.append(data[:missing])
        self._body_bytes += len(self._body[-1])
        if self._body_bytes < self._length:
            return
        body = b"".join(self._body)
        self._body = []
        self._known = None
        self._incomplete_since = 0.0
        self._serve(head, body, known=True)
        if len(data) > missing and self.parser is not None:
            # the parser takes many requests in a row one after the other; here each would be cut off from all the rest
            self._parse(data[missing:])

    def _may_answer(self) -> bool:
        """Whether this request is the only one, and its answer can be written."""
        cycle = self.cycle
        return (cycle is None or cycle.response_complete) and not self.flow.write_paused

    def _parse(self, data: bytes) -> None:
        self._may_be_large = self._head_bytes + len(data) > self.bounds.head
        self._heads_begun = int(self._is_within_request())
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # nothing is upgraded to: the request is answered, and what follows is not read
        except httptools.HttpParserError:
            if self._in_head and self._may_be_large and self._too_large():
                self._refuse_head()
            else:
                self._hang_up(Reply(400, b"this is not HTTP"))
            return
        if self._in_head and self._heads_begun == 1:  # else it began behind others: most of this is theirs
            self._head_bytes += len(data)
            if self._head_bytes > self.bounds.head:
                self._refuse_head()

    def _is_within_request(self) -> bool:
        """Whether what comes next goes on with a request that has begun."""
        return bool(self._incomplete_since) and (self._in_head or self._head is not None or self.cycle is not None)

    def _too_large(self) -> bool:
        """Whether the head that has been parsed is larger than it may be."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        return size > self.bounds.head

    def _refuse_head(self) -> None:
        self.bounds.limited["head"] += 1
        self._hang_up(Reply(431))

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._in_head = True
        self._head_bytes = 0
        self._heads_begun += 1
        self._incomplete_since = self.loop.time()

    def on_headers_complete(self) -> None:
        if self._may_be_large and self._too_large():
            raise ValueError("the head is too large")  # which ends the parsing, and is looked at there
        self._in_head = False
        self._head_bytes = 0
        raw, self._raw = self._raw, b""
        if (
            self.direct is not None
            and self._may_answer()
            and not self.expect_100_continue
            and self.parser.get_method() == b"POST"
            and not self.parser.should_upgrade()
        ):
            head = Head(self.url, self.headers)
            if self.direct.knows(head.path):
                self._head, self._raw = head, raw
                self._body = []
                self._body_bytes = 0
                return
        self._begin_cycle()

    def _begin_cycle(self) -> None:
        """Go on as uvicorn does: a scope, a cycle, a task."""
        headers, url, expects = self.headers, self.url, self.expect_100_continue
        super().on_message_begin()
        self.headers += headers
        self.url, self.expect_100_continue = url, expects
        self.scope["extensions"] = self.extensions
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._head is None:
            super().on_body(body)
        elif self._body_bytes <= self.direct.max_body:  # type: ignore[union-attr]
            self._body.append(body)
            self._body_bytes += len(body)

    def on_message_complete(self) -> None:
        self._incomplete_since = 0.0
        head = self._head
        if head is None:
            super().on_message_complete()
            return
        self._head = None
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        self._serve(head, body)

    def on_response_complete(self) -> None:
        if self.pipeline:
            super().on_response_complete()
        else:
            self.server_state.total_requests += 1
            if not self.transport.is_closing():
                self.flow.resume_reading()
                self._idle_since = self.loop.time()
        cycle = self.cycle
        if cycle is not None and cycle.response_complete and (cycle is self._turn or not cycle.more_body):  # type: ignore[comparison-overlap]
            # a connection that waits for its next request need not hold the last one
            self.cycle = self._upgraded = None  # type: ignore[assignment]
            if not self._incomplete_since:  # else the next one has begun
                self.scope = self.headers = None  # type: ignore[assignment]

    # answering

    def _serve(self, head: Head, body: bytes, *, known: bool = False) -> None:
        """Answer a request; `known`: the parser has not seen it."""
        direct, turn, raw = self.direct, self._turn, self._raw
        self._raw = b""
        assert direct is not None
        if len(body) > direct.max_body:
            self.bounds.limited["body"] += 1
            outcome: Outcome = too_large(direct.max_body).reply
        else:
            scope: Scope = {"query_string": head.query, "extensions": self.extensions, "client": self.client}
            outcome = direct.serve(head, scope, body)
        if outcome is None:
            if known:
                self._parse(raw + body)  # it ends here again, with a head of its own
            else:
                self._go_through_asgi(body)
            return
        turn.response_complete = turn.disconnected = False
        if known:
            turn.keep_alive = True
        else:
            turn.keep_alive = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
            if raw and turn.keep_alive and outcome.status < 400:
                self.server_state.heads.meet(raw, head)
        self.cycle = turn  # type: ignore[assignment]
        if type(outcome) is Reply:
            self._reply(outcome)
        elif outcome.phase is Phase.WAITING:  # type: ignore[union-attr]
            self._exchange = outcome  # type: ignore[assignment]
            outcome.on_change = self._settled  # type: ignore[union-attr]
        else:
            self._settled(outcome)  # type: ignore[arg-type]

    def _go_through_asgi(self, body: bytes) -> None:
        self._begin_cycle()
        self.cycle.body += body
        self.cycle.more_body = False
        self.cycle.message_event.set()

    def _settled(self, exchange: Pending) -> None:
        """The exchange of this turn is not WAITING any more."""
        self._exchange = None
        if exchange.phase is not Phase.ANSWERED:
            self._upgrade(exchange)
            return
        answer = exchange.answer
        if exchange.status == 200 and self._turn.keep_alive:
            self._write(b"%b%d\r\n\r\n" % (self.server_state.ok, len(answer)), answer)
            return
        head = b"%b%bcontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n" % (
            STATUS_LINE[exchange.status],
            self.server_state.dated,
            len(answer),
            b"" if self._turn.keep_alive else b"connection: close\r\n",
        )
        self._write(head, answer)

    def _reply(self, reply: Reply) -> None:
        lines = [STATUS_LINE[reply.status], self.server_state.dated]
        lines += [b"%b: %b\r\n" % header for header in reply.headers]
        lines.append(b"content-length: %d\r\n" % len(reply.body))
        closing = not self._turn.keep_alive or self.parser is None
        lines.append(b"connection: close\r\n\r\n" if closing else b"\r\n")
        self._write(b"".join(lines), reply.body)

    def _write(self, head: bytes, body: bytes) -> None:
        turn, transport = self._turn, self.transport
        turn.response_complete = True
        if turn.disconnected or transport.is_closing():
            return
        if len(body) < JOINED:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        if not turn.keep_alive:
            transport.close()
        self.on_response_complete()

    def _upgrade(self, exchange: Pending) -> None:
        """Let ASGI send what did not become a plain answer."""
        assert self.direct is not None
        turn = self._turn
        cycle = RequestResponseCycle(
            scope={"type": "http", "method": "POST", "http_version": "1.1"},  # type: ignore[typeddict-item]
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=turn.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.more_body = False
        cycle.disconnected = turn.disconnected or self.transport.is_closing()
        if cycle.disconnected:
            cycle.message_event.set()
        turn.response_complete = True
        if self.cycle is turn:  # type: ignore[comparison-overlap]
            self.cycle = cycle
        self._upgraded = cycle
        self._start_asgi_task(cycle, self.direct.responder(exchange))  # type: ignore[arg-type]

    def _hang_up(self, reply: Reply) -> None:
        """Refuse what cannot be parsed, or does not come: nothing more is read on this connection."""
        self.parser = None  # type: ignore[assignment]
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()
            return
        self._turn.disconnected = False
        self._turn.keep_alive = linger = self.transport.can_write_eof()
        self._reply(reply)
        if linger:
            # to close while unread bytes are there would throw away the reply on its way (RFC 9112, section 9.6)
            self.transport.write_eof()
            self.timeout_keep_alive_task = self.loop.call_later(LINGER, self.transport.abort)
