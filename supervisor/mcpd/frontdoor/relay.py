"""What the front door needs of whoever runs the servers: the seam between the two.

Frames are bytes, addresses plain values, errors those of `mcpd.errors`. Nothing behind this protocol blocks: a
message is handed over, and whatever belongs to it comes back through a `Sink`, on the event loop's thread.
"""

from __future__ import annotations

from typing import Protocol

from mcpd.wire.address import Transport, View
from mcpd.wire.jsonrpc import Message
from mcpd.wire.meta import RequestMeta
from mcpd.wire.principal import EVERYTHING, Grants

__all__ = ["Relay", "Session", "Sink", "Transport", "View"]


class Sink(Protocol):
    """Where messages for a client go. Its methods are called on the loop; they return at once and never raise."""

    def deliver(self, frame: bytes, final: bool) -> None:
        """One JSON-RPC message. `final`: it is the answer to the request of this sink; nothing follows."""
        ...

    def end(self) -> None:
        """Nothing (more) will come: the request was cancelled, or the session is over."""
        ...


class Session(Protocol):
    """A client's conversation, made by `Relay.open_session`. Attributes are read-only for the front door."""

    @property
    def id(self) -> str:
        """Opaque and random, 128 bits as hex; fit for `Mcp-Session-Id`."""
        ...

    @property
    def principal(self) -> str:
        """Who opened it; every later message must come from the same."""
        ...

    @property
    def view(self) -> View: ...

    @property
    def protocol_version(self) -> str | None:
        """The negotiated revision; None before `initialize` was answered."""
        ...


class Relay(Protocol):
    """Takes messages of clients, gives back answers and whatever servers send to them."""

    def knows(self, view: View, grants: Grants = EVERYTHING) -> bool:
        """Whether there is such a view (its servers may be down) for a client with these grants."""
        ...

    def open_session(
        self, view: View, principal: str, transport: Transport, push: Sink, grants: Grants = EVERYTHING
    ) -> Session:
        """Begin a conversation. `push` gets what belongs to no request: list changes, updates, log messages, and the
        servers' own requests where no request's stream is open.

        Raises NotFound for a view that is unknown or hidden by the grants, Overloaded at a limit of sessions.
        """
        ...

    def session(self, id: str) -> Session | None:
        """The open session of that id."""
        ...

    def submit(self, session: Session, message: Message, sink: Sink) -> None:
        """Take one message of the client.

        A request leads to exactly one `sink.deliver(answer, final=True)`, before or after this returns, with
        `final=False` messages of the same call before it; or to `sink.end()` if it was cancelled. Notifications and
        answers to a server's request lead to nothing on the sink. Every error that the client should see is such
        an answer. Raises Overloaded if nothing was done because a bound is reached (the answer is the caller's).
        """
        ...

    def ask(
        self,
        view: View,
        principal: str,
        transport: Transport,
        message: Message,
        client: RequestMeta,
        sink: Sink,
        grants: Grants = EVERYTHING,
    ) -> Session:
        """Take one request of the per-request era (2026-07-28); `client` is what it says of itself.

        What comes on the sink is as with `submit`; answers there may be `input_required`, and a
        `subscriptions/listen` has its answer only when the daemon ends it. The returned session is for
        `close_session`, should the client go away first. Raises NotFound for an unknown view, Overloaded at a bound.
        """
        ...

    def mirroring_schema(self, view: View, tool: str, grants: Grants = EVERYTHING) -> bytes | None:
        """The input schema of a tool that has parameters for clients to repeat in headers (`wire.mirrored`).

        None for any other tool, and for one that is not known.
        """
        ...

    def client_gone(self, view: View, principal: str) -> None:
        """Nothing more comes from this client of `ask`, whose principal is nobody else's: what it was asked for is
        given up."""
        ...

    def close_session(self, session: Session) -> None:
        """The client is gone for good: calls are cancelled, subscriptions given up, nothing is delivered any more."""
        ...
