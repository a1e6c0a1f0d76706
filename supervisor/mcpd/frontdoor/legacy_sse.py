"""HTTP+SSE, the transport of revision 2024-11-05, which many desktop clients still speak.

`GET …/sse` opens a stream and with it a session; its first event, `endpoint`, names where the client posts its
messages. Every message for the client comes on that stream, and when the stream ends, so does the session. The
session's id travels in the query string, because this transport has no other place for it; it is of use only to the
principal that opened the stream, who shows its token with each POST.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs

from mcpd.errors import McpdError
from mcpd.frontdoor import media
from mcpd.frontdoor.asgi import (
    EVENT_STREAM,
    Header,
    Receive,
    Refusal,
    Reply,
    Scope,
    Send,
    malformed,
    read_body,
    refusal,
    refusal_of,
)
from mcpd.frontdoor.context import Context
from mcpd.frontdoor.direct_stream import DirectStream
from mcpd.frontdoor.heads import Head
from mcpd.frontdoor.relay import Session as RelaySession
from mcpd.frontdoor.relay import View
from mcpd.frontdoor.sinks import Answers, per_request_refusal
from mcpd.wire import eras, jsonrpc, sse
from mcpd.wire.principal import Principal

ACCEPTED: Final = Reply(202)
ONLY_GET: Final[Header] = (b"allow", b"GET")
ONLY_POST: Final[Header] = (b"allow", b"POST")
_QUERY: Final = b"session_id="


class SseSession:
    """One client; the relay's sink for everything that it gets."""

    __slots__ = ("answers", "principal", "relay_session", "stream")

    def __init__(self, principal: Principal, stream: DirectStream) -> None:
        self.principal = principal
        self.stream = stream
        self.answers = Answers(self.deliver)
        self.relay_session: RelaySession

    def deliver(self, frame: bytes, final: bool) -> None:
        """Send a message. A client that does not read is cut off, which ends the session."""
        self.stream.offer(sse.encode(frame))

    def end(self) -> None:
        """The relay ended the session: so does the stream, after what is queued on it."""
        self.stream.close()


class LegacySse:
    """The handlers of the paths that end in `/sse` and in `/messages/`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._relay = context.relay
        self._max_body = context.settings.max_body
        self._sessions: dict[bytes, SseSession] = {}

    async def stream(self, scope: Scope, receive: Receive, send: Send, view: View, principal: Principal) -> None:
        """`GET …/sse`: the stream of a new session, until either side ends it."""
        if scope["method"] != "GET":
            # the answer on which clients of both transports fall back to this one (2025-03-26 transports,
            # Backwards Compatibility)
            raise refusal(405, "this is an HTTP+SSE endpoint: GET opens its stream", headers=(ONLY_GET,))
        media.check_events(scope["mcpd.headers"])
        session = self._open(DirectStream(self._context.streams, scope), view, principal)
        relay_session = session.relay_session
        id = relay_session.id.encode()
        self._sessions[id] = session
        try:
            session.stream.offer(sse.encode(_endpoint(scope, view, id), event=b"endpoint"))
            await session.stream.run(receive, send, EVENT_STREAM)
        finally:
            del self._sessions[id]
            self._relay.close_session(relay_session)
            self._context.quota.give(principal.name)
            self._context.counters.sessions_closed["stream"] += 1

    def _open(self, stream: DirectStream, view: View, principal: Principal) -> SseSession:
        session = SseSession(principal, stream)
        self._context.quota.take(principal.name)
        try:
            session.relay_session = self._relay.open_session(
                view, principal.name, "http+sse", session, principal.grants
            )
        except BaseException:
            self._context.quota.give(principal.name)
            raise
        self._context.counters.sessions_opened["http+sse"] += 1
        return session

    async def message(self, scope: Scope, receive: Receive, send: Send, view: View, principal: Principal) -> None:
        """`POST …/messages/?session_id=…`: a message of the client; the answer to it comes on the stream."""
        if scope["method"] != "POST":
            raise refusal(405, "messages are posted here", headers=(ONLY_POST,))
        body = await read_body(receive, scope["mcpd.headers"], self._max_body)
        await self._accept(scope, body, view, principal).send(send)

    def direct(self, head: Head, scope: Scope, body: bytes, view: View, principal: Principal) -> Reply:
        """The same for a POST that is answered below ASGI (`protocol`), whose body is there. Raises Refusal."""
        return self._accept(scope, body, view, principal)

    def _accept(self, scope: Scope, body: bytes, view: View, principal: Principal) -> Reply:
        media.check_json(scope["mcpd.headers"])
        self._take(self._session_of(scope["query_string"], view, principal), body)
        return ACCEPTED

    def _session_of(self, query: bytes, view: View, principal: Principal) -> SseSession:
        """The session that a POST names; 404 for one that is over, never was, or is somebody else's."""
        id = query[len(_QUERY) :] if query.startswith(_QUERY) else b""
        session = self._sessions.get(id)
        if session is None:
            given = parse_qs(query.decode("latin-1")).get("session_id")
            if not given:
                raise refusal(400, "session_id is missing; post to the address that the endpoint event names")
            session = self._sessions.get(given[-1].encode())
        if session is None or session.principal != principal or session.relay_session.view != view:
            raise refusal(404, "there is no such session; open a stream for a new one")
        return session

    def _take(self, session: SseSession, body: bytes) -> None:
        """Hand the body of a POST to the relay; raises Refusal."""
        try:
            if body[:1] != b"{" and jsonrpc.is_batch(body):
                self._take_batch(session, body)
            else:
                self._submit(session, jsonrpc.decode(body))
        except jsonrpc.WireError as error:
            raise malformed(error) from None

    def _take_batch(self, session: SseSession, body: bytes) -> None:
        """An array of messages, which is legal in 2025-03-26 only. Each is answered by itself on the stream."""
        if session.relay_session.protocol_version != eras.BATCH_REVISION:
            raise refusal(400, f"batches of messages are part of revision {eras.BATCH_REVISION} only")
        for part in jsonrpc.split_batch(body):
            try:
                self._submit(session, jsonrpc.decode(part))
            except jsonrpc.WireError as error:
                self._context.counters.reached(error.limit)
                session.deliver(error.answer(), True)
            except Refusal as refused:
                self._context.counters.reached(refused.limit)
                session.deliver(refused.reply.body, True)

    def _submit(self, session: SseSession, message: jsonrpc.Message) -> None:
        relay_session = session.relay_session
        if relay_session.protocol_version is None and (refused := per_request_refusal(message)) is not None:
            session.deliver(refused, True)
            return
        try:
            self._relay.submit(relay_session, message, session.answers)
        except McpdError as error:
            raise refusal_of(error, message.key or b"null") from None


def _endpoint(scope: Scope, view: View, id: bytes) -> bytes:
    """Where the client of a stream posts, as a path: the host is the one that it has reached."""
    below = "" if view.kind == "all" else f"/{view.kind}s/{view.name}"
    return b"%b/messages/?session_id=%b" % ((scope.get("root_path", "") + below).encode(), id)
