"""Streamable HTTP of the era without a handshake (2026-07-28, transports): each POST stands for itself.

What a request says of its client is in its `_meta`; headers repeat what proxies want to know, and must agree with it.
The answer is one JSON body, unless something has to be streamed before it. A client cancels by closing the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Raw

from mcpd.errors import McpdError
from mcpd.frontdoor.asgi import (
    EVENT_STREAM,
    JSON,
    Headers,
    Receive,
    Refusal,
    Reply,
    Scope,
    Send,
    malformed,
    refusal,
    refusal_of,
)
from mcpd.frontdoor.context import Context
from mcpd.frontdoor.direct_stream import DirectStream
from mcpd.frontdoor.exchange import Phase
from mcpd.frontdoor.relay import Session, View
from mcpd.frontdoor.sinks import unsupported_version
from mcpd.wire import eras, jsonrpc, meta, methods, mirrored, sse
from mcpd.wire.principal import Principal

STREAM_AFTER: Final = 10.0  # seconds without an answer, after which an event stream keeps the connection alive
CACHED_SCHEMAS: Final = 1024

PER_REQUEST: Final = frozenset(revision.encode() for revision in eras.PER_REQUEST_REVISIONS)
HANDSHAKE: Final = frozenset(revision.encode() for revision in eras.HANDSHAKE_REVISIONS)
META_VERSION: Final = eras.META_VERSION.encode()
NAMED: Final = {methods.TOOLS_CALL: "name", methods.PROMPTS_GET: "name", methods.RESOURCES_READ: "uri"}
NO_ARGUMENTS: Final = Raw()

# The status of an error that is answered as JSON; every other one is an answer like any: 200.
STATUSES: Final[Mapping[int, int]] = {
    methods.PARSE_ERROR: 400,
    methods.INVALID_REQUEST: 400,
    methods.INVALID_PARAMS: 400,
    methods.HEADER_MISMATCH: 400,
    methods.MISSING_CAPABILITY: 400,
    methods.UNSUPPORTED_VERSION: 400,
    methods.METHOD_NOT_FOUND: 404,
}
_ID_AT: Final = len(jsonrpc.failure(b"", b"")) - len(b',"error":}')


def is_per_request(headers: Headers, body: bytes) -> bool:
    """Whether a POST is of this era: its header names a revision that no session can have, or its body says so.

    In a session the header alone decides, so that no body has to be searched.
    """
    version = headers.get(b"mcp-protocol-version")
    if b"mcp-session-id" in headers:
        return version in PER_REQUEST
    return (version is not None and version not in HANDSHAKE) or META_VERSION in body


def is_told_by(headers: Headers) -> bool:
    """Whether the headers alone say of which era a POST is, whatever its body."""
    version = headers.get(b"mcp-protocol-version")
    return b"mcp-session-id" in headers or (version is not None and version not in HANDSHAKE)


class Claims:
    """The headers of a request, and what they were last found to agree with in a body.

    Clients repeat themselves, so the next body probably says the same, and need not be compared again.
    """

    __slots__ = ("headers", "method", "name", "raw_name", "version")

    def __init__(self, headers: Headers) -> None:
        self.headers = headers
        self.version: str | None = None
        self.method: str | None = None
        self.name = ""
        self.raw_name = b""  # how `name` stood in the body


class PerRequest:
    """Takes the POSTs of this era. Holds the answers that are under way, so that slow ones become event streams."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._relay = context.relay
        self._in_flight: set[Answer] = set()
        self._mirrors: dict[bytes, tuple[mirrored.Mirror, ...]] = {}
        context.ticker.callbacks.append(self.tick)

    def accept(self, claims: Claims, scope: Scope, body: bytes, view: View, principal: Principal) -> Answer | None:
        """Take the body of a POST: the answer to come, or None for a notification, which nothing follows.

        Raises Refusal.
        """
        message = decode(body, jsonrpc.decode_call)
        if not (message.method and len(message.id)):
            if message.method:
                return None  # there is none that a server has to heed: cancelling is closing the connection
            raise refusal(400, "a server's question is answered by calling again with inputResponses")
        try:
            client = self._client(message, claims, view, principal)
        except jsonrpc.WireError as error:
            raise Refusal(Reply(400, jsonrpc.error(message.key, error.code, error.message), (JSON,))) from None
        answer = Answer(self, scope, message, principal.name)
        try:
            self._enter(answer)
            session = self._relay.ask(
                view, principal.name, "streamable-http", message, client, answer, principal.grants
            )
        except McpdError as error:
            self.leave(answer)
            raise refusal_of(error, message.key) from None
        if answer.owed:
            answer.session = session
        return answer

    def _client(self, message: jsonrpc.Message, claims: Claims, view: View, principal: Principal) -> meta.RequestMeta:
        """Who asks; raises WireError or Refusal if something is missing, or if headers and body do not agree."""
        params, method = message.given, message.method
        client = meta.client_of(params)
        if client is None:
            raise jsonrpc.WireError(methods.INVALID_PARAMS, f"params._meta: {meta.VERSION} is missing")
        if client.version != claims.version:
            _agree("MCP-Protocol-Version", claims.headers.get(b"mcp-protocol-version"), client.version)
            claims.version = client.version
        if method != claims.method:
            _agree("Mcp-Method", claims.headers.get(b"mcp-method"), method)
            claims.method = method
        key, name = NAMED.get(method), ""
        if key is not None and key in params:
            raw = bytes(params[key])
            if raw != claims.raw_name:
                name = jsonrpc.text(raw)
                _agree("Mcp-Name", claims.headers.get(b"mcp-name"), name, encoded=True)
                claims.name, claims.raw_name = name, raw
            name = claims.name
        if client.version not in eras.PER_REQUEST_REVISIONS:
            raise Refusal(Reply(400, unsupported_version(message.key, client.version), (JSON,)))
        if name and method == methods.TOOLS_CALL:
            schema = self._relay.mirroring_schema(view, name, principal.grants)
            if schema is not None:
                self._check_mirrored(schema, params, claims.headers)
        return client

    def _check_mirrored(self, schema: bytes, params: Mapping[str, Raw], headers: Headers) -> None:
        mirrors = self._mirrors.get(schema)
        if mirrors is None:
            if len(self._mirrors) >= CACHED_SCHEMAS:
                self._mirrors.clear()
            mirrors = self._mirrors[schema] = mirrored.mirrors_of(schema)
        different = mirrored.difference(mirrors, params.get("arguments", NO_ARGUMENTS), headers)
        if different is not None:
            raise jsonrpc.WireError(methods.HEADER_MISMATCH, different)

    def _enter(self, answer: Answer) -> None:
        if answer.listens:
            self.context.quota.take(answer.principal)
        self._in_flight.add(answer)
        answer.owed = True

    def leave(self, answer: Answer) -> bool:
        """The relay owes nothing more for it. False if that was known."""
        if not answer.owed:
            return False
        answer.owed = False
        answer.session = None  # which knows the answer as its sink: without this, a circle
        self._in_flight.discard(answer)
        if answer.listens:
            self.context.quota.give(answer.principal)
        return True

    def give_up(self, answer: Answer) -> None:
        """Its client has gone."""
        session = answer.session
        if self.leave(answer) and session is not None:
            self._relay.close_session(session)

    def end_of(self, principal: str) -> None:
        """Somebody may not use anything any more: give up what is under way for them."""
        for answer in [each for each in self._in_flight if each.principal == principal]:
            self.give_up(answer)
            answer.end()

    def tick(self) -> None:
        """Begin event streams for slow answers."""
        before = self.context.ticker.now - STREAM_AFTER
        for answer in list(self._in_flight):
            if answer.phase is Phase.WAITING and answer.born <= before:
                answer.begin_stream()


