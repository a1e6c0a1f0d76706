"""`mcp.sock`: MCP over a unix socket, newline-delimited JSON-RPC, one session a connection; behind `mcpctl connect`.

The first line of a connection, the hello, says what is wanted; it is answered by one line:

    {"mcpd":1,"view":"server:time"}        view: "all", "server:NAME" or "view:NAME"
    {"mcpd":1,"ok":true,"daemon":"6f1c…"}   the daemon's instance: another one after a restart
    {"mcpd":1,"error":{"code":"not-found","message":"…"}}   or "bad-hello", "overloaded"; then the connection ends

From then on every line is one message, as in the stdio transport of the specification: of either era, for a request
that says in its `_meta` who asks stands for itself (2026-07-28). Who gets in: the user whom the daemon runs as, root,
and the members of a group if the registry names one; by the socket's mode, and by what the kernel says of the peer.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import Counter
from enum import Enum, auto
from typing import Final, Protocol, cast

from mcpd.errors import McpdError, NotFound, Overloaded
from mcpd.frontdoor.outbox import OUTBOX_LIMIT
from mcpd.frontdoor.peers import Peers, Stranger
from mcpd.frontdoor.relay import Relay, Session, View
from mcpd.frontdoor.sinks import Answers, unsupported_version
from mcpd.frontdoor.sockets import BACKLOG
from mcpd.wire import jsonrpc, meta, methods
from mcpd.wire.eras import BATCH_REVISION, PER_REQUEST_REVISIONS
from mcpd.wire.jsonrpc import Message, WireError
from mcpd.wire.lines import LineSplitter, Overlong

HELLO_LIMIT: Final = 4096
HELLO_TIMEOUT: Final = 10.0
HIGH_WATER: Final = 256 * 1024  # bytes not taken by the client, after which no more is read from it
MAX_CONNECTIONS: Final = 4096
COPY_LIMIT: Final = 16 * 1024  # longer frames are not copied to get their line break
LINGER: Final = 5.0
HELLO_VERSION: Final = 1
MAX_ASKS: Final = 1024  # requests of the per-request era that a connection may have under way
_ID: Final = rb'"id"\s*:\s*(-?\d+|"[^"\\]*")\s*'
_ID_FIRST: Final = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?%b,\s*"method"' % _ID)
_ID_LAST: Final = re.compile(rb",\s*%b\}\s*\Z" % _ID)  # a member of the message itself: nothing else is closed after it
_METHOD_FIRST: Final = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"method"')


class LocalSocket:
    """Serves the relay on a listening unix socket; `connections` are the open ones.

    `instance` tells one daemon from the next; `max_line` bounds a message, `max_sessions` connections of a user.
    """

    def __init__(
        self,
        relay: Relay,
        listening: socket.socket,
        instance: str,
        max_line: int,
        peers: Peers,
        max_sessions: int = MAX_CONNECTIONS,
    ) -> None:
        self.relay = relay
        self.instance = instance
        self.max_line = max_line
        self.peers = peers
        self.max_sessions = max_sessions
        self.held: Counter[int] = Counter()  # connections, by user
        self.connections: set[Connection] = set()
        self.limited: Counter[str] = Counter()  # what was refused or ended, by the bound that was reached
        self.accepted = 0
        self._listening = listening
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Accept connections, until `close`."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Connection(self), sock=self._listening, backlog=BACKLOG)

    def close(self) -> None:
        """Accept no more, and close every connection after what is queued on it. The socket's file is its owner's."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self.connections):
            connection.close()


class _Transport(Protocol):
    """What is used of a transport; asyncio's and uvloop's have it, but no common class that says so."""

    def write(self, data: bytes) -> None: ...
    def writelines(self, list_of_data: list[bytes]) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def set_write_buffer_limits(self, high: int) -> None: ...
    def get_extra_info(self, name: str) -> socket.socket: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def is_reading(self) -> bool: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class Phase(Enum):
    """How far a connection has come."""

    HELLO = auto()
    OPEN = auto()
    CLOSED = auto()


