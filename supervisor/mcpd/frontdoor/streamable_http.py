"""Streamable HTTP for the revisions with a handshake: 2025-03-26, 2025-06-18, 2025-11-25 (MCP transports).

A plain call costs one POST and one JSON body: no task, no stream, at most one future. An event stream begins when
something has to be streamed, or when an answer takes long. A lost connection cancels nothing: answers that had begun
to be streamed are kept for `Last-Event-ID`. POSTs of the era without a handshake are `per_request`'s.
"""

from __future__ import annotations

from typing import Final

from mcpd.errors import McpdError
from mcpd.frontdoor import media
from mcpd.frontdoor.asgi import (
    EVENT_STREAM,
    Header,
    Headers,
    Receive,
    Reply,
    Scope,
    Send,
    malformed,
    read_body,
    refusal,
    refusal_of,
)
from mcpd.frontdoor.context import Context
from mcpd.frontdoor.event_stream import EventStream
from mcpd.frontdoor.exchange import BatchExchange, BatchPart, Exchange, Phase, gone
from mcpd.frontdoor.heads import Head
from mcpd.frontdoor.http_session import HttpSession
from mcpd.frontdoor.per_request import PER_REQUEST, Answer, Claims, PerRequest, decode, is_per_request, is_told_by
from mcpd.frontdoor.protocol import Outcome
from mcpd.frontdoor.relay import View
from mcpd.wire import eras, jsonrpc, methods
from mcpd.wire.principal import Principal

STREAM_AFTER: Final = 10.0  # seconds without an answer, after which an event stream keeps the connection alive
EVICTABLE_AFTER: Final = 60.0  # idle seconds, after which a session may have to make room for another one

ACCEPTED: Final = Reply(202)
CLOSED: Final = Reply(204)
ALLOW: Final[Header] = (b"allow", b"GET, POST, DELETE")
ALLOW_POST: Final[Header] = (b"allow", b"POST")
SESSION_REVISIONS: Final = frozenset(revision.encode() for revision in eras.HANDSHAKE_REVISIONS)
VERSION_HEADER_SINCE: Final = frozenset({"2025-06-18", "2025-11-25"})
KNOWN: Final = ", ".join(eras.HANDSHAKE_REVISIONS)
OF_SESSION: Final = Claims({})  # what a head is known by that names a session


