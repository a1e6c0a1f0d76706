"""Carries messages between sessions and instances: the executor of the router, and what the front door knows of us.

Everything here runs on the event loop's thread and returns at once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeAlias, assert_never

from mcpd.clock import Clock
from mcpd.config.registry import Registry
from mcpd.errors import NotFound, Overloaded
from mcpd.fleet.link import InstanceLink
from mcpd.fleet.pins import Pins
from mcpd.routing.correlation import Call, Hold, Upstream
from mcpd.routing.effects import (
    Claim,
    Deliver,
    Effect,
    End,
    MarkInteractive,
    Notice,
    Release,
    ServerLog,
    Stale,
    Timer,
    Wake,
    WriteLine,
)
from mcpd.routing.info import Lists, ServerInfo
from mcpd.routing.ledger import Note
from mcpd.routing.router import Router
from mcpd.routing.sessions import Session
from mcpd.routing.state import Counters
from mcpd.wire import eras, jsonrpc, methods
from mcpd.wire.address import Transport, View
from mcpd.wire.eras import Era
from mcpd.wire.jsonrpc import Message, WireError
from mcpd.wire.meta import RequestMeta
from mcpd.wire.principal import EVERYTHING, Grants

MAX_SESSIONS = 10_000
TICK = 1.0
Opened: TypeAlias = Any  # a session that `open_session` returned; the front door knows only part of what it is


class Relay:
    """One router and the links to the instances that it knows. `on_...` are told what only the fleet can act on."""

    def __init__(self, version: str, clock: Clock, registry: Registry) -> None:
        self._router = Router(version, lambda: secrets.token_hex(16), secrets.randbelow(1 << 40))
        self._state = self._router.state
        self._presence = self._router.presence
        self._clock = clock
        self._links: dict[str, InstanceLink] = {}
        self._registry = registry
        self._said: dict[str, ServerInfo] = {}  # by each server, whatever is shown of it
        self.pins: Pins | None = None
        self.on_catalogue_stale: Callable[[str, str], None] | None = None
        self.on_interactive: Callable[[str], None] | None = None
        self.on_notice: Callable[[str, str], None] | None = None
        self.on_wake: Callable[[str], None] | None = None
        self.on_claim: Callable[[str, str, bytes], None] | None = None
        self.on_release: Callable[[str, str], None] | None = None
        self.on_server_log: Callable[[str, bytes], None] | None = None
        self.set_servers(registry)

    # for the front door (`mcpd.frontdoor.relay.Relay`)

    def knows(self, view: View, grants: Grants = EVERYTHING) -> bool:
        """Whether there is such a view for a client with these grants."""
        return self._state.servers_of(view, grants) is not None

    def open_session(
        self, view: View, principal: str, transport: Transport, push: Any, grants: Grants = EVERYTHING
    ) -> Session:
        """Begin a conversation; raises NotFound or Overloaded."""
        if len(self._state.sessions) >= MAX_SESSIONS:
            raise Overloaded(f"{MAX_SESSIONS} sessions are open", limit="sessions")
        at = self._clock.monotonic()
        session = self._router.open_session(secrets.token_hex(16), view, principal, transport, push, at, grants)
        self._execute(self._router.notices(session))
        return session

    def session(self, id: str) -> Session | None:
        """The open session of that id."""
        found = self._state.sessions.get(id)
        return found if found is not None and found.era is Era.HANDSHAKE else None

    def ask(
        self,
        view: View,
        principal: str,
        transport: Transport,
        message: Message,
        client: RequestMeta,
        sink: Any,
        grants: Grants = EVERYTHING,
    ) -> Session:
        """Take one request of the per-request era; raises NotFound or Overloaded with nothing done."""
        at = self._clock.monotonic()
        # only a subscription lasts long enough to be known by its id
        id = secrets.token_hex(16) if message.method == methods.LISTEN else ""
        session = self._router.open_request(id, view, principal, transport, client, sink, at, grants)
        self.submit(session, message, sink)
        return session

    def mirroring_schema(self, view: View, tool: str, grants: Grants = EVERYTHING) -> bytes | None:
        """The input schema of a tool some of whose parameters clients repeat in headers; None for any other."""
        servers = self._state.servers_of(view, grants) if self._state.mirrors else None
        if servers is None:
            return None
        sight = self._state.sight(grants)
        return self._state.catalogue_of(servers, sight, prefixed=view.kind != "server").mirroring.get(tool)

    def submit(self, session: Opened, message: Message, sink: Any) -> None:
        """Take one message of a client; raises Overloaded with nothing done."""
        effects = self._router.from_client(session, message, sink, self._clock.monotonic())
        for effect in effects:
            if type(effect) is WriteLine:
                link = self._links.get(effect.instance)
                written = link is not None and link.offer(effect.frame)
                if not written and effect.call and self._router.unwritten(effect.instance, effect.call):
                    raise Overloaded(_reads_too_slowly(link), limit="server")
            else:
                self._do(effect)

    def close_session(self, session: Opened) -> None:
        """The client is gone for good."""
        self._execute(self._router.close_session(session, self._clock.monotonic()))

    def client_gone(self, view: View, principal: str) -> None:
        """A client of the per-request era that has a principal for itself will not come back."""
        self._execute(self._router.client_gone(view, principal, self._clock.monotonic()))

    # for the fleet

    def set_servers(self, registry: Registry) -> None:
        """The registry as it is from now on; sessions see the change of their views."""
        self._registry = registry
        self._execute(self._router.configure(registry))
        for name in tuple(self._said):
            if name in registry.servers:
                self.review_again(name)
            else:
                del self._said[name]
                if self.pins is not None:
                    self.pins.forget(name)

    def review_again(self, server: str) -> None:
        """The pins of a server, or what they mean, are others now."""
        info = self._said.get(server)
        if info is not None:
            info, hold = self._reviewed(server, info)
            self._execute(self._presence.hold(server, info, hold))

    def _reviewed(self, server: str, info: ServerInfo) -> tuple[ServerInfo, Hold | None]:
        """What clients may see of what a server says of itself."""
        spec = self._registry.servers.get(server)
        if spec is None:
            return info, None  # it was removed, and finishes its calls
        self._said[server] = info
        if self.pins is None:
            return info, None
        info, hold = self.pins.review(spec, info, self._registry.servers)
        self._state.servers[server].hold = hold
        return info, hold

    def attach(self, link: InstanceLink) -> Callable[[bytes], None]:
        """An instance is READY. Returns what takes each of its frames from now on."""
        self._links[link.key] = link
        at = self._clock.monotonic()
        info, _ = self._reviewed(link.server, link.info)
        effects = self._presence.attach(link.key, link.server, link.generation, info, at, link.party)
        upstream = self._state.upstreams[link.key]
        self._execute(effects)
        return self._receiver(link, upstream)

    def detach(self, key: str, reason: str) -> None:
        """An instance is gone: each pending call gets one error, at once."""
        self._links.pop(key, None)
        self._execute(self._presence.detach(key, reason))

    def drain(self, key: str) -> None:
        """No new calls for an instance; those in flight go on."""
        self._presence.drain(key)

    def resume(self, key: str) -> None:
        """An instance that was drained may have calls again; those that waited go to it."""
        self._execute(self._presence.resume(key, self._clock.monotonic()))

    def coming(self, server: str) -> None:
        """A server is being started: calls wait for it."""
        self._execute(self._presence.coming(server))

    def absent(self, server: str, reason: str) -> None:
        """A server is down: calls fail at once, for this reason."""
        self._execute(self._presence.absent(server, reason, self._clock.monotonic()))

    def idle(self, server: str, info: ServerInfo | None) -> None:
        """A lazy server is not running; `info` is what is remembered of it. `on_wake` is called by the first use."""
        if info is not None and server in self._state.servers:
            info, _ = self._reviewed(server, info)
        self._execute(self._presence.idle(server, info, self._clock.monotonic()))

    def claimable(self, server: str, info: ServerInfo) -> None:
        """A server with `sharing = "session"` can be used. `on_claim(server, party, capabilities)` asks for an instance
        initialised with these capabilities, to be attached with that party; `on_release` gives it back."""
        if server in self._state.servers:
            info, _ = self._reviewed(server, info)
        self._execute(self._presence.claimable(server, info, self._clock.monotonic()))

    def unclaimed(self, server: str, party: str, reason: str) -> None:
        """A claimed instance could not be started: the party's waiting calls fail."""
        self._execute(self._presence.unclaimed(server, party, reason))

    def in_use(self, server: str) -> bool:
        """Whether anybody has a call on a server, waits for it, or is subscribed to something of it."""
        return self._presence.in_use(server)

    def catalogue(self, key: str, lists: Lists) -> None:
        """An instance's lists, fetched anew."""
        upstream = self._state.upstreams.get(key)
        if upstream is not None:
            said = self._said.get(upstream.server.name, upstream.info)
            info, _ = self._reviewed(upstream.server.name, replace(said, lists=lists))
            lists = info.lists
        self._execute(self._presence.update_lists(key, lists))

    def set_interactive(self, server: str) -> None:
        """What the store remembers: the server asks clients for things, so it serves one session at a time."""
        if server in self._state.servers:
            self._state.servers[server].interactive = True

    def in_flight(self, key: str) -> int:
        """Calls that an instance has not answered."""
        upstream = self._state.upstreams.get(key)
        return len(upstream.calls) if upstream else 0

    def awaited(self, key: str) -> list[int]:
        """The ids under which an instance has the calls that somebody waits for."""
        upstream = self._state.upstreams.get(key)
        return [number for number, call in upstream.calls.items() if not call.over] if upstream else []

    def oldest_call(self, key: str) -> float | None:
        """When the oldest call in flight began, or last showed progress (monotonic seconds).

        Parked calls do not count: there it is the client that is waited for, and nobody waits for the child.
        """
        upstream = self._state.upstreams.get(key)
        if upstream is None:
            return None
        timeout = upstream.server.call_timeout
        calls = (call for call in upstream.calls.values() if not call.over and not call.is_parked)
        began = (call.deadline - timeout for call in calls)
        return min(began, default=None)

    def calls_total(self, server: str) -> int:
        """Calls handed to a server since the daemon started."""
        found = self._state.servers.get(server)
        return found.calls_total if found else 0

    def tools(self, server: str) -> tuple[bytes, ...]:
        """A server's tools as it lists them."""
        found = self._state.servers.get(server)
        if found is None:
            raise NotFound(f"there is no server {server!r}")
        return found.lists.tools if found.lists else ()

    @property
    def sessions(self) -> Iterable[Session]:
        """The open sessions."""
        return self._state.sessions.values()

    @property
    def counters(self) -> Counters:
        """What was dropped, refused or late."""
        return self._state.counters

    async def run(self) -> None:
        """Expire what waits too long, until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            self._execute(self._router.tick(self._clock.monotonic()))

    def keep_journal(self, *, arguments: bool) -> None:
        """Note each call that is over from now on, for `take_journal`."""
        self._state.journal = []
        self._state.journal_arguments = arguments

    def take_journal(self) -> tuple[list[Note], int]:
        """The calls that were noted since the last time, and how many more had no room."""
        found, self._state.journal = self._state.journal or [], []
        self._state.journal_bytes = 0
        unnoted, self._state.counters.unnoted = self._state.counters.unnoted, 0
        return found, unnoted

    def end_sessions_of(self, principal: str) -> int:
        """Somebody may not use anything any more: their sessions are told that nothing more comes. Returns how many."""
        theirs = [session for session in self._state.sessions.values() if session.principal == principal]
        for session in theirs:
            self._execute(self._router.end_session(session, self._clock.monotonic()))
            session.push.end()
        return len(theirs)

    def end_sessions(self) -> None:
        """The daemon stops: every session is told that nothing more comes."""
        ended = tuple(self._state.sessions.values())
        for session in ended:
            self._execute(self._router.end_session(session, self._clock.monotonic()))
        for session in ended:  # only now: several may be on one connection, which this closes
            session.push.end()

    # effects

    def _receiver(self, link: InstanceLink, upstream: Upstream) -> Callable[[bytes], None]:
        router, clock = self._router, self._clock

        def receive(frame: bytes) -> None:
            try:
                message = jsonrpc.decode(frame)
                if not message.method and bytes(message.id)[:1] == b'"':
                    link.own_answer(message)
                    return
                effects = router.from_instance(upstream, message, clock.monotonic())
            except WireError:
                if jsonrpc.is_batch(frame) and link.info.protocol_version == eras.BATCH_REVISION:
                    self._receive_batch(receive, link, frame)
                else:
                    link.noise(frame)
                return
            for effect in effects:
                if type(effect) is Deliver:
                    effect.sink.deliver(effect.frame, effect.final)
                else:
                    self._do(effect)

        return receive

    def _receive_batch(self, receive: Callable[[bytes], None], link: InstanceLink, frame: bytes) -> None:
        try:
            parts = jsonrpc.split_batch(frame)
        except WireError:
            link.noise(frame)
            return
        for part in parts:
            if jsonrpc.is_batch(part):
                link.noise(part)
            else:
                receive(part)

    def _execute(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            self._do(effect)

    def _do(self, effect: Effect) -> None:
        match effect:
            case Deliver(sink, frame, final):
                sink.deliver(frame, final)
            case WriteLine(instance, frame, call):
                link = self._links.get(instance)
                if (link is None or not link.offer(frame)) and call:
                    self._refuse(instance, call, _reads_too_slowly(link))
            case End(sink):
                sink.end()
            case Stale(instance, kind):
                if self.on_catalogue_stale is not None:
                    self.on_catalogue_stale(instance, kind)
            case MarkInteractive(server):
                if self.on_interactive is not None:
                    self.on_interactive(server)
            case ServerLog(instance, frame):
                if self.on_server_log is not None:
                    self.on_server_log(instance, frame)
            case Timer(seconds, call):
                asyncio.get_running_loop().call_later(seconds, self._timer, call)
            case Wake(server):
                if self.on_wake is not None:
                    self.on_wake(server)
            case Claim(server, party, capabilities):
                if self.on_claim is not None:
                    self.on_claim(server, party, capabilities)
            case Release(server, party):
                if self.on_release is not None:
                    self.on_release(server, party)
            case Notice(server, text):
                if self.on_notice is not None:
                    self.on_notice(server, text)
            case _ as missed:
                assert_never(missed)

    def _timer(self, call: Call) -> None:
        self._execute(self._router.timer(call, self._clock.monotonic()))

    def _refuse(self, instance: str, number: int, why: str) -> None:
        """A call that had waited for its server cannot be written to it after all."""
        upstream = self._state.upstreams.get(instance)
        call = upstream.calls.get(number) if upstream else None
        if call is not None and self._router.unwritten(instance, number):
            call.sink.deliver(jsonrpc.error(call.id, methods.SERVER_UNAVAILABLE, why), True)


def _reads_too_slowly(link: InstanceLink | None) -> str:
    name = f"server {link.server!r}" if link is not None else "the server"
    return f"{name} does not read its messages fast enough"