class Connection(asyncio.Protocol):
    """One client. It is the sink of what belongs to no request; `end` there means that the session is over."""

    __slots__ = (
        "_answers",
        "_asks",
        "_hello_timer",
        "_owner",
        "_phase",
        "_principal",
        "_session",
        "_splitter",
        "_transport",
        "_uid",
    )

    def __init__(self, owner: LocalSocket) -> None:
        self._owner = owner
        self._phase = Phase.HELLO
        self._splitter = LineSplitter(owner.max_line)
        self._answers = Answers(self.deliver)
        self._session: Session | None = None
        self._asks: dict[bytes, Ask] = {}  # requests of the per-request era that have no answer yet, by id
        self._principal = ""  # of these requests: nobody else's
        self._uid = -1
        self._transport: _Transport
        self._hello_timer: asyncio.TimerHandle | None = None

    @property
    def paused(self) -> bool:
        """Whether nothing is read from the client, because it does not take what it got."""
        return not self._transport.is_reading()

    # ------------------------------------------------------------- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(_Transport, transport)
        self._owner.connections.add(self)
        self._owner.accepted += 1
        try:
            self._uid = self._owner.peers.admit(self._transport.get_extra_info("socket")).uid
        except Stranger as stranger:
            self._owner.limited["stranger"] += 1
            self._refuse("forbidden", f"{stranger}; {stranger.remedy}")
            return
        self._owner.held[self._uid] += 1
        if self._owner.held[self._uid] > self._owner.max_sessions:
            self._owner.limited["sessions"] += 1
            self._refuse("overloaded", f"user {self._uid} has {self._owner.max_sessions} sessions open already")
        elif len(self._owner.connections) > MAX_CONNECTIONS:
            self._owner.limited["connections"] += 1
            self._refuse("overloaded", f"{MAX_CONNECTIONS} connections are open already")
        else:
            self._transport.set_write_buffer_limits(high=HIGH_WATER)
            loop = asyncio.get_running_loop()
            self._hello_timer = loop.call_later(HELLO_TIMEOUT, self._no_hello)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.connections.discard(self)
        self._phase = Phase.CLOSED
        if self._uid in self._owner.held:
            self._owner.held[self._uid] -= 1
            if not self._owner.held[self._uid]:
                del self._owner.held[self._uid]
        self._leave()

    def data_received(self, data: bytes) -> None:
        for frame in self._splitter.feed(data):
            if self._phase is Phase.OPEN:
                self._line(frame)
            elif self._phase is Phase.HELLO:
                self._hello(frame)

    def pause_writing(self) -> None:
        """The client does not take what it asked for: it is not asked for more."""
        if self._phase is Phase.OPEN:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._phase is Phase.OPEN:
            self._transport.resume_reading()

    # ------------------------------------------------------------- hello

    def _hello(self, frame: bytes | Overlong) -> None:
        view = None if isinstance(frame, Overlong) or len(frame) > HELLO_LIMIT else _view(frame)
        if view is None:
            self._refuse("bad-hello", 'the first line must be like {"mcpd":1,"view":"all"}')
            return
        try:
            self._session = self._owner.relay.open_session(view, f"local:{self._uid}", "stdio", self)
        except NotFound as problem:
            self._refuse("not-found", str(problem))
        except Overloaded as problem:
            self._owner.limited[problem.limit or "sessions"] += 1
            self._refuse("overloaded", str(problem))
        except McpdError as problem:
            self._refuse("failed", str(problem))
        else:
            self._phase = Phase.OPEN
            self._principal = f"local:{self._uid}#{self._owner.accepted}"
            self._stop_timer()
            self._write(jsonrpc.dump({"mcpd": 1, "ok": True, "daemon": self._owner.instance}))

    def _no_hello(self) -> None:
        self._owner.limited["slow-hello"] += 1
        self._refuse("bad-hello", "no hello came in time")

    def _refuse(self, code: str, message: str) -> None:
        self._write(jsonrpc.dump({"mcpd": 1, "error": {"code": code, "message": message}}))
        self._hang_up()

    # ------------------------------------------------------------- lines of the client

    def _line(self, frame: bytes | Overlong) -> None:
        if isinstance(frame, Overlong):
            self._owner.limited["line"] += 1
            limit = f"more than {self._owner.max_line} are not taken; see frontdoor.max_body"
            text = f"a message of {frame.length} bytes: {limit}"
            self._write(jsonrpc.error(_id_of(frame), methods.INVALID_REQUEST, text))
        elif jsonrpc.is_batch(frame):
            self._batch(frame)
        else:
            self._message(frame)

    def _batch(self, frame: bytes) -> None:
        """The messages of a batch, each answered by itself, as 2025-03-26 allows (transports, sending messages)."""
        assert self._session is not None
        try:
            if self._session.protocol_version != BATCH_REVISION:
                raise WireError(methods.INVALID_REQUEST, f"batches are part of revision {BATCH_REVISION} only")
            parts = jsonrpc.split_batch(frame)
        except WireError as problem:
            self._malformed(problem)
            return
        for part in parts:
            self._message(part)

    def _message(self, frame: bytes) -> None:
        session = self._session
        if session is None:
            return  # it ended by an earlier message of the same chunk
        try:
            message = jsonrpc.decode(frame)
        except WireError as problem:
            self._malformed(problem)
            return
        try:
            client = self._client(session, message)
            if client is not None:
                self._ask(session.view, message, client)
            elif not (self._asks and message.method == methods.CANCELLED and self._cancelled(message)):
                self._owner.relay.submit(session, message, self._answers)
        except WireError as problem:
            self._write(jsonrpc.error(message.key or b"null", problem.code, problem.message))
        except Overloaded as problem:
            self._owner.limited[problem.limit or "server"] += 1
            if message.is_request:
                data = {"retryAfter": problem.retry_after}
                self._write(jsonrpc.error(message.key, methods.SERVER_UNAVAILABLE, str(problem), data))

    def _malformed(self, problem: WireError) -> None:
        if problem.limit:
            self._owner.limited[problem.limit] += 1
        self._write(problem.answer())

    def _client(self, session: Session, message: Message) -> meta.RequestMeta | None:
        """Who asks, where a request stands for itself; None for the messages of the session. Raises WireError."""
        client = None
        if meta.NAMES_CLIENT in bytes(message.params) and message.is_request:
            client = meta.request_meta(message.params)
        if client is None and message.method == methods.DISCOVER and session.protocol_version is None:
            raise WireError(methods.INVALID_PARAMS, f"params._meta: {meta.VERSION} is missing")
        return client

    def _ask(self, view: View, message: Message, client: meta.RequestMeta) -> None:
        """A request that stands for itself. Raises WireError, Overloaded."""
        if client.version not in PER_REQUEST_REVISIONS:
            self._write(unsupported_version(message.key, client.version))
            return
        if message.key in self._asks:
            raise WireError(methods.INVALID_REQUEST, "this id is in use by a request that is not answered yet")
        if len(self._asks) >= MAX_ASKS:
            raise Overloaded(f"{MAX_ASKS} requests of this connection are under way", limit="session-calls")
        ask = self._asks[message.key] = Ask(self, message.key)
        try:
            ask.session = self._owner.relay.ask(view, self._principal, "stdio", message, client, ask)
        except NotFound as problem:  # the view has gone from the registry
            self.answered(ask)
            raise WireError(methods.SERVER_UNAVAILABLE, str(problem)) from None
        except Overloaded:
            self.answered(ask)
            raise

    def _cancelled(self, message: Message) -> bool:
        """Take back a request that stands for itself; False if the notice is not of such a one."""
        ask = self._asks.pop(jsonrpc.canonical_id(bytes(jsonrpc.members(message.params).get("requestId", b""))), None)
        if ask is None or ask.session is None:
            return False
        self._owner.relay.close_session(ask.session)
        return True

    def answered(self, ask: Ask) -> None:
        """Nothing more comes for it."""
        if self._asks.get(ask.id) is ask:
            del self._asks[ask.id]

    # ------------------------------------------------------------- to the client

    def deliver(self, frame: bytes, final: bool) -> None:
        """Send one message (Sink). A client that does not read is cut off when OUTBOX_LIMIT is reached."""
        if self._phase is not Phase.OPEN:
            return
        waiting = self._transport.get_write_buffer_size()
        if waiting and waiting + len(frame) > OUTBOX_LIMIT:
            self._owner.limited["slow-reader"] += 1
            self._phase = Phase.CLOSED
            self._transport.abort()
            return
        self._write(frame)

    def end(self) -> None:
        """The session is over (Sink): close the connection after what is queued."""
        self._session = None
        self._hang_up()

    def close(self) -> None:
        """The daemon ends: close the session, and the connection after what is queued."""
        self._leave()
        self._hang_up()

    def _write(self, frame: bytes) -> None:
        # uvloop sends what is written within one iteration of the loop together
        if len(frame) < COPY_LIMIT:
            self._transport.write(frame + b"\n")
        else:
            self._transport.writelines([frame, b"\n"])

    def _hang_up(self) -> None:
        if self._phase is not Phase.CLOSED:
            self._phase = Phase.CLOSED
            self._stop_timer()
            self._transport.close()
            # a client that does not read would keep a closing connection for ever
            asyncio.get_running_loop().call_later(LINGER, self._transport.abort)

    def _leave(self) -> None:
        self._stop_timer()
        asks, self._asks = self._asks, {}
        for ask in asks.values():
            if ask.session is not None:
                self._owner.relay.close_session(ask.session)
        session, self._session = self._session, None
        if session is not None:
            self._owner.relay.client_gone(session.view, self._principal)
            self._owner.relay.close_session(session)

    def _stop_timer(self) -> None:
        if self._hello_timer is not None:
            self._hello_timer.cancel()
            self._hello_timer = None