class StreamableHttp:
    """The handler of the paths that end in `/mcp`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._relay = context.relay
        self._max_body = context.settings.max_body
        self._sessions: dict[bytes, HttpSession] = {}
        self._per_request = PerRequest(context)
        context.ticker.callbacks.append(self.tick)

    def end_of(self, principal: str) -> None:
        """End what somebody has under way without a session; what is in sessions ends with these."""
        self._per_request.end_of(principal)

    async def handle(self, scope: Scope, receive: Receive, send: Send, view: View, principal: Principal) -> None:
        method = scope["method"]
        if method in ("GET", "DELETE"):
            _check_era(method, scope["mcpd.headers"])
        if method == "POST":
            await self._post(scope, receive, send, view, principal)
        elif method == "GET":
            await self._get(scope, receive, send, view, principal)
        elif method == "DELETE":
            session = self._session_of(scope["mcpd.headers"], view, principal)
            self._close(session, "deleted")
            await CLOSED.send(send)
        else:
            raise refusal(405, f"{method} is not answered here", headers=(ALLOW,))

    async def _post(self, scope: Scope, receive: Receive, send: Send, view: View, principal: Principal) -> None:
        headers: Headers = scope["mcpd.headers"]
        media.check_post(headers)
        body = await read_body(receive, headers, self._max_body)
        exchange: Exchange | Answer | None
        if is_per_request(headers, body):
            exchange = self._per_request.accept(Claims(headers), scope, body, view, principal)
        elif b"mcp-session-id" not in headers:
            await self._open(scope, body, receive, send, view, principal)
            return
        else:
            exchange = self.accept(scope, body, view, principal)
        if exchange is None:
            await ACCEPTED.send(send)
        else:
            await exchange.respond(receive, send)

    def direct(self, head: Head, scope: Scope, body: bytes, view: View, principal: Principal) -> Outcome:
        """A POST that is answered below ASGI (`protocol`); None if that is not for it."""
        claims: Claims | None = head.said
        if claims is None:
            headers: Headers = scope["mcpd.headers"]
            newer = is_per_request(headers, body)
            if not newer and b"mcp-session-id" not in headers:
                return None
            media.check_post(headers)
            claims = Claims(headers) if newer else OF_SESSION
            if is_told_by(headers):
                head.said = claims
        if claims is OF_SESSION:
            return self.accept(scope, body, view, principal) or ACCEPTED
        return self._per_request.accept(claims, scope, body, view, principal) or ACCEPTED

    def accept(self, scope: Scope, body: bytes, view: View, principal: Principal) -> Exchange | None:
        """Take the body of a POST to a session: the exchange that will have its answer, or None if it wants none.

        Raises Refusal.
        """
        session = self._session_of(scope["mcpd.headers"], view, principal)
        if body[:1] != b"{" and jsonrpc.is_batch(body):
            return self._accept_batch(session, scope, body)
        message = decode(body)
        if not message.is_request:
            self._relay.submit(session.relay_session, message, NOWHERE)
            return None
        if message.method == methods.INITIALIZE:
            raise refusal(
                400, "this session is initialized; send initialize without Mcp-Session-Id for another", id=message.key
            )
        exchange = Exchange(session, message.key, scope)
        self._submit(message, exchange)
        return exchange

    async def _open(
        self, scope: Scope, body: bytes, receive: Receive, send: Send, view: View, principal: Principal
    ) -> None:
        """`initialize`, the one message that comes without a session."""
        message = _initialize(body)
        session = self._new_session(view, principal)
        exchange = Exchange(session, message.key, scope)
        try:
            self._submit(message, exchange)
            await exchange.wait()
            opened = exchange.phase is Phase.STREAMING or session.revision
            await exchange.respond(receive, send, *([(b"mcp-session-id", session.id)] if opened else []))
        finally:
            if not session.revision:  # refused, or nobody waited for the answer
                self._close(session, "refused")

    def _accept_batch(self, session: HttpSession, scope: Scope, body: bytes) -> Exchange | None:
        """An array of messages, which is legal in 2025-03-26 only."""
        if session.revision != eras.BATCH_REVISION:
            raise refusal(400, f"batches of messages are part of revision {eras.BATCH_REVISION} only")
        received: list[jsonrpc.Message] = []
        refused: list[bytes] = []
        for part in _split(body):
            try:
                received.append(jsonrpc.decode(part))
            except jsonrpc.WireError as error:
                self._context.counters.reached(error.limit)
                refused.append(error.answer())
        requests = [message for message in received if message.is_request]
        if any(message.method == methods.INITIALIZE for message in requests):
            raise refusal(400, "initialize may not be part of a batch")
        batch = BatchExchange(session, scope, len(requests), refused) if requests or refused else None
        for message in received:
            sink = BatchPart(batch, message.key) if batch is not None and message.is_request else NOWHERE
            try:
                self._relay.submit(session.relay_session, message, sink)
            except McpdError as error:
                if message.is_request:
                    sink.deliver(refusal_of(error, message.key).reply.body, True)
        return batch

    async def _get(self, scope: Scope, receive: Receive, send: Send, view: View, principal: Principal) -> None:
        headers: Headers = scope["mcpd.headers"]
        media.check_events(headers)
        session = self._session_of(headers, view, principal)
        outlet = EventStream(self._context.streams, scope)
        last = headers.get(b"last-event-id")
        if last is None:
            stream = session.open_listener(outlet)
        else:
            stream = session.resume(last, outlet)
            self._context.counters.resumed += 1
        await stream.run(receive, send, EVENT_STREAM)

    def _session_of(self, headers: Headers, view: View, principal: Principal) -> HttpSession:
        """The session that a request names; 404 for one that is over, never was, or is somebody else's."""
        id = headers.get(b"mcp-session-id")
        if id is None:
            raise refusal(400, "Mcp-Session-Id is missing; send initialize first")
        session = self._sessions.get(id)
        if session is None or session.principal != principal or session.view != view:
            raise gone()
        version = headers.get(b"mcp-protocol-version")
        if version is not None and version != session.version:
            _check_version(session, version)
        session.seen = self._context.ticker.now
        return session

    def _new_session(self, view: View, principal: Principal) -> HttpSession:
        quota = self._context.quota
        if quota.full(principal.name):
            self._evict(principal.name)
        quota.take(principal.name)
        session = HttpSession(self._context, view, principal, self._ended_by_relay)
        try:
            session.bind(self._relay.open_session(view, principal.name, "streamable-http", session, principal.grants))
        except BaseException:
            quota.give(principal.name)
            raise
        self._sessions[session.id] = session
        self._context.counters.sessions_opened["streamable-http"] += 1
        return session

    def _evict(self, principal: str) -> None:
        """Close the session of this principal that has been idle for longest, if there is one that is idle."""
        before = self._context.ticker.now - EVICTABLE_AFTER
        idle = [
            session
            for session in self._sessions.values()
            if session.principal.name == principal and not session.busy and session.seen < before
        ]
        if idle:
            self._close(min(idle, key=lambda session: session.seen), "evicted")

    def _submit(self, message: jsonrpc.Message, exchange: Exchange) -> None:
        try:
            self._relay.submit(exchange.session.relay_session, message, exchange)
        except McpdError as error:
            exchange.abandon()
            raise refusal_of(error, message.key) from None

    def _close(self, session: HttpSession, reason: str) -> None:
        if self._forget(session, reason):
            self._relay.close_session(session.relay_session)

    def _ended_by_relay(self, session: HttpSession) -> None:
        self._forget(session, "ended")

    def _forget(self, session: HttpSession, reason: str) -> bool:
        if self._sessions.pop(session.id, None) is None:
            return False
        self._context.quota.give(session.principal.name)
        self._context.counters.sessions_closed[reason] += 1
        session.over()
        return True

    def tick(self) -> None:
        """Begin event streams for slow answers, forget old events, close idle sessions."""
        now = self._context.ticker.now
        idle_since = now - self._context.settings.session_idle_timeout
        for session in list(self._sessions.values()):
            for exchange in list(session.exchanges):
                if exchange.phase is Phase.WAITING and exchange.born <= now - STREAM_AFTER:
                    exchange.begin_stream()
            session.expire(now)
            if session.busy:
                session.seen = now
            elif session.seen < idle_since:
                self._close(session, "idle")


