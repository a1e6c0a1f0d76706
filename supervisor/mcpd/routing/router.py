"""The router: every message and every change of an instance goes in, what is to be done comes out.

Each client request gets exactly one answer (or an end, if it was cancelled), nothing reaches a session that it does
not belong to, and nothing is left behind when a session or an instance is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mcpd.config.registry import Registry
from mcpd.errors import NotFound, TooMany
from mcpd.routing.backchannel import Backchannel
from mcpd.routing.calls import Calls
from mcpd.routing.correlation import Call, Upstream
from mcpd.routing.effects import Deliver, Effect, End, Notice, WriteLine
from mcpd.routing.ledger import named
from mcpd.routing.parking import ParkingLot
from mcpd.routing.presence import Presence
from mcpd.routing.requests import Requests
from mcpd.routing.rewriting import cancelled, number_of
from mcpd.routing.rounds import RoundTrips
from mcpd.routing.sessions import Session
from mcpd.routing.state import CANCEL_GRACE, MAX_SESSION_CALLS, State
from mcpd.routing.waiting import WaitingRoom
from mcpd.wire import methods
from mcpd.wire.address import Transport, View
from mcpd.wire.eras import Era
from mcpd.wire.jsonrpc import Message, WireError, canonical_id, dump, error, members, notification, pack
from mcpd.wire.meta import RequestMeta
from mcpd.wire.principal import EVERYTHING, Grants

NOTHING: Sequence[Effect] = ()


class Router:
    """All methods return effects, to be carried out in order before the next event goes in."""

    def __init__(self, version: str, new_handle: Callable[[], str], first_id: int = 0) -> None:
        """`new_handle` gives 128 random bits as text: what a client shows that comes back with input. Ids count from
        `first_id`: random, so that a client that lives through a restart of the daemon is not asked twice by one id."""
        self.state = State(first_id)
        self.state.version = version
        self._parking = ParkingLot(self.state, new_handle)
        self._calls = Calls(self.state)
        self._requests = Requests(self.state, self._calls, self._parking)
        self._subscriptions = self._requests.subscriptions
        self._backchannel = Backchannel(self.state, self._parking, self._subscriptions)
        self._rounds = RoundTrips(self.state, self._calls)
        self._waiting = WaitingRoom(self.state, self._calls, self._requests)
        self.presence = Presence(
            self.state, self._subscriptions, self._calls, self._requests, self._waiting, self._backchannel
        )
        self._told: set[tuple[str, str]] = set()

    # what the operator wants

    def configure(self, registry: Registry) -> list[Effect]:
        """A (new) registry: views change under their sessions, and servers that are gone finish the calls that they
        have, until their instances are detached."""
        before = {name: server.phase for name, server in self.state.servers.items()}
        effects: list[Effect] = []
        for server in self.state.configure(registry):
            for upstream in server.upstreams:
                upstream.draining = True
            effects += self._waiting.fail(server, "it was removed from the registry")
        if before:
            effects += self._subscriptions.list_changed(self.state.sessions.values(), ("tools", "prompts", "resources"))
        return effects

    # sessions

    def open_session(
        self,
        id: str,
        view: View,
        principal: str,
        transport: Transport,
        push: Any,
        at: float,
        grants: Grants = EVERYTHING,
    ) -> Session:
        """A new conversation; raises NotFound for an unknown view, or one that the grants hide."""
        session = self._session(id, view, principal, transport, push, at, grants)
        session.compact = self.state.is_compact(view)
        session.account.sessions += 1
        self.state.sessions[id] = session
        return session

    def open_request(
        self,
        id: str,
        view: View,
        principal: str,
        transport: Transport,
        client: RequestMeta,
        sink: Any,
        at: float,
        grants: Grants = EVERYTHING,
    ) -> Session:
        """The session of one request of the per-request era; raises NotFound as `open_session`."""
        session = self._session(id, view, principal, transport, sink, at, grants)
        session.compact = view.kind == "view" and self.state.is_compact(view)
        session.era = Era.PER_REQUEST
        session.client = client
        session.party = party_of(principal, view)
        session.protocol_version = client.version
        session.capabilities = client.capabilities
        if client.log_level is not None and client.log_level in methods.LOG_LEVELS:
            session.level = methods.LOG_LEVELS.index(client.log_level)
        return session

    def _session(
        self, id: str, view: View, principal: str, transport: Transport, push: Any, at: float, grants: Grants
    ) -> Session:
        servers = self.state.servers_of(view, grants)
        if servers is None:
            raise NotFound(f"there is no {view.kind} {view.name!r}")
        self.state.now = at
        session = Session(id, principal, view, transport, push, servers, at, grants, self.state.account(principal))
        if grants is not EVERYTHING:
            self.state.show(session, servers)
        return session

    def end_session(self, session: Session, at: float) -> list[Effect]:
        """The daemon ends a session: what is open gets its end, then it is closed."""
        return [*self._subscriptions.end(session), *self.close_session(session, at)]

    def close_session(self, session: Session, at: float) -> list[Effect]:
        """The client is gone: its calls are cancelled upstream, its subscriptions and open questions given up."""
        if self.state.sessions.pop(session.id, None) is None and session.era is Era.HANDSHAKE:
            return []
        if session.era is Era.HANDSHAKE or session.listening is not None:
            session.account.sessions -= 1
        effects: list[Effect] = []
        questions = [one for call in session.calls.values() if call.parking for one in call.parking.questions.values()]
        for ask in (*session.asks.values(), *questions):
            if ask.key is not None:
                continue
            self._backchannel.drop_ask(ask)
            frame = error(ask.child_id, methods.SERVER_UNAVAILABLE, "the client has left")
            effects.append(WriteLine(ask.upstream.key, frame))
        for call in tuple(session.calls.values()):
            number = self._let_go(call, at)
            self._rounds.give_up(call)
            if number:
                params = dump({"requestId": number, "reason": "the client has left"})
                effects.append(WriteLine(_upstream(call).key, notification(methods.CANCELLED, params)))
            self.state.done(call, "client-left")
        session.calls.clear()
        effects += self._subscriptions.remove_all(session)
        if session.era is Era.HANDSHAKE:
            effects += self.presence.release_claims(session.party)
            if session.level is not None:
                effects += self._calm_down(session)
        return effects

    def _calm_down(self, session: Session) -> list[Effect]:
        """Servers need not log more than what those want that are left."""
        effects: list[Effect] = []
        for name in session.servers:
            server = self.state.servers.get(name)
            for upstream in server.upstreams if server is not None else ():
                effects += self._requests.set_upstream_level(upstream)
        return effects

    def client_gone(self, view: View, principal: str, at: float) -> list[Effect]:
        """A client of the per-request era, one that is known by its connection, is gone for good."""
        self._parking.abandon(principal, view, at)
        return self.presence.release_claims(party_of(principal, view))

    # from clients

    def from_client(self, session: Session, message: Message, sink: Any, at: float) -> Sequence[Effect]:
        """One message of a client. Raises Overloaded, with nothing done, at a bound."""
        session.used_at = self.state.now = at
        if message.method:
            if len(message.id):
                return self._request(session, message, sink, at)
            return self._client_notification(session, message, at)
        return self._client_answer(session, message, at)

    def _request(self, session: Session, message: Message, sink: Any, at: float) -> Sequence[Effect]:
        call = Call(session, message, sink, at)
        if call.id in session.calls:
            why = "this id is in use by a request that is not answered yet"
            return (Deliver(sink, error(call.id, methods.INVALID_REQUEST, why), True),)
        if len(session.calls) >= MAX_SESSION_CALLS:
            raise self._too_many(call, "session-calls", f"this session has {MAX_SESSION_CALLS} calls in flight")
        account = session.account
        if account.in_flight >= self.state.max_in_flight:
            raise self._too_many(call, "in-flight", f"{session.principal} has {account.in_flight} calls in flight")
        account.in_flight += 1
        session.calls[call.id] = call
        return self._requests.handle(call, message, at)

    def _too_many(self, call: Call, limit: str, why: str) -> TooMany:
        self.state.counters.limited[limit] += 1
        if self.state.journal is not None and call.method in methods.INTERACTIVE and call.message is not None:
            call.name = named(call.method, bytes(call.message.params))
        self.state.done(call, "overloaded")
        return TooMany(f"{why}; wait for an answer", limit=limit)

    def _client_notification(self, session: Session, message: Message, at: float) -> Sequence[Effect]:
        try:
            if message.method == methods.CANCELLED:
                return self._client_cancelled(session, message, at)
            if message.method == methods.PROGRESS:
                return self._client_progress(session, message)
        except WireError:
            self.state.counters.dropped_messages += 1
            return NOTHING
        if message.method == methods.ROOTS_CHANGED:
            return self._roots_changed(session, message)
        if message.method == methods.INITIALIZED or session.prefixed:
            return NOTHING  # mcpd has initialised the child itself
        if session.protocol_version is None:
            return NOTHING
        server = self.state.servers.get(session.view.name) if session.view.name in session.readable else None
        upstream = server.pick(session) if server is not None else None
        if upstream is None:
            self.state.counters.dropped_messages += 1
            return NOTHING
        return (WriteLine(upstream.key, notification(message.method, message.params, message.extra)),)

    def _roots_changed(self, session: Session, message: Message) -> Sequence[Effect]:
        """For the session's own instances; shared ones are told no client's roots."""
        own = [
            upstream
            for name in session.servers
            for upstream in self.state.servers[name].used_by(session)
            if upstream.party is not None
        ]
        return [WriteLine(one.key, notification(message.method, message.params)) for one in own]

    def _client_cancelled(self, session: Session, message: Message, at: float) -> Sequence[Effect]:
        found = members(message.params)
        call = session.calls.get(canonical_id(bytes(found.get("requestId", b""))))
        if call is None:
            return NOTHING  # it has been answered meanwhile (cancellation, "race conditions")
        self.state.done(call, "cancelled")
        number = self._let_go(call, at)
        self._rounds.give_up(call)
        ended = End(call.sink)
        return (WriteLine(_upstream(call).key, cancelled(number, message)), ended) if number else (ended,)

    def _client_progress(self, session: Session, message: Message) -> Sequence[Effect]:
        found = members(message.params)
        token = bytes(found.get("progressToken", b""))
        ask = session.asks.get(number_of(token))
        if ask is None or ask.token is None:
            return NOTHING
        params = pack({**found, "progressToken": ask.token})
        return (WriteLine(ask.upstream.key, notification(message.method, params, message.extra)),)

    def _client_answer(self, session: Session, message: Message, at: float) -> Sequence[Effect]:
        raw = bytes(message.id)
        ask = session.asks.get(int(raw)) if raw.isdigit() else None
        if ask is None:
            self.state.counters.unmatched_answers += 1
            return NOTHING
        if ask.key is not None:
            return self._rounds.client_answered(ask, message, at)
        self._backchannel.drop_ask(ask)
        call = ask.call
        if call is not None:
            call.deadline = min(at + ask.upstream.server.call_timeout, call.hard_deadline)
        value = message.result if len(message.result) else message.error
        member = b"result" if len(message.result) else b"error"
        frame = b'{"jsonrpc":"2.0","id":%b,"%b":%b%b}' % (ask.child_id, member, value, message.extra)
        return (WriteLine(ask.upstream.key, frame),)

    def _let_go(self, call: Call, at: float) -> int:
        """Nobody wants this call's answer any more; returns its upstream id, 0 if it has none."""
        call.over = True
        if call.upstream is None:
            return 0
        call.ghost_until = call.deadline
        call.deadline = min(call.deadline, at + CANCEL_GRACE)
        return next((number for number, one in call.upstream.calls.items() if one is call), 0)

    def unwritten(self, instance: str, number: int) -> bool:
        """A call could not be written to its instance: it is as if it had never come. True if it was still open."""
        upstream = self.state.upstreams.get(instance)
        call = upstream.finish(number) if upstream else None
        if call is None or call.over:
            return False
        self.state.counters.limited["server"] += 1
        self.state.done(call, "overloaded")
        return True

    # from instances

    def from_instance(self, upstream: Upstream, message: Message, at: float) -> Sequence[Effect]:
        """One message of a child. Raises WireError if it makes no sense."""
        self.state.now = at
        if not message.method:
            effects = self._answer(upstream, message, at)
            if upstream.server.waiting and not upstream.active:
                return (*effects, *self._waiting.release(upstream.server, at))
            return effects
        if len(message.id):
            return self._backchannel.ask(upstream, message, at)
        return self._backchannel.notify(upstream, message, at)

    def _answer(self, upstream: Upstream, message: Message, at: float) -> Sequence[Effect]:
        raw = bytes(message.id)
        number = int(raw) if raw.isdigit() else 0
        call = upstream.finish(number)
        if call is None:
            if upstream.ghosts.pop(number, None) is not None:
                return NOTHING
            if number in upstream.own:
                upstream.own.discard(number)
            else:
                self.state.counters.unmatched_answers += 1
            return NOTHING
        if call.over:
            return NOTHING
        try:
            if call.rounds is not None and len(message.result):
                return self._rounds.answered(upstream, call, message, at)
            return self._backchannel.answer(upstream, call, message)
        except WireError as problem:  # it has to be rewritten, but cannot be; its client must not wait for another
            why = f"server {upstream.server.name!r} gave an answer that makes no sense: {problem.message}"
            return self._calls.fail(call, methods.INTERNAL_ERROR, why)

    def notices(self, session: Session) -> list[Effect]:
        """What is odd about the names in a session's view, each told once."""
        found = [told for told in self.state.catalogue(session).notices if told not in self._told]
        self._told.update(found)
        return [Notice(server, text) for server, text in found]

    # time

    def tick(self, at: float) -> list[Effect]:
        """End what has waited too long; to be called about once a second."""
        self.state.now = at
        effects: list[Effect] = []
        for upstream in tuple(self.state.upstreams.values()):
            effects += self._expire(upstream, at)
        for server in self.state.servers.values():
            if server.waiting and server.waiting[0].deadline <= at:
                effects += self._waiting.expire(server, at)
            if server.claims:
                effects += self.presence.expire_claims(server, at)
        if any(call.deadline <= at for call in self._requests.awaiting_lists):
            effects += self._waiting.release_lists(at)
        return effects + self._parking.expire(at) + self._rounds.expire(at)

    def timer(self, call: Call, at: float) -> Sequence[Effect]:
        """The time that a `Timer` effect asked for is over."""
        if call.rounds is not None:
            return self._rounds.retry(call, at)
        effects = self._parking.window_over(call, at)
        upstream = call.upstream
        if upstream is not None and upstream.server.waiting and not upstream.active:
            return (*effects, *self._waiting.release(upstream.server, at))
        return effects

    def _expire(self, upstream: Upstream, at: float) -> list[Effect]:
        effects: list[Effect] = []
        for ask in tuple(upstream.asks.values()):
            if ask.deadline <= at:
                effects += self._backchannel.expire_ask(ask)
        for number, call in tuple(upstream.calls.items()):
            if call.deadline > at or any(ask.call is call for ask in upstream.asks.values()):
                continue
            if call.is_parked:
                continue  # the lot looks after it
            if call.over:
                upstream.give_up(number)
                continue
            self.state.counters.timeouts += 1
            why = f"server {upstream.server.name!r} did not answer in time"
            effects.append(
                WriteLine(upstream.key, notification(methods.CANCELLED, dump({"requestId": number, "reason": why})))
            )
            effects += self._calls.fail(call, methods.REQUEST_TIMEOUT, why)
            call.deadline = at + CANCEL_GRACE
            call.ghost_until = call.hard_deadline
        if upstream.server.waiting and not upstream.active:
            effects += self._waiting.release(upstream.server, at)
        return effects


def party_of(principal: str, view: View) -> str:
    """All requests of one client of the per-request era."""
    return f"{principal}@{view.kind}:{view.name}"


def _upstream(call: Call) -> Upstream:
    assert call.upstream is not None
    return call.upstream
