"""Calls of clients: handed to the instance that each is for, or kept until one is there; and answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mcpd.errors import Overloaded, TooMany
from mcpd.routing.correlation import Call, Parking, Phase, Rounds, Server, Upstream
from mcpd.routing.effects import Claim, Deliver, Effect, Wake, WriteLine
from mcpd.routing.ledger import outcome_of, refusal_of
from mcpd.routing.rewriting import mint_token
from mcpd.routing.sessions import Session
from mcpd.routing.state import MAX_UPSTREAM_CALLS, MAX_WAITING, WAIT_FOR_SERVER, State
from mcpd.wire import eras, meta, methods
from mcpd.wire.eras import Era
from mcpd.wire.jsonrpc import (
    Bytes,
    Message,
    dump,
    error,
    members,
    pack,
    request,
    result,
)

BACKSLASH = ord("\\")
EVERYTHING_ASKED = b'{"sampling":{},"elicitation":{"form":{},"url":{}},"roots":{"listChanged":true}}'


class Calls:
    """What a call costs, and how long it may take, is decided here; what it means, and whose it is, is not."""

    def __init__(self, state: State) -> None:
        self._state = state

    def forward(
        self,
        call: Call,
        server: Server,
        message: Message,
        params: bytes,
        at: float,
        found: Mapping[str, Bytes] | None = None,
    ) -> Sequence[Effect]:
        """Hand a request to an instance of a server, or keep it until there is one that can take it. `found`: the
        members of `params`, where they are known."""
        session = call.session
        call.server = server.name
        upstream = server.pick(session)
        if upstream is None or (server.interactive and upstream.is_held_from(session)):
            return self.wait(call, server, message, at)
        if not server.shared:
            server.claims[session.party] = at
        if len(upstream.calls) >= MAX_UPSTREAM_CALLS:
            raise self._overloaded(call, f"server {server.name!r} has {MAX_UPSTREAM_CALLS} calls in flight")
        if server.metered:
            self._charge(call, server, at)
        if self._state.journal_arguments:
            call.arguments = params
        call.message = None
        if upstream.era is not session.era:
            if upstream.era is Era.HANDSHAKE:
                assert session.client is not None
                params = meta.without_client(params, session.client, members(params) if found is None else found)
                if call.method in methods.INTERACTIVE:
                    call.message = message
                    call.parking = Parking()
            else:
                call.rounds = Rounds(server, message.method, params, bytes(message.extra))
        server.calls_total += 1
        return self.send(call, upstream, message.method, params, message.extra, at)

    def _charge(self, call: Call, server: Server, at: float) -> None:
        """Take a request out of its client's bucket for this server, and out of the server's own. If one is empty
        nothing is taken: raises TooMany, or Overloaded."""
        state = self._state
        interval = state.request_interval
        theirs = call.session.account.bucket(server.name)
        if interval and (wait := theirs.wait(at, interval, state.request_burst)):
            state.counters.limited["rate"] += 1
            state.done(call, "overloaded")
            why = f"more than {1 / interval:g} requests a second to server {server.name!r}"
            raise TooMany(why, wait, limit="rate")
        if server.interval and (wait := server.bucket.wait(at, server.interval, server.burst)):
            state.counters.limited["server-rate"] += 1
            state.done(call, "overloaded")
            why = f"server {server.name!r} takes {1 / server.interval:g} requests a second, of all clients together"
            raise Overloaded(why, wait, limit="server-rate")
        if interval:
            theirs.take(at, interval)
        if server.interval:
            server.bucket.take(at, server.interval)

    def send(
        self, call: Call, upstream: Upstream, method: str, params: bytes, extra: Bytes, at: float
    ) -> Sequence[Effect]:
        """Write a request to an instance, under an id and a progress token of ours."""
        number = self._state.next_id()
        if _may_have_token(call.session.client, params):
            params = mint_token(call, number, params)
        if call.rounds is not None:
            session = call.session
            level = methods.LOG_LEVELS[session.level] if session.level is not None else None
            capabilities, about = pack(session.capabilities), dump(session.client_info)
            params = meta.with_client(params, capabilities, about, eras.PER_REQUEST_REVISIONS[-1], level)
        timeout = upstream.server.call_timeout
        call.deadline = at + timeout
        call.hard_deadline = call.hard_deadline or at + max(self._state.max_call_time, timeout)
        upstream.begin(number, call)
        return (WriteLine(upstream.key, request(b"%d" % number, method, params, extra), number),)

    def fail(self, call: Call, code: int, why: str) -> Sequence[Effect]:
        """Answer a call with an error."""
        self._state.done(call, refusal_of(code), code)
        call.over = True
        if call.session.era is Era.PER_REQUEST and code == methods.RESOURCE_NOT_FOUND:
            code = methods.INVALID_PARAMS
        return (Deliver(call.sink, error(call.id, code, why), True),)

    def answer(self, call: Call, value: bytes) -> Sequence[Effect]:
        """Answer a call with a result."""
        self._state.done(call, outcome_of(call.method, value))
        call.over = True
        if call.session.era is Era.PER_REQUEST:
            value = meta.complete(value, call.method, self._own_info())
        return (Deliver(call.sink, result(call.id, value), True),)

    def _own_info(self) -> bytes:
        return dump({"name": "mcpd", "version": self._state.version})

    def wait(self, call: Call, server: Server, message: Message, at: float) -> Sequence[Effect]:
        """Keep a request until there is an instance that can take it; where none will be, it fails."""
        if server.phase is Phase.ABSENT:
            return self.fail(
                call, methods.SERVER_UNAVAILABLE, f"server {server.name!r} is not running: {server.reason}"
            )
        if len(server.waiting) >= MAX_WAITING:
            raise self._overloaded(call, f"{MAX_WAITING} calls already wait for server {server.name!r}")
        call.message = message
        starting = server.phase is not Phase.UP or not server.shared
        call.deadline = at + (max(WAIT_FOR_SERVER, server.start_timeout) if starting else WAIT_FOR_SERVER)
        server.waiting.append(call)
        if server.phase is Phase.IDLE:
            server.phase = Phase.COMING
            return (Wake(server.name),)
        if not server.shared and server.phase is Phase.UP and call.session.party not in server.claims:
            return (self._claim(server, call.session, at),)
        return ()

    def _claim(self, server: Server, session: Session, at: float) -> Claim:
        """Ask for an instance of the session's own. A per-request client says with each request what it can do, so its
        instance is told of everything that can be asked; what a request does not allow is refused then."""
        server.claims[session.party] = at
        newer = session.era is Era.PER_REQUEST
        capabilities = EVERYTHING_ASKED if newer else pack(session.capabilities)
        return Claim(server.name, session.party, capabilities)

    def _overloaded(self, call: Call, why: str) -> Overloaded:
        self._state.counters.limited["server"] += 1
        self._state.done(call, "overloaded")
        return Overloaded(why, limit="server")


def _may_have_token(client: meta.RequestMeta | None, params: bytes) -> bool:
    """Whether params may hold a progress token, which stands in `_meta`: that is known where it names the client."""
    if client is not None:
        return b"progressToken" in client.others
    # one byte is found 50 times as fast, and from the end what is not there several times as fast
    return params.rfind(b"progressToken") >= 0 or (BACKSLASH in params and params.rfind(b"\\u") >= 0)
