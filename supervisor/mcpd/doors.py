"""What others come in by: the front door over HTTP, the local socket, and the operators' API.

A daemon has its servers begin before it imports this: they need time of their own until somebody can be let in to them.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import msgspec
import structlog

from mcpd.access import Tokens
from mcpd.audit import AuditLog
from mcpd.clock import Clock
from mcpd.config.registry import Registry
from mcpd.control.view import ServerStatus
from mcpd.errors import ConfigError
from mcpd.fleet.fleet import Fleet
from mcpd.fleet.pin_office import PinOffice
from mcpd.fleet.pins import Pins
from mcpd.fleet.relay import Relay
from mcpd.frontdoor import metrics
from mcpd.frontdoor.app import FrontDoor, Readiness
from mcpd.frontdoor.asgi import App, Receive, Scope, Send
from mcpd.frontdoor.auth import Authenticator, BearerAuthenticator, OpenAuthenticator
from mcpd.frontdoor.context import Context
from mcpd.frontdoor.guard import Guard
from mcpd.frontdoor.legacy_sse import LegacySse
from mcpd.frontdoor.listener import Listener
from mcpd.frontdoor.local_socket import LocalSocket
from mcpd.frontdoor.peers import Peers
from mcpd.frontdoor.protocol import Bounds
from mcpd.frontdoor.relay import View
from mcpd.frontdoor.streamable_http import StreamableHttp
from mcpd.frontdoor.ticker import Ticker

if TYPE_CHECKING:
    from mcpd.control.api import ControlApi
    from mcpd.frontdoor.jwt import KeyRing

log = structlog.get_logger("mcpd")


class Sockets(msgspec.Struct, frozen=True):
    """Bound already, by whoever closes them."""

    http: list[socket.socket]
    mcp: socket.socket
    clients: Peers
    """Who may connect to `mcp`."""
    control: socket.socket
    operators: Peers
    """Who may connect to `control`."""


class House(msgspec.Struct, frozen=True):
    """What the doors lead to."""

    registry: Registry
    fleet: Fleet
    relay: Relay
    pins: Pins
    clock: Clock
    tokens: Tokens | None
    """None: access is open, or for others to prove (jwt)."""
    audit: AuditLog | None
    tls: tuple[Path, Path] | None
    instance: str
    is_stopping: Callable[[], bool]


class Office:
    """The operators' API, made when the first of them comes: a daemon that nobody asks is smaller, and sooner up."""

    def __init__(self, house: House) -> None:
        self.limited: Counter[str] = Counter()  # what was refused or ended, by the bound that was reached
        self._house = house
        self._api: ControlApi | None = None
        self._closed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._api is None:
            self._api = self._open()
        await cast(App, self._api)(scope, receive, send)

    def close(self) -> None:
        """End its streams; idempotent."""
        self._closed = True
        if self._api is not None:
            self._api.close()

    def _open(self) -> ControlApi:
        from mcpd.control.api import ControlApi

        house = self._house
        audit = house.audit.path if house.audit else None
        api = ControlApi(house.fleet, house.tokens, audit, PinOffice(house.fleet, house.pins), self.limited)
        if self._closed:
            api.close()
        return api


