"""One client's conversation, as the router knows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from mcpd.routing.ledger import Account
from mcpd.wire.address import Transport, View
from mcpd.wire.eras import Era
from mcpd.wire.meta import RequestMeta
from mcpd.wire.principal import EVERYTHING, Grants

if TYPE_CHECKING:
    from mcpd.routing.correlation import Ask, Call
    from mcpd.routing.sight import Sight


class Listening(msgspec.Struct, frozen=True):
    """What a `subscriptions/listen` asked for: `id` is that request's own (raw JSON), `kinds` as in `ListKind`."""

    id: bytes
    kinds: frozenset[str]


class Session:
    """A session: what it sees, what it said of itself, and what is under way for it.

    `calls` maps the client's own request ids (raw JSON, so that `1` is not `"1"`) to calls in flight; `asks` maps the
    ids that mcpd gave to servers' requests to what waits for this client's answer. `push` is the sink for whatever
    belongs to no call.

    A client of the per-request era has a session for each of its requests, which lasts as long as the request;
    `client` is what the request said of it, and `listening` is set while that is a `subscriptions/listen`.

    `servers` are those that it sees, `readable` those of them of which it sees more than tools, `sight` what it sees of
    each (None: everything).

    `party` is who has an instance for itself where a server is not shared: the session, or in the per-request era all
    requests of a principal at a view.
    """

    __slots__ = (
        "account",
        "asks",
        "calls",
        "capabilities",
        "client",
        "client_info",
        "compact",
        "era",
        "grants",
        "id",
        "level",
        "listening",
        "opened_at",
        "party",
        "prefixed",
        "principal",
        "protocol_version",
        "push",
        "readable",
        "servers",
        "sight",
        "transport",
        "used_at",
        "view",
    )

    def __init__(
        self,
        id: str,
        principal: str,
        view: View,
        transport: Transport,
        push: Any,
        servers: tuple[str, ...],
        at: float,
        grants: Grants = EVERYTHING,
        account: Account | None = None,
    ) -> None:
        self.id = id
        self.principal = principal
        self.account = account or Account()
        self.view = view
        self.transport: Transport = transport
        self.push = push
        self.servers = self.readable = servers
        self.grants = grants
        self.sight: Sight | None = None
        self.prefixed = view.kind != "server"
        self.compact = False
        self.protocol_version: str | None = None
        self.capabilities: Mapping[str, Raw] = {}
        self.client_info: Mapping[str, Any] = {}
        self.client: RequestMeta | None = None
        self.level: int | None = None
        self.era = Era.HANDSHAKE
        self.listening: Listening | None = None
        self.calls: dict[bytes, Call] = {}
        self.asks: dict[int, Ask] = {}
        self.opened_at = at
        self.party = id
        self.used_at = at

    def __repr__(self) -> str:
        return f"<session {self.id[:8]} of {self.principal} on {self.view}>"
