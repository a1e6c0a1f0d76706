"""What comes from an instance: answers, progress, changes, and requests of its own.

A child's own message names no cause, so its session is worked out or it has none: attribute or refuse, never
broadcast and never guess (docs/protocol.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcpd.routing.correlation import Ask, Call, Upstream
from mcpd.routing.effects import Deliver, Effect, MarkInteractive, ServerLog, Stale, WriteLine
from mcpd.routing.ledger import outcome_of
from mcpd.routing.listening import Subscriptions
from mcpd.routing.parking import ParkingLot
from mcpd.routing.rewriting import newer_code, number_of
from mcpd.routing.sessions import Session
from mcpd.routing.state import MAX_ASKS, State
from mcpd.wire import meta, methods
from mcpd.wire.eras import Era
from mcpd.wire.jsonrpc import (
    Bytes,
    Message,
    WireError,
    dump,
    error,
    failure,
    members,
    notification,
    pack,
    pack_array,
    request,
    result,
    value_of,
)

NOTHING: Sequence[Effect] = ()
DEFAULT_LEVEL = methods.LOG_LEVELS.index("info")
_CAPABILITY = {methods.SAMPLING: "sampling", methods.ELICITATION: "elicitation", methods.ROOTS_LIST: "roots"}


class Backchannel:
    """Everything on its way down."""

    def __init__(self, state: State, parking: ParkingLot, subscriptions: Subscriptions) -> None:
        self._state = state
        self._parking = parking
        self._subscriptions = subscriptions

    def answer(self, upstream: Upstream, call: Call, message: Message) -> Sequence[Effect]:
        """A response of the child: to its client, if one still waits for it."""
        if call.is_parked and call.parking is not None:
            call.parking.outcome = message  # for the client, when it comes back
            return NOTHING
        call.over = True
        if call.parking is not None and call.parking.questions:  # the child did not wait for what it asked
            refused = self._parking.refuse_all(call, "the call that this question belongs to has been answered")
            return (*refused, *self._answered(upstream, call, message))
        return self._answered(upstream, call, message)

    def _answered(self, upstream: Upstream, call: Call, message: Message) -> Sequence[Effect]:
        session = call.session
        if len(message.result):
            value = bytes(message.result)
            self._state.done(call, outcome_of(call.method, value))
            if call.on_result is not None:
                value = call.on_result(value)
            if session.era is Era.PER_REQUEST and upstream.era is Era.HANDSHAKE:
                value = meta.complete(value, call.method, upstream.info.server_info)
            return (Deliver(call.sink, result(call.id, value, message.extra), True),)
        refused: Bytes = message.error
        self._state.done(call, "error")
        if session.era is Era.PER_REQUEST and upstream.era is Era.HANDSHAKE:
            refused = newer_code(refused)
        return (Deliver(call.sink, failure(call.id, refused, message.extra), True),)

    def notify(self, upstream: Upstream, message: Message, at: float) -> Sequence[Effect]:
        """A notification of the child."""
        method = message.method
        if method == methods.PROGRESS:
            return self._progress(upstream, message, at)
        if method in methods.LIST_CHANGED:
            return self._list_changed(upstream, message)
        if method == methods.RESOURCE_UPDATED:
            return self._subscriptions.updated(upstream, message)
        if method == methods.ACKNOWLEDGED:
            return NOTHING
        if method == methods.CANCELLED:
            return self._ask_cancelled(upstream, message)
        if method == methods.MESSAGE:
            return self._log_message(upstream, message, at)
        sink = self._sink_for(upstream, at)
        if sink is None:
            return (ServerLog(upstream.key, notification(method, message.params)),)
        return (Deliver(sink, notification(method, message.params, message.extra)),)

    def ask(self, upstream: Upstream, message: Message, at: float) -> Sequence[Effect]:
        """A request of the child: answered here, handed to the one client it can belong to, or refused."""
        child_id = message.key
        if message.method == methods.PING:
            return (WriteLine(upstream.key, result(child_id, b"{}")),)
        if message.method == methods.ROOTS_LIST and upstream.party is None:
            roots = pack_array(dump({"uri": uri}) for uri in upstream.server.roots)
            return (WriteLine(upstream.key, result(child_id, b'{"roots":%b}' % roots)),)
        if child_id in upstream.asks:
            return self._refuse(upstream, child_id, methods.INVALID_REQUEST, "this id is in use by an earlier request")
        if len(upstream.asks) >= MAX_ASKS:
            text = f"{MAX_ASKS} requests already wait for clients"
            return self._refuse(upstream, child_id, methods.SERVER_UNAVAILABLE, text)
        call = self._attribute(upstream, at)
        session = call.session if call is not None else self._alone_with(upstream)
        if session is None:
            return self._unattributed(upstream, child_id, message.method)
        missing = missing_capability(session, message.method, bytes(message.params))
        if missing is not None:
            return self._lacks(upstream, child_id, session, *missing)
        if call is not None and session.era is Era.PER_REQUEST and call.parking is None:
            why = f"{message.method}: a client cannot be asked during {call.method}"
            return self._refuse(upstream, child_id, methods.INVALID_REQUEST, why)
        ask = Ask(upstream, child_id, session, call, self._state.next_id(), at + self._state.input_timeout)
        params = self._mint_token(ask, message)
        upstream.asks[child_id] = ask
        if call is not None and call.parking is not None:
            return self._parking.ask(ask, call, message, params)
        session.asks[ask.number] = ask
        return (Deliver(ask.sink, request(b"%d" % ask.number, message.method, params, message.extra)),)

    def drop_ask(self, ask: Ask) -> None:
        """Nobody waits for this client's answer any more."""
        ask.upstream.asks.pop(ask.child_id, None)
        ask.session.asks.pop(ask.number, None)
        self._parking.forget_question(ask)

    def expire_ask(self, ask: Ask) -> Sequence[Effect]:
        """The client did not answer in time: the child gets an error, the client is told to forget it."""
        self.drop_ask(ask)
        why = "the client did not answer in time"
        refused = WriteLine(ask.upstream.key, error(ask.child_id, methods.REQUEST_TIMEOUT, why))
        if ask.call is not None and ask.call.parking is not None:
            return (refused,)
        return (refused, Deliver(ask.sink, cancellation(ask.number, why)))

    def _attribute(self, upstream: Upstream, at: float) -> Call | None:
        """The call that a message without a cause can only belong to."""
        owner = upstream.owner
        if owner is None or upstream.mixed or upstream.is_haunted(owner, at) or upstream.is_parked_on_by_others(owner):
            return None
        found = upstream.latest_call_of(owner)
        return found[1] if found else None

    def _alone_with(self, upstream: Upstream) -> Session | None:
        """The session that an instance is for; it may be asked and told things outside of its calls, too."""
        return self._state.sessions.get(upstream.party) if upstream.party is not None else None

    def _sink_for(self, upstream: Upstream, at: float) -> Any:
        """Where a message goes that belongs to a session, but is no answer and no question; None: nowhere."""
        call = self._attribute(upstream, at)
        if call is not None:
            return call.sink
        alone = self._alone_with(upstream)
        return alone.push if alone is not None else None

    def _unattributed(self, upstream: Upstream, child_id: bytes, method: str) -> Sequence[Effect]:
        if not upstream.active:
            why = f"{method}: no client's call is under way that it could belong to"
            return self._refuse(upstream, child_id, methods.INVALID_REQUEST, why)
        why = f"{method}: calls of several clients are under way, and it cannot be told whose this is"
        refused = self._refuse(upstream, child_id, methods.INVALID_REQUEST, why)
        if upstream.server.interactive or not (upstream.mixed or any(one.is_parked for one in upstream.calls.values())):
            return refused  # the doubt is of calls that were given up: to serve one at a time would not end it
        upstream.server.interactive = True
        return (*refused, MarkInteractive(upstream.server.name))

    def _lacks(
        self, upstream: Upstream, child_id: bytes, session: Session, missing: str, capability: str
    ) -> Sequence[Effect]:
        """The client cannot be asked this: the child is told so at once, in the words of the client's era."""
        self._state.counters.refused_asks += 1
        why = f"the client does not support {missing}"
        if session.era is Era.PER_REQUEST:
            data: dict[str, dict[str, dict[str, str]]] = {"requiredCapabilities": {capability: {}}}
            return (WriteLine(upstream.key, error(child_id, methods.MISSING_CAPABILITY, why, data)),)
        return (WriteLine(upstream.key, error(child_id, methods.METHOD_NOT_FOUND, why)),)

    def _refuse(self, upstream: Upstream, child_id: bytes, code: int, why: str) -> Sequence[Effect]:
        self._state.counters.refused_asks += 1
        return (WriteLine(upstream.key, error(child_id, code, why)),)

    def _mint_token(self, ask: Ask, message: Message) -> bytes:
        """The ask's params, with a progress token of ours in place of the child's."""
        params = bytes(message.params)
        if b"progressToken" not in params and (b"\\" not in params or b"\\u" not in params):
            return params
        found = members(params)
        if "_meta" in found:
            meta = members(found["_meta"])
            if "progressToken" in meta:
                ask.token = bytes(meta["progressToken"])
                return pack({**found, "_meta": pack({**meta, "progressToken": b"%d" % ask.number})})
        return params

    def _progress(self, upstream: Upstream, message: Message, at: float) -> Sequence[Effect]:
        found = members(message.params)
        token = bytes(found.get("progressToken", b""))
        call = upstream.calls.get(number_of(token))
        if call is None or call.token is None or call.over:
            self._state.counters.dropped_messages += 1
            return NOTHING
        call.deadline = min(at + upstream.server.call_timeout, call.hard_deadline)
        params = pack({**found, "progressToken": call.token})
        return (Deliver(call.sink, notification(message.method, params, message.extra)),)

    def _list_changed(self, upstream: Upstream, message: Message) -> Sequence[Effect]:
        """Views of this server alone pass it on; merged ones first want to know what changed."""
        kind = methods.LIST_CHANGED[message.method]
        server = upstream.server
        alone = [
            session
            for session in self._state.sessions_of(server.name)
            if not session.prefixed and (server.rules is None or kind != "tools")
        ]
        if upstream.party is not None:
            return self._subscriptions.list_changed((one for one in alone if one.party == upstream.party), (kind,))
        return (*self._subscriptions.list_changed(alone, (kind,)), Stale(upstream.key, kind))

    def _ask_cancelled(self, upstream: Upstream, message: Message) -> Sequence[Effect]:
        found = members(message.params)
        ask = upstream.asks.get(bytes(found.get("requestId", b"")))
        if ask is None:
            return NOTHING
        self.drop_ask(ask)
        if ask.call is not None and ask.call.parking is not None:
            return NOTHING
        params = pack({**found, "requestId": b"%d" % ask.number})
        return (Deliver(ask.sink, notification(message.method, params, message.extra)),)

    def _log_message(self, upstream: Upstream, message: Message, at: float) -> Sequence[Effect]:
        frame = notification(message.method, message.params, message.extra)
        call = self._attribute(upstream, at)
        session = call.session if call is not None else self._alone_with(upstream)
        if session is None:
            return (ServerLog(upstream.key, frame),)
        wanted = session.level
        if wanted is None and session.era is Era.PER_REQUEST:
            return (ServerLog(upstream.key, frame),)  # it asked for none
        if wanted is None and upstream.level is not None:
            wanted = DEFAULT_LEVEL  # somebody else asked for more: this session did not
        level = value_of(members(message.params).get("level", b'"info"'))
        if wanted is not None and level in methods.LOG_LEVELS and methods.LOG_LEVELS.index(level) < wanted:
            return NOTHING
        return (Deliver(session.push if call is None else call.sink, frame),)


def cancellation(number: int, reason: str) -> bytes:
    """What tells a client that it need not answer a question."""
    return notification(methods.CANCELLED, dump({"requestId": number, "reason": reason}))


def missing_capability(session: Session, method: str, params: bytes) -> tuple[str, str] | None:
    """What the client would have to support to be asked this (in words, and the capability); None if it does."""
    needed = _CAPABILITY.get(method)
    if needed is None:
        return None
    value = session.capabilities.get(needed)
    if value is None:
        return needed, needed
    if needed == "elicitation":
        try:
            mode = value_of(members(params).get("mode", b'"form"'))
            modes = members(value)
        except WireError:
            return None
        if mode == "url" and "url" not in modes:
            return "elicitation by URL", needed
        if mode == "form" and modes and "form" not in modes:
            return "elicitation by form", needed
    return None
