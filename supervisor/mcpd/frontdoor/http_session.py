"""A client's session over Streamable HTTP: its streams, and what is kept of them.

A *stream* is the spec's: a sequence of events that outlives the connection on which it is sent. Streams of calls are
named `c1`, `c2`, …; streams that a GET opened, for what belongs to no call, `p3`, `p4`, …. Events are numbered through
the whole session, so that an event id never comes twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from mcpd.errors import ClientFault
from mcpd.frontdoor.asgi import Header, Receive, Send
from mcpd.frontdoor.context import Context
from mcpd.frontdoor.event_stream import EventStream
from mcpd.frontdoor.relay import Session as RelaySession
from mcpd.frontdoor.relay import View
from mcpd.frontdoor.replay import REPLAY_SECONDS, Kept, Replay, parse_event_id
from mcpd.wire import sse
from mcpd.wire.principal import Principal

if TYPE_CHECKING:
    from mcpd.frontdoor.exchange import Exchange

BACKLOG_FRAMES: Final = 64
BACKLOG_BYTES: Final = 256 * 1024
MAX_LISTENERS: Final = 4

PRIMED: Final = frozenset({"2025-11-25"})  # revisions whose clients understand an event without data


class Stream:
    """One stream of a session; `outlet` is the connection on which it is sent now, if any."""

    __slots__ = ("name", "outlet", "session")

    def __init__(self, session: HttpSession, name: bytes, outlet: EventStream | None) -> None:
        self.session = session
        self.name = name
        self.outlet = outlet

    @property
    def connected(self) -> bool:
        return self.outlet is not None and self.outlet.open

    def prime(self) -> None:
        """Give the client an event id before there is any message."""
        if self.session.revision in PRIMED and self.outlet is not None:
            self.outlet.offer(sse.priming(b"%b-%d" % (self.name, self.session.count())))

    def send(self, frame: bytes) -> None:
        """Send a message, and keep it in case the connection is lost."""
        number = self.session.count()
        event = sse.encode(frame, event_id=b"%b-%d" % (self.name, number))
        self.session.keep(self.name, number, event)
        if self.outlet is not None:
            self.outlet.offer(event)

    def take_over(self, outlet: EventStream, missed: list[bytes]) -> None:
        """Go on with this connection, beginning with the events that were missed."""
        if self.outlet is not None:
            self.outlet.cut()
        self.outlet = outlet
        for event in missed:
            outlet.offer(event)

    def close(self) -> None:
        if self.outlet is not None:
            self.outlet.close()

    async def run(self, receive: Receive, send: Send, headers: Iterable[Header]) -> None:
        """Send the stream on the connection that it has now, until one of the two ends."""
        outlet = self.outlet
        assert outlet is not None
        try:
            await outlet.run(receive, send, headers)
        finally:
            self.session.disconnected(self, outlet)


class HttpSession:
    """A session; the relay's push sink for it.

    What is pushed goes on the newest stream that a GET opened: never on two (MCP transports, Multiple Connections).
    While there is none it waits here, within bounds, for the next GET.
    """

    __slots__ = (
        "_backlog",
        "_backlog_held",
        "_calls",
        "_events",
        "_listeners",
        "_names",
        "_on_over",
        "_relay_session",
        "_replay",
        "context",
        "exchanges",
        "id",
        "principal",
        "seen",
        "version",
        "view",
    )

    def __init__(
        self, context: Context, view: View, principal: Principal, on_over: Callable[[HttpSession], None]
    ) -> None:
        """`on_over` is called when the relay ends the session."""
        self.context = context
        self.view = view
        self.principal = principal
        self.id = b""
        self.version = b""  # the revision as a header has it, once one was compared
        self.seen = context.ticker.now
        self.exchanges: set[Exchange] = set()
        self._on_over = on_over
        self._relay_session: RelaySession | None = None
        self._calls: dict[bytes, Stream] = {}
        self._listeners: list[Stream] = []
        self._replay: Replay | None = None
        self._backlog: deque[bytes] | None = None
        self._backlog_held = 0
        self._names = 0
        self._events = 0

    @property
    def relay_session(self) -> RelaySession:
        assert self._relay_session is not None, "bind comes first"
        return self._relay_session

    @property
    def revision(self) -> str:
        """The negotiated revision, empty before `initialize` was answered."""
        return self.relay_session.protocol_version or ""

    def bind(self, relay_session: RelaySession) -> None:
        """Connect with what the relay made for it; once."""
        self._relay_session = relay_session
        self.id = relay_session.id.encode()

    @property
    def busy(self) -> bool:
        """Whether an answer is under way or a stream is open, so that the session is not idle."""
        return bool(self.exchanges or self._listeners)

    def deliver(self, frame: bytes, final: bool) -> None:
        """Push a message that belongs to no call."""
        for stream in reversed(self._listeners):
            if stream.connected:
                stream.send(frame)
                return
        self._hold_back(frame)

    def end(self) -> None:
        """The relay ended the session."""
        self._on_over(self)

    def open_call(self, outlet: EventStream) -> Stream:
        """A new stream for the answer to a POST."""
        stream = Stream(self, self._name(b"c"), outlet)
        self._calls[stream.name] = stream
        stream.prime()
        return stream

    def close_call(self, stream: Stream) -> None:
        """Its answer has been sent."""
        self._calls.pop(stream.name, None)
        stream.close()

    def open_listener(self, outlet: EventStream) -> Stream:
        """A new stream for what belongs to no call; what waited for one is sent on it."""
        stream = Stream(self, self._name(b"p"), outlet)
        stream.prime()
        self._listen(stream)
        return stream

    def resume(self, last_event_id: bytes, outlet: EventStream) -> Stream:
        """Go on with the stream of this event, on a new connection: what came after it is sent again.

        Raises ClientFault if there is no such event, or nothing is left of its stream.
        """
        parsed = parse_event_id(last_event_id)
        if parsed is None or int(parsed[0][1:]) > self._names or parsed[1] > self._events:
            raise ClientFault("Last-Event-ID is not the id of an event of this session")
        name, number = parsed
        if name[:1] == b"p":
            stream = next((each for each in self._listeners if each.name == name), None) or Stream(self, name, None)
            stream.take_over(outlet, self._kept(name, number))
            if stream not in self._listeners:
                self._listen(stream)
            return stream
        call = self._calls.get(name)
        if call is not None:
            call.take_over(outlet, self._kept(name, number))
            return call
        if self._replay is None or not self._replay.knows(name):
            raise ClientFault("the stream of this Last-Event-ID has ended, and its events are not kept any more")
        ended = Stream(self, name, None)
        ended.take_over(outlet, self._kept(name, number))
        ended.close()
        return ended

    def disconnected(self, stream: Stream, outlet: EventStream) -> None:
        """A connection on which `stream` was sent is over; another one may have taken its place."""
        if stream.outlet is outlet:
            stream.outlet = None
            if stream in self._listeners:
                self._listeners.remove(stream)

    def over(self) -> None:
        """End everything that is open, without answers."""
        for exchange in list(self.exchanges):
            exchange.abandon()
        self.exchanges.clear()
        for stream in [*self._listeners, *self._calls.values()]:
            stream.close()
        self._calls.clear()

    def expire(self, now: float) -> None:
        """Forget events that nobody came back for."""
        if self._replay is not None:
            self._replay.expire(now - REPLAY_SECONDS)

    def count(self) -> int:
        """The number of the next event."""
        self._events += 1
        return self._events

    def keep(self, stream: bytes, number: int, event: bytes) -> None:
        """Remember an event for a client that comes back."""
        if self._replay is None:
            self._replay = Replay()
        self._replay.add(Kept(stream, number, self.context.ticker.now, event))

    def _kept(self, stream: bytes, number: int) -> list[bytes]:
        return [] if self._replay is None else self._replay.after(stream, number)

    def _name(self, kind: bytes) -> bytes:
        self._names += 1
        return b"%b%d" % (kind, self._names)

    def _listen(self, stream: Stream) -> None:
        if len(self._listeners) >= MAX_LISTENERS:  # connections that nobody closed: the newest is the one in use
            self._listeners.pop(0).close()
        self._listeners.append(stream)
        if self._backlog is not None:
            backlog, self._backlog, self._backlog_held = self._backlog, None, 0
            for frame in backlog:
                stream.send(frame)

    def _hold_back(self, frame: bytes) -> None:
        if self._backlog is None:
            self._backlog = deque()
        if frame in self._backlog:
            return  # such as list_changed: once is enough
        self._backlog.append(frame)
        self._backlog_held += len(frame)
        while len(self._backlog) > 1 and (len(self._backlog) > BACKLOG_FRAMES or self._backlog_held > BACKLOG_BYTES):
            self._backlog_held -= len(self._backlog.popleft())