class Answer:
    """The answer to one request; the relay's sink for it.

    Whoever sends it calls `respond`, or is told by `on_change` when it is no longer WAITING; and calls `left` if the
    connection is lost.
    """

    __slots__ = (
        "_door",
        "_id",
        "_outlet",
        "_scope",
        "_waiter",
        "answer",
        "born",
        "listens",
        "on_change",
        "owed",
        "phase",
        "principal",
        "session",
        "status",
    )

    def __init__(self, door: PerRequest, scope: Scope, message: jsonrpc.Message, principal: str) -> None:
        self.phase = Phase.WAITING
        self.answer = b""
        self.status = 200
        self.born = door.context.ticker.now
        self.principal = principal
        self.listens = message.method == methods.LISTEN
        self.owed = False  # whether the relay has still to answer
        self.session: Session | None = None  # while it is
        self.on_change: Callable[[Any], None] | None = None
        self._door = door
        self._id = message.key
        self._scope = scope
        self._outlet: DirectStream | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def respond(self, receive: Receive, send: Send) -> None:
        """Send the answer when it is there, in the form that it has then."""
        try:
            if self.phase is Phase.WAITING:
                await self._wait(receive)
            if self.phase is Phase.ANSWERED:
                await Reply(self.status, self.answer, (JSON,)).send(send)
            elif self._outlet is not None:
                await self._outlet.run(receive, send, EVENT_STREAM)
        finally:
            self.left()

    async def _wait(self, receive: Receive) -> None:
        """Return when it is not WAITING any more; a client that leaves meanwhile has cancelled."""
        self._waiter = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch(receive), name="per-request:watch")
            await self._waiter
            watch.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass  # the rest of a body that nobody wants
        self.left()

    def deliver(self, frame: bytes, final: bool) -> None:
        if final:
            self._door.leave(self)
        if self.phase is Phase.WAITING:
            if final:
                self.answer = frame
                if frame.startswith(b',"error":', _ID_AT + len(self._id)):
                    self.status = status_of(frame)
                self._to(Phase.ANSWERED)
                return
            self.begin_stream()
        if self._outlet is not None:
            self._outlet.offer(sse.encode(frame))
            if final:
                self._outlet.close()

    def end(self) -> None:
        """Nothing (more) will come."""
        if self.phase is Phase.WAITING:
            self.deliver(jsonrpc.error(self._id, methods.REQUEST_CANCELLED, "the request was cancelled"), True)
        elif self._outlet is not None:
            self._door.leave(self)
            self._outlet.close()

    def begin_stream(self) -> None:
        """Answer by an event stream from now on."""
        self._outlet = DirectStream(self._door.context.streams, self._scope)
        self._door.context.counters.streamed += 1
        self._to(Phase.STREAMING)

    def left(self) -> None:
        """The client does not wait any more; nothing happens if it has its answer."""
        self._door.give_up(self)
        if self.phase is Phase.WAITING:
            self.on_change = None
            self._to(Phase.OVER)

    def _to(self, phase: Phase) -> None:
        self.phase = phase
        if self.on_change is not None:
            self.on_change(self)
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def status_of(frame: bytes) -> int:
    """The HTTP status of an error answer (2026-07-28, transports, and the SDKs' common table)."""
    error = jsonrpc.value_of(jsonrpc.decode(frame).error)
    code = error.get("code") if isinstance(error, dict) else None
    return STATUSES.get(code, 200) if isinstance(code, int) else 200


def _agree(name: str, header: bytes | None, text: str, *, encoded: bool = False) -> None:
    """Raise unless a header says what the body says. Its value may have blanks around it (RFC 9110, section 5.5)."""
    if header is None:
        raise jsonrpc.WireError(methods.HEADER_MISMATCH, f"the header {name} is missing")
    if header == text.encode(errors="replace"):
        return
    given = mirrored.decode_value(header) if encoded else header.strip(b" \t").decode("latin-1")
    if given != text:
        raise jsonrpc.WireError(methods.HEADER_MISMATCH, f"the header {name} is not the same as in the body")


def decode(body: bytes, by: Callable[[bytes], jsonrpc.Message] = jsonrpc.decode) -> jsonrpc.Message:
    """The message in a POST; raises Refusal."""
    try:
        return by(body)
    except jsonrpc.WireError as error:
        raise malformed(error) from None