class _Nowhere:
    """The sink of messages that have no answer."""

    def deliver(self, frame: bytes, final: bool) -> None:
        pass

    def end(self) -> None:
        pass


NOWHERE: Final = _Nowhere()


def _initialize(body: bytes) -> jsonrpc.Message:
    """The message of a request without a session; refused if it is not `initialize`."""
    if jsonrpc.is_batch(body):
        raise refusal(400, "Mcp-Session-Id is missing; initialize may not be part of a batch")
    message = decode(body)
    if message.is_request and message.method == methods.INITIALIZE:
        return message
    raise refusal(400, "Mcp-Session-Id is missing; send initialize first", id=message.key or b"null")


def _check_era(method: str, headers: Headers) -> None:
    """405 for a GET or DELETE that names no session: the era without a handshake has neither (2026-07-28, transports),
    and a client of an earlier revision takes it for a server that has no such stream."""
    version = headers.get(b"mcp-protocol-version")
    if version in PER_REQUEST or (version not in SESSION_REVISIONS and b"mcp-session-id" not in headers):
        raise refusal(405, f"{method} is answered in sessions only", headers=(ALLOW_POST,))


def _check_version(session: HttpSession, version: bytes) -> None:
    """400 for a revision that we do not serve in sessions (2025-06-18 transports, Protocol Version Header).

    Another known one than the session's passes: clients in the field send the one that they asked for at first.
    """
    if version not in SESSION_REVISIONS and (
        session.revision in VERSION_HEADER_SINCE or version in PER_REQUEST or b"\n" in version
    ):
        raise refusal(400, f"MCP-Protocol-Version: this is a session of revision {session.revision} ({KNOWN})")
    session.version = version  # so that the next request with it is not looked at again


def _split(body: bytes) -> list[bytes]:
    try:
        return jsonrpc.split_batch(body)
    except jsonrpc.WireError as error:
        raise malformed(error) from None
