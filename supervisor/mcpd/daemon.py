"""The daemon as a whole: builds every part, runs them, and takes them down in order."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import structlog

from mcpd import __version__
from mcpd.access import Tokens
from mcpd.audit import AuditLog, Auditor, open_log
from mcpd.clock import SystemClock
from mcpd.config.checks import gid_of
from mcpd.config.registry import Registry
from mcpd.control.seam import FleetView
from mcpd.errors import ConfigError
from mcpd.fleet.fleet import DaemonFacts, Fleet
from mcpd.fleet.pins import LOCK_FILE, Pins
from mcpd.fleet.relay import Relay
from mcpd.frontdoor import lean, sockets
from mcpd.frontdoor.peers import Peers
from mcpd.notify import Notifier
from mcpd.process import tree
from mcpd.runtime import HANDLED, useless_because
from mcpd.sandbox import cgroup
from mcpd.sandbox.policy import SandboxFacts
from mcpd.store import tokens
from mcpd.store.store import Store

if TYPE_CHECKING:
    from mcpd.doors import Doors

TURNS_TO_BEGIN = 4  # of the loop, until the first servers have been started
PINS_TOGETHER = 0.25  # seconds in which servers that are seen for the first time are written together
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
        self._doors: Doors | None = None
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
        self._control_socket, self._operators = self._unix_socket("control.sock", "operator_group")
        self._mcp_socket, self._clients = self._unix_socket("mcp.sock", "client_group")
        self._urls = tuple(sockets.url_of(one, tls=self._tls is not None) for one in self._sockets)
        by_token = frontdoor.auth == "token"
        self._tokens = Tokens(settings.state_dir, self._clock.wall) if by_token else None
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
        self._pins = self._relay.pins = Pins(
            registry.path.with_name(LOCK_FILE), self.fleet.tell, partial(self._loop.call_later, PINS_TOGETHER)
        )
        self._parts.callback(self._pins.write)
        if (
            self._tls or frontdoor.auth == "jwt"
        ):  # what is wrong with certificates and keys is said before anything runs
            self._doors = self._make_doors()

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

    def _take_sockets(self) -> list[socket.socket]:
        """The listening sockets of the front door: inherited from a service manager, else bound here."""
        passed = [one for _, one in sockets.inherited(os.environ)]
        frontdoor = self._registry.frontdoor
        encrypted = self._tls is not None or bool(frontdoor.trusted_proxy)
        sockets.check_passed(passed, encrypted=encrypted, asking=frontdoor.auth != "none")
        return passed or sockets.bind_tcp(frontdoor.host, frontdoor.port)

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

    def _make_doors(self) -> Doors:
        lean.import_uvicorn()
        from mcpd import doors

        house = doors.House(
            self._registry,
            self.fleet,
            self._relay,
            self._pins,
            self._clock,
            self._tokens,
            self._audit_log,
            self._tls,
            self._instance,
            self._stopping.is_set,
        )
        mcp, control = self._mcp_socket.socket, self._control_socket.socket
        return doors.Doors(house, doors.Sockets(self._sockets, mcp, self._clients, control, self._operators))

    # running

    async def _start(self, group: asyncio.TaskGroup) -> None:
        self._tasks = [
            group.create_task(self._relay.run(), name="relay"),
            group.create_task(self._reap(), name="reaper"),
            group.create_task(self._reload_when_asked(), name="reload"),
        ]
        if self._auditor is not None:
            self._tasks.append(group.create_task(self._auditor.run(), name="audit"))
        if self._registry.daemon.watch:
            self._tasks.append(group.create_task(self._watch(), name="watch"))
        group.create_task(self.fleet.run(), name="fleet")
        for _ in range(TURNS_TO_BEGIN):
            await asyncio.sleep(0)
        self._doors = self._doors or self._make_doors()
        await self._doors.open(group)
        gc.freeze()  # what is there now stays until the end: it need not be looked at again and again
        gc.enable()
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
        """Tell the service manager that this loop goes round: no thread could know that (docs/faults.md, 40)."""
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
            self._loop.call_soon_threadsafe(self._tell_of_store, text)

    def _tell_of_store(self, text: str) -> None:
        if hasattr(self, "fleet"):  # else the daemon could not be built, and ends with what it says of that
            self.fleet.tell("", text)

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
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)  # those that came during `mcpd.boot` are handled now

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
        if self._doors is not None:
            self._doors.close()
        for task in self._tasks:
            task.cancel()
        log.info("daemon.servers-stopped", seconds=round(time.monotonic() - began, 2))