class Doors:
    """All of them. `open` starts what serves, in the caller's group; `close` ends it."""

    def __init__(self, house: House, sockets: Sockets) -> None:
        """Raises ConfigError if a certificate, a key or a source of keys cannot be used."""
        self._house = house
        self._tasks: list[asyncio.Task[None]] = []
        registry = house.registry
        self._ticker = Ticker(house.clock)
        authenticator = self._authenticator()
        context = Context(house.relay, registry.frontdoor, self._ticker)
        context.streams.wall = house.clock.wall
        streamable, legacy = StreamableHttp(context), LegacySse(context)
        if house.tokens is not None:
            house.tokens.on_gone = partial(self._gone, streamable)
            self._ticker.callbacks.append(house.tokens.tick)
        app = FrontDoor(
            context,
            Guard(registry.frontdoor, authenticator),
            {"mcp": streamable.handle, "sse": legacy.stream, "messages": legacy.message},
            direct={"mcp": streamable.direct, "messages": legacy.direct},
            endpoints=self._endpoints,
            readiness=self._readiness,
            sources=(self._metrics,),
        )
        bounds = Bounds(
            head=registry.frontdoor.max_header,
            request_timeout=registry.frontdoor.request_timeout,
            connections=registry.frontdoor.max_connections,
            limited=context.counters.limited,
        )
        self._listener = Listener(
            app, sockets.http, direct=app, tls=house.tls, on_stop=context.streams.close, bounds=bounds
        )
        self._ticker.callbacks.append(self._refresh_tls)
        self._local = LocalSocket(
            house.relay,
            sockets.mcp,
            house.instance,
            registry.frontdoor.max_body,
            sockets.clients,
            registry.frontdoor.max_sessions,
        )
        self._office = Office(house)
        self._control_listener = Listener(
            self._office,
            [sockets.control],
            peers=sockets.operators,
            on_stop=self._office.close,
            bounds=Bounds(limited=self._office.limited),
        )

    async def open(self, group: asyncio.TaskGroup) -> None:
        """Let them in; what serves them is the group's."""
        await self._local.start()
        self._ticker.start()
        if self._keys is not None:
            self._tasks.append(group.create_task(self._keys.run(), name="jwt-keys"))
        group.create_task(self._listener.serve(), name="frontdoor")
        group.create_task(self._control_listener.serve(), name="control")

    def close(self) -> None:
        """Let nobody in any more; who is in gets a few seconds to leave."""
        self._local.close()
        self._listener.stop()
        self._control_listener.stop()
        self._ticker.stop()
        for task in self._tasks:
            task.cancel()

    def _gone(self, streamable: StreamableHttp, principal: str) -> None:
        """A token counts no longer: end what its owner has open."""
        self._house.relay.end_sessions_of(principal)
        streamable.end_of(principal)

    def _authenticator(self) -> Authenticator:
        self._keys: KeyRing | None = None
        settings, tokens = self._house.registry.frontdoor, self._house.tokens
        if tokens is not None:
            return BearerAuthenticator(tokens.verifier, tokens.principal_of)
        if settings.auth == "jwt":
            from mcpd.frontdoor.jwt import JwtAuthenticator, KeyRing

            self._keys = KeyRing(settings.jwt.jwks, settings.jwt.algorithms)
            return JwtAuthenticator(settings.jwt, self._keys, self._house.clock.wall)
        assert settings.auth == "none"
        return OpenAuthenticator()

    def _refresh_tls(self) -> None:
        try:
            if self._listener.refresh_tls():
                log.info("tls.renewed")
        except ConfigError as problem:
            log.error("tls.unusable", problem=str(problem), next="the certificate in use stays")

    # what the front door tells of the daemon

    def _endpoints(self) -> list[View]:
        registry = self._house.fleet.registry
        return [
            View("all"),
            *(View("server", name) for name in registry.servers),
            *(View("view", name) for name in registry.views),
        ]

    def _readiness(self) -> Readiness:
        states = {status.name: status.state for status in self._house.fleet.servers()}
        return Readiness(not self._house.is_stopping(), {"servers": states})

    def _metrics(self) -> list[metrics.Metric]:
        counters = self._house.relay.counters
        found = [
            metrics.single(f"mcpd_{name}", help, "counter", getattr(counters, name))
            for name, help in (
                ("unmatched_answers", "Answers of servers that matched no request"),
                ("dropped_messages", "Messages that belonged to nobody any more"),
                ("refused_asks", "Requests of servers that could not be handed to a client"),
                ("timeouts", "Calls that were not answered in time"),
            )
        ]
        for name, help, limited in (
            ("calls", "Calls refused because a limit was reached", counters.limited),
            ("local", "Refused or ended at mcp.sock because a limit was reached", self._local.limited),
            ("control", "Refused or ended at control.sock because a limit was reached", self._office.limited),
        ):
            found.append(metrics.by(f"mcpd_{name}_limited", help, "limit", limited))
        if self._house.audit is not None:
            help = "Calls that are missing in the audit log"
            found.append(metrics.single("mcpd_audit_lost", help, "counter", self._house.audit.lost))
        statuses = self._house.fleet.servers()
        for name, help, kind, value in _PER_SERVER:
            found.append(metrics.Metric(name, help, kind, ("server",), {(one.name,): value(one) for one in statuses}))
        help = "How often instances of the server came into the state"
        transitions: dict[tuple[str, ...], float] = {
            key: float(count) for key, count in self._house.fleet.log.transitions.items()
        }
        found.append(metrics.Metric("mcpd_transitions", help, "counter", ("server", "state"), transitions))
        return found


_PER_SERVER: tuple[tuple[str, str, Literal["counter", "gauge"], Callable[[ServerStatus], float]], ...] = (
    ("mcpd_server_up", "Whether the server is READY", "gauge", lambda one: one.state == "READY"),
    ("mcpd_server_restarts", "Restarts that nobody asked for", "counter", lambda one: one.restarts),
    ("mcpd_server_calls", "Calls handed to the server", "counter", lambda one: one.calls_total),
    ("mcpd_server_calls_in_flight", "Calls that are not answered yet", "gauge", lambda one: one.calls),
    ("mcpd_server_rss_bytes", "Resident memory of the server's processes", "gauge", lambda one: one.rss or 0),
    ("mcpd_server_cpu_seconds", "CPU time of the server's processes", "counter", lambda one: one.cpu or 0.0),
)
