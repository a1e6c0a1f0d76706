"""The daemon as a whole: builds every part, runs them, and takes them down in order."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from typing import Literal, cast

import structlog

from mcpd import __version__
from mcpd.access import Tokens
from mcpd.audit import AuditLog, Auditor, open_log
from mcpd.clock import SystemClock
from mcpd.config.checks import gid_of
from mcpd.config.registry import Registry
from mcpd.control.api import ControlApi
from mcpd.control.seam import FleetView
from mcpd.control.view import ServerStatus
from mcpd.errors import ConfigError
from mcpd.fleet.fleet import DaemonFacts, Fleet
from mcpd.fleet.pinning import PinOffice
from mcpd.fleet.pins import LOCK_FILE, Pins
from mcpd.fleet.relay import Relay
from mcpd.frontdoor import metrics, sockets
from mcpd.frontdoor.app import FrontDoor, Readiness
from mcpd.frontdoor.asgi import App
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
from mcpd.notify import Notifier
from mcpd.process import tree
from mcpd.runtime import useless_because
from mcpd.sandbox import cgroup
from mcpd.sandbox.policy import SandboxFacts
from mcpd.store import tokens
from mcpd.store.store import Store

DRAIN_LIMIT = 60.0  # seconds after which a shutdown gives up waiting for anything
log = structlog.get_logger("mcpd")


Adapt = Callable[[Registry], Registry]


class Daemon:
    """One run of the daemon. `run` owns every task; `_stopping` is set once it is to end."""

    def __init__(
        self,
        registry: Registry,
        sandbox: SandboxFacts,
        on_ready: Callable[[FleetView], Awaitable[None]] | None,
        adapt: Adapt,
    ) -> None:
        """For `mcpd.boot`, which holds the runtime directory, and found out what the sandbox can do."""
        self._registry = registry
        self._sandbox = sandbox
        self._adapt = adapt
        self._on_ready = on_ready
        self._clock = SystemClock()
        self._instance = secrets.token_hex(8)
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._reload_asked = asyncio.Event()
        self._notifier = Notifier.from_environment(os.environ)
        self._parts = ExitStack()  # what has to be closed at the very end, in reverse order

    async def run(self) -> int:
        self._loop = asyncio.get_running_loop()
        with self._parts:
            self._parts.callback(self._notifier.close)
            self._handle_signals()
            await self._end_strays()
            self._build()
            async with asyncio.TaskGroup() as group:
                await self._start(group)
                await self._stopping.wait()
                await self._stop()
        log.info("daemon.stopped")
        return 0

    # building

    async def _end_strays(self) -> None:
        cookie = tree.cookie_for(self._registry.daemon.runtime_dir)
        found, left = await tree.end_strays(cookie)
        if found:
            log.warning("strays.ended", found=found, left=left)

    def _build(self) -> None:
        registry, settings = self._registry, self._registry.daemon
        home, reason = cgroup.claim()
        facts = replace(self._sandbox, cgroups=home, cgroups_reason=reason)
        if facts.weakness and not facts.reason:
            log.warning("sandbox.unavailable", reason=facts.weakness)
        if facts.reason:
            log.warning("sandbox.unavailable", reason=facts.reason)
        self._store = Store.open(settings.state_dir / "mcpd.db", self._on_store_trouble)
        self._parts.callback(self._store.close)
        frontdoor = registry.frontdoor
        self._tls = (frontdoor.tls_cert, frontdoor.tls_key) if frontdoor.tls_cert and frontdoor.tls_key else None
        self._sockets = self._take_sockets()
        for one in self._sockets:
            self._parts.callback(one.close)
        self._control_socket, operators = self._unix_socket("control.sock", "operator_group")
        self._mcp_socket, clients = self._unix_socket("mcp.sock", "client_group")
        self._urls = tuple(sockets.url_of(one, tls=self._tls is not None) for one in self._sockets)
        authenticator = self._authenticator()
        self._relay = Relay(__version__, self._clock, registry)
        self.fleet = Fleet(
            registry,
            self._relay,
            store=self._store,
            clock=self._clock,
            sandbox=facts,
            daemon=DaemonFacts(
                version=__version__,
                started_at=self._clock.wall(),
                urls=self._urls,
                token_file=None if self._tokens is None else tokens.path_of(settings.state_dir),
                request_shutdown=self.request_stop,
            ),
            adapt=self._adapt,
        )
        self._auditor = self._open_audit()
        pins = self._relay.pins = Pins(registry.path.with_name(LOCK_FILE), self.fleet.tell)
        self._build_front_door(authenticator, clients)
        audit = self._audit_log.path if self._audit_log else None
        self._control = ControlApi(self.fleet, self._tokens, audit, PinOffice(self.fleet, pins))
        self._control_listener = Listener(
            cast(App, self._control), [self._control_socket.socket], peers=operators, on_stop=self._control.close
        )

    def _open_audit(self) -> Auditor | None:
        settings = self._registry.daemon
        self._audit_log: AuditLog | None = None
        if settings.audit == "off":
            return None
        self._relay.keep_journal(arguments=settings.audit != "calls")
        size, keep = settings.audit_size, settings.audit_keep
        self._audit_log = open_log(settings.state_dir, self._clock, settings.audit, size, keep)
        auditor = Auditor(self._relay, self._audit_log)
        self._parts.callback(auditor.finish)
        return auditor

    def _build_front_door(self, authenticator: Authenticator, clients: Peers) -> None:
        registry = self._registry
        self._ticker = Ticker(self._clock)
        if self._tokens is not None:
            self._tokens.on_gone = self._relay.end_sessions_of
            self._ticker.callbacks.append(self._tokens.tick)
        context = Context(self._relay, registry.frontdoor, self._ticker)
        streamable, legacy = StreamableHttp(context), LegacySse(context)
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
            app, self._sockets, direct=app, tls=self._tls, on_stop=context.streams.close, bounds=bounds
        )
        self._ticker.callbacks.append(self._refresh_tls)
        self._local = LocalSocket(
            self._relay, self._mcp_socket.socket, self._instance, registry.frontdoor.max_body, clients
        )

    def _take_sockets(self) -> list[socket.socket]:
        """The listening sockets of the front door: inherited from a service manager, else bound here."""
        passed = [one for _, one in sockets.inherited(os.environ)]
        frontdoor = self._registry.frontdoor
        if self._tls is None and not frontdoor.trusted_proxy:
            sockets.check_local(passed)
        return passed or sockets.bind_tcp(frontdoor.host, frontdoor.port)

    def _refresh_tls(self) -> None:
        try:
            if self._listener.refresh_tls():
                log.info("tls.renewed")
        except ConfigError as problem:
            log.error("tls.unusable", problem=str(problem), next="the certificate in use stays")

    def _unix_socket(self, name: str, key: str) -> tuple[sockets.UnixSocket, Peers]:
        """A socket in the runtime directory, and who may connect to it; `key` may name a group."""
        settings = self._registry.daemon
        group: str | None = getattr(settings, key)
        gid = None if group is None else gid_of(group)
        made = self._parts.enter_context(closing(sockets.UnixSocket(settings.runtime_dir / name, gid)))
        if gid is not None and (why := useless_because(settings.runtime_dir)):
            remedy = "set another daemon.runtime_dir; see docs/access.md"
            log.warning("socket.of-no-use", key=key, path=str(made.path), reason=why, next=remedy)
        return made, Peers(gid=gid, key=f"daemon.{key}")

    def _authenticator(self) -> Authenticator:
        self._tokens: Tokens | None = None
        self._keys: KeyRing | None = None
        settings = self._registry.frontdoor
        if settings.auth == "none":
            return OpenAuthenticator()
        if settings.auth == "jwt":
            from mcpd.frontdoor.jwt import JwtAuthenticator, KeyRing

            self._keys = KeyRing(settings.jwt.jwks, settings.jwt.algorithms)
            return JwtAuthenticator(settings.jwt, self._keys, self._clock.wall)
        self._tokens = Tokens(self._registry.daemon.state_dir, self._clock.wall)
        return BearerAuthenticator(self._tokens.verifier, self._tokens.principal_of)

    # running

    async def _start(self, group: asyncio.TaskGroup) -> None:
        await self._local.start()
        self._ticker.start()
        self._tasks = [
            group.create_task(self._relay.run(), name="relay"),
            group.create_task(self._reap(), name="reaper"),
            group.create_task(self._reload_when_asked(), name="reload"),
        ]
        if self._keys is not None:
            self._tasks.append(group.create_task(self._keys.run(), name="jwt-keys"))
        if self._auditor is not None:
            self._tasks.append(group.create_task(self._auditor.run(), name="audit"))
        if self._registry.daemon.watch:
            self._tasks.append(group.create_task(self._watch(), name="watch"))
        group.create_task(self._listener.serve(), name="frontdoor")
        group.create_task(self._control_listener.serve(), name="control")
        group.create_task(self.fleet.run(), name="fleet")
        log.info("daemon.started", urls=self._urls, servers=len(self._registry.servers))
        if self._on_ready is not None:
            self._tasks.append(group.create_task(self._tell_ready(self._on_ready), name="on-ready"))
        self._notifier.ready(self._status())
        if self._notifier.problem:
            log.warning("daemon.service-manager", problem=self._notifier.problem)
        if (interval := self._notifier.interval) is not None:
            self._tasks.append(group.create_task(self._beat(interval), name="heartbeat"))

    async def _tell_ready(self, on_ready: Callable[[FleetView], Awaitable[None]]) -> None:
        try:
            await on_ready(self.fleet)
        except Exception:
            log.exception("daemon.announcement-failed")

    async def _beat(self, interval: float) -> None:
        """Tell the service manager that this loop goes round: no thread could know that (faults.md, 40)."""
        while True:
            self._notifier.alive(self._status())
            await asyncio.sleep(interval)

    def _status(self) -> str:
        states = [one.state for one in self.fleet.servers() if one.enabled]
        return f"{states.count('READY')} of {len(states)} servers READY"

    def _on_store_trouble(self, text: str) -> None:
        """Called on any thread; a database that was set aside is an event too, once there is a fleet to tell of it."""
        log.warning("store.trouble", text=text)
        with suppress(RuntimeError):  # the loop is closed: the daemon has ended
            self._loop.call_soon_threadsafe(lambda: self.fleet.tell("", text))

    async def _reap(self) -> None:
        """Collect orphans of dead servers that came to us because we are their subreaper (prctl(2))."""
        adopted = tree.Adopted()
        while True:
            await asyncio.sleep(1.0)
            adopted.reap()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal, number)
            self._parts.callback(loop.remove_signal_handler, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload_asked.set)
        # Not back to what the kernel does with it: a late one must not end a daemon that is ending in order.
        self._parts.callback(signal.signal, signal.SIGHUP, signal.SIG_IGN)
        self._parts.callback(loop.remove_signal_handler, signal.SIGHUP)

    def _on_stop_signal(self, number: int) -> None:
        if self._stopping.is_set():
            log.warning("daemon.hurrying", signal=signal.Signals(number).name)
            self._hurry.set()
        self.request_stop()

    async def _reload_when_asked(self) -> None:
        """By SIGHUP, or because the files changed. Several wishes at once are one reload; none is lost."""
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            if self._stopping.is_set():
                continue
            self._notifier.reloading()
            await self._reload_now()
            self._notifier.ready(self._status())

    async def _reload_now(self) -> None:
        try:
            report = await self.fleet.reload(dry_run=False)
        except ConfigError as problem:
            log.error("reload.refused", problems=[str(one) for one in problem.problems])
        except Exception:
            log.exception("reload.failed")
        else:
            log.info("reload.done", added=report.added, removed=report.removed, restarted=report.restarted)

    async def _watch(self) -> None:
        """Reload when a file of the registry changes; where that cannot be seen (any more), say so and go on."""
        from mcpd.config import watch

        try:
            async for _ in watch.changes(self._registry.path):
                self._reload_asked.set()
        except OSError as error:
            log.error("watch.ended", reason=str(error), next="`mcpctl reload` reloads")

    def request_stop(self) -> None:
        """Begin the ordered shutdown; returns at once."""
        self._stopping.set()

    # ending

    async def _stop(self) -> None:
        """Servers first, while clients are still connected and get the answers of what is in flight; then clients."""
        log.info("daemon.stopping")
        self._notifier.stopping("stopping the servers")
        began = time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_LIMIT):
                await self.fleet.stop_all(self._hurry)
        self._relay.end_sessions()
        self._local.close()
        self._listener.stop()
        self._control_listener.stop()
        self._ticker.stop()
        for task in self._tasks:
            task.cancel()
        log.info("daemon.servers-stopped", seconds=round(time.monotonic() - began, 2))

    # what the front door tells of us

    def _endpoints(self) -> list[View]:
        registry = self.fleet.registry
        return [
            View("all"),
            *(View("server", name) for name in registry.servers),
            *(View("view", name) for name in registry.views),
        ]

    def _readiness(self) -> Readiness:
        states = {status.name: status.state for status in self.fleet.servers()}
        return Readiness(not self._stopping.is_set(), {"servers": states})

    def _metrics(self) -> list[metrics.Metric]:
        counters = self._relay.counters
        found = [
            metrics.single(f"mcpd_{name}", help, "counter", getattr(counters, name))
            for name, help in (
                ("unmatched_answers", "Answers of servers that matched no request"),
                ("dropped_messages", "Messages that belonged to nobody any more"),
                ("refused_asks", "Requests of servers that could not be handed to a client"),
                ("timeouts", "Calls that were not answered in time"),
            )
        ]
        found.append(
            metrics.Metric(
                "mcpd_calls_limited",
                "Calls refused because a limit was reached",
                "counter",
                ("limit",),
                {(limit,): count for limit, count in counters.limited.items()},
            )
        )
        if self._audit_log is not None:
            help = "Calls that are missing in the audit log"
            found.append(metrics.single("mcpd_audit_lost", help, "counter", self._audit_log.lost))
        statuses = self.fleet.servers()
        for name, help, kind, value in _PER_SERVER:
            found.append(metrics.Metric(name, help, kind, ("server",), {(one.name,): value(one) for one in statuses}))
        help = "How often instances of the server came into the state"
        transitions: dict[tuple[str, ...], float] = {
            key: float(count) for key, count in self.fleet.log.transitions.items()
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