class Ask:
    """A request of the per-request era on a connection; the sink of what comes for it."""

    __slots__ = ("_connection", "id", "session")

    def __init__(self, connection: Connection, id: bytes) -> None:
        self.id = id
        self.session: Session | None = None
        self._connection = connection

    def deliver(self, frame: bytes, final: bool) -> None:
        if final:
            self._connection.answered(self)
        self._connection.deliver(frame, final)

    def end(self) -> None:
        """Nothing (more) will come."""
        self._connection.answered(self)


def _id_of(request: Overlong) -> bytes:
    """The id of a request that was too long, so that its client need not wait: it stands first or last in all that
    known clients write. `null` if this is no request, or not to be seen."""
    first = _ID_FIRST.match(request.sample)
    last = _ID_LAST.search(request.tail) if first is None and _METHOD_FIRST.match(request.sample) else None
    found = first or last
    return found[1] if found is not None else b"null"


def _view(hello: bytes) -> View | None:
    """The view that a hello names; None if it is no hello."""
    try:
        found = jsonrpc.members(hello)
        if jsonrpc.value_of(found.get("mcpd", b"null")) != HELLO_VERSION:
            return None
        kind, _, name = jsonrpc.text(found.get("view", b"null")).partition(":")
    except WireError:
        return None
    if kind == "all" and not name:
        return View("all")
    if kind == "server" and name:
        return View("server", name)
    if kind == "view" and name:
        return View("view", name)
    return None
