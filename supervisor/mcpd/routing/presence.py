"""Which servers are there: instances come and go, servers are started, rest, or are down, and their lists change.

Each of these decides about the calls that wait for a server and the calls that it has, and tells the sessions that see
it which of their lists are others now.
"""

from __future__ import annotations

from msgspec import Raw

from mcpd.routing.backchannel import Backchannel, cancellation
from mcpd.routing.calls import Calls
from mcpd.routing.correlation import Hold, Phase, Server, Upstream
from mcpd.routing.effects import Deliver, Effect, Release
from mcpd.routing.info import Lists, ServerInfo
from mcpd.routing.listening import Subscriptions
from mcpd.routing.requests import Requests
from mcpd.routing.state import PARTY_IDLE, State
from mcpd.routing.waiting import WaitingRoom
from mcpd.wire import methods
from mcpd.wire.jsonrpc import Message, dump


class Presence:
    """Told by the fleet, through the relay. All methods return effects, to be carried out in order."""

    def __init__(
        self,
        state: State,
        subscriptions: Subscriptions,
        calls: Calls,
        requests: Requests,
        waiting: WaitingRoom,
        backchannel: Backchannel,
    ) -> None:
        self._state = state
        self._subscriptions = subscriptions
        self._calls = calls
        self._requests = requests
        self._waiting = waiting
        self._backchannel = backchannel

    def attach(
        self, key: str, server_name: str, generation: int, info: ServerInfo, at: float, party: str | None = None
    ) -> list[Effect]:
        """An instance is READY; `party`: it was claimed, and serves nobody else."""
        server = self._state.servers[server_name]
        upstream = Upstream(key, generation, server, info, party)
        self._state.upstreams[key] = upstream
        server.upstreams.append(upstream)
        if party is not None:
            effects = self._subscriptions.begin(upstream)
            effects += self._requests.set_upstream_level(upstream)
            return effects + self._waiting.release(server, at)
        was_absent = server.phase is Phase.ABSENT
        before = None if was_absent else server.lists
        server.phase = Phase.UP
        server.info = info
        server.lists = info.lists
        self._state.forget_catalogues()
        effects = self._subscriptions.begin(upstream)
        effects += self._requests.set_upstream_level(upstream)
        effects += self._waiting.release(server, at)
        effects += self._waiting.release_lists(at)
        effects += self._lists_differ(server, before, info.lists, everyone=True)
        return effects

    def detach(self, key: str, reason: str) -> list[Effect]:
        """An instance is gone: each of its calls gets its one answer now."""
        upstream = self._state.upstreams.pop(key, None)
        if upstream is None:
            return []
        server = upstream.server
        server.upstreams.remove(upstream)
        if upstream.party is not None:
            server.claims.pop(upstream.party, None)
        elif not server.upstreams and server.phase is Phase.UP:
            server.phase = Phase.COMING
        effects: list[Effect] = []
        for ask in tuple(upstream.asks.values()):
            self._backchannel.drop_ask(ask)
            if ask.call is None or ask.call.parking is None:
                why = f"server {server.name!r} has gone: {reason}"
                effects.append(Deliver(ask.sink, cancellation(ask.number, why)))
        for call in upstream.calls.values():
            why = f"server {server.name!r} went away during the call: {reason}"
            if call.parking is not None and call.parking.handle is not None:
                refused = dump({"code": methods.SERVER_UNAVAILABLE, "message": why})
                call.parking.outcome = Message(error=Raw(refused))  # for the client, when it comes back
            elif not call.over:
                effects += self._calls.fail(call, methods.SERVER_UNAVAILABLE, why)
        upstream.calls.clear()
        return effects

    def idle(self, name: str, info: ServerInfo | None, at: float) -> list[Effect]:
        """A server is not running because nobody uses it; `info` is what is remembered of it. The next use wakes it."""
        server = self._state.servers.get(name)
        if server is None:
            return []
        return self._known(server, Phase.IDLE, info, at)

    def claimable(self, name: str, info: ServerInfo, at: float) -> list[Effect]:
        """A server of which each session has an instance of its own can be used; `info` was learnt from one of them."""
        server = self._state.servers.get(name)
        if server is None:
            return []
        return self._known(server, Phase.UP, info, at)

    def _known(self, server: Server, phase: Phase, info: ServerInfo | None, at: float) -> list[Effect]:
        before = None if server.phase is Phase.ABSENT else server.lists
        server.phase = phase
        if info is not None:
            server.info = info
            server.lists = info.lists
        self._state.forget_catalogues()
        effects = self._waiting.release(server, at) + self._waiting.release_lists(at)
        return effects + self._lists_differ(server, before, server.lists)

    def unclaimed(self, name: str, party: str, reason: str) -> list[Effect]:
        """No instance could be started for a party: its waiting calls fail, and the next one tries again."""
        server = self._state.servers.get(name)
        if server is None:
            return []
        server.claims.pop(party, None)
        mine = [call for call in server.waiting if call.session.party == party]
        server.waiting = [call for call in server.waiting if call.session.party != party]
        effects: list[Effect] = []
        for call in mine:
            if not call.over:
                why = f"server {server.name!r} could not be started for this session: {reason}"
                effects += self._calls.fail(call, methods.SERVER_UNAVAILABLE, why)
        return effects

    def in_use(self, name: str) -> bool:
        """Whether anybody has a call on a server, waits for it, or is subscribed to something of it."""
        server = self._state.servers.get(name)
        if server is None:
            return False
        subscribed = any(one == name for one, _ in self._state.subscriptions)
        return bool(server.waiting) or subscribed or any(one.calls for one in server.upstreams)

    def release_claims(self, party: str) -> list[Effect]:
        holding = [server for server in self._state.servers.values() if party in server.claims]
        for server in holding:
            del server.claims[party]
        return [Release(server.name, party) for server in holding]

    def expire_claims(self, server: Server, at: float) -> list[Effect]:
        """Give back the instances of per-request clients that have not used theirs for long; nobody closes those."""
        busy = {one.party for one in server.upstreams if one.calls}
        idle = [
            party
            for party, used in server.claims.items()
            if at - used > PARTY_IDLE and party not in self._state.sessions and party not in busy
        ]
        for party in idle:
            del server.claims[party]
        return [Release(server.name, party) for party in idle]

    def drain(self, key: str) -> None:
        """No new calls for this instance."""
        upstream = self._state.upstreams.get(key)
        if upstream is not None:
            upstream.draining = True

    def resume(self, key: str, at: float) -> list[Effect]:
        """An instance that was drained may have calls again."""
        upstream = self._state.upstreams.get(key)
        if upstream is None:
            return []
        upstream.draining = False
        return self._waiting.release(upstream.server, at)

    def coming(self, name: str) -> list[Effect]:
        """A server is being started: calls wait for it."""
        server = self._state.servers.get(name)
        if server is None or server.phase is Phase.UP:
            return []
        was_absent = server.phase is Phase.ABSENT
        server.phase = Phase.COMING
        if was_absent and server.lists is not None:
            self._state.forget_catalogues()
            return self._lists_differ(server, None, server.lists)
        return []

    def absent(self, name: str, reason: str, at: float) -> list[Effect]:
        """A server is down for now: calls fail at once, and merged lists are without it."""
        server = self._state.servers.get(name)
        if server is None:
            return []
        was_listed = server.phase is not Phase.ABSENT and server.lists is not None
        server.phase = Phase.ABSENT
        server.reason = reason
        self._state.forget_catalogues()
        effects = self._waiting.fail(server, reason)
        effects += self._waiting.release_lists(at)
        if was_listed:
            effects += self._lists_differ(server, server.lists, None)
        return effects

    def update_lists(self, key: str, lists: Lists) -> list[Effect]:
        """An instance's lists were fetched anew."""
        upstream = self._state.upstreams.get(key)
        if upstream is None:
            return []
        before = upstream.server.lists
        upstream.server.lists = lists
        self._state.forget_catalogues()
        return self._lists_differ(upstream.server, before, lists)

    def hold(self, name: str, info: ServerInfo, hold: Hold | None) -> list[Effect]:
        """What clients may see of a server is another now, though the server is the same."""
        server = self._state.servers.get(name)
        if server is None:
            return []
        server.hold = hold
        before = server.lists
        if server.info is None or (before == info.lists and server.info.instructions == info.instructions):
            return []
        server.info, server.lists = info, info.lists
        for upstream in server.upstreams:
            if upstream.era is info.era:
                upstream.info = info
        self._state.forget_catalogues()
        return self._lists_differ(server, before, info.lists, everyone=True)

    def _lists_differ(
        self, server: Server, before: Lists | None, after: Lists | None, *, everyone: bool = False
    ) -> list[Effect]:
        """Tell the sessions that see a server which of its lists are others now."""
        old, new = before or Lists(), after or Lists()
        kinds = [kind for kind in ("tools", "prompts") if getattr(old, kind) != getattr(new, kind)]
        if (old.resources, old.templates) != (new.resources, new.templates):
            kinds.append("resources")
        sessions = [
            session
            for session in self._state.sessions_of(server.name)
            if session.prefixed or everyone or server.rules is not None
        ]
        return self._subscriptions.list_changed(sessions, kinds)
