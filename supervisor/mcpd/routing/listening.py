"""Who is told of changes: `resources/subscribe` of sessions, `subscriptions/listen` of per-request clients, and ours.

Upstream, a handshake-era child is subscribed to a URI once for all; a per-request child has one `subscriptions/listen`
of mcpd's, for everything, which is renewed when the URIs change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from mcpd.routing.correlation import Call, Server, Upstream
from mcpd.routing.effects import Deliver, Effect, WriteLine
from mcpd.routing.sessions import Listening, Session
from mcpd.routing.state import State
from mcpd.wire import meta, methods
from mcpd.wire.eras import PER_REQUEST_REVISIONS, Era
from mcpd.wire.jsonrpc import (
    Bytes,
    Message,
    WireError,
    array_items,
    dump,
    members,
    notification,
    pack,
    request,
    result,
    text,
)

MAX_URIS = 1024  # that a client may follow
KIND_OF_FILTER = {
    "toolsListChanged": "tools",
    "promptsListChanged": "prompts",
    "resourcesListChanged": "resources",
}
OwnerOf = Callable[[Session, str], tuple[Server, str] | None]


class Subscriptions:
    """Subscribes upstream what sessions want, and passes on what comes."""

    def __init__(self, state: State, owner_of: OwnerOf) -> None:
        self._state = state
        self._owner_of = owner_of

    # upstream

    def begin(self, upstream: Upstream) -> list[Effect]:
        """A new instance: it has to know what everybody is subscribed to."""
        if upstream.era is Era.PER_REQUEST:
            return self._listen(upstream)
        uris = self._uris_for(upstream)
        return [self.own_request(upstream, methods.SUBSCRIBE, dump({"uri": uri})) for uri in uris]

    def add(self, session: Session, server: Server, own: str, public: str) -> list[Effect]:
        """A session wants to hear of a resource; upstream is asked unless it knows."""
        subscribers = self._state.subscriptions.setdefault((server.name, own), {})
        is_first = not any(server.shared or one.party == session.party for one in subscribers)
        subscribers[session] = public
        return self._changed(server, session, methods.SUBSCRIBE, own) if is_first else []

    def remove(self, session: Session, server_name: str, own: str) -> list[Effect]:
        """A session does not want to hear of a resource any more; the last one to go is told upstream."""
        subscribers = self._state.subscriptions.get((server_name, own))
        if subscribers is None or subscribers.pop(session, None) is None:
            return []
        if not subscribers:
            del self._state.subscriptions[server_name, own]
        server = self._state.servers.get(server_name)
        if server is None or any(server.shared or one.party == session.party for one in subscribers):
            return []
        return self._changed(server, session, methods.UNSUBSCRIBE, own)

    def are_many(self, session: Session) -> bool:
        """Whether a session follows as many resources as it may."""
        known = self._state.subscriptions
        return len(known) >= MAX_URIS and sum(session in followers for followers in known.values()) >= MAX_URIS

    def remove_all(self, session: Session) -> list[Effect]:
        """A session is over."""
        effects: list[Effect] = []
        for (server, own), subscribers in tuple(self._state.subscriptions.items()):
            if session in subscribers:
                effects += self.remove(session, server, own)
        return effects

    def own_request(self, upstream: Upstream, method: str, params: bytes) -> WriteLine:
        """A request of mcpd itself whose answer interests nobody."""
        number = self._state.next_id()
        upstream.own.add(number)
        return WriteLine(upstream.key, request(b"%d" % number, method, params))

    def _changed(self, server: Server, session: Session, method: str, own: str) -> list[Effect]:
        effects: list[Effect] = []
        for upstream in server.used_by(session):
            if upstream.era is Era.PER_REQUEST:
                effects += self._listen(upstream)
            else:
                effects.append(self.own_request(upstream, method, dump({"uri": own})))
        return effects

    def _listen(self, upstream: Upstream) -> list[Effect]:
        effects: list[Effect] = []
        if upstream.listening:
            params = dump({"requestId": upstream.listening, "reason": "renewed"})
            effects.append(WriteLine(upstream.key, notification(methods.CANCELLED, params)))
            upstream.own.discard(upstream.listening)
        uris = self._uris_for(upstream)
        wanted: dict[str, Bytes] = dict.fromkeys(KIND_OF_FILTER, b"true")
        if uris:
            wanted["resourceSubscriptions"] = dump(uris)
        client = dump({"name": "mcpd", "version": self._state.version})
        params = meta.with_client(pack({"notifications": pack(wanted)}), b"{}", client, PER_REQUEST_REVISIONS[-1], None)
        effects.append(self.own_request(upstream, methods.LISTEN, params))
        upstream.listening = max(upstream.own)
        return effects

    def _uris_for(self, upstream: Upstream) -> list[str]:
        """What an instance has to report on."""
        return [
            uri
            for (server, uri), subscribers in self._state.subscriptions.items()
            if server == upstream.server.name and any(_hears(session, upstream) for session in subscribers)
        ]

    # per-request clients

    def listen(self, call: Call, message: Message) -> Sequence[Effect]:
        """`subscriptions/listen`: acknowledged at once, answered only when the daemon ends it."""
        session = call.session
        wanted = members(message.given.get("notifications", b"null"))
        kinds = {name for name in KIND_OF_FILTER if bytes(wanted.get(name, b"")) == b"true"}
        accepted: dict[str, Bytes] = {name: b"true" for name in KIND_OF_FILTER if name in kinds}
        effects: list[Effect] = []
        if "resourceSubscriptions" in wanted:
            uris, found = self._follow(session, [text(item) for item in array_items(wanted["resourceSubscriptions"])])
            accepted["resourceSubscriptions"] = dump(uris)
            effects += found
        session.listening = Listening(call.id, frozenset(KIND_OF_FILTER[name] for name in kinds))
        session.push = call.sink
        self._state.sessions[session.id] = session
        session.account.sessions += 1
        told = meta.tagged(pack({"notifications": pack(accepted)}), call.id)
        return [Deliver(call.sink, notification(methods.ACKNOWLEDGED, told)), *effects]

    def _follow(self, session: Session, uris: list[str]) -> tuple[list[str], list[Effect]]:
        if len(uris) > MAX_URIS:
            raise WireError(methods.INVALID_PARAMS, f"more than {MAX_URIS} resources at once")
        accepted: list[str] = []
        effects: list[Effect] = []
        for public in uris:
            target = self._owner_of(session, public)
            if target is not None:
                accepted.append(public)
                effects += self.add(session, *target, public)
        return accepted, effects

    def end(self, session: Session) -> list[Effect]:
        """The daemon ends a listen stream: its request gets its answer now."""
        if session.listening is None:
            return []
        value = pack({"resultType": b'"complete"', "_meta": pack({meta.SUBSCRIPTION: session.listening.id})})
        return [
            Deliver(call.sink, result(call.id, value), True) for call in session.calls.values() if call.upstream is None
        ]

    # downstream

    def updated(self, upstream: Upstream, message: Message) -> Sequence[Effect]:
        """A child's notice that a resource changed, to those who follow it."""
        found: dict[str, Bytes] = dict(members(message.params))
        uri = text(found.get("uri", b"null"))
        subscribers = self._state.subscriptions.get((upstream.server.name, uri), {})
        untagged = _without_tag(found) if upstream.era is Era.PER_REQUEST else bytes(message.params)
        effects: list[Effect] = []
        for session, public in subscribers.items():
            if not _hears(session, upstream):
                continue
            params = untagged if public == uri else pack({**members(untagged), "uri": dump(public)})
            if session.listening is not None:
                params = meta.tagged(params, session.listening.id)
            effects.append(Deliver(session.push, notification(message.method, params, message.extra)))
        return effects

    def list_changed(self, sessions: Iterable[Session], kinds: Iterable[str]) -> list[Effect]:
        """Tell sessions, those that listen only of what they asked for."""
        told = [session for session in sessions if session.protocol_version is not None]
        effects: list[Effect] = []
        for kind in kinds:
            method = f"notifications/{kind}/list_changed"
            for session in told:
                if session.listening is None:
                    effects.append(Deliver(session.push, notification(method)))
                elif kind in session.listening.kinds:
                    params = meta.tagged(b"", session.listening.id)
                    effects.append(Deliver(session.push, notification(method, params)))
        return effects


def _hears(session: Session, upstream: Upstream) -> bool:
    """Whether a session is concerned by what an instance says: not by another party's own."""
    return upstream.party is None or upstream.party == session.party


def _without_tag(found: dict[str, Bytes]) -> bytes:
    """Params of a notice on our own listen stream, without the tag that says so."""
    if "_meta" in found:
        inside = {key: value for key, value in members(found["_meta"]).items() if key != meta.SUBSCRIPTION}
        found = {key: value for key, value in found.items() if key != "_meta"}
        if inside:
            found["_meta"] = pack(inside)
    return pack(found)
